// The last requests, each with why it went where it went.

import { badge } from "./answer.js";
import { facts, make, put } from "./dom.js";
import { OUTCOMES, WHY, clock, count, duration, money, stamp } from "./words.js";

const SHORT = 10; // rows, as in the style sheet

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

  /** Newest first. `keyed`: there are keys to tell. */
  show(requests, keyed) {
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
  const saved = Number(request.saved_usd ?? 0) > 0;
  const paid = request.cost_usd === null ? "" : money(request.cost_usd);
  const summary = [
    make("time", { datetime: stamp(request.at) }, clock(request.at)),
    make("span", { class: "request-model" }, request.model || request.asked || request.endpoint),
    badge(request.outcome),
    make("span", { class: "request-first" }, duration(request.first_token ?? request.total)),
    make("span", { class: `request-money ${saved ? "good" : ""}` }, saved ? `saved ${money(request.saved_usd)}` : paid),
  ];
  return make("details", { class: "request" }, make("summary", {}, summary), facts({}, known(request, keyed)));
}

function known(request, keyed) {
  const sentence = (OUTCOMES[request.outcome] ?? ["", ""])[1];
  const status = request.code ? `${request.status} ${request.code}` : String(request.status);
  const first = request.first_token === null ? "" : `first token ${duration(request.first_token)}, `;
  const found = [
    ["What happened", sentence],
    ["Why this model", chosen(request)],
    ["Passed over", passed(request)],
    ["Answered by", request.provider ? `${request.model || "unknown"} at ${request.provider}` : ""],
    ["If the cache were on", request.shadow ? (OUTCOMES[request.shadow] ?? [request.shadow])[0] : ""],
    ["Status", request.status === 200 ? "" : status],
    ["Key", keyed ? request.key || "none" : ""],
    ["Tokens", request.input === null ? "" : `${count(request.input)} in · ${count(request.output)} out`],
    ["Time", `${first}${duration(request.total)} in all`],
    ["Money", `cost ${money(request.cost_usd)} · saved ${money(request.saved_usd ?? "0")}`],
    ["Request id", make("code", {}, request.id)],
  ];
  return found.filter(([, value]) => value);
}

function chosen({ route, why, asked, model, provider }) {
  const reason = why ? (WHY[why] ?? why) : "";
  if (route) return `Route “${route}”: ${reason || "a model of it answered"}.`;
  if (reason) return `${reason[0].toUpperCase()}${reason.slice(1)}.`;
  return asked && asked === model && provider ? "The request named it." : "";
}

function passed({ passed_over: over }) {
  if (!over?.length) return "";
  return make(
    "ul",
    {},
    over.map(({ model, reason }) => make("li", {}, make("b", {}, model), ` ${reason}`)),
  );
}
