/** The map of all items or users of the live version, if one was saved; its neighbours are the service's own answers. */

import { EmbeddingServiceError } from "./client/index.js";
import { drawMap } from "./drawing/map.js";
import { element } from "./dom.js";

const SIMILAR = { item: "similarItems", user: "similarUsers" };
// What finds others like several: the endpoint, how it takes them, and what the button says.
const LIKE_SEVERAL = {
  item: { method: "similarItems", seeds: "positive", label: "Find items like these" },
  user: { method: "usersForItem", seeds: "userIds", label: "Make an audience" },
};
const NEAREST = 10;
// A map of a million points takes longer than other answers.
const TIMEOUT = 120_000;

export class MapView {
  #place;
  #open;
  #fail;
  #asking = new AbortController();
  #end = () => {};

  /** `open` is called with the entity and id to look at. */
  constructor(place, { open, fail }) {
    this.#place = place;
    this.#open = open;
    this.#fail = fail;
  }

  /** Draw the map of the live version, or say how to make one. */
  async show(client, modelName, entity) {
    this.hide();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    this.#place.setAttribute("aria-busy", "true");
    try {
      const map = await client.map({ modelName, entity }, { signal, timeout: TIMEOUT });
      signal.throwIfAborted();
      this.#draw(client, map, signal);
    } catch (error) {
      if (!(error instanceof EmbeddingServiceError) || error.status !== 404) {
        throw error;
      }
      this.#place.replaceChildren(element("p", { className: "notice" }, `${error.detail}.`));
    } finally {
      if (!signal.aborted) {
        this.#place.setAttribute("aria-busy", "false");
      }
    }
  }

  hide() {
    this.#asking.abort();
    this.#end();
    this.#end = () => {};
    this.#place.replaceChildren();
  }

  #draw(client, map, signal) {
    const { model, entity, version, ids } = map;
    const numbers = new Map(ids.map((id, i) => [id, i]));
    const answered = async (method, request) => {
      const answer = await client[method]({ modelName: model, ...request }, { signal });
      if (answer.version !== version) {
        this.show(client, model, entity).catch(this.#fail); // another version went live
        return [];
      }
      return answer.results.map(({ id, score }) => ({ id, score, at: numbers.get(id) }));
    };
    const { method, seeds, label } = LIKE_SEVERAL[entity];
    this.#end = drawMap(this.#place, { ...map, id: `${entity}_id` }, {
      near: (i) => answered(SIMILAR[entity], { [`${entity}Id`]: ids[i], limit: NEAREST }),
      audience: {
        label,
        ask: (chosen, size) => answered(method, { [seeds]: chosen.map((i) => ids[i]), limit: size }),
      },
      open: (i) => this.#open(entity, ids[i]),
      heading: `${ids.length.toLocaleString("en")} ${entity}s of ${model}, version ${version}`,
      fail: this.#fail,
    });
  }
}
