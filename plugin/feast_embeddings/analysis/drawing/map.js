/**
 * Draw a map, with search, a legend, a lasso and neighbours: for the page of the service, and for the file that
 * `feast-embeddings map` writes, into which the files of this folder are copied. So they import only each other, and
 * parse no text as HTML.
 */

import { audienceForm } from "./audience.js";
import { colourOf } from "./colours.js";
import { downloadTable, made } from "./elements.js";
import { painter } from "./painter.js";
import { nextInOrder, nextToward } from "./stepping.js";

const HELP = "Arrows move, + and − zoom, 0 shows all. Shift and an arrow go to the next dot there, n and p through all or those that were found, Enter lists the neighbours of a dot, / searches, Escape clears.";
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** Places as pairs between -0.95 and 0.95, of one scale, and how to bring others there. */
function fitted({ x, y }) {
  const ends = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  const [[left, right], [low, high]] = [ends(x), ends(y)];
  const unit = Math.max(Math.max(right - left, high - low) / 1.9, 1e-12);
  const fit = (a, b) => [(a - (left + right) / 2) / unit, (b - (low + high) / 2) / unit];
  const places = new Float32Array(2 * x.length);
  for (let i = 0; i < x.length; i++) places.set(fit(x[i], y[i]), 2 * i);
  return { places, fit };
}

/**
 * Fill `place`, an element with a size, with a map.
 *
 * data: `id`, the name of the ids; `ids`, `titles`, `x` and `y` of each point; `colorings`, each with a `name`, `groups`, and
 * the `numbers` of the groups of each point; `labels`, each with a `name`, `x` and `y`; and `hidden`, the numbers of the points that answers leave out.
 * near: gets the number of a point; returns, or promises, the nearest: each with an `id`, a `score`, and `at`, the number
 * of its point, or undefined.
 * open: what to do with a point that is asked for; without it, none can be.
 * audience: `label`, and `ask`, which gets the numbers of the chosen points and how many others like them to find, and
 * promises these as `near` does, the best first; without it, their ids can only be downloaded.
 * keys: where keys are listened to.
 * Returns a function that ends it.
 */
export function drawMap(place, data, { near, open, audience, heading, level = "h2", keys = place, fail = (error) => { throw error; } }) {
  const n = data.ids.length, { titles } = data, ids = data.ids.map(String);
  const { places, fit } = fitted(data);
  const words = titles.map((title, i) => (title + "\n" + ids[i]).toLowerCase());
  const hidden = new Set(data.hidden), strength = new Float32Array(n).fill(1);
  const ending = new AbortController(), { signal } = ending;
  let { groups, numbers } = data.colorings[0], shown = [];
  let picked = null, lasso = null, view = { x: 0, y: 0, zoom: 1 }, waiting = false, asked = 0, at = -1;

  const canvas = made("canvas", { tabIndex: 0, label: "Map" });
  const help = made("p", { className: "help", id: "map-help" }, HELP);
  const ring = made("div", { className: "ring", ariaHidden: "true", hidden: true });
  const spoken = made("p", { className: "spoken", role: "status", label: "Dot" });
  const loop = made("div", { className: "lasso", ariaHidden: "true", hidden: true });
  const names = made("div", { className: "names", ariaHidden: "true" });
  const search = made("input", { className: "search", type: "search", placeholder: "Search titles and ids ( / )", label: "Search" });
  const said = made("p", { className: "said", role: "status" });
  const select = made("button", { type: "button", className: "select", ariaPressed: "false", title: "Draw around points; or hold Shift" }, "Select");
  const save = made("button", { type: "button", className: "save", hidden: true }, "Download ids");
  const named = made("input", { type: "checkbox", checked: true });
  const naming = made("label", { hidden: !data.labels.length }, named, "Names");
  const nearest = made("ol", { className: "near", label: "Nearest", hidden: true });
  const legend = made("div", { className: "legend", role: "group", label: "Groups to show" });
  const colouring = made("select", { className: "coloring" }, ...data.colorings.map(({ name }) => made("option", {}, name)));
  const colourings = made("label", { hidden: data.colorings.length < 2 }, "Colour by", colouring);
  const tools = made("div", { className: "tools" }, select, save, naming);
  const like = audience && audienceForm(audience.label, data.id, (size) => { const seeds = chosen(); return list(seeds, () => audience.ask(seeds, size)); });
  if (like) tools.append(like);
  const tip = made("div", { className: "tip", role: "tooltip", hidden: true });
  // On a phone it would cover the map, so there it begins closed, as a bar at the bottom.
  const controls = made("details", { open: !matchMedia("(max-width: 600px)").matches }, made("summary", {}, made(level, {}, heading)), search, tools, nearest, colourings, legend, help);
  canvas.setAttribute("aria-describedby", help.id);
  place.classList.add("map");
  place.replaceChildren(canvas, loop, names, ring, made("div", { className: "panel" }, controls, said), tip, spoken);

  const labels = data.labels.map(({ name, x, y }) => {
    const span = made("span", {}, name);
    names.append(span);
    return [span, ...fit(x, y)];
  });
  const points = painter(canvas, places, strength), dark = matchMedia("(prefers-color-scheme: dark)");
  /** Colour by another way; all groups are shown. */
  function colour() {
    ({ groups, numbers } = data.colorings[colouring.selectedIndex]);
    shown = groups.map(() => true);
    legend.replaceChildren(...groups.map((name, g) => {
      const box = made("input", { type: "checkbox", checked: true });
      box.onchange = () => { shown[g] = box.checked; choose(); };
      return made("label", {}, box, made("i"), name);
    }));
    tint();
    choose();
  }
  function tint() {
    const colours = groups.map((_, g) => colourOf(g, dark.matches ? "dark" : "light"));
    legend.querySelectorAll("i").forEach((dot, g) => { dot.style.background = `rgb(${colours[g].map((c) => Math.round(255 * c)).join()})`; });
    points?.tint(numbers, colours);
    later();
  }
  const size = () => [Math.max(1, canvas.clientWidth), Math.max(1, canvas.clientHeight)];
  const scale = () => { const [w, h] = size(), least = Math.min(w, h); return [view.zoom * least / w, view.zoom * least / h]; };
  function draw() {
    waiting = false;
    if (!points || signal.aborted) return;
    points.paint(view, scale());
    for (const [span, x, y] of at < 0 ? labels : [...labels, [ring, places[2 * at], places[2 * at + 1]]]) {
      span.style.transform = `translate(-50%, -50%) translate(${onScreen(x, y).map((each) => `${each}px`).join()})`;
    }
  }
  const onScreen = (x, y) => { const [a, b] = scale(), [w, h] = size(); return [((x - view.x) * a + 1) * w / 2, (1 - (y - view.y) * b) * h / 2]; };
  const later = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };
  const local = (e) => { const box = canvas.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; };
  const spot = (x, y) => { const [a, b] = scale(), [w, h] = size(); return [view.x + (2 * x / w - 1) / a, view.y - (2 * y / h - 1) / b]; };
  function zoom(factor, x = size()[0] / 2, y = size()[1] / 2) {
    const [a, b] = spot(x, y);
    view.zoom = Math.min(2000, Math.max(.5, view.zoom * factor));
    const [c, d] = spot(x, y);
    view.x += a - c; view.y += b - d; later();
  }
  function under(x, y) {
    const [a, b] = spot(x, y), reach = 24 / size()[0] / scale()[0];
    let best = -1, least = reach * reach;
    for (let i = 0; i < n; i++) {
      if (strength[i] === 0) continue;
      const dx = places[2 * i] - a, dy = places[2 * i + 1] - b, d = dx * dx + dy * dy;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }
  const told = (i) => `${titles[i]} (${ids[i]}) – ${groups[numbers[i]]}${hidden.has(i) ? ", hidden" : ""}`;
  function tell(i, x, y) {
    tip.hidden = i < 0;
    if (i < 0) return;
    const [w, h] = size();
    tip.textContent = told(i);
    tip.style.left = Math.max(0, Math.min(x + 12, w - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(0, Math.min(y + 12, h - tip.offsetHeight - 8)) + "px";
  }
  /** Put the keyboard's ring around a point, bring it into view, and say what it is; -1 for none. */
  function step(i) {
    at = i;
    ring.hidden = at < 0;
    spoken.textContent = at < 0 ? "" : told(at);
    if (at >= 0) {
      const [w, h] = size(), [x, y] = onScreen(places[2 * at], places[2 * at + 1]);
      if (x < 0 || y < 0 || x > w || y > h) [view.x, view.y] = [places[2 * at], places[2 * at + 1]];
      tell(at, ...onScreen(places[2 * at], places[2 * at + 1]));
    } else tell(-1);
    later();
  }
  function choose() {
    const wanted = search.value.trim().toLowerCase();
    let found = 0;
    for (let i = 0; i < n; i++) {
      const hit = picked ? picked.has(i) : wanted && words[i].includes(wanted);
      strength[i] = !shown[numbers[i]] ? 0 : !wanted && !picked ? 1 : hit ? 2 : .12;
      found += strength[i] > (wanted || picked ? 1 : 0);
    }
    said.textContent = points ? `${found} of ${n}` : "This browser has no WebGL, which draws the map.";
    save.hidden = !wanted && !picked;
    if (like) like.hidden = save.hidden;
    points?.choose();
    later();
  }
  function pick(chosen) {
    asked++; // an answer that is on its way is of an older question
    picked = chosen && new Set(chosen);
    nearest.hidden = true;
    choose();
  }
  function go(i) { [view.x, view.y] = [places[2 * i], places[2 * i + 1]]; about(i); }
  /** Choose points, and list what the answer to a question about them has, if no other was asked meanwhile. */
  async function list(chosen, answer, first = []) {
    pick(chosen);
    const question = asked;
    try {
      const found = await answer();
      if (question !== asked || signal.aborted) return;
      pick([...first.map(({ at }) => at), ...found.map(({ at }) => at).filter((at) => at !== undefined)]);
      nearest.replaceChildren(...[...first, ...found].map(({ id, score, at }, place) => {
        const title = at === undefined ? String(id) : titles[at], rank = place + 1 - first.length;
        const button = made("button", { type: "button", title: String(id), disabled: at === undefined }, rank ? `${title} ${score.toFixed(3)}` : title);
        button.onclick = () => go(at);
        const row = made("li", { value: rank }, button);
        if (open && !rank) row.append(" ", made("button", { type: "button", className: "open", onclick: () => open(at) }, "Open"));
        return row;
      }));
      nearest.hidden = false;
      return found;
    } catch (error) {
      if (question === asked) fail(error);
    }
  }
  const about = (i) => list([i], () => near(i), [{ id: ids[i], at: i }]);
  const chosen = () => Array.from(strength.keys()).filter((i) => strength[i] > 1);
  function within(polygon) {
    const corners = polygon.map(([x, y]) => spot(x, y)), found = [];
    for (let i = 0; i < n; i++) {
      if (!shown[numbers[i]]) continue;
      const x = places[2 * i], y = places[2 * i + 1];
      let inside = false;
      for (let j = 0, k = corners.length - 1; j < corners.length; k = j++) {
        const [a, b] = corners[j], [c, d] = corners[k];
        if (b > y !== d > y && x < (c - a) * (y - b) / (d - b) + a) inside = !inside;
      }
      if (inside) found.push(i);
    }
    return found;
  }
  function outline(corners) {
    loop.hidden = !corners;
    loop.style.clipPath = corners ? `polygon(evenodd, ${corners.map(([x, y]) => `${Math.round(x)}px ${Math.round(y)}px`).join()})` : "";
  }

  named.onchange = () => { names.hidden = !named.checked; };
  select.onclick = () => { select.ariaPressed = String(select.ariaPressed !== "true"); };
  save.onclick = () => {
    downloadTable(`${data.id}s.csv`, [data.id, ...chosen().map((i) => ids[i])].map((id) => [id]));
  };
  search.oninput = () => pick(null);
  const down = new Map();
  let moved = 0;
  canvas.onpointerdown = (e) => {
    const at = local(e);
    canvas.setPointerCapture(e.pointerId); down.set(e.pointerId, at); moved = 0;
    lasso = e.shiftKey || select.ariaPressed === "true" ? [at] : null;
    tell(down.size > 1 ? -1 : under(...at), ...at);
  };
  canvas.onpointercancel = (e) => { down.delete(e.pointerId); lasso = null; outline(null); };
  canvas.onpointerup = (e) => {
    down.delete(e.pointerId);
    if (lasso && moved > 5) pick(within(lasso));
    else if (moved <= 5 && !down.size) { const i = under(...local(e)); if (i < 0) pick(null); else about(i); }
    lasso = null; outline(null);
  };
  canvas.onpointermove = (e) => {
    const was = down.get(e.pointerId), now = local(e);
    if (at >= 0 && was) step(-1); // the pointer took over
    if (!was) return tell(under(...now), ...now);
    moved += Math.hypot(now[0] - was[0], now[1] - was[1]);
    if (lasso && down.size === 1) { lasso.push(now); outline(lasso); }
    else if (down.size === 2) {
      const other = [...down].find(([id]) => id !== e.pointerId)[1], far = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      zoom(far(now) / Math.max(1, far(was)), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else { const [a, b] = spot(...was), [c, d] = spot(...now); view.x += a - c; view.y += b - d; later(); }
    down.set(e.pointerId, now);
  };
  canvas.onwheel = (e) => { e.preventDefault(); zoom(Math.exp(-e.deltaY / 400), ...local(e)); };
  canvas.onpointerleave = () => tell(-1);
  keys.addEventListener("keydown", (e) => {
    if (e.target === search) {
      if (e.key === "Escape") { search.value = ""; pick(null); canvas.focus(); }
      if (e.key === "Enter") { const i = strength.findIndex((each) => each > 1); if (i >= 0) go(i); }
      return;
    }
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches?.("select")) return;
    const next = e.shiftKey && STEPS[e.key] ? nextToward(places, strength, at, [view.x, view.y], STEPS[e.key]) : e.key === "n" || e.key === "p" ? nextInOrder(strength, at, e.key === "n" ? 1 : -1) : null;
    if (next !== null) { if (next >= 0) step(next); }
    else if (e.key === "Enter" && e.target === canvas && at >= 0) about(at);
    else if (e.key === "/") { controls.open = true; search.focus(); }
    else if (e.key === "+" || e.key === "=") zoom(1.4);
    else if (e.key === "-") zoom(1 / 1.4);
    else if (e.key === "Escape") { step(-1); pick(null); }
    else if (e.key === "0") { view = { x: 0, y: 0, zoom: 1 }; later(); }
    else if (STEPS[e.key]) { view.x += STEPS[e.key][0] * .2 / view.zoom; view.y += STEPS[e.key][1] * .2 / view.zoom; later(); }
    else return;
    e.preventDefault();
  }, { signal });
  const watching = new ResizeObserver(later);
  watching.observe(place);
  dark.addEventListener("change", tint, { signal });
  colouring.onchange = colour;
  colour();
  return () => { ending.abort(); watching.disconnect(); points?.end(); place.replaceChildren(); };
}
