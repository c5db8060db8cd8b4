/** Which attributes the table shows: the user's choice, kept in this browser for each model and entity. */

import { element } from "./dom.js";

const KEPT = "feast-embeddings-columns";

export class Columns {
  #place;
  #change;
  #left = new Map(); // key of a question -> names that are not shown, so that a new attribute is
  #key = "";
  #offered = "";

  /** `place` is a details element; `change` is called when the choice changes. */
  constructor(place, change) {
    this.#place = place;
    this.#change = change;
    try {
      const kept = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
      this.#left = new Map(kept.map(([key, names]) => [String(key), new Set(names)]));
    } catch {
      // Storage is forbidden, or holds something else: all are shown.
    }
  }

  /** Offer these names; return the names to show. */
  of(names, model, entity) {
    this.#key = `${entity} ${model}`;
    const left = this.#left.get(this.#key) ?? new Set();
    const offered = JSON.stringify([this.#key, ...names]);
    if (offered !== this.#offered) {
      // Else the boxes stay, as one of them may have the focus.
      this.#offered = offered;
      this.#offer(names, left);
    }
    return names.filter((name) => !left.has(name));
  }

  #offer(names, left) {
    const boxes = names.map((name) => {
      const box = element("input", { type: "checkbox", checked: !left.has(name) });
      box.addEventListener("change", () => this.#choose(name, box.checked));
      return element("label", { className: "inline" }, box, element("span", { className: "clamp", title: name }, name));
    });
    this.#place.hidden = !names.length;
    this.#place.querySelector("fieldset").replaceChildren(this.#place.querySelector("legend"), ...boxes);
  }

  #choose(name, shown) {
    const left = this.#left.get(this.#key) ?? new Set();
    left[shown ? "delete" : "add"](name);
    this.#left.set(this.#key, left);
    try {
      localStorage.setItem(KEPT, JSON.stringify([...this.#left].map(([key, names]) => [key, [...names]])));
    } catch {
      // It holds until the page is closed.
    }
    this.#change();
  }
}
