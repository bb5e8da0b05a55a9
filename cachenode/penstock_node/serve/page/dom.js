// Writing to the document: only what changed, and never as markup, so that a name is just text.

/** The element of index.html with this id. */
export const byId = (id) => document.getElementById(id);

/** Make an element; `attributes` of undefined or false are left out, true is an empty one. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  setAttributes(made, attributes);
  made.append(...children);
  return made;
}

/** The same for a picture's parts. */
export function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(made, attributes);
  made.append(...children);
  return made;
}

function setAttributes(target, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) {
      target.setAttribute(name, value === true ? "" : value);
    }
  }
}

/** The text of an element, which has nothing else in it; written when it changes. */
export class Text {
  #shown = null;
  #node;

  constructor(parent) {
    this.#node = document.createTextNode(parent.textContent);
    parent.replaceChildren(this.#node);
  }

  write(text) {
    if (text !== this.#shown) {
      this.#shown = text;
      this.#node.data = text;
    }
  }
}

/** An attribute that is written when it changes; null takes it away. */
export class Attribute {
  #shown = null;
  #target;
  #name;

  constructor(target, name) {
    this.#target = target;
    this.#name = name;
  }

  write(value) {
    if (value === this.#shown) return;
    this.#shown = value;
    if (value === null) this.#target.removeAttribute(this.#name);
    else this.#target.setAttribute(this.#name, value);
  }
}

/** How full a bar is, from 0 to 1; a change that nobody would see is not written. */
export class Bar {
  #shown = null;
  #target;

  constructor(target) {
    this.#target = target;
  }

  write(part) {
    const clamped = Math.min(1, Math.max(0, part || 0)).toFixed(3);
    if (clamped === this.#shown) return;
    this.#shown = clamped;
    this.#target.style.setProperty("--part", clamped);
  }
}

/**
 * The children of an element, one for each key. `make(key)` returns `{element, write(item)}`.
 * An element stays as long as its key does, and keeps the focus wherever it goes.
 */
export class Rows {
  #parent;
  #make;
  #rows = new Map();

  constructor(parent, make) {
    this.#parent = parent;
    this.#make = make;
  }

  /** Show `items` in their order, each by its key. */
  show(items, keyOf) {
    const focused = document.activeElement;
    const shown = new Map();
    for (const item of items) {
      const key = keyOf(item);
      const row = this.#rows.get(key) ?? this.#make(key);
      row.write(item);
      shown.set(key, row);
    }
    for (const [key, row] of this.#rows) if (!shown.has(key)) row.element.remove();
    this.#rows = shown;
    this.#arrange();
    if (focused !== document.activeElement && focused?.isConnected) {
      focused.focus({ preventScroll: true });
    }
  }

  #arrange() {
    let place = this.#parent.firstElementChild;
    for (const { element: row } of this.#rows.values()) {
      if (row === place) place = place.nextElementSibling;
      else if (place !== null && row === place.nextElementSibling) {
        const late = place;
        place = row.nextElementSibling;
        this.#parent.append(late);
      } else this.#parent.insertBefore(row, place);
    }
  }
}
