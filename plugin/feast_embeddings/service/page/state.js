/** The state of the page, in the address after #, so that it can be shared and the back button works. Holds no key. */

/** Entity -> what can be shown for one -> its label, client method, kind of results, and score. */
export const SHOWN = {
  item: {
    similar: { label: "Similar items", method: "similarItems", results: "item", score: "cosine" },
    audience: { label: "Top users", method: "usersForItem", results: "user", score: "user · item + bias" },
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
  const entity = fields.get("entity") === "user" ? "user" : "item";
  const limit = Number(fields.get("limit"));
  return {
    model: fields.get("model"),
    view: fields.get("view") === "map" ? "map" : "list",
    entity,
    id: idIn(fields),
    show: Object.hasOwn(SHOWN[entity], fields.get("show")) ? fields.get("show") : Object.keys(SHOWN[entity])[0],
    filter: fields.get("filter") ?? "",
    seen: fields.get("seen") === "yes",
    limit: LIMITS.includes(limit) ? limit : 20,
  };
}

export function writeState({ model, view, entity, id, show, filter, seen, limit }) {
  const fields = new URLSearchParams({ model, entity });
  if (view === "map") {
    fields.set("view", view);
  }
  if (id !== null) {
    fields.set(typeof id === "string" ? "id" : "number", String(id));
  }
  fields.set("show", show);
  if (filter) {
    fields.set("filter", filter);
  }
  if (seen) {
    fields.set("seen", "yes");
  }
  fields.set("limit", String(limit));
  return `#${fields}`;
}

export const question = (state) => SHOWN[state.entity][state.show];

function idIn(fields) {
  const number = fields.get("number");
  return number !== null && /^-?\d{1,19}$/.test(number) ? BigInt(number) : fields.get("id");
}
