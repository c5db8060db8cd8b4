/** The service's JSON: its names are snake_case, its vectors float32, and its ids may be 64-bit whole numbers. */

// What these hold has names that are data.
const FREE = new Set(["max_per", "metadata", "metrics"]);

// Strings, so that what looks like a number in one is left alone; and numbers.
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** A request as JSON; leaves out undefined fields. */
export function toJson(value, free = false) {
  if (typeof value === "bigint") {
    return String(value);
  }
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw new TypeError(`${value} may not be the number that was meant: give whole numbers beyond 2^53 as BigInt`);
  }
  if (ArrayBuffer.isView(value)) {
    return toJson([...value]);
  }
  if (Array.isArray(value)) {
    return `[${value.map((element) => toJson(element, free)).join()}]`;
  }
  if (value !== null && typeof value === "object") {
    const fields = Object.entries(value).filter(([, field]) => field !== undefined);
    const parts = fields.map(([name, field]) => {
      const written = JSON.stringify(free ? name : snake(name));
      return `${written}:${toJson(field, free || FREE.has(snake(name)))}`;
    });
    return `{${parts.join()}}`;
  }
  return JSON.stringify(value) ?? "null";
}

/** An answer: names in camelCase, vectors as Float32Array, whole numbers beyond 2^53 as BigInt. */
export function fromJson(text) {
  return fromWire(exactly(text));
}

function exactly(text) {
  if (!/\d{16}/.test(text)) {
    return JSON.parse(text);
  }
  let tag = "bigint:";
  while (text.includes(`"${tag}`)) {
    tag += ":";
  }
  const tagged = text.replace(TOKEN, (token) =>
    /^-?\d+$/.test(token) && !Number.isSafeInteger(Number(token)) ? `"${tag}${token}"` : token,
  );
  if (tagged.length === text.length) {
    return JSON.parse(text);
  }
  return JSON.parse(tagged, (_, value) =>
    typeof value === "string" && value.startsWith(tag) ? BigInt(value.slice(tag.length)) : value,
  );
}

function fromWire(value, name) {
  if (name === "vector" && value !== null) {
    return typeof value === "string" ? float32(value) : Float32Array.from(value);
  }
  if (Array.isArray(value)) {
    return value.map((element) => fromWire(element));
  }
  if (value !== null && typeof value === "object") {
    const fields = Object.entries(value);
    return Object.fromEntries(fields.map(([key, field]) => [camel(key), FREE.has(key) ? field : fromWire(field, key)]));
  }
  return value;
}

/** Little-endian float32 in base64. */
function float32(base64) {
  const binary = atob(base64);
  const bytes = new DataView(new ArrayBuffer(binary.length));
  for (let i = 0; i < binary.length; i++) {
    bytes.setUint8(i, binary.charCodeAt(i));
  }
  const vector = new Float32Array(binary.length / 4);
  for (let i = 0; i < vector.length; i++) {
    vector[i] = bytes.getFloat32(4 * i, true);
  }
  return vector;
}

function snake(name) {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function camel(name) {
  return name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
}
