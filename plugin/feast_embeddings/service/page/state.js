/** What is looked at: in the address after #, so that it can be shared and the back button works. No key is in it. */

/** entity -> what can be shown of one -> how to ask for it, of which kind the results are, and what their scores are. */
export const SHOWN = {
  item: {
    similar: { label: "Similar items", method: "similarItems", results: "item", score: "cosine" },
    audience: { label: "Users for it", method: "usersForItem", results: "user", score: "user · item + bias" },
  },
  user: {
    ranking: { label: "Ranking", method: "rank", results: "item", score: "user · item + bias" },
    similar: { label: "Similar users", method: "similarUsers", results: "user", score: "cosine" },
  },
};

const LIMITS = [10, 20, 50, 100];

/** From the address. What does not make sense there is left out. */
export function readState(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const entity = fields.get("entity") === "user" ? "user" : "item";
  const limit = Number(fields.get("limit"));
  return {
    model: fields.get("model"),
    entity,
    id: idIn(fields),
    show: Object.hasOwn(SHOWN[entity], fields.get("show")) ? fields.get("show") : Object.keys(SHOWN[entity])[0],
    filter: fields.get("filter") ?? "",
    seen: fields.get("seen") === "yes",
    limit: LIMITS.includes(limit) ? limit : 20,
  };
}

export function writeState({ model, entity, id, show, filter, seen, limit }) {
  const fields = new URLSearchParams({ model, entity });
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
