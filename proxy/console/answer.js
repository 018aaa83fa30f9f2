// One answer as it comes: its text, what it cost, and the same question asked again beside it.

import { copying, facts, hidden, make, put, table, tell } from "./dom.js";
import { count, duration, many, money, outcome, would } from "./words.js";

/** How an answer came to be, as a badge. `shadow`: what would have become of it; `status`: of an error, too. */
export function badge(name, { shadow = null, status = 200 } = {}) {
  if (status >= 400 && name !== "left") {
    const word = name === "refused" ? "refused" : "failed";
    return make("span", { class: "badge is-failed", title: "It was answered with an error." }, `${word} ${status}`);
  }
  const [word, sentence] = outcome(name);
  if (!shadow || name !== "bypass") return make("span", { class: `badge is-${name}`, title: sentence }, word);
  const [instead, , why] = would(shadow);
  return make("span", { class: `badge is-would-${shadow}`, title: why }, instead);
}

/** An answer's place in the conversation. What it shows is the newest run; each run stays in its table. */
export class AnswerView {
  #text = "";
  #runs = [];

  constructor() {
    this.head = make("header", { class: "turn-head" });
    this.thoughts = make("div", { class: "text" });
    const summary = make("summary", {}, "Thinking aloud");
    this.thinking = make("details", { class: "thinking", hidden: true }, summary, this.thoughts);
    this.body = make("div", { class: "text answer-text" });
    this.notice = make("div", { class: "notice-place" });
    this.figures = make("div", {});
    this.actions = make("div", { class: "actions" });
    const parts = [this.head, this.thinking, this.body, this.notice, this.figures, this.actions];
    this.element = make("li", { class: "turn answer", "aria-label": "Answer" }, parts);
  }

  get text() {
    return this.#text;
  }

  /** Did its question get no answer? One that broke off is none. */
  get isLost() {
    return this.settled && (this.failed || !this.#text);
  }

  /** It is being asked, for the first time or again. */
  begin() {
    this.#text = "";
    for (const each of [this.body, this.thoughts, this.notice, this.figures, this.actions]) put(each);
    this.thinking.hidden = true;
    this.element.setAttribute("aria-busy", "true");
    this.element.classList.add("streaming");
    this.#title("Answer", "waiting for the first word …");
    this.began = performance.now();
    this.first = null;
    this.settled = this.failed = false;
  }

  /** A piece of it: content, refusal or reasoning. */
  add({ content, refusal, reasoning }) {
    if (this.first === null) {
      this.first = (performance.now() - this.began) / 1000;
      this.#title("Answer", `first token ${duration(this.first)}`);
      tell("The answer begins.");
    }
    if (reasoning) {
      this.thinking.hidden = false;
      this.thoughts.append(reasoning);
    }
    if (refusal) this.body.classList.add("refusal");
    const piece = (content ?? "") + (refusal ?? "");
    this.#text += piece;
    if (piece) this.body.append(piece);
  }

  /** It is whole: what `event: done` says, and in shadow mode what would have become of it. */
  done(said, shadow = null) {
    const took = (performance.now() - this.began) / 1000;
    const run = { ...said, shadow, first: this.first, took, rate: rate(said, this.first, took) };
    this.#runs.push(run);
    this.#settle();
    this.#title(said.model || "Answer", said.provider, badge(said.cache, run));
    put(this.figures, this.#list(run), this.#runs.length > 1 ? this.#table() : null);
    if (said.finish_reason === "length") this.note("It is cut at the maximum of tokens.");
    if (said.finish_reason === "content_filter") this.note("A content filter cut it; it is not kept.");
    const word = shadow ? would(shadow)[1] : outcome(said.cache)[0];
    tell(`Done: ${word}, ${many(said.usage?.completion_tokens ?? null, "token")} in ${duration(took)}.`);
  }

  /** It is over, but not whole. */
  over(word) {
    this.#settle();
    this.#title("Answer", "", make("span", { class: `badge is-${this.failed ? "failed" : "left"}` }, word));
  }

  #title(name, words, mark = null) {
    put(this.head, make("strong", {}, name), words && make("span", { class: "muted" }, words), mark);
  }

  #settle() {
    this.settled = true;
    this.element.setAttribute("aria-busy", "false");
    this.element.classList.remove("streaming");
    for (const each of [this.body, this.thoughts]) each.normalize(); // one text instead of hundreds
  }

  note(text) {
    this.notice.append(make("p", { class: "note" }, text));
  }

  /** `described`: what mend() says. `again`: a function, or null. */
  fail(described) {
    this.failed = true;
    this.over("failed");
    const { title, message, detail, advice } = described;
    const parts = [make("strong", {}, title), make("p", {}, message), make("p", { class: "advice" }, advice)];
    put(this.notice, make("div", { class: "problem", role: "alert" }, parts, detail ? make("code", {}, detail) : null));
  }

  /** What may be done with it now; [label, what it does, function]. */
  offer(buttons) {
    const button = ([label, title, act]) =>
      make("button", { type: "button", class: "quiet", title, click: act }, label);
    const made = buttons.map(button);
    put(this.actions, made, this.#text ? copying("Copy", () => this.#text) : null);
  }

  #list(run) {
    const small = (words) => words && make("small", {}, words);
    const proxys = run.first_token_seconds === null ? "" : `${duration(run.first_token_seconds)} at the proxy`;
    return facts({ class: "run" }, [
      ["First token", [duration(run.first), small(proxys)]],
      ["Speed", run.rate === null ? "at once" : `${count(run.rate)} tokens/s`],
      ["In all", duration(run.took)],
      ["Tokens", [inAndOut(run.usage), small(details(run.usage))]],
      ["Cost", [money(run.cost_usd), small(run.estimated ? "counted here, not billed" : "")]],
      run.shadow ? wouldSave(run) : ["Saved", money(run.saved_usd), Number(run.saved_usd) > 0 ? "good" : null],
    ]);
  }

  #table() {
    const row = (run, index) => [
      String(index + 1),
      badge(run.cache, run),
      duration(run.first),
      duration(run.took),
      money(run.cost_usd),
      run.shadow ? spared(run) : money(run.saved_usd),
    ];
    const saved = this.#runs.at(-1).shadow ? "Would save" : "Saved";
    const heads = [hidden("Time"), "Cache", "First token", "Total", "Cost", saved];
    const caption = make("caption", {}, `Asked ${this.#runs.length} times`);
    return table({ class: "runs" }, caption, heads, this.#runs.map(row));
  }
}

/** In shadow mode: what a hit would have saved is what it cost. */
function spared({ shadow, cost_usd: cost }) {
  return shadow === "miss" ? "nothing" : money(cost);
}

function wouldSave(run) {
  const words = make("small", {}, would(run.shadow)[1]);
  return ["Would have saved", [spared(run), words], run.shadow === "miss" ? null : "would"];
}

function inAndOut(usage) {
  return usage ? `${count(usage.prompt_tokens)} in · ${count(usage.completion_tokens)} out` : "unknown";
}

/** Tokens a second from the first to the last; null where they came at once. */
function rate({ usage }, first, took) {
  const spread = took - (first ?? took);
  const tokens = usage?.completion_tokens ?? 0;
  return spread > 0.02 && tokens > 1 ? Math.round((tokens - 1) / spread) : null;
}

function details(usage) {
  if (!usage) return "";
  const { cached_tokens: cached, reasoning_tokens: reasoning } = usage;
  return [cached ? `${count(cached)} cached` : "", reasoning ? `${count(reasoning)} reasoning` : ""]
    .filter(Boolean)
    .join(" · ");
}
