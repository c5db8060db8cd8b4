/** Show the answer to a question as a table. */

import { Columns } from "./columns.js";
import { byId, element, firstStop } from "./dom.js";
import { downloadTable } from "./drawing/map.js";
import { attributesOf, cell, clamped, nameOf } from "./values.js";

/** Make a button that picks a user or an item, with its name, if it has one, and its id. */
export function pickButton(row, entity, pick) {
  const name = nameOf(row.metadata);
  const button = element("button", { type: "button", className: "stop", onclick: () => pick(entity, row.id) });
  if (name) {
    button.append(element("span", { className: "name" }, name));
  }
  button.append(element("span", { className: "id" }, String(row.id)));
  return button;
}

export class ResultTable {
  #place;
  #tools;
  #columns;
  #pick;
  #answer = null;

  /** `pick` is called with the entity and id of a result that is picked. */
  constructor(pick) {
    this.#place = byId("results");
    this.#tools = byId("tools");
    this.#columns = new Columns(byId("columns"), () => this.#draw());
    this.#pick = pick;
    byId("download").addEventListener("click", () => this.#download());
  }

  /** Show results of an entity. */
  show(results, { model, entity, score }) {
    this.#answer = { results, model, entity, score };
    this.#tools.hidden = !results.length;
    if (results.length) {
      this.#draw();
    } else {
      this.#place.replaceChildren();
    }
  }

  clear() {
    this.show([], {});
  }

  #shownNames() {
    const { results, model, entity } = this.#answer;
    const names = [...new Set(results.flatMap((row) => attributesOf(row.metadata).map(([name]) => name)))];
    return this.#columns.of(names, model, entity);
  }

  #draw() {
    const names = this.#shownNames();
    const { results, entity, score } = this.#answer;
    const highest = Math.max(...results.map((row) => row.score), Number.MIN_VALUE); // bars are relative to it
    const numeric = new Set(names.filter((name) => results.every((row) => isNumber(row.metadata?.[name] ?? 0))));
    const kind = (name) => (numeric.has(name) ? "number" : "");
    const header = element(
      "tr",
      {},
      ...["#", entity === "item" ? "Item" : "User"].map((text) => element("th", { scope: "col" }, text)),
      element("th", { scope: "col", title: score }, "Score"),
      ...names.map((name) => element("th", { scope: "col", className: kind(name) }, clamped(name))),
    );
    const body = results.map((row, i) => {
      const bar = element("span", { className: "part" });
      bar.style.width = `${Math.max(0, (100 * row.score) / highest)}%`;
      const metadata = Object.fromEntries(attributesOf(row.metadata));
      return element(
        "tr",
        {},
        element("td", { className: "place" }, String(i + 1)),
        element("th", { scope: "row" }, pickButton(row, entity, this.#pick)),
        element("td", { className: "score" }, row.score.toFixed(4), element("span", { className: "meter" }, bar)),
        ...names.map((name) => element("td", { className: kind(name), dataset: { name } }, clamped(metadata[name]))),
      );
    });
    const table = element("table", {}, element("thead", {}, header), element("tbody", {}, ...body));
    table.setAttribute("aria-labelledby", "results-heading");
    this.#place.replaceChildren(table);
    firstStop(this.#place);
  }

  /** Save what is shown: ids, names and scores, and the attributes of the columns that are. */
  #download() {
    const { results, model, entity } = this.#answer;
    const columns = this.#shownNames();
    const rows = results.map(({ id, score, metadata }) => [id, nameOf(metadata), score, ...columns.map((name) => metadata?.[name])]);
    const header = [`${entity}_id`, "name", "score", ...columns];
    downloadTable(`${model}-${entity}s.csv`, [header, ...rows].map((row) => row.map(cell)));
  }
}

/** Show the picked user or item; the heading stays the same element, because it may have the focus. */
export function showSubject(entity, id, row) {
  const name = nameOf(row?.metadata) || String(id);
  byId("subject-kind").replaceChildren(entity === "item" ? "Item " : "User ", element("span", { className: "id" }, String(id)));
  byId("subject-heading").textContent = name;
  byId("subject-attributes").replaceChildren(
    ...attributesOf(row?.metadata).map(([key, value]) =>
      element("div", {}, element("dt", {}, key), element("dd", {}, clamped(value))),
    ),
  );
  document.title = `${name} – Embeddings`;
}

const isNumber = (value) => typeof value === "number" || typeof value === "bigint";
