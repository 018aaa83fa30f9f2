// The keys that were entered: for asking, and for the figures of everybody. They live as long as this tab.

const NAMES = { asking: "penstock.key", figures: "penstock.figures-key" };

/** Says "change" when one of them has changed. */
export class Keys extends EventTarget {
  #kept = { asking: "", figures: "" };

  constructor() {
    super();
    for (const [kind, name] of Object.entries(NAMES)) {
      try {
        this.#kept[kind] = sessionStorage.getItem(name) ?? "";
      } catch {
        // A browser that keeps nothing for pages: then until the page is left.
      }
    }
  }

  get asking() {
    return this.#kept.asking;
  }

  get figures() {
    return this.#kept.figures;
  }

  get any() {
    return Boolean(this.asking || this.figures);
  }

  keep(kind, value) {
    this.#put(kind, value);
    this.dispatchEvent(new Event("change"));
  }

  forget() {
    for (const kind of Object.keys(NAMES)) this.#put(kind, "");
    this.dispatchEvent(new Event("change")); // once: between the two, one would be shown without the other
  }

  #put(kind, value) {
    this.#kept[kind] = value.trim();
    try {
      if (this.#kept[kind]) sessionStorage.setItem(NAMES[kind], this.#kept[kind]);
      else sessionStorage.removeItem(NAMES[kind]);
    } catch {
      // As above.
    }
  }
}
