/** The sentences of the page. */

import { question } from "./state.js";
import { attributesOf, nameOf } from "./values.js";

/** Describe the answer to a question in a sentence. */
export function told({ results, missing }, state, milliseconds) {
  const { results: kind, score } = question(state);
  if (missing.length && (!results.length || state.entity !== "visitor")) {
    return unknown(state);
  }
  const what = plural(kind, results.length);
  const fewer = results.length < state.limit ? (state.filter ? "; no more pass the filter" : "; there are no more") : "";
  const without = missing.length ? ` Not known to this version: ${missing.join(", ")}.` : "";
  return `${results.length || "No"} ${what} by ${score}, best first, in ${milliseconds} ms${fewer}.${without}`;
}

const unknown = ({ entity }) =>
  entity === "visitor" ? "This version knows none of these items." : `This version has no ${entity} with this id.`;

/** Describe what another version answered. */
export function toldOfOther({ version, results, missing, refused }, state) {
  return refused ?? (missing.length && !results.length ? unknown(state) : `Version ${version}`);
}

/** Say which items speak for a result; empty if none do. */
export function because(reasons, rows) {
  const names = (reasons ?? []).map(({ id }) => nameOf(rows.get(String(id))?.metadata) || String(id));
  return names.length ? `Because of ${names.join(", ")}` : "";
}

/** Describe what a search found; `looked` is how many rows it searched, null if all. */
export function counted(found, looked, entity) {
  return looked === null
    ? `${found || "No"} ${plural(entity, found)} found.`
    : `${found} found among ${looked.toLocaleString("en")} ${plural(entity, looked)}; ids are searched among all.`;
}

/** Describe what a filter can use, with an example that the first result passes; empty without results. */
export function filterHelp(results) {
  const names = [...new Set(results.flatMap((row) => Object.keys(row.metadata ?? {})))];
  return names.length ? `An SQL-like condition on ${names.join(", ")}. ${example(results[0].metadata)}` : "";
}

function example(metadata) {
  const attributes = attributesOf(metadata).filter(([name]) => /^[a-z_]\w*$/i.test(name));
  const text = attributes.find(([, value]) => typeof value === "string" && /^[\w -]{1,40}$/.test(value));
  const number = attributes.find(([, value]) => typeof value === "number");
  const parts = [text && `${text[0]} = '${text[1]}'`, number && `${number[0]} <= ${number[1]}`].filter(Boolean);
  return parts.length ? `For example: ${parts.join(" AND ")}` : "";
}

const plural = (word, number) => (number === 1 ? word : `${word}s`);
