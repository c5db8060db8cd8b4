import { EmbeddingClient, EmbeddingServiceError } from "./client/index.js";
import { answerOfOther, answerTo } from "./asking.js";
import { byId, element, moveByArrows } from "./dom.js";
import { Listing } from "./listing.js";
import { MapView } from "./map_view.js";
import { Picker } from "./picker.js";
import { ResultTable, showSubject, showVisitor } from "./results.js";
import { SHOWN, isPicked, listed, question, readState, writeState } from "./state.js";
import { offerVersions, showVersion } from "./version.js";
import { because, filterHelp, told, toldOfOther } from "./words.js";

const KEY = "feast-embeddings-key";

let client;
let state;
let version = null; // shown in the panel
let asking = new AbortController();

function connect() {
  const address = new URL(".", document.baseURI);
  client = new EmbeddingClient(address, { apiKey: sessionStorage.getItem(KEY) ?? undefined, timeout: 15_000, retries: 1 });
  byId("forget-key").hidden = sessionStorage.getItem(KEY) === null;
}

async function start() {
  try {
    connect();
    const { models } = await client.models();
    byId("key-form").hidden = true;
    if (!models.length) {
      trouble("This service has no model yet: train one, and run feast apply.");
      return;
    }
    byId("model").replaceChildren(...models.map(({ name }) => element("option", { value: name }, name)));
    state = readState(location.hash);
    if (!models.some(({ name }) => name === state.model)) {
      state = { ...state, model: models[0].name, id: null, items: [], compare: "" };
    }
    byId("main").hidden = false;
    trouble("");
    await Promise.all(all());
  } catch (error) {
    fail(error);
  }
}

/** Show an error where the user looks for it. */
function fail(error) {
  if (error?.name === "AbortError") {
    return; // replaced by a newer question
  }
  if (error instanceof EmbeddingServiceError && (error.status === 401 || error.status === 403)) {
    const unknown = sessionStorage.getItem(KEY) ? "This key is not accepted." : "This service needs a key.";
    byId("key-reason").textContent = error.status === 401 ? unknown : `Not allowed: ${error.detail}.`;
    sessionStorage.removeItem(KEY);
    byId("forget-key").hidden = true;
    byId("key-form").hidden = false;
    byId("main").hidden = true;
    byId("key").focus();
    return;
  }
  trouble(error.detail || error.message);
}

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

/** Change the state. */
function go(changes, { replace = false } = {}) {
  const before = state;
  state = { ...state, ...changes };
  if (question(state).results !== question(before).results && !("filter" in changes)) {
    state.filter = ""; // it was about attributes of the other kind
  }
  history[replace ? "replaceState" : "pushState"](null, "", writeState(state));
  follow(before);
}

/** Show all parts of the state: the map, or the lists. */
function all() {
  const onMap = state.view === "map";
  for (const part of byId("main").children) {
    part.hidden = (part === byId("map-view")) !== onMap;
  }
  byId("view").querySelector(`[value=${onMap ? state.entity : "list"}]`).checked = true;
  byId("model").value = state.model;
  if (onMap) {
    asking.abort();
    picker.abort();
    return [mapView.show(client, state.model, state.entity)];
  }
  mapView.hide();
  return [picker.list(client, state), describe(), ask()];
}

/** Show the parts of the state that are not shown yet. */
function follow(before) {
  if (state.view === "map" || before.view === "map") {
    Promise.all(all()).catch(fail);
    return;
  }
  const parts = [ask()];
  if (state.model !== before.model || listed(state) !== listed(before)) {
    parts.push(picker.list(client, state, ""));
  } else if (state.entity !== before.entity) {
    parts.push(picker.find(state));
  }
  if (state.model !== before.model) {
    parts.push(describe());
  }
  Promise.all(parts).catch(fail);
}

function pick(entity, id) {
  const fromList = byId("list").contains(document.activeElement) || document.activeElement === byId("search");
  const show = entity === state.entity ? state.show : Object.keys(SHOWN[entity])[0];
  go({ entity, id, show });
  if (!fromList) {
    byId("subject-heading").focus(); // the button that was pressed is gone
  }
  if (matchMedia("(max-width: 60rem)").matches) {
    byId("subject").scrollIntoView();
  }
}

/** Give a visitor an item, or take it away. */
function toggle(item) {
  const others = state.items.filter((id) => String(id) !== String(item));
  go({ items: others.length < state.items.length ? others : [...others, item] });
}

function remove(item) {
  toggle(item);
  byId("subject-heading").focus(); // the button that was pressed is gone
}

const picker = new Picker({
  pick: (entity, id) => (state.entity === "visitor" ? toggle(id) : pick(entity, id)),
  begin: (id) => go({ id }, { replace: true }),
  fail,
});
const table = new ResultTable(pick);
const mapView = new MapView(byId("map-view"), {
  open(entity, id) {
    go({ view: "list", entity, id, show: Object.keys(SHOWN[entity])[0] });
    byId("subject-heading").focus();
  },
  fail,
});

// --- asking

async function ask() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const { results: kind, score } = question(state);
  controls(kind);
  byId("subject").hidden = byId("question").hidden = !isPicked(state);
  if (!isPicked(state)) {
    table.clear();
    byId("status").textContent = "";
    return;
  }
  present(new Map());
  byId("results").setAttribute("aria-busy", "true");
  const started = performance.now();
  const about = new Listing(client, state.model, listed(state));
  const answered = answerTo(client, state, version, signal).then((found) => [found, Math.round(performance.now() - started)]);
  try {
    const [[answer, milliseconds], rows, other] = await Promise.all([
      answered,
      about.named(state.entity === "visitor" ? state.items : [state.id], signal),
      state.compare ? answerOfOther(client, state, signal) : null,
    ]);
    const reasons = new Set(answer.results.flatMap((row) => row.because ?? []).map(({ id }) => id));
    const speaking = await new Listing(client, state.model, "item").named(reasons, signal);
    signal.throwIfAborted();
    present(rows);
    table.show(answer.results, {
      model: state.model,
      entity: kind,
      score,
      version: answer.version,
      because: (row) => because(row.because, speaking),
      other: other && { results: other.results, told: toldOfOther(other, state) },
    });
    byId("status").textContent = told(answer, state, milliseconds);
    byId("filter-note").textContent = filterHelp(answer.results) || byId("filter-note").textContent;
    trouble("");
    if (version !== null && answer.version !== version) {
      picker.renew(client, state); // another version went live
      await describe();
    }
  } catch (error) {
    signal.throwIfAborted();
    table.clear();
    byId("status").textContent = "";
    if (error.errors?.filter) {
      refused(error.errors.filter);
    } else {
      throw error;
    }
  } finally {
    if (!signal.aborted) {
      byId("results").setAttribute("aria-busy", "false");
    }
  }
}

/** Show the subject of the question; `rows` has the known facts by id. */
function present(rows) {
  if (state.entity === "visitor") {
    showVisitor(state.items, rows, remove);
  } else {
    showSubject(state.entity, state.id, rows.get(String(state.id)));
  }
}

/** Set the controls to the state. */
function controls(kind) {
  if (byId("show").dataset.entity !== state.entity) {
    const options = Object.entries(SHOWN[state.entity]).map(([value, { label }]) => {
      return element("label", {}, element("input", { type: "radio", name: "show", value }), element("span", {}, label));
    });
    byId("show").replaceChildren(byId("show").querySelector("legend"), ...options);
    byId("show").dataset.entity = state.entity;
  }
  byId("entity").querySelector(`[value=${state.entity}]`).checked = true;
  byId("visitor-note").hidden = state.entity !== "visitor";
  byId("show").querySelector(`[value=${state.show}]`).checked = true;
  byId("compare").value = state.compare;
  byId("seen-label").hidden = kind === state.entity;
  byId("seen").checked = state.seen;
  byId("limit").value = String(state.limit);
  byId("filter").value = state.filter;
  refused("");
  picker.mark(state);
}

function refused(reason) {
  byId("filter-error").textContent = reason;
  byId("filter").setAttribute("aria-invalid", String(Boolean(reason)));
}

async function describe() {
  const { model } = state;
  const answer = await client.versions({ modelName: model });
  if (model === state.model) {
    version = answer.liveVersion;
    showVersion(byId("version"), answer);
    offerVersions(byId("compare"), answer, state.compare);
  }
}

// --- events

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("key").value.trim());
  byId("key").value = "";
  start();
});
byId("forget-key").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  location.reload();
});
byId("model").addEventListener("change", (event) => {
  go({ model: event.target.value, id: null, items: [], filter: "", compare: "" });
});
byId("view").addEventListener("change", ({ target: { value } }) => {
  const entity = value === "list" ? state.entity : value;
  const other = entity === state.entity ? {} : { entity, id: null, show: Object.keys(SHOWN[entity])[0] };
  go({ view: value === "list" ? "list" : "map", ...other });
});
byId("entity").addEventListener("change", (event) => {
  const entity = event.target.value;
  const items = entity === "visitor" && state.entity === "item" && state.id !== null ? [state.id] : [];
  go({ entity, id: null, items, show: Object.keys(SHOWN[entity])[0] });
});
byId("show").addEventListener("change", (event) => go({ show: event.target.value }));
byId("seen").addEventListener("change", (event) => go({ seen: event.target.checked }));
byId("compare").addEventListener("change", (event) => go({ compare: event.target.value }));
byId("limit").addEventListener("change", (event) => go({ limit: Number(event.target.value) }));
byId("question").addEventListener("submit", (event) => {
  event.preventDefault();
  go({ filter: byId("filter").value.trim() });
});
moveByArrows(byId("results"));

addEventListener("popstate", () => {
  const before = state;
  if (before) {
    state = readState(location.hash);
    state.model ??= before.model;
    follow(before);
  }
});

start();
