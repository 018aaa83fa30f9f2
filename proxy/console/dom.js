// Elements, made of text and attributes alone: what came over the network is never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Attributes: true sets an empty one, null and false leave it out, a function listens to that event. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same of a drawing. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (isThere(value)) element.setAttribute(name, value === true ? "" : value);
  }
  put(element, children);
  return element;
}

/** Is it neither nothing nor false? */
function isThere(value) {
  return value !== null && value !== undefined && value !== false;
}

/** The element of the page with this id. */
export function the(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** Replace what an element holds, by text and elements, in lists too; null and false are nothing. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat(3).filter(isThere));
}

/** A table. `heads`: words; `rows`: each a cell for its head and further ones, words or elements. */
export function table(attributes, caption, heads, rows) {
  const head = heads.map((words) => make("th", { scope: "col" }, words));
  const row = ([name, ...cells]) =>
    make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell)));
  return make("table", attributes, caption, make("thead", {}, make("tr", {}, head)), make("tbody", {}, rows.map(row)));
}

/** A list of names and what they are: [name, value]; a third member is the class of both. */
export function facts(attributes, entries) {
  const row = ([name, value, kind = null]) => make("div", { class: kind }, make("dt", {}, name), make("dd", {}, value));
  return make("dl", attributes, entries.map(row));
}

/** Text for screen readers only. */
export function hidden(text) {
  return make("span", { class: "unseen" }, text);
}

/** Tell screen readers, once and without a hurry. */
export function tell(text) {
  the("said").textContent = text;
}

/** Copy, also where the browser has no clipboard for pages without TLS. True if it did. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { class: "unseen", readonly: true });
    area.value = text;
    const before = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    before?.focus();
    return done;
  }
}

/** A button that copies what `text()` gives, and says so. */
export function copying(label, text) {
  const button = make("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", async () => {
    const said = (await copy(text())) ? "Copied" : "Could not copy";
    button.textContent = said;
    tell(said);
    setTimeout(() => (button.textContent = label), 1600);
  });
  return button;
}
