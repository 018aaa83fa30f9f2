// The figures of the last hour at a glance, each with its small chart and a sentence that says the same.

import { bars, hour, legend, lines } from "./chart.js";
import { make } from "./dom.js";
import { clock, compact, count, duration, many, money, share } from "./words.js";

const usd = (name) => (figures) => Number(figures[name] ?? 0);

/** The four cards: saved, spent, hit ratio, first token. */
export function charts(figures) {
  const slots = hour(figures.minutes, figures.now, figures.step);
  return [saved(figures, slots), spent(figures, slots), ratio(figures, slots), firstToken(figures, slots)];
}

function card(title, value, below, chart, kind = "") {
  const big = make("p", { class: "big" }, value);
  return make("article", { class: `card ${kind}` }, make("h3", {}, title), big, below, chart);
}

function saved({ totals, mode }, slots) {
  const shadow = mode === "shadow";
  const causes = [
    { name: "hit", words: "cache", of: usd("saved_cache_usd"), value: money(totals.saved_cache_usd) },
    { name: "collapsed", words: "collapsed", of: usd("saved_collapse_usd"), value: money(totals.saved_collapse_usd) },
    { name: "routing", words: "routing", of: usd("saved_routing_usd"), value: money(totals.saved_routing_usd) },
  ];
  const would = { name: "shadow", words: "would have", of: usd("would_save_usd"), value: money(totals.would_save_usd) };
  const series = shadow ? [...causes.slice(2), would] : causes;
  const chart = bars(slots, series, {
    title: "Saved, minute by minute",
    sentence: `${money(totals.saved_usd)} in all: ${listed(series)}. ${peak(slots, usd("saved_usd"))}`,
    said: (minute) =>
      shadow ? `${money(minute.would_save_usd)} would have been saved` : `${money(minute.saved_usd)} saved`,
    top: (most) => `${money(most)} a minute`,
  });
  return card("Saved", money(totals.saved_usd), legend(series), chart, "saved");
}

function listed(series) {
  return series.map(({ words, value }) => `${words} ${value}`).join(", ");
}

function spent({ totals }, slots) {
  const all = Number(totals.spent_usd) + Number(totals.saved_usd);
  const without = Number(totals.saved_usd) > 0 ? `of ${money(all)} that it would have been` : "nothing saved yet";
  const words = all > 0 ? without : "nothing paid yet";
  const unpriced = ` and ${many(totals.unpriced, "answer")} whose price nobody knows`;
  const below = make("p", { class: "below" }, words, totals.unpriced > 0 && make("span", { class: "warn" }, unpriced));
  const chart = bars(slots, [{ name: "spent", of: usd("spent_usd") }], {
    title: "Spent, minute by minute",
    sentence: `${money(totals.spent_usd)} in all. ${peak(slots, usd("spent_usd"))}`,
    said: (minute) => `${money(minute.spent_usd)} spent`,
    top: (most) => `${money(most)} a minute`,
  });
  return card("Spent", money(totals.spent_usd), below, chart);
}

function peak(slots, of) {
  const best = (one, other) => (of(other) > of(one) ? other : one);
  const most = slots.filter(Boolean).reduce(best, { at: 0 });
  return of(most) > 0 ? `The most in one minute: ${money(of(most))} at ${clock(most.at, false)}.` : "";
}

function ratio({ totals }, slots) {
  const below = legend([
    { name: "hit", words: "hits", value: compact(totals.hits + totals.stale) },
    { name: "collapsed", words: "collapsed", value: compact(totals.collapsed) },
    { name: "miss", words: "misses", value: compact(totals.misses) },
  ]);
  const misses = many(totals.misses, "miss", "misses");
  const outcomes = `${many(totals.hits, "hit")}, ${count(totals.collapsed)} collapsed, ${misses}`;
  const chart = lines(slots, [{ name: "hit", of: (minute) => minute.hit_ratio }], {
    title: "Hit ratio, minute by minute",
    sentence: `${share(totals.hit_ratio)} in all: ${outcomes}.`,
    said: (minute) => `${share(minute.hit_ratio)} of ${many(minute.requests, "request")}`,
    scale: (value) => value,
    rules: [
      [1, "100 %"],
      [0.5, "50 %"],
    ],
  });
  return card("Hit ratio", share(totals.hit_ratio), below, chart);
}

const ON = { hit: "on a hit", collapsed: "collapsed", miss: "on a miss" };
const FIRST = ["hit", "collapsed", "miss"];

function firstToken({ totals }, slots) {
  const { low, high } = decades(slots);
  const rules = [];
  for (let power = low + 1; power <= high; power++) rules.push([10 ** power, duration(10 ** power)]);
  const series = FIRST.map((name) => ({
    name,
    words: name,
    value: duration(totals.first_token[name]),
    of: (minute) => minute.first_token[name],
  }));
  const chart = lines(slots, series, {
    title: "Time to the first token by outcome, minute by minute, on a logarithmic scale",
    sentence: `Medians: ${listed(series)}.`,
    said: (minute) => FIRST.map((name) => `${name} ${duration(minute.first_token[name])}`).join(", "),
    scale: (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low),
    rules,
  });
  const name = FIRST.find((each) => totals.first_token[each] !== null) ?? "hit";
  const value = totals.first_token[name];
  const big = [duration(value), value !== null && make("small", {}, ON[name])];
  return card("First token", big, legend(series), chart);
}

/** Powers of ten seconds between which every first token lies. */
function decades(slots) {
  const times = slots.filter(Boolean).flatMap((minute) => FIRST.map((name) => minute.first_token[name]));
  const seen = times.filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(0.01, ...seen)));
  return { low, high: Math.max(low + 2, Math.ceil(Math.log10(Math.max(0.1, ...seen)))) };
}
