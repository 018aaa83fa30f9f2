// A field with a list of suggestions that takes any other text too; by keyboard and for screen readers as the ARIA
// Authoring Practices have it ("Editable Combobox With List Autocomplete").

import { make, put } from "./dom.js";

export class Combobox {
  #options = [];
  #shown = [];
  #active = -1;

  /** `list` is an empty <ul role=listbox>, `opener` the button beside the field. */
  constructor(input, list, opener) {
    Object.assign(this, { input, list, opener });
    input.addEventListener("input", () => this.#open(input.value));
    input.addEventListener("keydown", (event) => this.#key(event));
    input.addEventListener("blur", () => this.#close());
    opener.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
    opener.addEventListener("click", () => {
      input.focus();
      if (this.#isOpen) this.#close();
      else this.#open("");
    });
    list.addEventListener("mousedown", (event) => event.preventDefault());
    list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.#choose(option.dataset.value);
    });
  }

  /** [{value, note}] */
  set options(options) {
    this.#options = options;
    this.opener.hidden = options.length === 0;
    if (this.#isOpen) this.#open(this.input.value);
  }

  get #isOpen() {
    return !this.list.hidden;
  }

  #open(typed) {
    const wanted = typed.trim().toLowerCase();
    this.#shown = this.#options.filter((option) => option.value.toLowerCase().includes(wanted));
    if (!this.#shown.length) return this.#close();
    put(
      this.list,
      this.#shown.map((option, index) => this.#row(option, index)),
    );
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.#activate(-1);
  }

  #row({ value, note }, index) {
    const told = { id: `${this.list.id}-${index}`, role: "option", "aria-selected": "false", "data-value": value };
    return make("li", told, make("span", {}, value), note ? make("small", {}, note) : null);
  }

  #close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  #activate(index) {
    this.#active = index;
    [...this.list.children].forEach((row, at) => row.setAttribute("aria-selected", String(at === index)));
    const row = this.list.children[index];
    if (row) {
      this.input.setAttribute("aria-activedescendant", row.id);
      row.scrollIntoView({ block: "nearest" });
    } else this.input.removeAttribute("aria-activedescendant");
  }

  #choose(value) {
    this.input.value = value;
    this.#close();
    this.input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  #key(event) {
    if (event.altKey && event.key !== "ArrowDown") return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      this.#step(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter" && this.#isOpen && this.#active >= 0 && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.#choose(this.#shown[this.#active].value);
    } else if (event.key === "Escape" && this.#isOpen) {
      event.preventDefault();
      this.#close();
    }
  }

  #step(by) {
    if (!this.#isOpen) {
      this.#open(this.#options.some((option) => option.value === this.input.value) ? "" : this.input.value);
      if (!this.#isOpen) this.#open("");
      if (!this.#isOpen) return;
    }
    const size = this.#shown.length;
    this.#activate(this.#active < 0 ? (by > 0 ? 0 : size - 1) : (this.#active + by + size) % size);
  }
}
