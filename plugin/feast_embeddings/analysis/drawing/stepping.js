/** Which point is next, for those who step from one to another by keyboard. */

/** The shown point nearest to the one at `from` (or to `middle` without one) that lies within 45° of a direction; else -1. */
export function nextToward(places, strength, from, middle, [right, up]) {
  const [x, y] = from < 0 ? middle : [places[2 * from], places[2 * from + 1]];
  let best = -1, least = Infinity;
  for (let i = 0; i < strength.length; i++) {
    if (strength[i] === 0 || i === from) continue;
    const dx = places[2 * i] - x, dy = places[2 * i + 1] - y, along = dx * right + dy * up, aside = Math.abs(dx * up) + Math.abs(dy * right);
    const distance = dx * dx + dy * dy;
    if (distance < least && (from < 0 || along > 0 && aside <= along)) { least = distance; best = i; }
  }
  return best;
}

/** The next point in the order of ids, `step` 1 or -1, of those that are chosen, or of all that are shown if none are; else -1. */
export function nextInOrder(strength, from, step) {
  const n = strength.length, wanted = strength.some((each) => each > 1) ? 1 : 0;
  for (let k = 1, i = from < 0 && step < 0 ? 0 : from; k <= n; k++) {
    i = (i + step + n) % n;
    if (strength[i] > wanted) return i;
  }
  return -1;
}
