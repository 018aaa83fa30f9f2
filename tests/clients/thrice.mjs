// The same as `thrice` of conftest.py, for clients that run on Node; and what several of them ask with.

import assert from "node:assert/strict";
import { z } from "zod";

const { SIMULATOR, PROXY } = process.env;

const IDS = /\b(?:(?:chatcmpl|cmpl|resp|msg|fc|ctc|rs)[-_]\w+|[0-9a-f]{8}(?:-[0-9a-f]{4,12}){4})\b/g;
const TIMES = ["created", "created_at", "completed_at", "timestamp"];
const OF_THE_HOP = ["headers"];

export const Report = z.object({ title: z.string(), tags: z.array(z.string()), score: z.int() });
export const Place = z.object({ city: z.string(), days: z.int() });
export const weather = async ({ city, days }) => `${days} days of rain in ${city}`;

async function calls() {
  const response = await fetch(new URL("/simulator/calls", SIMULATOR));
  return (await response.json()).calls;
}

function comparable(value, baseURL) {
  const drop = (name, member) => ([...TIMES, ...OF_THE_HOP].includes(name) ? undefined : member);
  return JSON.parse(JSON.stringify(value, drop).replaceAll(baseURL, "URL").replaceAll(IDS, "ID"));
}

/** Asks directly, through a cold proxy (unless `known`), through a warm one: all equal, and the last asks nobody. */
export async function thrice(ask, known = false) {
  const direct = comparable(await ask(SIMULATOR), SIMULATOR);
  const before = await calls();
  const cold = comparable(await ask(PROXY), PROXY);
  const between = await calls();
  const warm = comparable(await ask(PROXY), PROXY);
  const after = await calls();
  assert.deepEqual(cold, direct);
  assert.deepEqual(warm, direct);
  assert.equal(between === before, known, `the proxy ${known ? "asked again" : "knew the answer"}`);
  assert.equal(after, between, "the proxy asked again");
  return direct;
}

export async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}
