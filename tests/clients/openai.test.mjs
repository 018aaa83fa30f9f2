// openai for Node.

import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { all, Place, Report, thrice, weather } from "./thrice.mjs";

const model = "sim-instant";
const at = (baseURL) => new OpenAI({ baseURL, apiKey: "sk-test", maxRetries: 0 });
const ask = (t, members) => ({ model, messages: [{ role: "user", content: t.name }], ...members });
const respond = (t, members) => ({ model, input: t.name, ...members });

test("chat: an answer", async (t) => {
  const said = await thrice((url) => at(url).chat.completions.create(ask(t)));
  assert.ok(said.choices[0].message.content);
});

test("chat: a stream", async (t) => {
  const body = ask(t, { stream: true, stream_options: { include_usage: true } });
  const chunks = await thrice(async (url) => all(await at(url).chat.completions.create(body)));
  assert.ok(chunks.length > 5);
  assert.ok(chunks.at(-1).usage.completion_tokens > 0);
  await thrice((url) => at(url).chat.completions.create(ask(t)), true);
});

test("chat: a stream put together", async (t) => {
  const said = await thrice((url) => at(url).chat.completions.stream(ask(t)).finalChatCompletion());
  assert.ok(said.choices[0].message.content);
});

for (const stream of [false, true])
  test(`chat: a round of tools${stream ? " in a stream" : ""}`, async (t) => {
    const tools = [zodFunction({ name: "weather", parameters: Place, function: weather })];
    const messages = await thrice(async (url) => {
      const runner = at(url).chat.completions.runTools(ask(t, { tools, stream }));
      await runner.done();
      return runner.messages;
    });
    assert.ok(messages.some((message) => message.role === "tool"));
    assert.ok(messages.at(-1).content);
  });

test("chat: structured output", async (t) => {
  const body = ask(t, { response_format: zodResponseFormat(Report, "report") });
  const said = await thrice((url) => at(url).chat.completions.parse(body));
  assert.ok(Report.parse(said.choices[0].message.parsed));
});

test("chat: structured output in a stream", async (t) => {
  const body = ask(t, { response_format: zodResponseFormat(Report, "report") });
  const said = await thrice((url) => at(url).chat.completions.stream(body).finalChatCompletion());
  assert.ok(Report.parse(said.choices[0].message.parsed));
});

test("responses: an answer", async (t) => {
  const said = await thrice((url) => at(url).responses.create(respond(t)));
  assert.ok(said.output_text);
});

test("responses: a stream", async (t) => {
  const events = await thrice(async (url) => all(await at(url).responses.create(respond(t, { stream: true }))));
  assert.equal(events.at(-1).type, "response.completed");
  await thrice((url) => at(url).responses.create(respond(t)), true);
});

test("responses: a stream put together", async (t) => {
  const said = await thrice((url) => at(url).responses.stream(respond(t)).finalResponse());
  assert.ok(said.output_text);
});

for (const stream of [false, true])
  test(`responses: a round of tools${stream ? " in a stream" : ""}`, async (t) => {
    const tools = [zodResponsesFunction({ name: "weather", parameters: Place })];
    const said = await thrice(async (url) => {
      const { responses } = at(url);
      const whole = (body) => (stream ? responses.stream(body).finalResponse() : responses.parse(body));
      const input = [{ role: "user", content: t.name }];
      const called = await whole({ model, tools, input });
      input.push(...called.output.map(({ parsed_arguments, ...item }) => item));
      for (const { type, call_id, arguments: given } of called.output)
        if (type === "function_call")
          input.push({ type: "function_call_output", call_id, output: await weather(JSON.parse(given)) });
      return [...input, await whole({ model, tools, input })];
    });
    assert.ok(said.some((item) => item.type === "function_call_output"));
    assert.ok(said.at(-1).output_text);
  });

test("responses: structured output", async (t) => {
  const body = respond(t, { text: { format: zodTextFormat(Report, "report") } });
  const said = await thrice((url) => at(url).responses.parse(body));
  assert.ok(Report.parse(said.output_parsed));
});

test("responses: structured output in a stream", async (t) => {
  const body = respond(t, { text: { format: zodTextFormat(Report, "report") } });
  const said = await thrice((url) => at(url).responses.stream(body).finalResponse());
  assert.ok(Report.parse(said.output_parsed));
});

test("completions: an answer and a stream", async (t) => {
  const said = await thrice((url) => at(url).completions.create({ model, prompt: t.name }));
  assert.ok(said.choices[0].text);
  const body = { model, prompt: `a stream of ${t.name}`, stream: true };
  assert.ok((await thrice(async (url) => all(await at(url).completions.create(body)))).length > 5);
});

for (const encoding_format of [undefined, "float", "base64"]) // undefined: base64 on the way, floats here
  test(`embeddings as ${encoding_format}`, async (t) => {
    const input = [t.name, `another ${t.name}`];
    const said = await thrice((url) => at(url).embeddings.create({ model: "sim-embed", input, encoding_format }));
    assert.equal(said.data.length, 2);
  });
