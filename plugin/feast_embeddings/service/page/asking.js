/** Ask the service the question that the state of the page is. */

import { question } from "./state.js";

const silent = new Set(); // models with versions that cannot say why
const named = (state, version) => `${version} ${state.model}`;

/** The answer; of a ranking with the reasons, if the live version, `version`, can say them. */
export async function answerTo(client, state, version, signal) {
  const { method } = question(state);
  const request = requestOf(state);
  if (method !== "rank" || silent.has(named(state, version))) {
    return client[method](request, { signal });
  }
  try {
    return await client.rank({ ...request, explain: true }, { signal });
  } catch (error) {
    const cannot = error.errors?.explain || (error.status === 409 && state.entity !== "visitor");
    if (!cannot) {
      throw error;
    }
    const answer = await client.rank(request, { signal });
    silent.add(named(state, answer.version));
    return answer;
  }
}

/** The answer of another version to the same question; what it says if it cannot answer. */
export async function answerOfOther(client, state, signal) {
  try {
    return await client[question(state).method]({ ...requestOf(state), version: state.compare }, { signal });
  } catch (error) {
    signal.throwIfAborted();
    if (error.status === 409 || error.status === 422) {
      return { version: state.compare, results: [], missing: [], refused: error.detail };
    }
    throw error;
  }
}

function requestOf(state) {
  const { results: kind } = question(state);
  const about =
    state.entity === "visitor"
      ? { interactions: state.items.map((itemId) => ({ itemId })) }
      : { [`${state.entity}Id`]: state.id };
  return {
    modelName: state.model,
    ...about,
    limit: state.limit,
    filter: state.filter || undefined,
    returnMetadata: true,
    excludeSeen: kind === state.entity ? undefined : !state.seen,
  };
}
