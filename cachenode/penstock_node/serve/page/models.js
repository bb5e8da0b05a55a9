// The hottest models: what is read most, and how much of it the cluster holds.

import { Bar, Rows, Text, byId, element } from "./dom.js";
import { modelLink } from "./figures.js";
import { rate, size } from "./units.js";

const SCHEME = "penstock://";

/** A url without what all of them begin with. */
export const shortName = (url) => (url.startsWith(SCHEME) ? url.slice(SCHEME.length) : url);

function modelRow(url, hottest) {
  const read = element("b");
  const held = element("span", { class: "quiet" });
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  const link = element("a", { href: modelLink(url), class: "title", title: url }, shortName(url));
  const row = element("li", {}, link, read, bar, held);
  const readText = new Text(read);
  const heldText = new Text(held);
  const length = new Bar(bar);
  const write = ({ bytes, held_bytes: heldBytes, copies, read_bytes_per_s: perS }) => {
    readText.write(rate(perS));
    length.write(perS / hottest());
    const part = heldBytes >= bytes ? `all ${size(bytes)} held` : heldOf(heldBytes, bytes);
    heldText.write(`${part}, ${copiesText(copies)}`);
  };
  return { element: row, write };
}

const heldOf = (held, bytes) => `${size(held)} of ${size(bytes)} held`;

function copiesText(copies) {
  if (copies === 1) return "1 copy";
  return `${Number.isInteger(copies) ? copies : copies.toFixed(1)} copies`;
}

/** The list of models. */
export class Models {
  #hottest = 1;
  #rows = new Rows(byId("models"), (url) => modelRow(url, () => this.#hottest));
  #summary = new Text(byId("models-summary"));

  /** Show the answer of /api/overview. */
  show({ models }) {
    this.#hottest = Math.max(1, ...models.map((model) => model.read_bytes_per_s));
    this.#rows.show(models, ({ url }) => url);
    this.#summary.write(models.length === 0 ? "Nothing was read of late." : "");
  }
}
