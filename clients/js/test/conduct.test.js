/** What the client does when all is not well, against a server of this process that answers as it is told. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";

import {
  EmbeddingClient,
  EmbeddingConnectionError,
  EmbeddingServiceError,
  EmbeddingTimeoutError,
} from "feast-embeddings";

const KEY = "fe_secret";
const MODELS = { models: [] };

let address;
let answers; // what to do with each request in turn; then MODELS
let requests;

const server = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) {
    body += chunk;
  }
  requests.push({ method: request.method, url: request.url, headers: request.headers, body });
  const answer = answers.length ? answers.shift() : 200;
  if (answer === "hang up") {
    request.socket.destroy();
  } else if (answer !== "say nothing") {
    const { status, headers = {}, text = JSON.stringify(MODELS) } = typeof answer === "number" ? { status: answer } : answer;
    response.writeHead(status, headers).end(text);
  }
});

before(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  address = `http://127.0.0.1:${server.address().port}`;
});

after(() => {
  server.closeAllConnections();
  server.close();
});

beforeEach(() => {
  answers = [];
  requests = [];
});

const client = (options) => new EmbeddingClient(address, { apiKey: KEY, ...options });

/** A client whose fetch gives these answers, a status or an error each, and what it waited for between tries. */
function waiting(context, answers, options) {
  const waits = [];
  const { setTimeout } = globalThis;
  context.mock.method(globalThis, "setTimeout", (call, milliseconds) => {
    if (milliseconds === 30_000) {
      return setTimeout(call, milliseconds); // the time for one try
    }
    waits.push(milliseconds);
    return setTimeout(call, 0);
  });
  const fetch = async () => {
    const { status = 200, headers, error } = answers.shift() ?? {};
    if (error) {
      throw error;
    }
    return new Response(JSON.stringify(MODELS), { status, headers });
  };
  return { client: client({ fetch, ...options }), waits };
}

for (const passing of [429, 502, 503, new TypeError("fetch failed")]) {
  test(`${passing} is asked again`, async (context) => {
    const answers = Array(3).fill(passing instanceof Error ? { error: passing } : { status: passing });
    const { client, waits } = waiting(context, answers);
    assert.deepEqual(await client.models(), MODELS);
    assert.deepEqual(waits.map((wait) => Math.floor(wait / 100)), [1, 2, 4]);
  });
}

test("waits end somewhere, and are not all the same", async (context) => {
  const { client, waits } = waiting(context, Array(20).fill({ status: 503 }), { retries: 20 });
  await client.models();
  assert.equal(waits.length, 20);
  assert(Math.max(...waits) < 5_100);
  assert(new Set(waits.slice(10)).size > 1);
});

test("the service says when to come back", async (context) => {
  const answers = ["1", "86400", "soon"].map((after) => ({ status: 503, headers: { "Retry-After": after } }));
  const { client, waits } = waiting(context, answers);
  await client.models();
  assert.deepEqual(waits.slice(0, 2), [1_000, 5_000]);
  assert.equal(Math.floor(waits[2] / 100), 4);
});

test("at most as often as said", async () => {
  answers = Array(9).fill(503);
  await assert.rejects(client({ retries: 1 }).models(), { name: "EmbeddingServiceError", status: 503 });
  assert.equal(requests.length, 2);
  answers = Array(9).fill("hang up");
  await assert.rejects(client({ retries: 0 }).models(), (error) => {
    assert(error instanceof EmbeddingConnectionError);
    assert.equal(error.status, null);
    assert.match(error.message, /did not answer: (other side closed|read ECONNRESET|socket hang up)/);
    return true;
  });
  assert.equal(requests.length, 3);
});

for (const status of [400, 401, 403, 404, 409, 413, 422, 500, 504]) {
  test(`${status} is not asked again`, async () => {
    answers = [status];
    await assert.rejects(client().models(), { status });
    assert.equal(requests.length, 1);
  });
}

test("what would do more when asked twice is not asked again", async () => {
  answers = [503];
  await assert.rejects(client().rollback({ modelName: "shop" }), { status: 503 });
  assert.equal(requests.length, 1);
});

test("problem details become a typed error", async () => {
  const problem = {
    type: "about:blank",
    title: "A value cannot be used",
    status: 422,
    detail: "filter: there is no feature 'colour'",
    errors: [{ field: "filter", message: "there is no feature 'colour'" }],
  };
  const headers = { "Content-Type": "application/problem+json", "X-Request-Id": "4711" };
  answers = [{ status: 422, headers, text: JSON.stringify(problem) }];
  await assert.rejects(client().models(), (error) => {
    assert(error instanceof EmbeddingServiceError && !(error instanceof EmbeddingConnectionError));
    assert.equal(error.message, "HTTP 422: filter: there is no feature 'colour'");
    const { status, title, detail, errors, requestId } = error;
    assert.deepEqual(
      { status, title, detail, errors, requestId },
      { status: 422, title: problem.title, detail: problem.detail, errors: { filter: problem.errors[0].message }, requestId: "4711" },
    );
    return true;
  });
});

test("headers of the caller are sent, and not instead of the key", async () => {
  await client().models({}, { headers: { "X-Request-ID": "a-1", Authorization: "Bearer other" } });
  assert.equal(requests[0].headers["x-request-id"], "a-1");
  assert.equal(requests[0].headers.authorization, `Bearer ${KEY}`);
});

test("so does what a proxy sends instead of them", async () => {
  for (const text of ["<h1>Bad gateway</h1>", "", "null", "[1]", '{"errors": 5}']) {
    answers = [{ status: 500, text }];
    await assert.rejects(client().models(), { message: "HTTP 500: the embedding service gave no reason", errors: {} });
  }
});

test("a try that takes too long is not repeated", async () => {
  answers = ["say nothing"];
  await assert.rejects(client({ timeout: 50 }).models(), (error) => {
    assert(error instanceof EmbeddingTimeoutError);
    assert.equal(error.message, "the embedding service did not answer in 50 ms");
    return true;
  });
  answers = ["say nothing"];
  await assert.rejects(client().models({}, { timeout: 50 }), { name: "EmbeddingTimeoutError" });
  assert.equal(requests.length, 2);
});

test("the caller can end a request, and the wait before the next", async () => {
  const reason = new Error("no longer needed");
  const ended = new AbortController();
  ended.abort(reason);
  await assert.rejects(client().models({}, { signal: ended.signal }), reason);
  assert.equal(requests.length, 0);

  for (const answer of ["say nothing", { status: 503, headers: { "Retry-After": "5" } }]) {
    answers = [answer];
    const controller = new AbortController();
    const asked = client().models({}, { signal: controller.signal });
    setTimeout(() => controller.abort(reason), 50);
    await assert.rejects(asked, reason);
  }
  assert.equal(requests.length, 2);
});

test("the key is sent as a header, and is in no message", async () => {
  await client().models();
  assert.equal(requests[0].headers.authorization, `Bearer ${KEY}`);
  await new EmbeddingClient(address).models();
  assert.equal(requests[1].headers.authorization, undefined);
  const { inspect } = await import("node:util");
  assert(!inspect(client(), { showHidden: true, depth: 9 }).includes(KEY));
  await assert.rejects(new EmbeddingClient("http://127.0.0.1:1", { apiKey: KEY, retries: 0 }).models(), (error) => {
    assert(!inspect(error, { showHidden: true, depth: 9 }).includes(KEY));
    return true;
  });
  for (const wrong of [`${KEY}\n`, `${KEY}é`, "", " "]) {
    assert.throws(() => new EmbeddingClient(address, { apiKey: wrong }), (error) => {
      return error instanceof TypeError && !inspect(error).includes(KEY);
    });
  }
});

test("an answer that leads elsewhere is not followed", async () => {
  answers = [{ status: 302, headers: { Location: "/elsewhere" } }];
  await assert.rejects(client({ retries: 0 }).models(), EmbeddingConnectionError);
  assert.deepEqual(requests.map((request) => request.url), ["/v1/models"]);
});

test("names go out in snake_case, ids as they are, and nothing that was left out", async () => {
  const ids = ["a", 1, -9007199254740991, 9223372036854775807n, 'q"\\\u2028é'];
  answers = [{ status: 200, text: '{"embeddings": [], "missing": []}' }];
  await client().createUserEmbedding({ modelName: "a/b ?", userIds: ids });
  assert.equal(requests[0].url, "/v1/models/a%2Fb%20%3F/create_user_embedding");
  assert.equal(
    requests[0].body,
    '{"encoding":"base64","user_ids":["a",1,-9007199254740991,9223372036854775807,"q\\"\\\\\u2028é"]}',
  );
  await client().rank({ modelName: "shop", userId: 7n, filter: undefined, excludeSeen: null, itemIds: [1] });
  assert.equal(requests[1].body, '{"user_id":7,"exclude_seen":null,"item_ids":[1]}');
  await client().rank({ modelName: "shop", interactions: [{ itemId: "a" }, { itemId: "b", weight: 0.5 }] });
  assert.equal(requests[2].body, '{"interactions":[{"item_id":"a"},{"item_id":"b","weight":0.5}]}');
  await client().rank({ modelName: "shop", userId: 7, excludeIds: ["a"], maxPer: { shopShelf: 2 } });
  assert.equal(requests[3].body, '{"user_id":7,"exclude_ids":["a"],"max_per":{"shopShelf":2}}');
});

test("a number that is not what was meant is not sent", async () => {
  await assert.rejects(client().rank({ modelName: "shop", userId: 2 ** 53 }), /TypeError.*as BigInt/);
  await assert.rejects(client().rank({ userId: 1 }), /TypeError: modelName/);
  assert.throws(() => new EmbeddingClient("localhost:8080"), TypeError);
  assert.equal(requests.length, 0);
});

test("64-bit ids come back as they are, and what only looks like one too", async () => {
  const text = `{"model": "m", "rows": [
    {"id": 9223372036854775807, "metadata": {"seen_at": -9223372036854775808, "__proto__": 1, "at_most": 0.12345678901234567}},
    {"id": "bigint:9223372036854775807", "metadata": null},
    {"id": "1, 9223372036854775807 \\" 9223372036854775807", "vector": [0.1, 1e-3]},
    {"id": 9007199254740991}], "next_cursor": null}`;
  answers = [{ status: 200, text }];
  const { rows, nextCursor } = await client().retrieve({ modelName: "m", entity: "item" });
  assert.deepEqual(rows.map((row) => row.id), [
    9223372036854775807n,
    "bigint:9223372036854775807",
    '1, 9223372036854775807 " 9223372036854775807',
    9007199254740991,
  ]);
  assert.deepEqual(Object.entries(rows[0].metadata), [
    ["seen_at", -9223372036854775808n],
    ["__proto__", 1],
    ["at_most", 0.12345678901234567],
  ]);
  assert.deepEqual(rows[2].vector, Float32Array.of(0.1, 1e-3));
  assert.equal(nextCursor, null);
});

test("vectors are float32, bit for bit", async () => {
  const vector = Float32Array.of(1.1, -0, 3.4028234663852886e38, 1.401298464324817e-45, -7);
  const base64 = Buffer.from(vector.buffer).toString("base64");
  const text = JSON.stringify({ embeddings: [{ id: 1, vector: base64, as_of: "x" }, { id: 2, vector: null }], missing: [2] });
  answers = [{ status: 200, text }];
  const { embeddings, missing } = await client().createItemEmbedding({ modelName: "m", itemIds: [1, 2] });
  assert.deepEqual(embeddings, [
    { id: 1, vector, asOf: "x" },
    { id: 2, vector: null },
  ]);
  assert(Object.is(embeddings[0].vector[1], -0));
  assert.deepEqual(missing, [2]);
});
