/**
 * The requests of the service, by the name of their method.
 *
 * `repeatable: false`: asked twice, it would do something else than asked once.
 */
export const ENDPOINTS = {
  models: { method: "GET", path: "/v1/models" },
  versions: { method: "GET", path: "/v1/models/{model}/versions" },
  map: { method: "GET", path: "/v1/models/{model}/map/{entity}" },
  createUserEmbedding: { method: "POST", path: "/v1/models/{model}/create_user_embedding", body: { encoding: "base64" } },
  createItemEmbedding: { method: "POST", path: "/v1/models/{model}/create_item_embedding", body: { encoding: "base64" } },
  similarItems: { method: "POST", path: "/v1/models/{model}/similar_items" },
  similarItemsBatch: { method: "POST", path: "/v1/models/{model}/similar_items/batch" },
  similarUsers: { method: "POST", path: "/v1/models/{model}/similar_users" },
  similarUsersBatch: { method: "POST", path: "/v1/models/{model}/similar_users/batch" },
  rank: { method: "POST", path: "/v1/models/{model}/rank" },
  rankBatch: { method: "POST", path: "/v1/models/{model}/rank/batch" },
  search: { method: "POST", path: "/v1/models/{model}/search" },
  usersForItem: { method: "POST", path: "/v1/models/{model}/users_for_item" },
  usersForItemBatch: { method: "POST", path: "/v1/models/{model}/users_for_item/batch" },
  retrieve: { method: "POST", path: "/v1/models/{model}/retrieve" },
  addInteractions: { method: "POST", path: "/v1/models/{model}/interactions", repeatable: false },
  addItems: { method: "POST", path: "/v1/models/{model}/items" },
  setItemAttributes: { method: "PATCH", path: "/v1/models/{model}/items" },
  setUserAttributes: { method: "PATCH", path: "/v1/models/{model}/users" },
  forget: { method: "POST", path: "/v1/models/{model}/forget" },
  hide: { method: "POST", path: "/v1/models/{model}/hide" },
  unhide: { method: "POST", path: "/v1/models/{model}/unhide" },
  publish: { method: "POST", path: "/v1/models/{model}/publish" },
  rollback: { method: "POST", path: "/v1/models/{model}/rollback", repeatable: false },
};
