// Not run: the TypeScript compiler reads it, and each line that it must refuse says so.

import { EmbeddingClient, EmbeddingServiceError, type Id } from "feast-embeddings";

const client = new EmbeddingClient("http://localhost:8080", { apiKey: "fe_…", timeout: 1_000, retries: 1 });

const { embeddings, missing } = await client.createUserEmbedding({ modelName: "shop", userIds: ["u-7", 8, 9n] });
const vectors: (Float32Array | null)[] = embeddings.map((row) => row.vector);
const unknown: Id[] = missing;

const { results } = await client.rank({ modelName: "shop", userId: "u-7", filter: "price < 20", returnMetadata: true });
const best: number | undefined = results[0]?.score;
const title: unknown = results[0]?.metadata?.["title"];

const { versions } = await client.versions({ modelName: "shop" }, { signal: AbortSignal.timeout(5_000) });
const recall: number | undefined = versions[0]?.training?.metrics["recall@20"];

try {
  await client.retrieve({ modelName: "shop", entity: "item" });
} catch (error) {
  if (error instanceof EmbeddingServiceError) {
    const field: string | undefined = error.errors["filter"];
    console.log(error.status, field);
  }
}

// @ts-expect-error: the name of the model is needed
await client.createItemEmbedding({ itemIds: ["sku-1"] });
// @ts-expect-error: one id, not many
await client.similarItems({ modelName: "shop", itemId: ["sku-1"] });
// @ts-expect-error: no such field
await client.rank({ modelName: "shop", userId: "u-7", k: 5 });
// @ts-expect-error: no such entity
await client.retrieve({ modelName: "shop", entity: "shop" });
// @ts-expect-error: the vector may be missing
embeddings[0].vector.length;

console.log(vectors, unknown, best, title, recall);
