/** Find others like the points that are chosen, and download who they are. */

import { downloadTable, made } from "./elements.js";

const SIZES = [10, 100, 1000];

/** `ask` gets how many to find, and promises them with an `id` and a `score`, or undefined if there is no answer. */
export function audienceForm(label, idName, ask) {
  const size = made("select", { label: "How many" }, ...SIZES.map((each) => made("option", { selected: each === 100 }, String(each))));
  const save = made("button", { type: "button", className: "save-audience", hidden: true }, "Download audience");
  const form = made("form", { className: "audience", hidden: true }, made("button", {}, label), size, save);
  form.onsubmit = async (e) => {
    e.preventDefault();
    save.hidden = true;
    const found = await ask(Number(size.value));
    if (!found) return;
    save.hidden = false;
    save.onclick = () => downloadTable("audience.csv", [[idName, "score"], ...found.map(({ id, score }) => [String(id), String(score)])]);
  };
  return form;
}
