/** Show the answer to a question as a table. */

import { byId, element, firstStop } from "./dom.js";
import { attributesOf, nameOf, shown } from "./values.js";

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

/** Fill `place` with results of a kind; the bar of a score is relative to the highest. */
export function showResults(place, results, entity, score, pick) {
  if (!results.length) {
    place.replaceChildren();
    return;
  }
  const names = [...new Set(results.flatMap((row) => attributesOf(row.metadata).map(([name]) => name)))];
  const highest = Math.max(...results.map((row) => row.score), Number.MIN_VALUE);
  const numeric = new Set(names.filter((name) => results.every((row) => isNumber(row.metadata?.[name] ?? 0))));
  const kind = (name) => (numeric.has(name) ? "number" : "");
  const header = element(
    "tr",
    {},
    ...["#", entity === "item" ? "Item" : "User"].map((text) => element("th", { scope: "col" }, text)),
    element("th", { scope: "col", title: score }, "Score"),
    ...names.map((name) => element("th", { scope: "col", className: kind(name) }, name)),
  );
  const body = results.map((row, i) => {
    const bar = element("span", { className: "part" });
    bar.style.width = `${Math.max(0, (100 * row.score) / highest)}%`;
    const metadata = Object.fromEntries(attributesOf(row.metadata));
    return element(
      "tr",
      {},
      element("td", { className: "place" }, String(i + 1)),
      element("th", { scope: "row" }, pickButton(row, entity, pick)),
      element("td", { className: "score" }, row.score.toFixed(4), element("span", { className: "meter" }, bar)),
      ...names.map((name) => element("td", { className: kind(name), dataset: { name } }, shown(metadata[name]))),
    );
  });
  const table = element("table", {}, element("thead", {}, header), element("tbody", {}, ...body));
  table.setAttribute("aria-labelledby", "results-heading");
  place.replaceChildren(table);
  firstStop(place);
}

/** Show the picked user or item; the heading stays the same element, because it may have the focus. */
export function showSubject(entity, id, row) {
  const name = nameOf(row?.metadata) || String(id);
  byId("subject-kind").replaceChildren(entity === "item" ? "Item " : "User ", element("span", { className: "id" }, String(id)));
  byId("subject-heading").textContent = name;
  byId("subject-attributes").replaceChildren(
    ...attributesOf(row?.metadata).map(([key, value]) =>
      element("div", {}, element("dt", {}, key), element("dd", {}, shown(value))),
    ),
  );
  document.title = `${name} – Embeddings`;
}

const isNumber = (value) => typeof value === "number" || typeof value === "bigint";
