// What was spent and saved by model, how the providers are, what is left of a budget.

import { asked, hitRatio } from "./cards.js";
import { draw, make, table } from "./dom.js";
import { clock, compact, count, duration, many, money, named, share, sum } from "./words.js";

/** By model, the most spent first. */
export function models(rows, mode) {
  const shadow = mode === "shadow";
  if (!rows.length) return empty("No model has answered yet.");
  const row = (each) => [
    [each.model || "no model", each.provider && make("small", {}, each.provider)],
    compact(each.requests),
    share(hitRatio(each, mode)),
    duration(each.first_token[asked(mode)]),
    [sum(each.spent_usd, each.unpriced), each.unpriced > 0 && small(each.unpriced, "without a price")],
    shadow ? amount(each.would_save_usd, "would") : saved(each),
  ];
  const first = mode === "on" ? "First token (miss)" : "First token";
  const heads = ["Model", "Requests", shadow ? "Would hit" : "Hits", first, "Spent", shadow ? "Would save" : "Saved"];
  return table({ class: "figures-table" }, caption("By model, over the last hour"), heads, rows.map(row));
}

function small(number, words) {
  return make("small", {}, `+ ${many(number, "answer")} ${words}`);
}

function amount(usd, kind, missing = 0) {
  return make("span", { class: Number(usd) > 0 ? kind : null }, sum(usd, missing));
}

function saved({ saved_usd: usd, saved_unknown: unknown }) {
  return [amount(usd, "good", unknown), unknown > 0 && small(unknown, "of unknown worth")];
}

function caption(words) {
  return make("caption", { class: "unseen" }, words);
}

const STATES = named({
  up: ["up", "answers"],
  cooling: ["cooling", "left alone for a moment"],
  down: ["down", "left alone after failures"],
  trying: ["trying", "no longer left alone; nobody has succeeded since"],
});

/** Each model at its provider: may it be asked, and how it fared. */
export function providers(rows) {
  if (!rows.length) return empty("No provider has been asked yet.");
  const row = (each) => {
    const [word, sentence] = STATES.get(each.state) ?? [each.state, ""];
    const name = [each.model || "passed through", make("small", {}, each.provider)];
    return make(
      "li",
      {},
      make("span", { class: "health-name" }, name),
      make("span", { class: `state is-${each.state}`, title: sentence }, word),
      make("span", { class: "health-said" }, fared(each)),
    );
  };
  return make("ul", { class: "health" }, rows.map(row));
}

/** A client's key is not told what others asked: then there is no number of attempts. */
function fared({ attempts, failed, state, seconds }) {
  const waits =
    state === "trying"
      ? "its pause is over, no success yet"
      : state !== "up" && seconds > 0 && `asked again in ${duration(seconds)}`;
  const failures = failed ? `${count(failed)} failed` : "none failed";
  const calls = attempts ? `${many(attempts, "call")}, ${failures}` : attempts === 0 && "not asked in the last hour";
  return [calls, waits].filter(Boolean).join("; ");
}

const PERIODS = named({ day: "today", week: "this week", month: "this month", total: "in all" });

/** Of a key's budget, a bar and a sentence. */
export function budget(figures) {
  const usd = Number(figures.usd);
  const part = (value) => (usd > 0 ? Math.min(1, Number(value) / usd) : 1);
  const spent = part(figures.spent_usd);
  const reserved = Math.min(1 - spent, part(figures.reserved_usd));
  const bar = (from, to, name) =>
    draw("rect", { class: `of-${name}`, x: from * 1000, y: 0, width: to * 1000, height: 10 });
  const bars = [bar(0, 1, "rest"), bar(0, spent, spent >= 0.8 ? "warning" : "hit"), bar(spent, reserved, "collapsed")];
  const told = { viewBox: "0 0 1000 10", preserveAspectRatio: "none", class: "budget-bar", "aria-hidden": "true" };
  const drawn = draw("svg", told, bars);
  const set =
    Number(figures.reserved_usd) > 0 ? `, ${money(figures.reserved_usd)} set aside for what is under way` : "";
  const sentence = `${money(figures.spent_usd)} of ${money(figures.usd)} spent ${PERIODS.get(figures.per) ?? ""}${set}.`;
  return make("div", { class: "budget" }, make("h3", {}, "Budget"), drawn, make("p", {}, sentence));
}

/** Every minute in figures: what the charts show, for who cannot see them. */
export function minutes(rows, mode) {
  const shadow = mode === "shadow";
  const row = ({ at, first_token: first, ...minute }) => [
    clock(at, false),
    count(minute.requests),
    share(hitRatio(minute, mode)),
    sum(minute.spent_usd, minute.unpriced),
    shadow ? money(minute.would_save_usd) : sum(minute.saved_usd, minute.saved_unknown),
    ...(mode === "on" ? [duration(first.hit), duration(first.collapsed)] : []),
    duration(first[asked(mode)]),
  ];
  const busy = rows.filter((minute) => minute.requests > 0).reverse();
  if (!busy.length) return empty("Nothing was asked in the last hour.");
  const name = "The last hour, minute by minute";
  const first = mode === "on" ? ["First token: hit", "collapsed", "miss"] : ["First token"];
  const kept = shadow ? ["Would hit", "Spent", "Would save"] : ["Hit ratio", "Spent", "Saved"];
  const heads = ["Minute", "Requests", ...kept, ...first];
  const found = table({ class: "figures-table" }, caption(name), heads, busy.map(row));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, found);
}

export function empty(text) {
  return make("p", { class: "empty" }, text);
}
