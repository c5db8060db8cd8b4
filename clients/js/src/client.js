import { ENDPOINTS } from "./endpoints.js";
import { EmbeddingConnectionError, EmbeddingServiceError, EmbeddingTimeoutError } from "./errors.js";
import { fromJson, toJson } from "./wire.js";

// Busy, restarting, or behind a proxy that found no server. Not 504: that request used all its time.
const TRANSIENT = new Set([429, 502, 503]);
const FIRST_WAIT = 100;
const LONGEST_WAIT = 5_000;

/** Asks an embedding service. What its methods take and give is in index.d.ts. */
export class EmbeddingClient {
  #address;
  #headers;
  #timeout;
  #retries;
  #fetch;

  constructor(address, { apiKey, timeout = 30_000, retries = 3, fetch = globalThis.fetch } = {}) {
    this.#address = String(address).replace(/\/+$/, "");
    if (!/^https?:$/.test(new URL(this.#address).protocol)) {
      throw new TypeError(`expected an http or https address of the service, got ${address}`);
    }
    if (apiKey !== undefined && !/^[\x21-\x7e]+$/.test(apiKey)) {
      // Refused here, as fetch would show it in its error.
      throw new TypeError("apiKey: expected visible ASCII characters, without spaces and line ends");
    }
    this.#headers = apiKey === undefined ? {} : { Authorization: `Bearer ${apiKey}` };
    this.#timeout = timeout;
    this.#retries = retries;
    this.#fetch = fetch;
  }

  static {
    for (const [name, endpoint] of Object.entries(ENDPOINTS)) {
      const ask = function (request = {}, options = {}) {
        return this.#ask(endpoint, request, options);
      };
      Object.defineProperty(this.prototype, name, { value: ask, writable: true, configurable: true });
    }
  }

  async #ask({ method, path, body, repeatable = true }, { modelName, ...request }, { signal, headers, timeout = this.#timeout }) {
    if (path.includes("{model}") && typeof modelName !== "string") {
      throw new TypeError(`modelName: expected the name of a model, got ${modelName}`);
    }
    if (path.includes("{entity}") && !["user", "item"].includes(request.entity)) {
      throw new TypeError(`entity: expected "user" or "item", got ${request.entity}`);
    }
    const named = path.replace("{model}", () => encodeURIComponent(modelName)).replace("{entity}", () => request.entity);
    const url = this.#address + named;
    const sent = { method, headers: { ...headers, ...this.#headers }, redirect: "error" };
    if (method !== "GET") {
      sent.headers["Content-Type"] = "application/json";
      sent.body = toJson({ ...body, ...request });
    }
    for (let attempt = 0; ; attempt++) {
      const { answer, error, wait } = await this.#once(url, sent, timeout, signal);
      if (error === undefined) {
        return fromJson(answer);
      }
      if (wait === undefined || attempt >= this.#retries || !repeatable) {
        throw error;
      }
      const backoff = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** attempt) + FIRST_WAIT * Math.random();
      await sleep(Math.max(wait, backoff), signal);
    }
  }

  /** One try: its answer, or its error and, if that may pass, how many milliseconds the service wants to be left alone. */
  async #once(url, sent, timeout, signal) {
    signal?.throwIfAborted();
    const controller = new AbortController();
    const stop = () => controller.abort();
    const timer = setTimeout(stop, timeout);
    signal?.addEventListener("abort", stop);
    try {
      // Not as a method: a browser's fetch refuses to be one of anything but the window.
      const fetch = this.#fetch;
      const response = await fetch(url, { ...sent, signal: controller.signal });
      const answer = await response.text();
      if (response.ok) {
        return { answer };
      }
      const error = EmbeddingServiceError.ofAnswer(response.status, answer, response.headers.get("x-request-id"));
      const after = Math.min(LONGEST_WAIT, 1000 * Number(response.headers.get("retry-after"))) || 0;
      return { error, wait: TRANSIENT.has(response.status) ? after : undefined };
    } catch (cause) {
      signal?.throwIfAborted();
      if (controller.signal.aborted) {
        return { error: new EmbeddingTimeoutError(`the embedding service did not answer in ${timeout} ms`, { cause }) };
      }
      const reason = cause.cause?.message || cause.message;
      return { error: new EmbeddingConnectionError(`the embedding service did not answer: ${reason}`, { cause }), wait: 0 };
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }
}

function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
