/** The list to pick from: users or items, page by page, or those that a text finds. */

import { byId, element, firstStop, moveByArrows } from "./dom.js";
import { Listing } from "./listing.js";
import { pickButton } from "./results.js";
import { isPicked, listed } from "./state.js";
import { counted } from "./words.js";

const STEP = 25;

export class Picker {
  #pick;
  #begin;
  #listing;
  #client;
  #state;
  #shown = STEP;
  #searching = new AbortController();

  /** `pick` is called with the picked id, `begin` with the first id if nothing is picked. */
  constructor({ pick, begin, fail }) {
    this.#pick = pick;
    this.#begin = begin;
    const find = () => this.find(this.#state).catch(fail);
    byId("more").addEventListener("click", () => {
      this.#shown += STEP;
      find();
    });
    let typing;
    byId("search").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(find, 200);
    });
    byId("search").addEventListener("keydown", async (event) => {
      const first = () => byId("list").querySelector("button");
      if (event.key === "ArrowDown") {
        event.preventDefault();
        first()?.focus();
      } else if (event.key === "Enter") {
        clearTimeout(typing);
        await find();
        first()?.click();
      }
    });
    moveByArrows(byId("list"));
  }

  /** List the first ones of a model, or those that a text finds. */
  async list(client, state, text = byId("search").value) {
    byId("search").value = text;
    this.renew(client, state);
    this.#shown = STEP;
    await this.find(state);
  }

  /** Forget what was read: it is of a version that is no longer live. */
  renew(client, state) {
    this.#client = client;
    this.#listing = new Listing(client, state.model, listed(state));
  }

  async find(state) {
    this.#state = state;
    this.abort();
    this.#searching = new AbortController();
    const { signal } = this.#searching;
    try {
      await this.#look(signal);
    } catch (error) {
      if (!error.errors?.cursor) {
        throw error;
      }
      this.renew(this.#client, state); // the version of the previous pages is gone
      await this.#look(signal);
    }
  }

  abort() {
    this.#searching.abort();
  }

  async #look(signal) {
    const text = byId("search").value.trim();
    const found = text ? await this.#listing.search(text, signal) : await this.#listing.first(this.#shown, signal);
    const { rows, looked = null, more = false } = found;
    signal.throwIfAborted();
    const entity = listed(this.#state);
    byId("list").replaceChildren(...rows.map((row) => element("li", {}, pickButton(row, entity, this.#pick))));
    firstStop(byId("list"));
    byId("more").hidden = !more;
    byId("search-note").textContent = text ? counted(rows.length, looked, entity) : "";
    this.mark(this.#state);
    if (this.#state.entity !== "visitor" && !isPicked(this.#state) && rows.length) {
      this.#begin(rows[0].id);
    }
  }

  /** Mark the picked id in the list, or a visitor's items. */
  mark(state) {
    this.#state = state;
    const isVisitor = state.entity === "visitor";
    const picked = new Set((isVisitor ? state.items : [state.id]).map(String));
    for (const button of byId("list").querySelectorAll("button")) {
      const is = String(picked.has(button.querySelector(".id").textContent));
      button.ariaCurrent = isVisitor ? null : is;
      button.ariaPressed = isVisitor ? is : null;
    }
  }
}
