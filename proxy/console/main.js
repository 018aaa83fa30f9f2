// Starts the page: asks the proxy what it is, then opens the playground and the figures.

import { fetchJson, Problem } from "./api.js";
import { hidden, make, put, tell, the } from "./dom.js";
import { Figures, WHOSE } from "./figures.js";
import { Keys } from "./keys.js";
import { mend } from "./mend.js";
import { Playground } from "./playground.js";
import { named } from "./words.js";

const MODES = named({ on: "cache on", shadow: "shadow mode", off: "cache off" });
const STRANGE = "A key has neither blanks nor letters beyond ASCII; something was copied with it.";
const AGAIN = 3000; // milliseconds until a proxy that does not answer is asked again

let told = { version: "", keys: false, provider_key: false, default_model: null, mode: "on" };
const about = () => told;
const keys = new Keys();
const playground = new Playground(keys, about, refused);
const figures = new Figures(keys, about, askForFiguresKey, learn);

async function start() {
  try {
    told = await fetchJson("/console/about");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const { title, message, advice } = mend(error, told, "");
    put(the("unreachable"), make("p", { class: "problem" }, make("strong", {}, title), ` ${message} ${advice}`));
    setTimeout(start, AGAIN);
    return;
  }
  put(the("unreachable"));
  show();
}

/** Ask again what it is: it may have been started anew, with other settings. */
async function learn() {
  try {
    const now = await fetchJson("/console/about");
    if (JSON.stringify(now) === JSON.stringify(told)) return;
    told = now;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return; // whoever asked for it asks again
  }
  show();
}

function show() {
  put(the("mode"), hidden("Cache: "), MODES.get(told.mode) ?? told.mode);
  the("mode").className = `chip is-${told.mode}`;
  put(the("version"), `Penstock ${told.version}`);
  askForKey();
  showKeys();
  playground.refresh();
  figures.start();
}

/** Show the field for the key, where one is needed. `why`: it was missing or refused, see mend(). */
function askForKey(why = null) {
  const needed = told.keys || told.provider_key;
  the("asking-key").hidden = !(why || (needed && !keys.asking));
  const words = told.provider_key
    ? "Your provider's own key: it is passed on to the provider with each request. If it needs none, leave this empty."
    : "A key of this proxy. Whoever runs it makes one with “penstock keys create”. The admin key cannot ask.";
  put(the("asking-key-words"), why ? [make("strong", {}, `${why.title}. `), why.advice] : words);
}

function refused(why) {
  askForKey(why);
  tell(`${why.title}.`);
  if (!the("message").value) the("asking-key-field").focus(); // else somebody is writing
  learn();
}

function askForFiguresKey(why) {
  if (why) {
    const title = why.title && make("strong", {}, `${why.title}. `);
    put(the("figures-key-words"), title, why.message, " ", why.advice);
  }
  showFiguresKey(why !== null || the("other-key").getAttribute("aria-expanded") === "true");
}

function showFiguresKey(shown) {
  the("figures-key").hidden = !shown;
}

function showKeys() {
  the("forget").hidden = !keys.any;
  the("key-chip").hidden = !keys.any;
  the("other-key").hidden = !told.keys;
}

for (const kind of ["asking", "figures"]) {
  const form = the(`${kind}-key`);
  const field = the(`${kind}-key-field`);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const value = field.value.trim();
    if (!/^[\x21-\x7e]*$/.test(value)) {
      put(the(`${kind}-key-words`), STRANGE);
      return;
    }
    field.value = "";
    form.hidden = value !== "" || kind === "figures" || told.provider_key;
    the("other-key").setAttribute("aria-expanded", "false");
    keys.keep(kind, value);
    tell(value ? "The key is kept for this tab." : "");
    if (kind === "asking") the("message").focus();
  });
}

// Whoever asks with a client's key sees that one's figures; the admin key shows everybody's beside it.
the("other-key").addEventListener("click", () => {
  const opened = the("other-key").getAttribute("aria-expanded") !== "true";
  the("other-key").setAttribute("aria-expanded", String(opened));
  put(the("figures-key-words"), WHOSE);
  showFiguresKey(opened);
  if (opened) the("figures-key-field").focus();
});

the("forget").addEventListener("click", () => {
  keys.forget();
  askForKey();
  tell("The keys are forgotten.");
  (the("asking-key").hidden ? the("message") : the("asking-key-field")).focus();
});
keys.addEventListener("change", showKeys);

start();
