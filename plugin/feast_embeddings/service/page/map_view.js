/** The map of all items or users of the live version, if one was saved; its neighbours are the service's own answers. */

import { EmbeddingServiceError } from "./client/index.js";
import { drawMap } from "./drawing/map.js";
import { element } from "./dom.js";

const SIMILAR = { item: "similarItems", user: "similarUsers" };
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
    const near = async (i) => {
      const request = { modelName: model, [`${entity}Id`]: ids[i], limit: NEAREST };
      const answer = await client[SIMILAR[entity]](request, { signal });
      if (answer.version !== version) {
        this.show(client, model, entity).catch(this.#fail); // another version went live
        return [];
      }
      return answer.results.map(({ id, score }) => ({ id, score, at: numbers.get(id) }));
    };
    this.#end = drawMap(this.#place, { ...map, id: `${entity}_id` }, {
      near,
      open: (i) => this.#open(entity, ids[i]),
      heading: `${ids.length.toLocaleString("en")} ${entity}s of ${model}, version ${version}`,
      fail: this.#fail,
    });
  }
}
