/** The service refused a request, could not answer it, or could not be reached. */
export class EmbeddingServiceError extends Error {
  name = "EmbeddingServiceError";

  constructor(message, { status = null, title = "", detail = "", errors = {}, requestId = null, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.errors = errors;
    this.requestId = requestId;
  }

  /** From problem details (RFC 9457), or whatever a proxy sent instead. */
  static ofAnswer(status, text, requestId) {
    let problem = null;
    try {
      problem = JSON.parse(text);
    } catch {
      // Some HTML, or nothing.
    }
    const { title = "", detail = "", errors = [] } = problem !== null && typeof problem === "object" ? problem : {};
    const why = detail || title || "the embedding service gave no reason";
    const byField = Object.fromEntries((Array.isArray(errors) ? errors : []).map((e) => [e.field, e.message]));
    return new this(`HTTP ${status}: ${why}`, { status, title, detail, errors: byField, requestId });
  }
}

/** There was no answer. */
export class EmbeddingConnectionError extends EmbeddingServiceError {
  name = "EmbeddingConnectionError";
}

/** There was no answer in time. */
export class EmbeddingTimeoutError extends EmbeddingConnectionError {
  name = "EmbeddingTimeoutError";
}
