/** What the page says in words. */

import { question } from "./state.js";
import { attributesOf } from "./values.js";

/** The answer to a question in a sentence. */
export function told({ results, missing }, state, milliseconds) {
  const { results: kind, score } = question(state);
  if (missing.length) {
    return `This version knows no ${state.entity} with this id.`;
  }
  const what = plural(kind, results.length);
  const fewer = results.length < state.limit ? (state.filter ? "; no more pass the filter" : "; there are no more") : "";
  return `${results.length || "No"} ${what} by ${score}, best first, in ${milliseconds} ms${fewer}.`;
}

/** What a search found; `looked` is at how many it looked, if not at all. */
export function counted(found, looked, entity) {
  return looked === null
    ? `${found || "No"} ${plural(entity, found)} found.`
    : `${found} found among ${looked.toLocaleString("en")} ${plural(entity, looked)}; an id is found among all.`;
}

/** What a filter can be about, and one that the first of the results passes; nothing where there are none. */
export function filterHelp(results) {
  const names = [...new Set(results.flatMap((row) => Object.keys(row.metadata ?? {})))];
  return names.length ? `A condition as in SQL on ${names.join(", ")}. ${example(results[0].metadata)}` : "";
}

function example(metadata) {
  const attributes = attributesOf(metadata).filter(([name]) => /^[a-z_]\w*$/i.test(name));
  const text = attributes.find(([, value]) => typeof value === "string" && /^[\w -]{1,40}$/.test(value));
  const number = attributes.find(([, value]) => typeof value === "number");
  const parts = [text && `${text[0]} = '${text[1]}'`, number && `${number[0]} <= ${number[1]}`].filter(Boolean);
  return parts.length ? `For example: ${parts.join(" AND ")}` : "";
}

const plural = (word, number) => (number === 1 ? word : `${word}s`);
