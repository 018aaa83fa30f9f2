// The playground: one asks, sees the answer come, stops it, asks again.

import { broken, cut, fetchJson, post, Problem } from "./api.js";
import { Code } from "./code.js";
import { Combobox } from "./combobox.js";
import { Conversation } from "./conversation.js";
import { put, tell, the } from "./dom.js";
import { events } from "./events.js";
import { mend } from "./mend.js";

const NO_KEY = "This proxy answers only to whoever shows a key of it.";
const STOPPED =
  "The provider was told to stop too, unless somebody else reads the same answer or it is finished for the cache.";
const AFRESH = { "cache-control": "no-cache" };
const SHADOW = /detail=shadow-(hit|collapsed|miss)/; // in Cache-Status

export class Playground {
  #under = null; // the AbortController of what is under way
  #models = "";

  /** `about()`: what the proxy said of itself; `wanted(described)`: the key for asking is asked for, see mend(). */
  constructor(keys, about, wanted) {
    Object.assign(this, { keys, about, wanted });
    this.talk = new Conversation((text) => this.#edit(text));
    this.models = new Combobox(the("model"), the("models"), the("models-open"));
    this.code = new Code(
      () => this.#shown(),
      () => (this.about().provider_key ? "YOUR_PROVIDER_KEY" : "YOUR_KEY"),
    );
    the("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    the("ask").addEventListener("input", () => this.code.show());
    the("ask").addEventListener("change", () => this.code.show());
    // A field that is wrong must be seen to be mended.
    the("ask").addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
    the("ask").addEventListener("keydown", (event) => this.#key(event));
    the("stop").addEventListener("click", () => this.#under?.abort());
    the("start-over").addEventListener("click", () => this.#startOver());
    the("model").addEventListener("focus", () => this.#models === "" && this.refresh());
    keys.addEventListener("change", () => this.refresh());
    addEventListener("pagehide", () => this.#under?.abort());
  }

  /** The proxy said of itself what it is; ask it for its models. */
  async refresh() {
    const { default_model: standard, keys } = this.about();
    the("model").placeholder = standard ? `${standard} (the default)` : "Choose or type a name";
    this.code.show();
    put(the("model-note"));
    const key = this.keys.asking;
    if (keys && !key) return;
    this.#models = "asked"; // each time counts against the limits of the key
    try {
      const listed = await fetchJson("/v1/models", { key });
      if (key !== this.keys.asking) return;
      const owner = (model) => (model.owned_by === "penstock" ? "" : (model.owned_by ?? ""));
      const note = (model) => (model.id === standard ? "the default" : owner(model));
      this.models.options = listed.data.map((model) => ({ value: model.id, note: note(model) }));
      this.#models = "listed";
    } catch (error) {
      if (key === this.keys.asking) this.#unlisted(error, key);
    }
  }

  #unlisted(error, key) {
    this.#models = error.status === 401 ? "refused" : ""; // the same key need not be tried again
    if (error.status !== 401) {
      put(the("model-note"), `The list of models did not come (${error.message}) Any name can be typed.`);
    } else if (key || the("asking-key").hidden) this.wanted(mend(error, this.about(), key));
  }

  #key(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      the("ask").requestSubmit();
    } else if (event.key === "Escape" && this.#under && !event.defaultPrevented) this.#under.abort();
  }

  #send() {
    const text = the("message").value;
    if (this.#under) return;
    if (!text.trim()) {
      tell("Write a message first.");
      the("message").focus();
      return;
    }
    this.talk.say(text);
    the("message").value = "";
    this.#ask(this.talk.reply());
  }

  #edit(text) {
    if (this.#under) return false;
    the("message").value = text;
    the("message").focus();
    queueMicrotask(() => this.code.show());
    return true;
  }

  #startOver() {
    this.#under?.abort();
    this.talk.clear();
    this.code.show();
    tell("The conversation is empty.");
    the("message").focus();
  }

  /** The request without messages: what the fields say. */
  #fields() {
    const found = {};
    const model = the("model").value.trim();
    if (model) found.model = model;
    for (const [id, name] of [
      ["temperature", "temperature"],
      ["maximum", "max_tokens"],
    ]) {
      const value = the(id).valueAsNumber;
      if (Number.isFinite(value)) found[name] = value;
    }
    return found;
  }

  #system() {
    const said = the("system").value.trim();
    return said ? [{ role: "system", content: said }] : [];
  }

  /** What the code shows: the draft if there is one, else what was asked last. */
  #shown() {
    const draft = the("message").value;
    const messages = [...this.#system(), ...this.talk.messages({ question: !draft.trim() })];
    if (draft.trim()) messages.push({ role: "user", content: draft });
    if (!messages.some(({ role }) => role === "user")) messages.push({ role: "user", content: "Hello!" });
    const { model = this.about().default_model ?? "MODEL", ...others } = this.#fields();
    return { model, messages, ...others };
  }

  async #ask(view, headers = {}) {
    const under = new AbortController();
    this.#under = under;
    this.#busy(true);
    view.begin();
    tell("Asking …");
    try {
      if (this.about().keys && !this.keys.asking) throw new Problem({ status: 401, message: NO_KEY });
      const body = { ...this.#fields(), messages: [...this.#system(), ...this.talk.messages({ question: true })] };
      const response = await post("/chat/stream", body, { key: this.keys.asking, signal: under.signal, headers });
      const [, shadow] = SHADOW.exec(response.headers.get("cache-status")) ?? [null, null];
      await this.#read(response, view, shadow);
    } catch (error) {
      this.#failed(error, view, under.signal.aborted);
    } finally {
      if (this.#under === under) this.#under = null;
      this.#busy(this.#under !== null);
      this.#offer(view);
      this.code.show();
    }
  }

  async #read(response, view, shadow) {
    for await (const { event, data } of events(response)) {
      if (event === "error") throw broken(data);
      const said = JSON.parse(data);
      if (event === "done") return keepInSight(the("stop"), () => view.done(said, shadow));
      keepInSight(the("stop"), () => view.add(said));
    }
    throw cut();
  }

  #failed(error, view, stopped) {
    if (stopped) {
      view.over("stopped");
      view.note(STOPPED);
      tell("Stopped.");
      return;
    }
    const problem = error instanceof Problem ? error : cut();
    const described = mend(problem, this.about(), this.keys.asking);
    view.fail(described);
    if (problem.status === 401) this.wanted(described);
  }

  #offer(view) {
    if (this.talk.answer !== view) return;
    view.offer([
      ["Ask again", "The same request: see it come out of the cache", () => this.#again(view)],
      ["Ask afresh", "The same request past what is kept (Cache-Control: no-cache)", () => this.#again(view, AFRESH)],
    ]);
  }

  #again(view, headers) {
    if (this.#under || this.talk.answer !== view) return;
    the("message").focus();
    this.#ask(view, headers);
  }

  #busy(busy) {
    const [gone, come] = busy ? [the("send"), the("stop")] : [the("stop"), the("send")];
    const held = document.activeElement === gone;
    gone.hidden = true;
    come.hidden = false;
    if (held) (busy ? come : the("message")).focus(); // what is hidden would take the keyboard's place with it
  }
}

/** Who sees this now sees it still after `grow`: an answer must not push what stops it off the screen. */
function keepInSight(element, grow) {
  const seen = element.getBoundingClientRect().bottom <= innerHeight;
  grow();
  if (seen && element.getBoundingClientRect().bottom > innerHeight) element.scrollIntoView({ block: "end" });
}
