/** Make elements, and files to download. */

/** An element with properties, a `label` for those who do not see it, and children. */
export function made(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  const { label, ...others } = properties;
  Object.assign(element, others);
  if (label) element.setAttribute("aria-label", label);
  element.append(...children);
  return element;
}

/** Save rows of text as a CSV file (RFC 4180, with newlines of Unix). */
export function downloadTable(name, rows) {
  const cell = (text) => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const lines = rows.map((row) => row.map(cell).join(",") + "\n"), link = made("a", { download: name });
  link.href = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
  link.click();
  URL.revokeObjectURL(link.href);
}
