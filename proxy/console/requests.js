// The last requests, each with why it went where it went.

import { badge } from "./answer.js";
import { facts, make, put } from "./dom.js";
import { clock, count, duration, money, outcome, reason, stamp, would } from "./words.js";

const SHORT = 10; // rows, as in the style sheet
const AGAIN = new Set(["hit", "stale", "collapsed"]); // answers that nobody paid again

/** A list that grows at its top: a row that is open stays open. */
export class Requests {
  #rows = new Map(); // by id

  /** `more` is the button that shows those that are hidden at first. */
  constructor(place, nothing, more) {
    Object.assign(this, { place, nothing, more });
    more.addEventListener("click", () => {
      const all = place.classList.toggle("all");
      more.setAttribute("aria-expanded", String(all));
      this.#label();
    });
  }

  /** Newest first. `keyed`: there are keys to tell. Lists of models, which this page itself asks for, are left out. */
  show(told, keyed) {
    const requests = told.filter(({ endpoint }) => endpoint !== "models");
    this.nothing.hidden = requests.length > 0;
    const wanted = new Set(requests.map(({ id }) => id));
    for (const [id, row] of this.#rows) {
      if (!wanted.has(id)) {
        row.remove();
        this.#rows.delete(id);
      }
    }
    const fresh = requests
      .filter(({ id }) => !this.#rows.has(id))
      .map((request) => {
        const made = make("li", {}, row(request, keyed));
        this.#rows.set(request.id, made);
        return made;
      });
    this.place.prepend(...fresh);
    this.more.hidden = requests.length <= SHORT;
    this.#label();
  }

  #label() {
    const words = this.place.classList.contains("all") ? "Show fewer" : `Show all ${this.#rows.size}`;
    if (this.more.textContent !== words) put(this.more, words);
  }

  clear() {
    this.#rows.clear();
    put(this.place);
    this.more.hidden = true;
  }
}

function row(request, keyed) {
  const again = AGAIN.has(request.outcome);
  const saved = again && Number(request.saved_usd) > 0;
  const paid = request.cost_usd === null ? "" : money(request.cost_usd);
  const worth = `saved ${money(request.saved_usd)}`;
  const summary = [
    make("time", { datetime: stamp(request.at) }, clock(request.at)),
    make("span", { class: "request-model" }, request.model || request.asked || request.endpoint),
    badge(request.outcome, request),
    make("span", { class: "request-first" }, duration(request.first_token ?? request.total)),
    make("span", { class: `request-money ${saved ? "good" : ""}` }, again ? worth : paid),
  ];
  return make("details", { class: "request" }, make("summary", {}, summary), facts({}, known(request, keyed)));
}

function known(request, keyed) {
  const status = request.code ? `${request.status} ${request.code}` : String(request.status);
  const first = request.first_token === null ? "" : `first token ${duration(request.first_token)}, `;
  const found = [
    ["What happened", happened(request)],
    ["Why this model", chosen(request)],
    ["Passed over", passed(request)],
    ["Asked in turn", tried(request)],
    ["Answered by", request.provider ? `${request.model || "unknown"} at ${request.provider}` : ""],
    ["If the cache were on", request.shadow ? `It ${would(request.shadow)[1]}.` : ""],
    ["Status", request.status === 200 ? "" : status],
    ["Key", keyed ? request.key || "none" : ""],
    ["Tokens", request.input === null ? "" : `${count(request.input)} in · ${count(request.output)} out`],
    ["Time", `${first}${duration(request.total)} in all`],
    ["Money", `cost ${money(request.cost_usd)}${saving(request)}`],
    ["Request id", make("code", {}, request.id)],
  ];
  return found.filter(([, value]) => value);
}

function happened({ outcome: name, status }) {
  if (status < 400 || name === "refused" || name === "left") return outcome(name)[1];
  return "It was answered with an error, which is not kept.";
}

/** Of what is given again it is the worth, of what was paid what its route saved, if it did. */
function saving({ outcome: name, saved_usd: usd }) {
  if (AGAIN.has(name)) return ` · saved ${money(usd)}`;
  return usd === null ? "" : ` · saved ${money(usd)} by its route`;
}

/** The models that failed it, and who answered then. */
function tried({ attempts }) {
  const failed = (attempts ?? []).filter(({ result }) => result !== "ok");
  if (!failed.length) return "";
  const words = failed.map(({ model, result }) => `${model}: ${result}`).join(", ");
  const last = attempts.at(-1);
  return last.result === "ok" ? `${words}, then ${last.model} answered` : words;
}

function chosen({ route, why, asked, model, provider }) {
  const because = why ? reason(why) : "";
  if (route) return `Route “${route}”: ${because || "a model of it answered"}.`;
  if (because) return `${because[0].toUpperCase()}${because.slice(1)}.`;
  return asked && asked === model && provider ? "The request named it." : "";
}

function passed({ passed_over: over }) {
  if (!over?.length) return "";
  const line = ({ model, reason: words }) => make("li", {}, make("b", {}, model), ` ${words}`);
  return make("ul", {}, over.map(line));
}
