/** The users or items of a model: page by page, or those that contain a text. */

import { attributesOf, nameOf } from "./values.js";

const PAGE = 100;
const LOOKED_AT = 5_000;
const FOUND = 50;

export class Listing {
  #client;
  #question;
  #rows = [];
  #cursor;

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
   * Rows with this text in the id or an attribute, and how many were searched if not all. A row whose id is the text
   * is found among all rows, and comes first.
   */
  async search(text, signal) {
    const wanted = text.toLowerCase();
    const rows = await this.#exactly(text, signal);
    const known = new Set(rows.map((row) => row.id));
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

  /** The row of an id; undefined if there is none, or if ids are of another type. */
  async find(id, signal) {
    const value = typeof id === "string" ? `'${id.replaceAll("'", "''")}'` : String(id);
    const filter = `"${this.#question.entity}_id" = ${value}`;
    try {
      const { rows } = await this.#client.retrieve({ ...this.#question, filter, limit: 1 }, { signal });
      return rows[0];
    } catch (error) {
      if (error.errors?.filter) {
        return undefined;
      }
      throw error;
    }
  }

  async #exactly(text, signal) {
    await this.first(1, signal);
    if (!this.#rows.length) {
      return [];
    }
    const isText = typeof this.#rows[0].id === "string";
    const row = isText || /^-?\d{1,19}$/.test(text) ? await this.find(isText ? text : BigInt(text), signal) : undefined;
    return row ? [row] : [];
  }

  async #next(signal) {
    const page = await this.#client.retrieve({ ...this.#question, cursor: this.#cursor }, { signal });
    this.#rows.push(...page.rows);
    this.#cursor = page.nextCursor;
  }
}

function words({ id, metadata }) {
  return [id, nameOf(metadata), ...attributesOf(metadata).map(([, value]) => value)].join("\n").toLowerCase();
}
