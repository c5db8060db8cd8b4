/** Make elements without ever parsing text as HTML: ids and attributes may hold anything. */

/** Make an element with properties (`dataset` and `aria…` too), and with elements and text in it. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  const { dataset, ...others } = properties;
  Object.assign(made, others);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Let the arrow keys, Home and End move between the buttons of a list; Tab leaves the list. */
export function moveByArrows(list) {
  const buttons = () => [...list.querySelectorAll("button.stop")];
  list.addEventListener("keydown", (event) => {
    const all = buttons();
    const from = all.indexOf(document.activeElement);
    const to = { ArrowDown: from + 1, ArrowUp: from - 1, Home: 0, End: all.length - 1 }[event.key];
    if (from < 0 || to === undefined) {
      return;
    }
    event.preventDefault();
    if (all[to]) {
      all[to].focus();
    }
  });
  list.addEventListener("focusin", (event) => {
    if (event.target.matches("button.stop")) {
      buttons().forEach((button) => (button.tabIndex = button === event.target ? 0 : -1));
    }
  });
}

/** Make the first button of new content the only one that Tab stops at. */
export function firstStop(list) {
  [...list.querySelectorAll("button.stop")].forEach((button, i) => (button.tabIndex = i ? -1 : 0));
}
