export { EmbeddingClient } from "./client.js";
export { EmbeddingConnectionError, EmbeddingServiceError, EmbeddingTimeoutError } from "./errors.js";
