/**
 * Draw a map, with search, a legend, a lasso and neighbours: for the page of the service, and for the file that
 * `feast-embeddings map` writes, into which this is copied. So it imports nothing, and parses no text as HTML.
 */

const VERTEX = `attribute vec2 place; attribute vec3 tint; attribute float strength; uniform vec2 scale, middle; uniform float size; varying vec4 colour;
  void main() { gl_Position = vec4((place - middle) * scale, 0., 1.); gl_PointSize = size * (strength > 1.5 ? 2. : 1.); colour = vec4(tint, strength > 1.5 ? 1. : .8 * strength); if (strength == 0.) gl_Position = vec4(9., 9., 9., 1.); }`;
const FRAGMENT = `precision mediump float; varying vec4 colour;
  void main() { if (length(gl_PointCoord - .5) > .5) discard; gl_FragColor = colour; }`;
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

const hue = (g) => (g * 137.508 + 210) % 360;
const colour = (g) => `hsl(${hue(g)} 65% ${g % 2 ? 42 : 55}%)`;
const rgb = (g) => { const l = g % 2 ? .42 : .55, a = .65 * Math.min(l, 1 - l); return [0, 8, 4].map((k) => { const m = (k + hue(g) / 30) % 12; return l - a * Math.max(-1, Math.min(m - 3, 9 - m, 1)); }); };

function made(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  const { label, ...others } = properties;
  Object.assign(element, others);
  if (label) element.setAttribute("aria-label", label);
  element.append(...children);
  return element;
}

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

/** What draws the points, or null without WebGL; `strength` of a point is 0 if it is not shown, above 1 if it is chosen. */
function painter(canvas, places, numbers, nGroups, strength) {
  const gl = canvas.getContext("webgl", { antialias: true, premultipliedAlpha: false, preserveDrawingBuffer: true });
  if (!gl) return null;
  const n = numbers.length, program = gl.createProgram(), at = {};
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(program, shader);
  }
  gl.linkProgram(program); gl.useProgram(program);
  const tints = new Float32Array(n * 3), each = Array.from({ length: nGroups }, (_, g) => rgb(g));
  for (let i = 0; i < n; i++) tints.set(each[numbers[i]], 3 * i);
  const fill = (name, size, values) => { const b = gl.createBuffer(), a = gl.getAttribLocation(program, name); gl.bindBuffer(gl.ARRAY_BUFFER, b); gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW); gl.enableVertexAttribArray(a); gl.vertexAttribPointer(a, size, gl.FLOAT, false, 0, 0); return b; };
  fill("place", 2, places); fill("tint", 3, tints);
  const strengths = fill("strength", 1, strength);
  for (const name of ["scale", "middle", "size"]) at[name] = gl.getUniformLocation(program, name);
  gl.enable(gl.BLEND); gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE);
  return {
    choose() { gl.bindBuffer(gl.ARRAY_BUFFER, strengths); gl.bufferSubData(gl.ARRAY_BUFFER, 0, strength); },
    paint(view, scale) {
      const ratio = devicePixelRatio || 1;
      canvas.width = canvas.clientWidth * ratio; canvas.height = canvas.clientHeight * ratio;
      gl.viewport(0, 0, canvas.width, canvas.height); gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2fv(at.scale, scale); gl.uniform2f(at.middle, view.x, view.y);
      gl.uniform1f(at.size, ratio * Math.min(12, Math.max(2.5, 160 / Math.sqrt(n)) * Math.sqrt(view.zoom)));
      gl.drawArrays(gl.POINTS, 0, n);
    },
    end() { gl.getExtension("WEBGL_lose_context")?.loseContext(); },
  };
}

/** Save rows of text as a CSV file (RFC 4180, with newlines of Unix). */
export function downloadTable(name, rows) {
  const cell = (text) => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const lines = rows.map((row) => row.map(cell).join(",") + "\n"), link = made("a", { download: name });
  link.href = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
  link.click();
  URL.revokeObjectURL(link.href);
}

/**
 * Fill `place`, an element with a size, with a map.
 *
 * data: `id`, the name of the ids; `ids`, `titles`, `x`, `y` and `numbers` of each point; `groups`, by number; `labels`,
 * each with a `name`, `x` and `y`; and `hidden`, the numbers of the points that answers leave out.
 * near: gets the number of a point; returns, or promises, the nearest: each with an `id`, a `score`, and `at`, the number
 * of its point, or undefined.
 * open: what to do with a point that is asked for; without it, none can be.
 * keys: where keys are listened to.
 * Returns a function that ends it.
 */
export function drawMap(place, data, { near, open, heading, level = "h2", keys = place, fail = (error) => { throw error; } }) {
  const n = data.ids.length, { numbers, titles } = data, ids = data.ids.map(String);
  const { places, fit } = fitted(data);
  const words = titles.map((title, i) => (title + "\n" + ids[i]).toLowerCase());
  const hidden = new Set(data.hidden), shown = data.groups.map(() => true), strength = new Float32Array(n).fill(1);
  const ending = new AbortController(), { signal } = ending;
  let picked = null, lasso = null, view = { x: 0, y: 0, zoom: 1 }, waiting = false, asked = 0;

  const canvas = made("canvas", { tabIndex: 0, label: "Map: arrows move, plus and minus zoom, 0 shows all" });
  const loop = made("div", { className: "lasso", ariaHidden: "true", hidden: true });
  const names = made("div", { className: "names", ariaHidden: "true" });
  const search = made("input", { className: "search", type: "search", placeholder: "Search titles and ids ( / )", label: "Search" });
  const said = made("p", { className: "said", role: "status" });
  const select = made("button", { type: "button", className: "select", ariaPressed: "false", title: "Draw around points; or hold Shift" }, "Select");
  const save = made("button", { type: "button", className: "save", hidden: true }, "Download ids");
  const named = made("input", { type: "checkbox", checked: true });
  const naming = made("label", { hidden: !data.labels.length }, named, "Names");
  const nearest = made("ol", { className: "near", label: "Nearest", hidden: true });
  const legend = made("div", { className: "legend" });
  const tools = made("div", { className: "tools" }, select, save, naming);
  const tip = made("div", { className: "tip", role: "tooltip", hidden: true });
  place.classList.add("map");
  place.replaceChildren(canvas, loop, names, made("div", { className: "panel" }, made(level, {}, heading), search, said, tools, nearest, legend), tip);

  const labels = data.labels.map(({ name, x, y }) => {
    const span = made("span", {}, name);
    names.append(span);
    return [span, ...fit(x, y)];
  });
  data.groups.forEach((name, g) => {
    const box = made("input", { type: "checkbox", checked: true }), dot = made("i");
    dot.style.background = colour(g);
    box.onchange = () => { shown[g] = box.checked; choose(); };
    legend.append(made("label", {}, box, dot, name));
  });

  const points = painter(canvas, places, numbers, data.groups.length, strength);
  const size = () => [Math.max(1, canvas.clientWidth), Math.max(1, canvas.clientHeight)];
  const scale = () => { const [w, h] = size(), least = Math.min(w, h); return [view.zoom * least / w, view.zoom * least / h]; };
  function draw() {
    waiting = false;
    if (!points || signal.aborted) return;
    const [a, b] = scale(), [w, h] = size();
    points.paint(view, [a, b]);
    for (const [span, x, y] of labels) {
      span.style.transform = `translate(-50%, -50%) translate(${((x - view.x) * a + 1) * w / 2}px, ${(1 - (y - view.y) * b) * h / 2}px)`;
    }
  }
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
  function tell(i, x, y) {
    tip.hidden = i < 0;
    if (i < 0) return;
    const [w, h] = size();
    tip.textContent = `${titles[i]} (${ids[i]}) – ${data.groups[numbers[i]]}${hidden.has(i) ? ", hidden" : ""}`;
    tip.style.left = Math.max(0, Math.min(x + 12, w - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(0, Math.min(y + 12, h - tip.offsetHeight - 8)) + "px";
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
  async function about(i) {
    pick([i]);
    const question = asked;
    try {
      const found = await near(i);
      if (question !== asked || signal.aborted) return;
      pick([i, ...found.map(({ at }) => at).filter((at) => at !== undefined)]);
      nearest.replaceChildren(...[{ id: ids[i], at: i }, ...found].map(({ id, score, at }, rank) => {
        const title = at === undefined ? String(id) : titles[at];
        const button = made("button", { type: "button", title: String(id), disabled: at === undefined }, rank ? `${title} ${score.toFixed(3)}` : title);
        button.onclick = () => go(at);
        const row = made("li", { value: rank }, button);
        if (open && !rank) row.append(" ", made("button", { type: "button", className: "open", onclick: () => open(i) }, "Open"));
        return row;
      }));
      nearest.hidden = false;
    } catch (error) {
      if (question === asked) fail(error);
    }
  }
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
    downloadTable(`${data.id}s.csv`, [data.id, ...ids.filter((_, i) => strength[i] > 1)].map((id) => [id]));
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
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === "/") search.focus();
    else if (e.key === "+" || e.key === "=") zoom(1.4);
    else if (e.key === "-") zoom(1 / 1.4);
    else if (e.key === "Escape") pick(null);
    else if (e.key === "0") { view = { x: 0, y: 0, zoom: 1 }; later(); }
    else if (STEPS[e.key]) { view.x += STEPS[e.key][0] * .2 / view.zoom; view.y += STEPS[e.key][1] * .2 / view.zoom; later(); }
    else return;
    e.preventDefault();
  }, { signal });
  const watching = new ResizeObserver(later);
  watching.observe(place);
  choose();
  return () => { ending.abort(); watching.disconnect(); points?.end(); place.replaceChildren(); };
}
