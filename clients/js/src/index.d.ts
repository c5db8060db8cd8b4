/** An id keeps its type. Whole numbers beyond 2^53 are BigInt, in requests and in answers. */
export type Id = string | number | bigint;

/** What came along with a user or an item at training; times are text, ISO 8601. */
export type Attributes = Record<string, unknown>;

export interface ClientOptions {
  /** Sent with each request, and in no message. */
  apiKey?: string;
  /** Milliseconds for one try; 30,000 by default. */
  timeout?: number;
  /** Repetitions of a request that failed for a reason that may pass: no connection, 429, 502, 503. 3 by default. */
  retries?: number;
  /** Instead of the global one. */
  fetch?: typeof globalThis.fetch;
}

export interface CallOptions {
  /** Ends the request, its repetitions included; the promise is then rejected with the signal's reason. */
  signal?: AbortSignal;
  /** Milliseconds for one try, instead of the client's. */
  timeout?: number;
}

/** The service refused a request, could not answer it, or could not be reached. */
export class EmbeddingServiceError extends Error {
  /** Of HTTP; null when there was no answer. */
  readonly status: number | null;
  /** The kind of problem. */
  readonly title: string;
  /** What went wrong. */
  readonly detail: string;
  /** Of a 413 or 422, what is wrong by field of the request, as the service names it: `user_ids`, `filter`. */
  readonly errors: Record<string, string>;
  /** Under which the service has logged the request. */
  readonly requestId: string | null;
}

/** There was no answer; `cause` is what fetch threw. */
export class EmbeddingConnectionError extends EmbeddingServiceError {}

/** There was no answer in time. */
export class EmbeddingTimeoutError extends EmbeddingConnectionError {}

/**
 * Asks an embedding service, from Node 20 or a browser.
 *
 * Every method rejects with an `EmbeddingServiceError` when the service refuses or does not answer, and with a
 * `TypeError` when a request cannot be sent. A request that failed for a reason that may pass is repeated after 0.1 s,
 * 0.2 s, 0.4 s …, or when the service says, if within 5 s; `rollback` is not, as it would go back once more.
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
  /** The embeddings of users, in the order of the request. */
  createUserEmbedding(request: UserEmbeddingRequest, options?: CallOptions): Promise<EmbeddingAnswer>;
  /** The embeddings of items, in the order of the request. */
  createItemEmbedding(request: ItemEmbeddingRequest, options?: CallOptions): Promise<EmbeddingAnswer>;
  /** The items nearest to an item by cosine, without itself. */
  similarItems(request: SimilarItemsRequest, options?: CallOptions): Promise<NeighboursAnswer>;
  /** `similarItems` for each of many items. */
  similarItemsBatch(request: BatchSimilarItemsRequest, options?: CallOptions): Promise<BatchAnswer>;
  /** The users nearest to a user by cosine, without the user. */
  similarUsers(request: SimilarUsersRequest, options?: CallOptions): Promise<NeighboursAnswer>;
  /** `similarUsers` for each of many users. */
  similarUsersBatch(request: BatchSimilarUsersRequest, options?: CallOptions): Promise<BatchAnswer>;
  /** The items with the highest score for a user, or for a visitor without an id; with `itemIds`, these reranked. */
  rank(request: RankRequest, options?: CallOptions): Promise<NeighboursAnswer>;
  /** `rank` for each of many users. */
  rankBatch(request: BatchRankRequest, options?: CallOptions): Promise<BatchAnswer>;
  /** The users with the highest score for an item (`itemId`), or those most like a set of users (`userIds`). */
  usersForItem(request: AudienceRequest, options?: CallOptions): Promise<NeighboursAnswer>;
  /** `usersForItem` for each of many items. */
  usersForItemBatch(request: BatchAudienceRequest, options?: CallOptions): Promise<BatchAnswer>;
  /** A page of the users or items that pass a filter; `cursor` gets the next one. */
  retrieve(request: RetrieveRequest, options?: CallOptions): Promise<PageAnswer>;
  /** Make a version live, the newest by default; needs a key that may write. */
  publish(request: PublishRequest, options?: CallOptions): Promise<PublishAnswer>;
  /** Make an older version live again, the one before the live one by default; needs a key that may write. */
  rollback(request: PublishRequest, options?: CallOptions): Promise<PublishAnswer>;
}

export interface VersionsRequest {
  modelName: string;
}

export interface UserEmbeddingRequest {
  modelName: string;
  userIds: readonly Id[];
}

export interface ItemEmbeddingRequest {
  modelName: string;
  itemIds: readonly Id[];
}

export interface Query {
  modelName: string;
  /** How many results, best first; 10 by default. */
  limit?: number;
  /** Condition on attributes, as in SQL: `category = 'Books' AND price < 20`. */
  filter?: string | null;
  /** Whether the attributes come with each result. */
  returnMetadata?: boolean;
}

export interface SimilarItemsRequest extends Query {
  itemId: Id;
}

export interface BatchSimilarItemsRequest extends Query {
  itemIds: readonly Id[];
}

export interface SimilarUsersRequest extends Query {
  userId: Id;
}

export interface BatchSimilarUsersRequest extends Query {
  userIds: readonly Id[];
}

export interface RankQuery extends Query {
  /** Whether items that the user or visitor interacted with are left out; by default unless `itemIds` is given. */
  excludeSeen?: boolean | null;
  /** Rank these items only. */
  itemIds?: readonly Id[] | null;
}

export interface RankRequest extends RankQuery {
  /** The user to rank for. */
  userId?: Id;
  /** Or what a visitor without an id did. Items that are not known are in `missing`. */
  interactions?: readonly Interaction[];
}

export interface BatchRankRequest extends RankQuery {
  userIds?: readonly Id[];
  /** Or what each of many visitors did; their ids in the answer are their places, from 0. */
  interactions?: readonly (readonly Interaction[])[];
}

export interface Interaction {
  itemId: Id;
  /** As training weighed such an interaction; 1 by default. */
  weight?: number;
}

export interface AudienceQuery extends Query {
  /** Whether users who interacted with the item in training are left out; by default they are. */
  excludeSeen?: boolean;
}

export interface AudienceRequest extends AudienceQuery {
  /** The item to find users for. */
  itemId?: Id;
  /** Or the users to find others like. */
  userIds?: readonly Id[];
}

export interface BatchAudienceRequest extends AudienceQuery {
  itemIds: readonly Id[];
}

export interface RetrieveRequest {
  modelName: string;
  entity: "user" | "item";
  /** As of `Query`. */
  filter?: string | null;
  /** Rows of a page; 100 by default. */
  limit?: number;
  /** `nextCursor` of the page before. */
  cursor?: string | null;
  /** Whether the attributes come with each row; by default they do. */
  returnMetadata?: boolean;
  /** Whether the vectors come with each row. */
  returnEmbeddings?: boolean;
}

export interface PublishRequest {
  modelName: string;
  version?: string | null;
}

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
  /** Whether it is in the vector store, so that going back to it takes no loading. */
  loaded: boolean;
  asOf: string;
  space: string;
  /** null where the service does not have the files of the version. */
  training: Training | null;
}

/** How a version was made, and how good it is. */
export interface Training {
  trainer: string;
  createdAt: string;
  dim: number;
  nUsers: number;
  nItems: number;
  nInteractions: number;
  /** Ranking quality on interactions that were held back, and `popular_…`: that of the most popular items. */
  metrics: Record<string, number>;
  /** Which interactions those were; empty when there were none. */
  evaluatedOn: string;
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

/** Results, best first. */
export interface NeighboursAnswer {
  model: string;
  version: string;
  /** As many as `limit` when so many match. */
  results: Result[];
  /** Ids of the request that have no embedding. */
  missing: Id[];
}

export interface Result {
  id: Id;
  /** Higher is better. */
  score: number;
  /** The attributes, when asked for. */
  metadata?: Attributes | null;
}

/** Results in the order of the request, all of one version. */
export interface BatchAnswer {
  model: string;
  version: string;
  answers: BatchResult[];
  missing: Id[];
}

export interface BatchResult {
  id: Id;
  /** null for an id that has no embedding. */
  results: Result[] | null;
}

/** One page of a listing; all pages are of one version. */
export interface PageAnswer {
  model: string;
  version: string;
  rows: PageRow[];
  /** Gets the next page; null after the last. */
  nextCursor: string | null;
}

export interface PageRow {
  id: Id;
  metadata?: Attributes | null;
  vector?: Float32Array | null;
}

export interface PublishAnswer {
  model: string;
  version: string;
  /** False when it was live already. */
  changed: boolean;
}
