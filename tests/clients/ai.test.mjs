// The Vercel AI SDK: models over either API, and embeddings.

import assert from "node:assert/strict";
import test from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { all, Place, Report, thrice, weather } from "./thrice.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const at = (baseURL) => createOpenAI({ baseURL, apiKey: "sk-test" });
const tools = { weather: tool({ inputSchema: Place, execute: weather }) };
const rounds = { tools, stopWhen: stepCountIs(3) };
const structured = { output: Output.object({ schema: Report }) };

for (const api of ["chat", "responses"]) {
  const asking = (url, t, members) => {
    const model = at(url)[api]("sim-instant");
    return { model, prompt: `the AI SDK, ${t.name}`, maxRetries: 0, ...members };
  };
  const generate = async (url, t, members) => (await generateText(asking(url, t, members))).steps;
  const stream = (url, t, members) => all(streamText(asking(url, t, members)).fullStream);

  test(`${api}: an answer`, async (t) => {
    const [step] = await thrice((url) => generate(url, t));
    assert.ok(step.content[0].text);
    assert.ok(step.usage.outputTokens > 0);
  });

  test(`${api}: a stream`, async (t) => {
    const parts = await thrice((url) => stream(url, t));
    assert.ok(parts.filter((part) => part.type === "text-delta").length > 5);
    assert.equal(parts.at(-1).type, "finish");
    await thrice((url) => generate(url, t), true);
  });

  test(`${api}: a second turn`, async (t) => {
    const said = await thrice(async (url) => {
      // With `store`, which is the default, it refers to what lies at the provider, and that is never cached.
      const members = { providerOptions: { openai: { store: false } } };
      const first = [{ role: "user", content: `first, ${t.name}` }];
      const { response } = await generateText(asking(url, t, { ...members, prompt: first }));
      const prompt = [...first, ...response.messages, { role: "user", content: "And then?" }];
      return generate(url, t, { ...members, prompt });
    });
    assert.ok(said[0].content[0].text);
  });

  test(`${api}: a round of tools`, async (t) => {
    const steps = await thrice((url) => generate(url, t, rounds));
    assert.deepEqual(steps.map((step) => step.finishReason), ["tool-calls", "stop"]);
  });

  test(`${api}: a round of tools in a stream`, async (t) => {
    const types = (await thrice((url) => stream(url, t, rounds))).map((part) => part.type);
    assert.ok(types.indexOf("tool-result") < types.indexOf("text-delta"));
  });

  test(`${api}: structured output`, async (t) => {
    assert.ok(Report.parse(await thrice(async (url) => (await generateText(asking(url, t, structured))).output)));
  });

  test(`${api}: structured output in a stream`, async (t) => {
    const parts = await thrice((url) => all(streamText(asking(url, t, structured)).partialOutputStream));
    assert.ok(Report.parse(parts.at(-1)));
  });
}

test("embeddings", async (t) => {
  const values = [t.name, `another ${t.name}`];
  const asked = (url) => embedMany({ model: at(url).embedding("sim-embed"), values, maxRetries: 0 });
  assert.equal((await thrice(asked)).embeddings.length, 2);
});
