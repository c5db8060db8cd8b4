/** Show the answer to a question as a table. */

import { Columns } from "./columns.js";
import { movesFrom, movesTo } from "./comparison.js";
import { byId, element, firstStop } from "./dom.js";
import { downloadTable } from "./drawing/elements.js";
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

  /**
   * Show results of an entity. `because` says why a row is there, or nothing; `other` is the answer of another version,
   * with what to say of it, to be shown next to this one, or null.
   */
  show(results, { model, entity, score, version, because = () => "", other = null }) {
    this.#answer = { results, model, entity, score, version, because, other };
    this.#tools.hidden = !results.length;
    if (results.length || other) {
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
    const { results, version, other } = this.#answer;
    const names = this.#shownNames();
    if (other === null) {
      const table = this.#table(results, names);
      table.setAttribute("aria-labelledby", "results-heading");
      this.#place.replaceChildren(table);
    } else {
      const live = this.#under(`Live version ${version}`, results, movesFrom(other.results));
      this.#place.replaceChildren(element("div", { className: "two" }, live, this.#under(other.told, other.results, movesTo(results))));
    }
    firstStop(this.#place);
  }

  /** A table with places in the other answer, under what it is. */
  #under(told, results, moves) {
    const part = element("div", {}, element("h3", {}, told));
    if (results.length) {
      part.append(this.#table(results, [], moves));
      part.lastChild.ariaLabel = told;
    }
    return part;
  }

  #table(results, names, moves = null) {
    const { entity, score, because } = this.#answer;
    const highest = Math.max(...results.map((row) => row.score), Number.MIN_VALUE); // bars are relative to it
    const numeric = new Set(names.filter((name) => results.every((row) => isNumber(row.metadata?.[name] ?? 0))));
    const kind = (name) => (numeric.has(name) ? "number" : "");
    const header = element(
      "tr",
      {},
      ...["#", entity === "item" ? "Item" : "User"].map((text) => element("th", { scope: "col" }, text)),
      element("th", { scope: "col", title: score }, "Score"),
      ...(moves ? [element("th", { scope: "col" }, "Place")] : []),
      ...names.map((name) => element("th", { scope: "col", className: kind(name) }, clamped(name))),
    );
    const body = results.map((row, i) => {
      const bar = element("span", { className: "part" });
      bar.style.width = `${Math.max(0, (100 * row.score) / highest)}%`;
      const metadata = Object.fromEntries(attributesOf(row.metadata));
      const why = because(row);
      return element(
        "tr",
        {},
        element("td", { className: "place" }, String(i + 1)),
        element("th", { scope: "row" }, pickButton(row, entity, this.#pick), ...(why ? [element("p", { className: "why" }, why)] : [])),
        element("td", { className: "score" }, row.score.toFixed(4), element("span", { className: "meter" }, bar)),
        ...(moves ? [element("td", {}, moves(row.id, i + 1))] : []),
        ...names.map((name) => element("td", { className: kind(name), dataset: { name } }, clamped(metadata[name]))),
      );
    });
    return element("table", {}, element("thead", {}, header), element("tbody", {}, ...body));
  }

  /** Save the results shown: ids, names and scores, and the attributes of the columns shown. */
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
  headed(entity === "item" ? "Item " : "User ", element("span", { className: "id" }, String(id)), nameOf(row?.metadata) || String(id));
  byId("subject-attributes").replaceChildren(
    ...attributesOf(row?.metadata).map(([key, value]) =>
      element("div", {}, element("dt", {}, key), element("dd", {}, clamped(value))),
    ),
  );
  byId("subject-items").replaceChildren();
}

/** Show the items of a visitor, each with a button that removes it; `rows` has those by id that are known. */
export function showVisitor(items, rows, remove) {
  headed("Visitor", "", `A visitor who has seen ${items.length} ${items.length === 1 ? "item" : "items"}`);
  byId("subject-attributes").replaceChildren();
  const chips = items.map((id) => {
    const name = nameOf(rows.get(String(id))?.metadata) || String(id);
    const button = element("button", { type: "button", className: "quiet", ariaLabel: `Remove ${name}`, onclick: () => remove(id) }, "×");
    return element("li", {}, element("span", { className: "clamp" }, name), button);
  });
  byId("subject-items").replaceChildren(...chips);
}

function headed(kind, id, name) {
  byId("subject-kind").replaceChildren(kind, id);
  byId("subject-heading").textContent = name;
  document.title = `${name} – Embeddings`;
}

const isNumber = (value) => typeof value === "number" || typeof value === "bigint";
