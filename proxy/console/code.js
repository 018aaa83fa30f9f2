// What this conversation looks like in an application: the same request, so it has the same place in the cache.

import { copying, make, put, the } from "./dom.js";

const LANGUAGES = { python: "Python", node: "Node", curl: "curl" };

/** `request()`: {model, messages, temperature?, max_tokens?} as they stand; `key()`: what stands for the key. */
export class Code {
  #language = "python";

  constructor(request, key) {
    Object.assign(this, { request, key });
    this.#tabs = Object.entries(LANGUAGES).map(([id, name]) => this.#tab(id, name));
    the("code-tabs").append(...this.#tabs);
    the("code-copy").replaceWith(copying("Copy", () => this.text));
    this.#select("python");
  }

  #tabs;

  #tab(id, name) {
    const told = { type: "button", role: "tab", id: `code-${id}`, "aria-controls": "code-text", "data-language": id };
    return make("button", { ...told, click: () => this.#select(id), keydown: (event) => this.#key(event) }, name);
  }

  #select(language) {
    this.#language = language;
    for (const tab of this.#tabs) {
      const chosen = tab.dataset.language === language;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
    the("code-text").setAttribute("aria-labelledby", `code-${language}`);
    this.show();
  }

  #key(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const names = Object.keys(LANGUAGES);
    const next = names[(names.indexOf(this.#language) + by + names.length) % names.length];
    this.#select(next);
    the(`code-${next}`).focus();
  }

  get text() {
    return { python, node, curl }[this.#language](this.request(), `${location.origin}/v1`, this.key());
  }

  show() {
    put(the("code-text"), make("code", {}, this.text));
  }
}

// A string as JSON has it is one in Python and in JavaScript too.
const quoted = JSON.stringify;

function members(request, line, messages) {
  const { model, messages: _, ...others } = request;
  return [
    line("model", quoted(model)),
    line("messages", messages),
    ...Object.entries(others).map(([name, value]) => line(name, value)),
  ];
}

function python(request, address, key) {
  const messages = request.messages.map(
    ({ role, content }) => `        {"role": ${quoted(role)}, "content": ${quoted(content)}},\n`,
  );
  const lines = members(request, (name, value) => `    ${name}=${value},\n`, `[\n${messages.join("")}    ]`);
  return `from openai import OpenAI

client = OpenAI(base_url=${quoted(address)}, api_key=${quoted(key)})

stream = client.chat.completions.create(
${lines.join("")}    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
`;
}

function node(request, address, key) {
  const messages = request.messages.map(
    ({ role, content }) => `    { role: ${quoted(role)}, content: ${quoted(content)} },\n`,
  );
  const lines = members(request, (name, value) => `  ${name}: ${value},\n`, `[\n${messages.join("")}  ]`);
  return `import OpenAI from "openai";

const client = new OpenAI({ baseURL: ${quoted(address)}, apiKey: ${quoted(key)} });

const stream = await client.chat.completions.create({
${lines.join("")}  stream: true,
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
`;
}

function curl(request, address, key) {
  const body = JSON.stringify({ ...request, stream: true }, null, 2).replaceAll("'", "'\\''");
  return `curl -N ${address}/chat/completions \\
  -H 'Authorization: Bearer ${key}' \\
  -H 'Content-Type: application/json' \\
  -d '${body}'
`;
}
