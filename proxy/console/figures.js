// Live figures of the last hour, asked for every two seconds while somebody looks.

import { fetchJson, Problem } from "./api.js";
import { charts } from "./cards.js";
import { make, put, tell, the } from "./dom.js";
import { mend } from "./mend.js";
import { Requests } from "./requests.js";
import * as tables from "./tables.js";
import { clock, compact, duration, money } from "./words.js";

const EVERY = 2000;
const SLOWEST = 30000; // milliseconds between two tries while nobody answers
export const WHOSE = "A client's key shows its own figures; the admin key shows everybody's.";

export class Figures {
  #timer = 0;
  #wait = EVERY;
  #under = null;
  #paused = false;
  #held = false; // nothing is asked until there is another key
  #unsure = false; // another proxy may answer now
  #seen = null; // the newest figures

  /** `wanted(described)`: the key for figures is asked for; `learn()`: asks the proxy anew what it is. */
  constructor(keys, about, wanted, learn) {
    Object.assign(this, { keys, about, wanted, learn });
    this.requests = new Requests(the("requests"), the("no-requests"), the("all-requests"));
    document.addEventListener("visibilitychange", () => this.#next(0));
    keys.addEventListener("change", () => this.start());
    the("pause").addEventListener("click", () => this.#pause());
    the("minutes").addEventListener("toggle", () => this.#minutes());
  }

  /** The key that opens them: their own, else the one for asking, where that is a key of this proxy. */
  get #key() {
    return this.keys.figures || (this.about().keys ? this.keys.asking : "");
  }

  start() {
    clearTimeout(this.#timer);
    this.#under?.abort(); // it was asked with another key
    this.#wait = EVERY;
    this.#held = this.about().keys && !this.#key;
    if (this.#held) {
      this.#state("waiting for a key", "off");
      this.#hide();
      this.wanted({ title: "", message: WHOSE, advice: "" });
      return;
    }
    this.#next(0);
  }

  #next(wait) {
    clearTimeout(this.#timer);
    if (this.#paused || this.#held || document.visibilityState !== "visible") return;
    this.#timer = setTimeout(() => this.#ask(), wait);
  }

  #pause() {
    this.#paused = !this.#paused;
    the("pause").setAttribute("aria-pressed", String(this.#paused));
    put(the("pause"), this.#paused ? "Go on" : "Pause");
    tell(this.#paused ? "The figures stand still." : "The figures are live.");
    if (this.#paused && !this.#held) this.#state("paused", "off");
    this.#next(0);
  }

  async #ask() {
    this.#under?.abort();
    const under = new AbortController();
    this.#under = under;
    try {
      const figures = await fetchJson("/console/figures", { key: this.#key, signal: under.signal });
      if (under.signal.aborted) return;
      this.#wait = EVERY;
      this.#show(figures);
      if (this.#unsure || figures.mode !== this.about().mode) this.learn();
      this.#unsure = false;
    } catch (error) {
      if (under.signal.aborted) return;
      this.#failed(error);
    }
    this.#next(this.#wait);
  }

  #failed(error) {
    if (!(error instanceof Problem)) throw error;
    this.#unsure = true;
    if (error.status === 401 || error.status === 403) {
      this.#held = true;
      this.#state("no access", "bad");
      this.#hide();
      const advice = this.about().keys ? WHOSE : "The admin key opens them, from everywhere.";
      const title = this.#key ? "This key does not show the figures" : "The figures need a key";
      this.wanted({ title, message: error.message, advice });
      this.learn();
      return;
    }
    this.#wait = Math.min(SLOWEST, Math.max(2 * this.#wait, 1000 * (error.after ?? 0)));
    const { title } = mend(error, this.about(), this.#key);
    const old = this.#seen ? `; these are of ${clock(this.#seen.now)}` : "";
    this.#state(`${title}${old}. Trying again in ${duration(this.#wait / 1000)}`, "bad");
    the("figures-shown").classList.toggle("old", this.#seen !== null);
  }

  #state(words, kind) {
    const state = the("state");
    state.className = `live is-${kind}`;
    if (state.textContent !== words) put(state, words);
  }

  #hide() {
    this.#seen = null;
    the("figures-shown").hidden = true;
    this.requests.clear();
  }

  #show(figures) {
    this.#seen = figures;
    the("figures-shown").hidden = false;
    the("figures-shown").classList.remove("old");
    this.wanted(null);
    this.#state(this.#paused ? "paused" : `live · ${clock(figures.now)}`, this.#paused ? "off" : "good");
    put(the("whose"), whose(figures));
    put(the("mode-note"), modeNote(figures));
    put(the("charts"), charts(figures));
    put(the("counted"), counted(figures.totals));
    put(the("budget"), figures.budget ? tables.budget(figures.budget) : null);
    put(the("by-model"), tables.models(figures.models, figures.mode));
    put(the("providers"), tables.providers(figures.providers));
    this.requests.show(figures.requests, this.about().keys && figures.of === "all");
    this.#minutes();
  }

  #minutes() {
    const details = the("minutes");
    if (details.open && this.#seen && !the("minutes-shown").contains(document.activeElement)) {
      put(the("minutes-shown"), tables.minutes(this.#seen.minutes, this.#seen.mode));
    }
  }
}

function whose({ of, key, now, since, step }) {
  const who = of === "all" ? "Everybody's figures" : `The figures of ${key ?? "this key"}`;
  const minutes = Math.ceil((now - since) / step);
  const span = minutes >= 60 ? "of the last hour" : minutes > 1 ? `of the last ${minutes} minutes` : "of this minute";
  return `${who} ${span}, counted since ${clock(since, false)}.`;
}

function modeNote({ mode, totals }) {
  if (mode === "shadow") {
    const text = " Everything is fetched and nothing is answered out of the cache. It would have saved ";
    const would = make("strong", { class: "would" }, money(totals.would_save_usd));
    return make("p", { class: "banner" }, make("strong", {}, "Shadow mode."), text, would, ".");
  }
  if (mode === "off") {
    const text = " Identical requests are paid each time: [cache] mode.";
    return make("p", { class: "banner" }, make("strong", {}, "The cache is off."), text);
  }
  return null;
}

function counted(totals) {
  const told = [
    ["Requests", compact(totals.requests)],
    ["Tokens in", compact(totals.input)],
    ["Tokens out", compact(totals.output)],
    ["Past the cache", compact(totals.bypassed)],
    ["Refused", compact(totals.refused)],
    ["Failed", compact(totals.failed)],
  ];
  return told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
}
