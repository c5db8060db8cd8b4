/** Where a result is in the answer of another version to the same question. */

import { element } from "./dom.js";

/** Return a function that shows where a result of the live version is in the other answer. */
export function movesFrom(other) {
  const places = placesIn(other);
  return (id, place) => {
    const before = places.get(String(id));
    if (before === undefined) {
      return moved("new", "up");
    }
    return before === place ? moved("=") : before > place ? moved(`↑ from ${before}`, "up") : moved(`↓ from ${before}`, "down");
  };
}

/** Return a function that shows where a result of the other version is in the live answer. */
export function movesTo(live) {
  const places = placesIn(live);
  return (id) => moved(places.has(String(id)) ? `now ${places.get(String(id))}` : "gone");
}

const placesIn = (results) => new Map(results.map(({ id }, i) => [String(id), i + 1]));
const moved = (text, way = "") => element("span", { className: `moved ${way}` }, text);
