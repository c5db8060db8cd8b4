/** An id keeps its type. Whole numbers beyond 2^53 are BigInt, in requests and in answers. */
export type Id = string | number | bigint;

/** Attributes of a user or an item, given at training; times are text, ISO 8601. */
export type Attributes = Record<string, unknown>;

export interface ClientOptions {
  /** Sent with each request; never part of an error message. */
  apiKey?: string;
  /** Timeout of one try in milliseconds; 30,000 by default. */
  timeout?: number;
  /** Retries of a request after a transient failure: no connection, 429, 502, 503. 3 by default. */
  retries?: number;
  /** Used instead of the global fetch. */
  fetch?: typeof globalThis.fetch;
}

export interface CallOptions {
  /** Aborts the request and its retries; the promise is then rejected with the signal's reason. */
  signal?: AbortSignal;
  /** Timeout of one try in milliseconds, instead of the client's. */
  timeout?: number;
  /** Sent too, such as `X-Request-ID` and `traceparent`, which the service writes into its log. */
  headers?: Record<string, string>;
}

/** The service refused a request, could not answer it, or could not be reached. */
export class EmbeddingServiceError extends Error {
  /** HTTP status; null if there was no answer. */
  readonly status: number | null;
  /** The kind of problem. */
  readonly title: string;
  /** What went wrong. */
  readonly detail: string;
  /** For 413 and 422, the error per field of the request, as the service names it: `user_ids`, `filter`. */
  readonly errors: Record<string, string>;
  /** The id of the request in the service's log. */
  readonly requestId: string | null;
}

/** There was no answer; `cause` is the error of fetch. */
export class EmbeddingConnectionError extends EmbeddingServiceError {}

/** There was no answer in time. */
export class EmbeddingTimeoutError extends EmbeddingConnectionError {}

/**
 * Client of an embedding service, for Node 20 or a browser.
 *
 * Every method rejects with an `EmbeddingServiceError` if the service refuses or does not answer, and with a
 * `TypeError` if a request cannot be sent. Transient failures are retried after 0.1 s, 0.2 s, 0.4 s …, or when the
 * service says, if within 5 s; `rollback` is not, because it would go back once more, nor is `addInteractions`.
 */
export class EmbeddingClient {
  /**
   * @param address of the service, e.g. `http://localhost:8080`, with the path it is mounted under, if any.
   */
  constructor(address: string | URL, options?: ClientOptions);

  /** The models of the service, each with its live version. */
  models(request?: {}, options?: CallOptions): Promise<ModelsAnswer>;
  /** The versions of a model, newest first. */
  versions(request: VersionsRequest, options?: CallOptions): Promise<VersionsAnswer>;
  /** The map of the live version, if `feast-embeddings map --save` wrote one; else the error has status 404. */
  map(request: MapRequest, options?: CallOptions): Promise<MapAnswer>;
  /** The embeddings of users, in the order of the request. */
  createUserEmbedding(request: UserEmbeddingRequest, options?: CallOptions): Promise<EmbeddingAnswer>;
  /** The embeddings of items, in the order of the request. */
  createItemEmbedding(request: ItemEmbeddingRequest, options?: CallOptions): Promise<EmbeddingAnswer>;
  /** The items nearest to an item by cosine, without the item. */
  similarItems(request: SimilarItemsRequest, options?: CallOptions): Promise<NeighboursAnswer>;
  /** `similarItems` for many items. */
  similarItemsBatch(request: BatchSimilarItemsRequest, options?: CallOptions): Promise<BatchAnswer>;
  /** The users nearest to a user by cosine, without the user. */
  similarUsers(request: SimilarUsersRequest, options?: CallOptions): Promise<NeighboursAnswer>;
  /** `similarUsers` for many users. */
  similarUsersBatch(request: BatchSimilarUsersRequest, options?: CallOptions): Promise<BatchAnswer>;
  /** The items with the highest score for a user, or for a visitor without an id; with `itemIds`, these reranked. */
  rank(request: RankRequest, options?: CallOptions): Promise<RankingAnswer>;
  /** `rank` for many users. */
  rankBatch(request: BatchRankRequest, options?: CallOptions): Promise<BatchAnswer>;
  /** Items for a text, and for a user if there is one; the model has to be trained with content. */
  search(request: SearchRequest, options?: CallOptions): Promise<SearchAnswer>;
  /** The users with the highest score for an item (`itemId`), or those most similar to a set of users (`userIds`). */
  usersForItem(request: AudienceRequest, options?: CallOptions): Promise<NeighboursAnswer>;
  /** `usersForItem` for many items. */
  usersForItemBatch(request: BatchAudienceRequest, options?: CallOptions): Promise<BatchAnswer>;
  /** A page of the users or items that pass a filter; pass `cursor` for the next one. */
  retrieve(request: RetrieveRequest, options?: CallOptions): Promise<PageAnswer>;
  /** Record what users did; the next `rank` takes it into account. Needs a key of scope write. */
  addInteractions(request: EventsRequest, options?: CallOptions): Promise<AddedAnswer>;
  /** Make items searchable that the training did not know, by their attributes. Needs a key of scope write. */
  addItems(request: NewItemsRequest, options?: CallOptions): Promise<NewItemsAnswer>;
  /** Set attributes of live items; the next publish keeps them. Needs a key of scope write. */
  setItemAttributes(request: ChangedItemsRequest, options?: CallOptions): Promise<AttributesSetAnswer>;
  /** Set attributes of live users; the next publish keeps them. Needs a key of scope write. */
  setUserAttributes(request: ChangedUsersRequest, options?: CallOptions): Promise<AttributesSetAnswer>;
  /** Remove users and items from all versions and the recorded interactions, for good. Needs a key of scope write. */
  forget(request: ForgetRequest, options?: CallOptions): Promise<ForgottenAnswer>;
  /** Leave users and items out of all answers until `unhide`; they keep their vectors. Needs a key of scope write. */
  hide(request: HiddenRequest, options?: CallOptions): Promise<VisibilityAnswer>;
  /** Show hidden users and items again. Needs a key of scope write. */
  unhide(request: HiddenRequest, options?: CallOptions): Promise<VisibilityAnswer>;
  /** Make a version live, the newest by default; needs a key of scope write. */
  publish(request: PublishRequest, options?: CallOptions): Promise<PublishAnswer>;
  /** Make an older version live again, the one before the live one by default; needs a key of scope write. */
  rollback(request: PublishRequest, options?: CallOptions): Promise<PublishAnswer>;
}

export interface VersionsRequest {
  modelName: string;
}

export interface MapRequest {
  modelName: string;
  entity: "user" | "item";
}

// Made by `python -m tests.client.js_types`.

export interface ModelsAnswer {
  models: ModelRow[];
}

export interface ModelRow {
  name: string;
  liveVersion: string | null;
  asOf: string | null;
  space: string | null;
}

export interface VersionsAnswer {
  model: string;
  liveVersion: string | null;
  versions: VersionRow[];
}

export interface VersionRow {
  version: string;
  live: boolean;
  /** Whether it is in the vector store, so that rollback needs no loading. */
  loaded: boolean;
  asOf: string;
  space: string;
  /** null if the files of the version are not on the service's disk. */
  training: Training | null;
}

/** How a version was trained, and how good it is. */
export interface Training {
  trainer: string;
  createdAt: string;
  dim: number;
  nUsers: number;
  nItems: number;
  nInteractions: number;
  /**
   * Ranking quality on held-out interactions; `popular_…` is the quality of the most popular items. Empty if not
   * evaluated.
   */
  metrics: Record<string, number>;
  /** Which interactions were held out; empty if none were. */
  evaluatedOn: string;
  /** Columns of items that a search by text reads; empty if it has none. */
  textColumns: string[];
}

/** A map: users or items in the plane, those with like vectors near each other. */
export interface MapAnswer {
  model: string;
  version: string;
  entity: "user" | "item";
  ids: Id[];
  /** What to say of each, in the order of `ids`. */
  titles: string[];
  /** In the order of `ids`. */
  x: number[];
  /** In the order of `ids`. */
  y: number[];
  /** The ways to colour them, one at least. */
  colorings: MapColoring[];
  /** The segments that have a name. */
  labels: MapLabel[];
  /** The places in `ids`, from 0, of those that other answers leave out. */
  hidden: number[];
}

/** A way to colour the points. */
export interface MapColoring {
  /** What the colours say, such as an attribute. */
  name: string;
  /** Those with one colour. */
  groups: string[];
  /** Each point's place in `groups`, from 0, in the order of `ids`. */
  numbers: number[];
}

/** The name of a segment, and a place in its midst. */
export interface MapLabel {
  name: string;
  x: number;
  y: number;
}

export interface UserEmbeddingRequest {
  modelName: string;
  userIds: readonly Id[];
}

/** Embeddings in the order of the request. */
export interface EmbeddingAnswer {
  model: string;
  version: string;
  /** Vectors of different spaces cannot be compared. */
  space: string;
  /** Time of the newest interaction that the version was trained on. */
  asOf: string;
  dim: number;
  embeddings: EmbeddingRow[];
  /** The ids that have no embedding. */
  missing: Id[];
}

export interface EmbeddingRow {
  id: Id;
  /** Bit for bit as trained; null for an id that has no embedding. */
  vector: Float32Array | null;
  version: string;
  asOf: string;
  eventTimestamp: string | null;
}

export interface ItemEmbeddingRequest {
  modelName: string;
  itemIds: readonly Id[];
}

export interface SimilarItemsRequest {
  modelName: string;
  /** Whether to return the attributes with each result; false by default. */
  returnMetadata?: boolean;
  /** The attributes to return with each result. */
  fields?: readonly string[];
  /** How many results, best first; 10 by default. */
  limit?: number;
  /**
   * Condition on attributes, as in SQL: =, !=, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE 'start%', CONTAINS 'part', AND,
   * OR, NOT.
   */
  filter?: string | null;
  /**
   * A loaded version to ask instead of the live one: its name, `latest` for the newest on the service's disk, or
   * `previous` for the one before that.
   */
  version?: string;
  /** Ids to leave out; with `rank` in addition to seen items. */
  excludeIds?: readonly Id[] | null;
  /** The final score is the score plus the weights of all boosts that a result passes. */
  boosts?: readonly Boost[] | null;
  /** How many of the first to skip; 0 by default. */
  offset?: number;
  /** Attribute, and at most how many of one value of it. */
  maxPer?: Record<string, number> | null;
  /**
   * How much less one counts the more it is like those before it: 0 for the order of score, 1 for likeness alone; 0 by
   * default.
   */
  diversity?: number;
  /**
   * Compare the vectors as they are, only rows with interactions, or vectors from attributes alone, which needs a
   * version with content; "blend" by default.
   */
  by?: "blend" | "behaviour" | "content";
  /** The item to find similar ones for. */
  itemId?: Id;
  /** Or items to be like. */
  positive?: readonly Id[];
  /** With `positive`, items to be unlike. */
  negative?: readonly Id[];
  /** Or a vector of the version's space, which the answer names, and of its dimension. */
  vector?: Float32Array | null;
}

/** What is added to the score of those that pass a condition. */
export interface Boost {
  filter: string;
  /** In units of the score; below 0 it lowers. */
  weight: number;
}

/** Results, best first. */
export interface NeighboursAnswer {
  model: string;
  version: string;
  /** The version's vector space: a `vector` of a request has to be of it. */
  space: string;
  /** `limit` results, or fewer if fewer match. */
  results: Result[];
  /** Ids of the request that have no embedding, users or items. */
  missing: Id[];
  /** How someone without an embedding was answered, if a fallback was requested; else null. */
  fallback: "popular" | "recent" | null;
}

export interface Result {
  id: Id;
  /** Higher is better. */
  score: number;
  /** The attributes, if requested. */
  metadata?: Attributes | null;
}

export interface BatchSimilarItemsRequest {
  modelName: string;
  /** Whether to return the attributes with each result; false by default. */
  returnMetadata?: boolean;
  /** The attributes to return with each result. */
  fields?: readonly string[];
  /** How many results, best first; 10 by default. */
  limit?: number;
  /**
   * Condition on attributes, as in SQL: =, !=, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE 'start%', CONTAINS 'part', AND,
   * OR, NOT.
   */
  filter?: string | null;
  /**
   * A loaded version to ask instead of the live one: its name, `latest` for the newest on the service's disk, or
   * `previous` for the one before that.
   */
  version?: string;
  /** Ids to leave out; with `rank` in addition to seen items. */
  excludeIds?: readonly Id[] | null;
  /** The final score is the score plus the weights of all boosts that a result passes. */
  boosts?: readonly Boost[] | null;
  /** How many of the first to skip; 0 by default. */
  offset?: number;
  /** Attribute, and at most how many of one value of it. */
  maxPer?: Record<string, number> | null;
  /**
   * How much less one counts the more it is like those before it: 0 for the order of score, 1 for likeness alone; 0 by
   * default.
   */
  diversity?: number;
  /**
   * Compare the vectors as they are, only rows with interactions, or vectors from attributes alone, which needs a
   * version with content; "blend" by default.
   */
  by?: "blend" | "behaviour" | "content";
  itemIds: readonly Id[];
}

/** Results in the order of the request, all of one version. */
export interface BatchAnswer {
  model: string;
  version: string;
  answers: BatchResult[];
  missing: Id[];
}

export interface BatchResult {
  /** As in the request; for a visitor, the position, from 0. */
  id: Id;
  /** null for an id that has no embedding, without a fallback. */
  results: Result[] | null;
  /** How someone without an embedding was answered, if a fallback was requested; else null. */
  fallback: "popular" | "recent" | null;
}

export interface SimilarUsersRequest {
  modelName: string;
  /** Whether to return the attributes with each result; false by default. */
  returnMetadata?: boolean;
  /** The attributes to return with each result. */
  fields?: readonly string[];
  /** How many results, best first; 10 by default. */
  limit?: number;
  /**
   * Condition on attributes, as in SQL: =, !=, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE 'start%', CONTAINS 'part', AND,
   * OR, NOT.
   */
  filter?: string | null;
  /**
   * A loaded version to ask instead of the live one: its name, `latest` for the newest on the service's disk, or
   * `previous` for the one before that.
   */
  version?: string;
  /** Ids to leave out; with `rank` in addition to seen items. */
  excludeIds?: readonly Id[] | null;
  /** The final score is the score plus the weights of all boosts that a result passes. */
  boosts?: readonly Boost[] | null;
  /** How many of the first to skip; 0 by default. */
  offset?: number;
  /** Attribute, and at most how many of one value of it. */
  maxPer?: Record<string, number> | null;
  /**
   * How much less one counts the more it is like those before it: 0 for the order of score, 1 for likeness alone; 0 by
   * default.
   */
  diversity?: number;
  /**
   * Compare the vectors as they are, only rows with interactions, or vectors from attributes alone, which needs a
   * version with content; "blend" by default.
   */
  by?: "blend" | "behaviour" | "content";
  userId: Id;
}

export interface BatchSimilarUsersRequest {
  modelName: string;
  /** Whether to return the attributes with each result; false by default. */
  returnMetadata?: boolean;
  /** The attributes to return with each result. */
  fields?: readonly string[];
  /** How many results, best first; 10 by default. */
  limit?: number;
  /**
   * Condition on attributes, as in SQL: =, !=, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE 'start%', CONTAINS 'part', AND,
   * OR, NOT.
   */
  filter?: string | null;
  /**
   * A loaded version to ask instead of the live one: its name, `latest` for the newest on the service's disk, or
   * `previous` for the one before that.
   */
  version?: string;
  /** Ids to leave out; with `rank` in addition to seen items. */
  excludeIds?: readonly Id[] | null;
  /** The final score is the score plus the weights of all boosts that a result passes. */
  boosts?: readonly Boost[] | null;
  /** How many of the first to skip; 0 by default. */
  offset?: number;
  /** Attribute, and at most how many of one value of it. */
  maxPer?: Record<string, number> | null;
  /**
   * How much less one counts the more it is like those before it: 0 for the order of score, 1 for likeness alone; 0 by
   * default.
   */
  diversity?: number;
  /**
   * Compare the vectors as they are, only rows with interactions, or vectors from attributes alone, which needs a
   * version with content; "blend" by default.
   */
  by?: "blend" | "behaviour" | "content";
  userIds: readonly Id[];
}

export interface RankRequest {
  modelName: string;
  /** Whether to return the attributes with each result; false by default. */
  returnMetadata?: boolean;
  /** The attributes to return with each result. */
  fields?: readonly string[];
  /** How many results, best first; 10 by default. */
  limit?: number;
  /**
   * Condition on attributes, as in SQL: =, !=, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE 'start%', CONTAINS 'part', AND,
   * OR, NOT.
   */
  filter?: string | null;
  /**
   * A loaded version to ask instead of the live one: its name, `latest` for the newest on the service's disk, or
   * `previous` for the one before that.
   */
  version?: string;
  /** Ids to leave out; with `rank` in addition to seen items. */
  excludeIds?: readonly Id[] | null;
  /** The final score is the score plus the weights of all boosts that a result passes. */
  boosts?: readonly Boost[] | null;
  /** How many of the first to skip; 0 by default. */
  offset?: number;
  /** Attribute, and at most how many of one value of it. */
  maxPer?: Record<string, number> | null;
  /**
   * How much less one counts the more it is like those before it: 0 for the order of score, 1 for likeness alone; 0 by
   * default.
   */
  diversity?: number;
  /**
   * Whether to leave out items that the user interacted with in training, or the visitor did. True by default, unless
   * `itemIds` is given.
   */
  excludeSeen?: boolean | null;
  /** Rank only these items. */
  itemIds?: readonly Id[] | null;
  /**
   * What someone without an embedding gets: no results, or items by their number of interactions in training, which is
   * then their score; "none" by default.
   */
  fallback?: "popular" | "recent" | "none";
  /** The user to rank for. */
  userId?: Id;
  /** Or all interactions of a visitor without an id. Unknown items are in `missing`. */
  interactions?: readonly Interaction[];
  /**
   * Whether each result says `because`: the items of the user or visitor that add most to its score. It needs a version
   * of a trainer that can say so exactly, such as als or svd; false by default.
   */
  explain?: boolean;
}

/** An interaction of a visitor with an item. */
export interface Interaction {
  itemId: Id;
  /** Weight of such an interaction in training; 1 by default. */
  weight?: number;
}

export interface RankingAnswer {
  model: string;
  version: string;
  /** The version's vector space: a `vector` of a request has to be of it. */
  space: string;
  /** `limit` results, or fewer if fewer match. */
  results: RankedItem[];
  /** Ids of the request that have no embedding, users or items. */
  missing: Id[];
  /** How someone without an embedding was answered, if a fallback was requested; else null. */
  fallback: "popular" | "recent" | null;
}

export interface RankedItem {
  id: Id;
  /** Higher is better. */
  score: number;
  /** The attributes, if requested. */
  metadata?: Attributes | null;
  /** If requested, at most 3 items that add most to the score, the most first. */
  because?: ReasonRow[] | null;
}

export interface ReasonRow {
  /** An item of the user or visitor. */
  id: Id;
  /** To the score of the result, in units of the score. */
  adds: number;
}

export interface BatchRankRequest {
  modelName: string;
  /** Whether to return the attributes with each result; false by default. */
  returnMetadata?: boolean;
  /** The attributes to return with each result. */
  fields?: readonly string[];
  /** How many results, best first; 10 by default. */
  limit?: number;
  /**
   * Condition on attributes, as in SQL: =, !=, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE 'start%', CONTAINS 'part', AND,
   * OR, NOT.
   */
  filter?: string | null;
  /**
   * A loaded version to ask instead of the live one: its name, `latest` for the newest on the service's disk, or
   * `previous` for the one before that.
   */
  version?: string;
  /** Ids to leave out; with `rank` in addition to seen items. */
  excludeIds?: readonly Id[] | null;
  /** The final score is the score plus the weights of all boosts that a result passes. */
  boosts?: readonly Boost[] | null;
  /** How many of the first to skip; 0 by default. */
  offset?: number;
  /** Attribute, and at most how many of one value of it. */
  maxPer?: Record<string, number> | null;
  /**
   * How much less one counts the more it is like those before it: 0 for the order of score, 1 for likeness alone; 0 by
   * default.
   */
  diversity?: number;
  /**
   * Whether to leave out items that the user interacted with in training, or the visitor did. True by default, unless
   * `itemIds` is given.
   */
  excludeSeen?: boolean | null;
  /** Rank only these items. */
  itemIds?: readonly Id[] | null;
  /**
   * What someone without an embedding gets: no results, or items by their number of interactions in training, which is
   * then their score; "none" by default.
   */
  fallback?: "popular" | "recent" | "none";
  /** The users. */
  userIds?: readonly Id[];
  /** Or the interactions of each of many visitors. */
  interactions?: readonly (readonly Interaction[])[];
}

export interface SearchRequest {
  modelName: string;
  /** Whether to return the attributes with each result; false by default. */
  returnMetadata?: boolean;
  /** The attributes to return with each result. */
  fields?: readonly string[];
  /** How many results, best first; 10 by default. */
  limit?: number;
  /**
   * Condition on attributes, as in SQL: =, !=, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE 'start%', CONTAINS 'part', AND,
   * OR, NOT.
   */
  filter?: string | null;
  /**
   * A loaded version to ask instead of the live one: its name, `latest` for the newest on the service's disk, or
   * `previous` for the one before that.
   */
  version?: string;
  /** What to look for: at least one word. */
  text: string;
  /** The user to find items for. */
  userId?: Id | null;
}

/** Items, best first; a score is the sum of 1 / (60 + place) over the places. */
export interface SearchAnswer {
  model: string;
  version: string;
  /** `limit` results, or fewer if fewer match. */
  results: FoundItem[];
  /** The user, if it has no embedding; the answer is then without it. */
  missing: Id[];
}

export interface FoundItem {
  id: Id;
  /** Higher is better. */
  score: number;
  /** The attributes, if requested. */
  metadata?: Attributes | null;
  places: Places;
}

/** The place from 1 in each ranking that has the item. */
export interface Places {
  /** By the words of the text. */
  words?: number | null;
  /** By what the text says as content. */
  content?: number | null;
  /** By the score for the user, among the items of the others. */
  user?: number | null;
}

export interface AudienceRequest {
  modelName: string;
  /** Whether to return the attributes with each result; false by default. */
  returnMetadata?: boolean;
  /** The attributes to return with each result. */
  fields?: readonly string[];
  /** How many results, best first; 10 by default. */
  limit?: number;
  /**
   * Condition on attributes, as in SQL: =, !=, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE 'start%', CONTAINS 'part', AND,
   * OR, NOT.
   */
  filter?: string | null;
  /**
   * A loaded version to ask instead of the live one: its name, `latest` for the newest on the service's disk, or
   * `previous` for the one before that.
   */
  version?: string;
  /** Whether to leave out users who interacted with the item in training; true by default. */
  excludeSeen?: boolean;
  /** The item to find users for. */
  itemId?: Id;
  /** Or the users to find similar users for. */
  userIds?: readonly Id[];
}

export interface BatchAudienceRequest {
  modelName: string;
  /** Whether to return the attributes with each result; false by default. */
  returnMetadata?: boolean;
  /** The attributes to return with each result. */
  fields?: readonly string[];
  /** How many results, best first; 10 by default. */
  limit?: number;
  /**
   * Condition on attributes, as in SQL: =, !=, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE 'start%', CONTAINS 'part', AND,
   * OR, NOT.
   */
  filter?: string | null;
  /**
   * A loaded version to ask instead of the live one: its name, `latest` for the newest on the service's disk, or
   * `previous` for the one before that.
   */
  version?: string;
  /** Whether to leave out users who interacted with the item in training; true by default. */
  excludeSeen?: boolean;
  itemIds: readonly Id[];
}

export interface RetrieveRequest {
  modelName: string;
  /** Whether to return the attributes with each result; true by default. */
  returnMetadata?: boolean;
  /** The attributes to return with each result. */
  fields?: readonly string[];
  entity: "user" | "item";
  /**
   * Condition on attributes, as in SQL: =, !=, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE 'start%', CONTAINS 'part', AND,
   * OR, NOT.
   */
  filter?: string | null;
  /** How many results, best first; 100 by default. */
  limit?: number;
  /** `nextCursor` of the previous page. */
  cursor?: string | null;
  /** Whether to return the vectors with each row; false by default. */
  returnEmbeddings?: boolean;
}

/** One page of a listing; all pages are of one version. */
export interface PageAnswer {
  model: string;
  version: string;
  rows: PageRow[];
  /** Cursor of the next page; null after the last. */
  nextCursor: string | null;
}

export interface PageRow {
  id: Id;
  /** Whether the other answers leave it out. */
  hidden: boolean;
  metadata?: Attributes | null;
  vector?: Float32Array | null;
}

export interface EventsRequest {
  modelName: string;
  interactions: readonly UserEvent[];
}

/** What a user did. */
export interface UserEvent {
  userId: Id;
  itemId: Id;
  /** Weight on the scale of training; 1 by default. */
  weight?: number;
  /** When, in ISO 8601 with a zone; now by default. */
  timestamp?: string | null;
  /** An event whose id is there already is not added again, so that a retry is safe. */
  eventId?: string | null;
  /**
   * Its type, which has to have a weight in the training of the live version, and multiplies `weight`. Of a type that
   * weighs 0 nothing is added.
   */
  event?: string | null;
}

export interface AddedAnswer {
  model: string;
  added: number;
  /** Events whose id was there already. */
  duplicates: number;
  /** Events of a type that weighs 0, which are not added. */
  withoutWeight: number;
}

export interface NewItemsRequest {
  modelName: string;
  items: readonly NewItem[];
}

/** An item that the training did not know. */
export interface NewItem {
  itemId: Id;
  /** Its attributes, under the names and with the types of the training. */
  metadata: Attributes;
}

export interface NewItemsAnswer {
  model: string;
  version: string;
  added: number;
}

export interface ChangedItemsRequest {
  modelName: string;
  items: readonly ChangedItem[];
}

/** An item, and the attributes to set. */
export interface ChangedItem {
  itemId: Id;
  /** Attributes of the training to set; null sets a null, a time is text in ISO 8601. */
  metadata: Attributes;
}

export interface AttributesSetAnswer {
  model: string;
  /** The live version, which has the values now. */
  version: string;
  /** Users that had attributes set. */
  users: number;
  /** Items that had attributes set. */
  items: number;
  /** Ids that the live version does not have. */
  nUnknown: number;
  /** The first of them, at most 10. */
  unknown: Id[];
}

export interface ChangedUsersRequest {
  modelName: string;
  users: readonly ChangedUser[];
}

/** A user, and the attributes to set. */
export interface ChangedUser {
  userId: Id;
  /** Attributes of the training to set; null sets a null, a time is text in ISO 8601. */
  metadata: Attributes;
}

export interface ForgetRequest {
  modelName: string;
  /** The users to forget. */
  userIds?: readonly Id[];
  /** The items to forget. */
  itemIds?: readonly Id[];
}

export interface ForgottenAnswer {
  model: string;
  /** Versions on disk that changed. */
  versions: string[];
  /** Collections in Qdrant, live or kept, that changed. */
  collections: string[];
  /** Points removed from them. */
  points: number;
  /** Lists of seen items that changed in them. */
  lists: number;
  /** Recorded interactions removed. */
  events: number;
}

export interface HiddenRequest {
  modelName: string;
  /** The users. */
  userIds?: readonly Id[];
  /** The items. */
  itemIds?: readonly Id[];
}

export interface VisibilityAnswer {
  model: string;
  /** Users that were not so before. */
  users: number;
  /** Items that were not so before. */
  items: number;
  /** Ids that the live version does not have; a later one may. */
  nUnknown: number;
  /** The first of them, at most 10. */
  unknown: Id[];
}

export interface PublishRequest {
  modelName: string;
  /** The version to make live. */
  version?: string | null;
}

export interface PublishAnswer {
  model: string;
  version: string;
  /** False if it was live already. */
  changed: boolean;
}
