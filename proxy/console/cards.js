// The figures of the last hour at a glance, each with its small chart and a sentence that says the same.

import { bars, hour, legend, lines } from "./chart.js";
import { make } from "./dom.js";
import { clock, compact, count, duration, many, money, named, share, sum } from "./words.js";

const usd = (name) => (figures) => Number(figures[name] ?? 0);

/** Of all that could be answered, what was out of the cache or by another's call; in shadow mode what would have been. */
export function hitRatio(figures, mode) {
  if (mode !== "shadow") return figures.hit_ratio;
  const again = figures.would_hit + figures.would_join;
  const all = again + figures.would_miss;
  return all > 0 ? again / all : null;
}

/** How what the provider was asked for is counted: without a cache nothing is a miss. */
export function asked(mode) {
  return mode === "on" ? "miss" : "bypass";
}

/** The four cards: saved, spent, hit ratio, first token. */
export function charts(figures) {
  const slots = hour(figures.minutes, figures.now, figures.step);
  const first = figures.mode === "shadow" ? [wouldSave, spent, wouldHit] : [saved, spent, ratio];
  return [...first, firstToken].map((each) => each(figures, slots));
}

function card(title, value, below, chart, kind = "") {
  const big = make("p", { class: "big" }, value);
  return make("article", { class: `card ${kind}` }, make("h3", {}, title), big, below, chart);
}

function saved({ totals }, slots) {
  const missing = (answers) => (answers > 0 ? totals.saved_unknown : 0); // of which cause is not said
  const cache = sum(totals.saved_cache_usd, missing(totals.hits + totals.stale));
  const collapse = sum(totals.saved_collapse_usd, missing(totals.collapsed));
  const series = [
    { name: "hit", words: "cache", of: usd("saved_cache_usd"), value: cache },
    { name: "collapsed", words: "collapsed", of: usd("saved_collapse_usd"), value: collapse },
    { name: "routing", words: "routing", of: usd("saved_routing_usd"), value: money(totals.saved_routing_usd) },
  ];
  const value = sum(totals.saved_usd, totals.saved_unknown);
  const chart = bars(slots, series, {
    title: "Saved, minute by minute",
    sentence: `${value} in all: ${listed(series)}. ${peak(slots, usd("saved_usd"))}`,
    said: (minute) => `${sum(minute.saved_usd, minute.saved_unknown)} saved`,
    top: (most) => `${money(most)} a minute`,
  });
  const kind = Number(totals.saved_usd) > 0 ? "saved" : "";
  return card("Saved", value, [legend(series), unknown(totals.saved_unknown)], chart, kind);
}

function unknown(answers) {
  if (!(answers > 0)) return null;
  const [was, its] = answers === 1 ? ["is", "its model"] : ["are", "their models"];
  const words = `What ${many(answers, "answer")} saved ${was} unknown: set “price” for ${its} in [models].`;
  return make("p", { class: "below" }, make("span", { class: "warn" }, words));
}

function wouldSave({ totals }, slots) {
  const value = money(totals.would_save_usd);
  const routed =
    Number(totals.saved_routing_usd) > 0 && `, besides ${money(totals.saved_routing_usd)} that routing saved`;
  const chart = bars(slots, [{ name: "shadow", of: usd("would_save_usd") }], {
    title: "Would have been saved with the cache on, minute by minute",
    sentence: `${value} in all. ${peak(slots, usd("would_save_usd"))}`,
    said: (minute) => `${money(minute.would_save_usd)} would have been saved`,
    top: (most) => `${money(most)} a minute`,
  });
  const below = make("p", { class: "below" }, "with the cache on", routed);
  return card("Would have saved", value, below, chart, "would");
}

function listed(series) {
  return series.map(({ words, value }) => `${words} ${value}`).join(", ");
}

function spent({ totals, mode }, slots) {
  const unpriced = totals.unpriced > 0 && `and ${many(totals.unpriced, "answer")} whose price nobody knows`;
  const words = mode === "shadow" ? instead(totals) : without(totals);
  const below = make("p", { class: "below" }, words, " ", unpriced && make("span", { class: "warn" }, unpriced));
  const value = sum(totals.spent_usd, totals.unpriced);
  const chart = bars(slots, [{ name: "spent", of: usd("spent_usd") }], {
    title: "Spent, minute by minute",
    sentence: `${value} in all. ${peak(slots, usd("spent_usd"))}`,
    said: (minute) => `${sum(minute.spent_usd, minute.unpriced)} spent`,
    top: (most) => `${money(most)} a minute`,
  });
  return card("Spent", value, below, chart);
}

function without({ spent_usd: paid, saved_usd: spared, unpriced }) {
  const all = Number(paid) + Number(spared);
  if (all === 0) return unpriced > 0 ? "nothing that is known" : "nothing paid yet";
  return Number(spared) > 0 ? `of ${money(all)} that it would have been` : "nothing saved yet";
}

function instead({ spent_usd: paid, would_save_usd: spared }) {
  return Number(paid) > 0 ? `${money(spared)} of it for what would have been saved` : "nothing paid yet";
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
  const chart = ratios(slots, "hit", (minute) => minute.hit_ratio, {
    title: "Hit ratio, minute by minute",
    sentence: `${share(totals.hit_ratio)} in all: ${outcomes}.`,
  });
  return card("Hit ratio", share(totals.hit_ratio), below, chart);
}

function ratios(slots, name, of, told) {
  return lines(slots, [{ name, of }], {
    ...told,
    said: (minute) => `${share(of(minute))} of ${many(minute.requests, "request")}`,
    scale: (value) => value,
    rules: [
      [1, "100 %"],
      [0.5, "50 %"],
    ],
  });
}

function wouldHit({ totals, mode }, slots) {
  const series = [
    { name: "shadow", words: "hits", value: compact(totals.would_hit) },
    { name: "collapsed", words: "collapsed", value: compact(totals.would_join) },
    { name: "miss", words: "misses", value: compact(totals.would_miss) },
  ];
  const value = share(hitRatio(totals, mode));
  const chart = ratios(slots, "shadow", (minute) => hitRatio(minute, mode), {
    title: "Would have hit with the cache on, minute by minute",
    sentence: `${value} in all; there would have been: ${listed(series)}.`,
  });
  return card("Would have hit", value, legend(series), chart);
}

const ON = named({ hit: "on a hit", collapsed: "collapsed", miss: "on a miss", bypass: "fetched, as all are" });
const WORDS = named({ bypass: "fetched" });

function firstToken({ totals, mode }, slots) {
  const outcomes = mode === "on" ? ["hit", "collapsed", "miss"] : ["bypass"];
  const { low, high } = decades(slots, outcomes);
  const rules = [];
  for (let power = low + 1; power <= high; power++) rules.push([10 ** power, duration(10 ** power)]);
  const series = outcomes.map((name) => ({
    name,
    words: WORDS.get(name) ?? name,
    value: duration(totals.first_token[name]),
    of: (minute) => minute.first_token[name],
  }));
  const chart = lines(slots, series, {
    title: "Time to the first token by outcome, minute by minute, on a logarithmic scale",
    sentence: `Medians: ${listed(series)}.`,
    said: (minute) => series.map(({ words, of }) => `${words} ${duration(of(minute))}`).join(", "),
    scale: (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low),
    rules,
  });
  const name = outcomes.find((each) => typeof totals.first_token[each] === "number");
  const big = [duration(totals.first_token[name]), name && make("small", {}, ON.get(name))];
  return card("First token", big, legend(series), chart);
}

/** Powers of ten seconds between which every first token lies. */
function decades(slots, outcomes) {
  const times = slots.filter(Boolean).flatMap((minute) => outcomes.map((name) => minute.first_token[name]));
  const seen = times.filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(0.01, ...seen)));
  return { low, high: Math.max(low + 2, Math.ceil(Math.log10(Math.max(0.1, ...seen)))) };
}
