/** The users or items of a model: page by page, or those that a text finds. */

import { attributesOf, nameOf } from "./values.js";

const PAGE = 100;
const LOOKED_AT = 5_000;
const FOUND = 50;
const RANKED = 20;

export class Listing {
  #client;
  #question;
  #rows = [];
  #cursor;
  #hasText;

  constructor(client, modelName, entity) {
    this.#client = client;
    this.#question = { modelName, entity, limit: PAGE };
  }

  /** The first `count` rows, or all if there are fewer, and whether there are more. */
  async first(count, signal) {
    while (this.#rows.length < count && this.#cursor !== null) {
      await this.#next(signal);
    }
    return { rows: this.#rows.slice(0, count), more: this.#rows.length > count || this.#cursor !== null };
  }

  /**
   * The row whose id is the text; then what the service's search finds for it; then rows with this text in the id or an
   * attribute, and how many were looked at for that if not all.
   */
  async search(text, signal) {
    const wanted = text.toLowerCase();
    const rows = await this.#exactly(text, signal);
    const known = new Set(rows.map((row) => row.id));
    for (const row of await this.#ranked(text, signal)) {
      if (!known.has(row.id)) {
        known.add(row.id);
        rows.push(row);
      }
    }
    let looked = 0;
    while (rows.length < FOUND && looked < LOOKED_AT) {
      if (looked === this.#rows.length) {
        if (this.#cursor === null) {
          return { rows, looked: null };
        }
        await this.#next(signal);
        continue;
      }
      const row = this.#rows[looked++];
      if (!known.has(row.id) && words(row).includes(wanted)) {
        rows.push(row);
      }
    }
    return { rows, looked };
  }

  /** Id as text -> its row, of those that there are; none if ids are of another type. */
  async named(ids, signal) {
    const rows = new Map();
    const left = [...ids];
    try {
      while (left.length) {
        const filter = `"${this.#question.entity}_id" IN (${left.splice(0, PAGE).map(literal).join(", ")})`;
        const page = await this.#client.retrieve({ ...this.#question, filter }, { signal });
        page.rows.forEach((row) => rows.set(String(row.id), row));
      }
    } catch (error) {
      if (!error.errors?.filter) {
        throw error;
      }
    }
    return rows;
  }

  async #exactly(text, signal) {
    await this.first(1, signal);
    if (!this.#rows.length) {
      return [];
    }
    const isText = typeof this.#rows[0].id === "string";
    const isId = isText || /^-?\d{1,19}$/.test(text);
    return isId ? [...(await this.named([isText ? text : BigInt(text)], signal)).values()] : [];
  }

  /** Items by words and by what the text says as content; none if the version was trained without text. */
  async #ranked(text, signal) {
    const { modelName, entity } = this.#question;
    if (this.#hasText === undefined) {
      const { versions } = await this.#client.versions({ modelName }, { signal });
      const live = versions.find((version) => version.live);
      this.#hasText = entity === "item" && Boolean(live?.training?.textColumns.length);
    }
    if (!this.#hasText) {
      return [];
    }
    try {
      const { results } = await this.#client.search({ modelName, text, limit: RANKED, returnMetadata: true }, { signal });
      return results;
    } catch (error) {
      if (error.errors?.text) {
        return []; // too long, or without a word
      }
      throw error;
    }
  }

  async #next(signal) {
    const page = await this.#client.retrieve({ ...this.#question, cursor: this.#cursor }, { signal });
    this.#rows.push(...page.rows);
    this.#cursor = page.nextCursor;
  }
}

const literal = (id) => (typeof id === "string" ? `'${id.replaceAll("'", "''")}'` : String(id));

function words({ id, metadata }) {
  return [id, nameOf(metadata), ...attributesOf(metadata).map(([, value]) => value)].join("\n").toLowerCase();
}
