// Numbers as people read them. What is not known is "unknown", never 0.

const UNKNOWN = "unknown";

const counts = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** "$0.00012", "$3.20"; `usd` is a decimal as a string, or null. */
export function money(usd) {
  if (usd === null || usd === undefined) return UNKNOWN;
  const value = Number(usd);
  if (!Number.isFinite(value)) return UNKNOWN;
  return value < 0 ? `−$${amount(-value)}` : `$${amount(value)}`;
}

function amount(value) {
  if (value === 0) return "0";
  if (value >= 1000) return counts.format(Math.round(value));
  if (value >= 1) return value.toFixed(2);
  if (value >= 0.01) return value.toFixed(3);
  // Three digits that say something, however small it is; beyond a billionth nobody counts.
  const places = Math.min(10, 2 - Math.floor(Math.log10(value)));
  return value.toFixed(Math.max(2, places)).replace(/(\.\d\d\d*?)0+$/, "$1");
}

/** The same of a sum in which `missing` amounts are not known: where it holds no other, nobody knows it. */
export function sum(usd, missing) {
  return missing > 0 && Number(usd) === 0 ? UNKNOWN : money(usd);
}

/** "2 ms", "340 ms", "1.25 s", "2 min" */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const thousandths = seconds * 1000;
  if (thousandths < 0.05) return "< 0.1 ms";
  if (thousandths < 9.95) return `${Number(thousandths.toFixed(1))} ms`;
  if (thousandths < 999.5) return `${Math.round(thousandths)} ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(2))} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

export function count(number) {
  return number === null || number === undefined ? UNKNOWN : counts.format(number);
}

/** "12.4K" where there is little room. */
export function compact(number) {
  return number === null || number === undefined
    ? UNKNOWN
    : number < 10000
      ? counts.format(number)
      : short.format(number);
}

/** "1 request", "2 requests" */
export function many(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}

/** "42 %"; no answer, no ratio. */
export function share(ratio) {
  if (ratio === null || ratio === undefined) return "–";
  const percent = ratio * 100;
  return `${percent > 0 && percent < 9.95 ? Number(percent.toFixed(1)) : Math.round(percent)} %`;
}

/** The hour of the day, in the reader's own time. */
export function clock(epoch, seconds = true) {
  const shape = { hour: "2-digit", minute: "2-digit", ...(seconds ? { second: "2-digit" } : {}), hourCycle: "h23" };
  return new Date(epoch * 1000).toLocaleTimeString("en-GB", shape);
}

/** A moment as a machine reads it. */
export function stamp(epoch) {
  return new Date(epoch * 1000).toISOString();
}

/** What stands in `entries` under its own names only: a name out of an answer may be "constructor". */
export function named(entries) {
  return new Map(Object.entries(entries));
}

const OUTCOMES = named({
  hit: ["hit", "Answered out of the cache; the provider was not asked."],
  stale: ["stale", "The provider failed; an older answer out of the cache took its place."],
  collapsed: ["collapsed", "Joined an identical request that was under way; one call was paid for both."],
  miss: ["miss", "Sent to the provider; the answer is kept if it is whole."],
  bypass: ["bypass", "Sent to the provider past the cache."],
  refused: ["refused", "Refused before any provider was asked, or no provider would answer."],
  left: ["left", "The client left before the answer was whole."],
  broken: ["broken", "The answer broke off."],
});

/** How an answer came to be, for people: [a word, a sentence]. */
export function outcome(name) {
  return OUTCOMES.get(name) ?? [name, ""];
}

const WOULD = named({
  hit: ["would hit", "would have been a hit", "With the cache on, it would have been answered out of it."],
  collapsed: ["would join", "would have joined another", "With the cache on, one call would have been paid for both."],
  miss: ["would miss", "would have been a miss", "With the cache on, it would have been sent to the provider too."],
});

/** In shadow mode, what would have become of it: [a word, a few, a sentence]. */
export function would(name) {
  return WOULD.get(name) ?? [name, name, ""];
}

const WHY = named({
  cheapest: "the lowest expected cost of all that may answer",
  pinned: "it made what this conversation goes on from",
  only: "nobody else may answer",
  named: "the request named it",
  waiting: "a cheaper one has to wait for its turn",
  unpriced: "no model with a known price may answer",
  cooling: "every other one is left alone after failures",
  none: "nobody may answer now",
  fallback: "whoever was chosen before it failed",
});

/** Why a model was chosen, after the words of the metrics. */
export function reason(why) {
  return WHY.get(why) ?? why;
}
