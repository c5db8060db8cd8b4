/** Format attributes and times. */

import { element } from "./dom.js";

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/;
const NAMES = ["title", "name", "label"];

/** The display name in the attributes, or an empty string. */
export function nameOf(metadata) {
  const found = NAMES.find((name) => typeof metadata?.[name] === "string" && metadata[name]);
  return found ? metadata[found] : "";
}

/** The attributes without the display name. */
export function attributesOf(metadata) {
  const name = nameOf(metadata);
  return Object.entries(metadata ?? {}).filter(([key, value]) => !(NAMES.includes(key) && value === name));
}

/** A value as content for an element. */
export function shown(value) {
  if (value === null || value === undefined || value.length === 0) {
    return element("span", { className: "none" }, "–");
  }
  if (Array.isArray(value)) {
    return element("span", { className: "tags" }, ...value.map((part) => element("span", { className: "tag" }, text(part))));
  }
  if (typeof value === "string" && TIME.test(value)) {
    return element("time", { dateTime: value, title: value }, value.slice(0, 10));
  }
  return text(value);
}

/** A value, of which a long one takes a few lines; all of it is its title. */
export function clamped(value) {
  return element("div", { className: "clamp", title: inFull(value) }, shown(value));
}

/** A value as text that leaves nothing out. */
export function inFull(value) {
  return value === null || value === undefined ? "" : typeof value === "number" ? String(value) : text(value);
}

/** A value as a cell for a spreadsheet, which would run text that begins so as a formula: a ' keeps it text. */
export function cell(value) {
  const full = inFull(value);
  return typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${full}` : full;
}

function text(value) {
  if (typeof value === "number" && !Number.isInteger(value)) {
    return String(Number(value.toPrecision(6)));
  }
  const isObject = value !== null && typeof value === "object";
  return isObject ? JSON.stringify(value, (_, part) => (typeof part === "bigint" ? String(part) : part)) : String(value);
}

/** A time relative to now, in words. */
export function ago(time) {
  const days = (Date.now() - Date.parse(time)) / 86_400_000;
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  return days < 1 ? words.format(-Math.round(days * 24), "hour") : words.format(-Math.round(days), "day");
}

export const minute = (time) => `${time.slice(0, 16).replace("T", " ")} UTC`;
