/** The state of the page, in the address after #, so that it can be shared and the back button works. Holds no key. */

/** Entity -> what can be shown for one -> its label, client method, kind of results, and score. */
export const SHOWN = {
  item: {
    similar: { label: "Similar items", method: "similarItems", results: "item", score: "cosine" },
    audience: { label: "Top users", method: "usersForItem", results: "user", score: "user · item + bias" },
  },
  visitor: {
    ranking: { label: "Ranking", method: "rank", results: "item", score: "user · item + bias" },
  },
  user: {
    ranking: { label: "Ranking", method: "rank", results: "item", score: "user · item + bias" },
    similar: { label: "Similar users", method: "similarUsers", results: "user", score: "cosine" },
  },
};

const LIMITS = [10, 20, 50, 100];

/** Read the state from the address. Invalid values are ignored. */
export function readState(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const entity = Object.hasOwn(SHOWN, fields.get("entity")) ? fields.get("entity") : "item";
  const limit = Number(fields.get("limit"));
  return {
    model: fields.get("model"),
    view: fields.get("view") === "map" && entity !== "visitor" ? "map" : "list",
    entity,
    id: entity === "visitor" ? null : (idsIn(fields)[0] ?? null),
    items: entity === "visitor" ? idsIn(fields) : [],
    show: Object.hasOwn(SHOWN[entity], fields.get("show")) ? fields.get("show") : Object.keys(SHOWN[entity])[0],
    filter: fields.get("filter") ?? "",
    seen: fields.get("seen") === "yes",
    limit: LIMITS.includes(limit) ? limit : 20,
    compare: fields.get("compare") ?? "",
  };
}

export function writeState({ model, view, entity, id, items, show, filter, seen, limit, compare }) {
  const fields = new URLSearchParams({ model, entity });
  if (view === "map") {
    fields.set("view", view);
  }
  for (const each of entity === "visitor" ? items : id === null ? [] : [id]) {
    fields.append(typeof each === "string" ? "id" : "number", String(each));
  }
  fields.set("show", show);
  if (filter) {
    fields.set("filter", filter);
  }
  if (seen) {
    fields.set("seen", "yes");
  }
  fields.set("limit", String(limit));
  if (compare) {
    fields.set("compare", compare);
  }
  return `#${fields}`;
}

export const question = (state) => SHOWN[state.entity][state.show];

/** Whose rows are listed: a visitor is made of items. */
export const listed = (state) => (state.entity === "visitor" ? "item" : state.entity);

/** Whether there is someone or something to ask about. */
export const isPicked = (state) => (state.entity === "visitor" ? state.items.length > 0 : state.id !== null);

function idsIn(fields) {
  const numbers = fields.getAll("number").filter((text) => /^-?\d{1,19}$/.test(text));
  return numbers.length ? numbers.map(BigInt) : fields.getAll("id");
}
