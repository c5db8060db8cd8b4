/** Against a real service: its answers are those of the Python library, which wrote what it expects into a file. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { EmbeddingClient, EmbeddingServiceError } from "feast-embeddings";

const { FEAST_EMBEDDINGS_ADDRESS: address, FEAST_EMBEDDINGS_KEY: apiKey, FEAST_EMBEDDINGS_EXPECTED: file } = process.env;
const skip = address === undefined && "FEAST_EMBEDDINGS_ADDRESS is not set; tests/client/test_js_client.py sets it";
const modelName = "shop";

const seen = new Set();
const client = skip
  ? undefined
  : new EmbeddingClient(address, {
      apiKey,
      fetch: (url, sent) => {
        const path = url.slice(address.length).replace("/shop", "/{model}").replace(/\/map\/(item|user)$/, "/map/{entity}");
        seen.add(`${sent.method} ${path}`);
        return fetch(url, sent);
      },
    });
const expected = skip ? {} : JSON.parse(await readFile(file, "utf8"));

const base64 = (vector) => vector && Buffer.from(vector.buffer).toString("base64");

test("vectors are the trained ones, aligned with the ids", { skip }, async () => {
  for (const [method, ids] of [
    ["createUserEmbedding", { userIds: ["u-2", "no-user", "u-0", "u-2"] }],
    ["createItemEmbedding", { itemIds: ["sku-2", "nothing"] }],
  ]) {
    const { embeddings, ...answer } = await client[method]({ modelName, ...ids });
    const found = embeddings.map(({ id, vector, eventTimestamp }) => ({ id, vector: base64(vector), eventTimestamp }));
    assert.deepEqual({ ...answer, embeddings: found }, expected[method]);
    assert.deepEqual(new Set(embeddings.map((row) => row.version)), new Set([answer.version]));
  }
});

test("neighbours, rankings and audiences are the library's", { skip }, async () => {
  const questions = {
    similarItems: { itemId: "sku-3", filter: "price < 20" },
    similarUsers: { userId: "u-3" },
    rank: { userId: "u-3" },
    usersForItem: { itemId: "sku-3", excludeSeen: false },
  };
  for (const [method, question] of Object.entries(questions)) {
    const answer = await client[method]({ modelName, limit: 7, returnMetadata: true, ...question });
    assert.deepEqual(answer, expected[method]);

    const { itemId, userId, ...more } = question;
    const ids = itemId ? { itemIds: [itemId, "no-user"] } : { userIds: [userId, "no-user"] };
    const batch = await client[`${method}Batch`]({ modelName, limit: 7, returnMetadata: true, ...ids, ...more });
    assert.deepEqual(batch.answers, [
      { id: itemId ?? userId, results: answer.results, fallback: null },
      { id: "no-user", results: null, fallback: null },
    ]);
    assert.deepEqual(batch.missing, ["no-user"]);
  }
  const reranked = await client.rank({ modelName, userId: "u-3", itemIds: ["sku-3", "sku-9", "x"] });
  assert.deepEqual(reranked.results.map((row) => row.id).sort(), ["sku-3", "sku-9"]);
  assert.deepEqual(reranked.missing, ["x"]);
  const shaped = await client.rank({
    modelName,
    userId: "stranger",
    limit: 5,
    returnMetadata: true,
    excludeIds: ["sku-39"],
    offset: 1,
    boosts: [{ filter: "category = 'Books'", weight: 0.7 }],
    maxPer: { category: 3 },
    diversity: 0.3,
    fallback: "popular",
  });
  assert.deepEqual(shaped, expected.shaped);
  assert.equal(shaped.fallback, "popular");
  // The shop is not of a trainer that folds in.
  await assert.rejects(client.rank({ modelName, userId: "u-3", explain: true }), (error) => error.status === 409);
  const alike = await client.usersForItem({ modelName, userIds: ["u-1", "u-2"], limit: 3 });
  assert.deepEqual(alike.results.map((row) => row.id), expected.lookalikeUsers);
});

test("a search by text of a model without content says what is missing", { skip }, async () => {
  await assert.rejects(client.search({ modelName, text: "red lamp", userId: "u-1", limit: 3 }), (error) => {
    assert.equal(error.status, 422);
    assert.match(error.errors.text, /was trained without content/);
    return true;
  });
});

test("a listing, page by page, with vectors", { skip }, async () => {
  const rows = [];
  let cursor;
  do {
    const page = await client.retrieve({ modelName, entity: "item", limit: 15, cursor, returnEmbeddings: true });
    rows.push(...page.rows);
    cursor = page.nextCursor;
  } while (cursor !== null);
  const found = Object.fromEntries(rows.map((row) => [row.id, [row.metadata.title, base64(row.vector)]]));
  assert.deepEqual(found, expected.items);
  const bare = await client.retrieve({ modelName, entity: "user", returnMetadata: false });
  assert.deepEqual(Object.keys(bare.rows[0]), ["id", "hidden"]);
});

test("what users did, once for each event id", { skip }, async () => {
  const event = { userId: "u-1", itemId: "sku-1", timestamp: "2020-01-01T00:00:00Z", eventId: "from-javascript" };
  const { added, duplicates } = await client.addInteractions({ modelName, interactions: [event, event] });
  assert.equal(added + duplicates, 2);
  assert(added <= 1);
  await assert.rejects(client.addInteractions({ modelName, interactions: [{ userId: "u-1" }] }), { status: 422 });
});

test("new items by their attributes, if the training knew content", { skip }, async () => {
  const items = [{ itemId: "sku-new", metadata: { title: "new", listPrice: 1 } }];
  await assert.rejects(client.addItems({ modelName, items }), (error) => /without content/.test(error.detail));
});

test("attributes of items and users", { skip }, async () => {
  const items = [{ itemId: "nothing", metadata: { price: 9.5 } }];
  const { nUnknown, unknown } = await client.setItemAttributes({ modelName, items });
  assert.deepEqual([nUnknown, unknown], [1, ["nothing"]]);
  const users = [{ userId: "no-one", metadata: { country: null } }];
  assert.deepEqual((await client.setUserAttributes({ modelName, users })).unknown, ["no-one"]);
  users[0].metadata = { nothing: 1 };
  await assert.rejects(client.setUserAttributes({ modelName, users }), (error) => /have no attribute/.test(error.detail));
});

test("forgetting, which can be repeated", { skip }, async () => {
  const { points, versions } = await client.forget({ modelName, userIds: ["no-one"], itemIds: ["nothing"] });
  assert.deepEqual([points, versions], [0, []]);
  await assert.rejects(client.forget({ modelName }), { status: 422 });
});

test("like examples, like a vector, of a named version, with some attributes", { skip }, async () => {
  const asked = { modelName, limit: 3, version: expected.version, fields: ["title"] };
  const { embeddings } = await client.createItemEmbedding({ modelName, itemIds: ["sku-1"] });
  const { results, space } = await client.similarItems({ ...asked, vector: embeddings[0].vector });
  assert.deepEqual([results[0].id, Object.keys(results[0].metadata), typeof space], ["sku-1", ["title"], "string"]);
  const like = await client.similarItems({ ...asked, positive: ["sku-1", "nothing"], negative: ["sku-2"] });
  assert.deepEqual([like.results.length, like.missing], [3, ["nothing"]]);
  await assert.rejects(client.similarItems({ ...asked, vector: [1, 2] }), (error) => "vector" in error.errors);
  await assert.rejects(client.rank({ modelName, userId: "u-1", version: "1" }), (error) => "version" in error.errors);
});

test("an item out of sale, and back", { skip }, async () => {
  const first = async () => (await client.similarItems({ modelName, itemId: "sku-1", limit: 1 })).results[0].id;
  const best = await first();
  const { items, users, nUnknown } = await client.hide({ modelName, itemIds: [best], userIds: ["no-one"] });
  assert.deepEqual([items, users, nUnknown], [1, 1, 1]);
  assert.notEqual(await first(), best);
  const { rows } = await client.retrieve({ modelName, entity: "item", limit: 100 });
  assert.deepEqual(rows.filter((row) => row.hidden).map((row) => row.id), [best]);
  assert.equal((await client.unhide({ modelName, itemIds: [best], userIds: ["no-one"] })).items, 1);
  assert.equal(await first(), best);
});

test("models, versions, and what makes them live", { skip }, async () => {
  const { models } = await client.models();
  assert.deepEqual(models.map((model) => [model.name, model.liveVersion]), [["shop", expected.version]]);
  const { versions, liveVersion } = await client.versions({ modelName });
  assert.deepEqual([versions[0].version, versions[0].live, liveVersion], [expected.version, true, expected.version]);
  assert.deepEqual(versions[0].training.metrics, expected.metrics);
  await assert.rejects(client.map({ modelName, entity: "item" }), (error) => /map --entity item --save/.test(error.detail));
  await assert.rejects(client.map({ modelName, entity: "../rank" }), TypeError);
  assert.equal((await client.publish({ modelName })).changed, false);
  await assert.rejects(client.rollback({ modelName }), { status: 422 });
});

test("a refusal names the field, and a wrong key is refused", { skip }, async () => {
  await assert.rejects(client.similarItems({ modelName, itemId: "sku-1", filter: "colour = 'red'" }), (error) => {
    assert(error instanceof EmbeddingServiceError);
    assert.deepEqual([error.status, Object.keys(error.errors)], [422, ["filter"]]);
    assert.match(error.detail, /there is no feature 'colour'/);
    assert.match(error.requestId, /^[0-9a-f]{32}$/);
    return true;
  });
  await assert.rejects(new EmbeddingClient(address, { apiKey }).versions({ modelName: "shoe" }), { status: 404 });
  await assert.rejects(client.rank({ modelName, userId: "u-1", k: 5 }), (error) => "k" in error.errors);
  await assert.rejects(new EmbeddingClient(address, { apiKey: `${apiKey}x` }).models(), { status: 401 });
});

test("all that the service documents was asked", { skip }, async () => {
  const { paths } = await (await fetch(`${address}/openapi.json`)).json();
  const documented = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  assert.deepEqual([...seen].sort(), documented.filter((request) => request.includes(" /v1/")).sort());
});
