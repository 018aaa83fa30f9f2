// The conversation: what the user said, what was answered, and one question at a time under way.

import { AnswerView } from "./answer.js";
import { make, put, the } from "./dom.js";

const LOST = "This question got no answer, so it is not sent along with the next one.";

/** Turns in their order. `edit(text)` is told what the user wants to say anew. */
export class Conversation {
  #turns = []; // {role, text | view, element}

  constructor(edit) {
    this.edit = edit;
    this.place = the("turns");
  }

  get isEmpty() {
    return this.#turns.length === 0;
  }

  /** The messages up to (not with) the newest answer, or all of them; without questions that got no answer. */
  messages({ question = false } = {}) {
    const turns = question && this.answer ? this.#turns.slice(0, -1) : this.#turns;
    const isLost = (turn, next) => (turn.view ?? next?.view)?.isLost ?? false;
    return turns
      .filter((turn, at) => !isLost(turn, turns[at + 1]))
      .map((turn) => ({ role: turn.role, content: turn.view ? turn.view.text : turn.text }))
      .filter(({ role, content }) => role === "user" || content);
  }

  /** The newest answer, if it is the newest turn. */
  get answer() {
    return this.#turns.at(-1)?.view ?? null;
  }

  say(text) {
    this.answer?.offer([]);
    if (this.answer?.isLost) this.answer.note(LOST);
    const edit = make("button", { type: "button", class: "quiet" }, "Edit");
    const head = make("header", { class: "turn-head" }, make("strong", {}, "You"), edit);
    const element = make(
      "li",
      { class: "turn yours", "aria-label": "You" },
      head,
      make("div", { class: "text" }, text),
    );
    const turn = { role: "user", text, element };
    edit.addEventListener("click", () => this.#takeBack(turn));
    this.#add(turn);
  }

  /** A new answer's place. */
  reply() {
    const view = new AnswerView();
    this.#add({ role: "assistant", view, element: view.element });
    return view;
  }

  #add(turn) {
    this.#turns.push(turn);
    this.place.append(turn.element);
    this.#show();
  }

  #takeBack(turn) {
    const from = this.#turns.indexOf(turn);
    if (from < 0 || !this.edit(turn.text)) return;
    for (const each of this.#turns.splice(from)) each.element.remove();
    this.#show();
  }

  clear() {
    this.#turns = [];
    put(this.place);
    this.#show();
  }

  #show() {
    the("nothing-asked").hidden = !this.isEmpty;
    the("start-over").hidden = this.isEmpty;
  }
}
