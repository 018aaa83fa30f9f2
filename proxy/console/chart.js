// Small charts of the last hour, one place for each minute. Drawn with attributes only; a sentence says the same.

import { draw, make } from "./dom.js";
import { clock } from "./words.js";

const WIDTH = 320;
const HEIGHT = 92;
const TOP = 14;
const FLOOR = HEIGHT - 14;
const EDGE = 2;
const GUTTER = 38; // for the words at the lines' scale
const MINUTES = 60;

/** Where a minute stands, and how wide it is, in a drawing whose first begins at `from`. */
function places(from) {
  const step = (WIDTH - EDGE - from) / MINUTES;
  return { from, step, left: (slot) => from + slot * step };
}

/** Minutes in 60 places, the newest last; null where there are none yet. */
export function hour(minutes, now, step) {
  const newest = Math.floor(now / step);
  const slots = new Array(MINUTES).fill(null);
  for (const minute of minutes) {
    const slot = MINUTES - 1 - (newest - Math.floor(minute.at / step));
    if (slot >= 0 && slot < MINUTES) slots[slot] = minute;
  }
  return slots;
}

/** Bars, piled up. `series`: [{name, of: minute -> number}]; `said`: minute -> words; `top`: number -> words. */
export function bars(slots, series, { title, sentence, said, top }) {
  const totals = slots.map((minute) => (minute ? series.reduce((sum, { of }) => sum + of(minute), 0) : 0));
  const most = Math.max(...totals);
  const x = places(EDGE);
  const parts = slots.flatMap((minute, slot) =>
    minute && totals[slot] > 0 ? pile(minute, slot, series, most, x) : [],
  );
  const label = most > 0 ? draw("text", { class: "axis", x: EDGE, y: 9 }, top(most)) : null;
  return frame(title, sentence, slots, said, x, [label, ...parts]);
}

function pile(minute, slot, series, most, x) {
  let y = FLOOR;
  return series
    .map(({ name, of }) => {
      const height = of(minute) > 0 ? Math.max(0.8, ((FLOOR - TOP) * of(minute)) / most) : 0;
      y -= height;
      return height
        ? draw("rect", {
            class: `bar of-${name}`,
            x: round(x.left(slot) + 0.5),
            y: round(y),
            width: round(x.step - 1),
            height: round(height),
          })
        : [];
    })
    .flat();
}

/** Lines. `series` as above, null where there is no value; `scale`: value -> 0 … 1; `rules`: [[value, words]]. */
export function lines(slots, series, { title, sentence, said, scale, rules }) {
  const y = (value) => FLOOR - (FLOOR - TOP) * Math.min(1, Math.max(0, scale(value)));
  const x = places(GUTTER);
  const ruled = rules.flatMap(([value, words]) => [
    draw("line", { class: "rule", x1: GUTTER, x2: WIDTH - EDGE, y1: round(y(value)), y2: round(y(value)) }),
    draw("text", { class: "axis end", x: GUTTER - 6, y: round(y(value) + 3) }, words),
  ]);
  return frame(title, sentence, slots, said, x, [...ruled, ...series.flatMap((each) => line(slots, each, x, y))]);
}

function line(slots, { name, of }, x, y) {
  let path = "";
  let before = -Infinity;
  const dots = [];
  slots.forEach((minute, slot) => {
    const value = minute ? of(minute) : null;
    if (value === null || value === undefined) return;
    const [across, down] = [round(x.left(slot) + x.step / 2), round(y(value))];
    path += `${slot - before > 4 ? "M" : "L"}${across} ${down}`; // over a pause of minutes nothing is known
    before = slot;
    dots.push(draw("circle", { class: `dot of-${name}`, cx: across, cy: down, r: 1.5 }));
  });
  return [draw("path", { class: `line of-${name}`, d: path }), ...dots];
}

function frame(title, sentence, slots, said, { from, step, left }, parts) {
  const floor = draw("line", { class: "floor", x1: from, x2: WIDTH - EDGE, y1: FLOOR + 0.5, y2: FLOOR + 0.5 });
  const ends = [
    draw("text", { class: "axis", x: from, y: HEIGHT - 2 }, "an hour ago"),
    draw("text", { class: "axis end", x: WIDTH - EDGE, y: HEIGHT - 2 }, "now"),
  ];
  const touched = slots.map((minute, slot) =>
    minute
      ? draw(
          "rect",
          { class: "touch", x: round(left(slot)), y: 0, width: round(step), height: FLOOR },
          draw("title", {}, `${clock(minute.at, false)}  ${said(minute)}`),
        )
      : [],
  );
  const told = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${sentence}` };
  return make(
    "div",
    { class: "chart" },
    draw("svg", told, ...parts.filter(Boolean), floor, ...ends, ...touched.flat()),
  );
}

/** What the colours mean: [{name, words, value}]. */
export function legend(entries) {
  const shown = entries.map(({ name, words, value }) =>
    make("li", { class: `key of-${name}` }, words, value ? make("b", {}, value) : null),
  );
  return make("ul", { class: "legend" }, shown);
}

function round(number) {
  return Math.round(number * 10) / 10;
}
