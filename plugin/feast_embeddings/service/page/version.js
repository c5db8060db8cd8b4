/** Show the live version, and its quality on held-out interactions. */

import { element } from "./dom.js";
import { ago, minute } from "./values.js";

const POPULAR = "popular_";

export function showVersion(place, { liveVersion, versions }) {
  const live = versions.find((row) => row.live);
  if (!live) {
    place.replaceChildren(element("h2", {}, "Version"), element("p", {}, "No version of this model is live."));
    return;
  }
  const { training } = live;
  const facts = [
    ["Version", element("span", { className: "id" }, liveVersion)],
    ["As of", element("time", { dateTime: live.asOf, title: live.asOf }, `${minute(live.asOf)}, ${ago(live.asOf)}`)],
    ["Space", element("span", { className: "id" }, live.space)],
  ];
  if (training) {
    facts.push(
      ["Trainer", `${training.trainer}, ${training.dim} dimensions`],
      ["Users", count(training.nUsers)],
      ["Items", count(training.nItems)],
      ["Interactions", count(training.nInteractions)],
    );
  }
  place.replaceChildren(
    element("h2", {}, "Live version"),
    element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
    ...quality(training),
    ...others(versions.filter((row) => row !== live)),
  );
}

function quality(training) {
  const names = Object.keys(training?.metrics ?? {}).filter((name) => !name.startsWith(POPULAR));
  if (!names.length) {
    return [element("h3", {}, "Quality"), element("p", { className: "hint" }, training ? "Not evaluated." : "Unknown to this service.")];
  }
  const { metrics, evaluatedOn } = training;
  const rows = names.map((name) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", {}, number(metrics[name])),
      element("td", {}, number(metrics[POPULAR + name])),
    ),
  );
  const head = ["Metric", "Version", "Most popular"].map((text) => element("th", { scope: "col" }, text));
  return [
    element("table", {}, element("caption", {}, "Quality"), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)),
    element("p", { className: "hint" }, evaluatedOn ? `On the ${evaluatedOn}.` : ""),
  ];
}

function others(versions) {
  if (!versions.length) {
    return [];
  }
  const rows = versions.map((row) => {
    const what = element("span", { className: "hint" }, ` ${minute(row.asOf)}${row.loaded ? ", loaded" : ""}`);
    return element("li", {}, element("span", { className: "id" }, row.version), what);
  });
  const summary = element("summary", {}, `Other versions (${versions.length})`);
  return [element("details", {}, summary, element("ul", {}, ...rows))];
}

/** Offer the other loaded versions to compare with; `chosen` is offered even if it is not there any more. */
export function offerVersions(select, { versions }, chosen) {
  const names = versions.filter((row) => row.loaded && !row.live).map(({ version }) => version);
  const offered = names.includes(chosen) || !chosen ? names : [chosen, ...names];
  select.replaceChildren(element("option", { value: "" }, "no other"), ...offered.map((name) => element("option", { value: name }, name)));
  select.value = chosen;
  select.parentElement.hidden = !offered.length;
}

const count = (value) => value.toLocaleString("en");
const number = (value) => (value === undefined ? "–" : value.toFixed(3));
