// One model: its objects' chunks over the nodes, as /api/chunks tells them.

import { ChunkMap, KINDS, kindOf } from "./chunk_map.js";
import { Attribute, Bar, Rows, Text, byId, element } from "./dom.js";
import { byName } from "./figures.js";
import { shortName } from "./models.js";
import { count, counted, percent } from "./units.js";

const NODES_MAX = 200;

/** What each node owns and holds of all objects, those that lack most first. */
export function perNode({ nodes, objects }) {
  const found = nodes.map((id, position) => ({ id, position, owns: 0, lacks: 0, extra: 0 }));
  for (const { chunks } of objects) {
    for (const [owners, holders] of chunks) {
      for (const owner of owners) {
        found[owner].owns += 1;
        if (!holders.includes(owner)) found[owner].lacks += 1;
      }
      for (const holder of holders) if (!owners.includes(holder)) found[holder].extra += 1;
    }
  }
  const involved = found.filter(({ owns, extra }) => owns + extra > 0);
  return involved.sort((one, other) => other.lacks - one.lacks || byName(one.id, other.id));
}

/** The view of `#/model?url=…`. */
export class ModelView {
  #answer = { nodes: [], objects: [], truncated: false };
  #chosen = null; // The id of a node whose chunks are shown.
  #maps = new Rows(byId("objects"), (key) => new ChunkMap(key.slice(key.indexOf(" ") + 1)));
  #nodes = new Rows(byId("model-nodes"), (id) => this.#nodeRow(id));
  #summary = new Text(byId("model-summary"));
  #rest = new Text(byId("model-rest"));
  #legend = new Map();

  constructor() {
    for (const kind of Object.keys(KINDS)) {
      const swatch = element("span", { class: `swatch ${kind}`, "aria-hidden": "true" });
      const words = element("span");
      const item = element("li", {}, swatch, words);
      byId("model-legend").append(item);
      this.#legend.set(kind, { item, text: new Text(words) });
    }
    byId("model-all").addEventListener("click", () => this.#choose(null));
  }

  /** Forget the model before, and name the one that is asked for. */
  open(url) {
    this.#chosen = null;
    byId("model-title").textContent = shortName(url);
    this.show({ nodes: [], objects: [], truncated: false });
    this.#summary.write("Asking for its chunks…");
  }

  /** Show the answer of /api/chunks. */
  show(answer) {
    this.#answer = answer;
    const nodes = perNode(answer);
    if (!nodes.some(({ id }) => id === this.#chosen)) this.#chosen = null;
    this.#draw();
    this.#nodes.show(nodes.slice(0, NODES_MAX), ({ id }) => id);
    const rest = nodes.length - NODES_MAX;
    this.#rest.write(rest > 0 ? `${counted(rest, "more node")} that lack less.` : "");
    this.#summary.write(summary(answer));
  }

  /** Say why there is no answer. */
  refuse({ message }) {
    this.#summary.write(message || "The node does not answer.");
  }

  #choose(id) {
    this.#chosen = id;
    this.#draw();
    this.#nodes.show(perNode(this.#answer).slice(0, NODES_MAX), (node) => node.id);
  }

  #draw() {
    const { nodes: names, objects } = this.#answer;
    const node = this.#chosen === null ? null : names.indexOf(this.#chosen);
    byId("model-all").hidden = node === null;
    for (const [kind, { item, text }] of this.#legend) {
      const words = KINDS[kind][node === null ? 0 : 1];
      item.hidden = words === "";
      text.write(words);
    }
    this.#maps.show(
      objects.map((object) => ({ object, names, node })),
      ({ object }) => `${object.version} ${object.url}`,
    );
  }

  #nodeRow(id) {
    const told = element("span", { class: "quiet" });
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    const button = element("button", { type: "button" }, id);
    button.addEventListener("click", () => this.#choose(this.#chosen === id ? null : id));
    const row = element("li", {}, button, told, bar);
    const text = new Text(told);
    const length = new Bar(bar);
    const pressed = new Attribute(button, "aria-pressed");
    const write = ({ owns, lacks, extra }) => {
      pressed.write(String(this.#chosen === id));
      length.write(owns > 0 ? (owns - lacks) / owns : 0);
      const more = extra > 0 ? `, ${count(extra)} for others` : "";
      text.write(`holds ${count(owns - lacks)} of its ${count(owns)}${more}`);
    };
    return { element: row, write };
  }
}

function summary({ objects, truncated }) {
  const kinds = { whole: 0, fewer: 0, elsewhere: 0, missing: 0 };
  let all = 0;
  for (const { chunks } of objects) {
    for (const chunk of chunks) kinds[kindOf(chunk)] += 1;
    all += chunks.length;
  }
  if (objects.length === 0) return "No object is there.";
  const parts = Object.entries(kinds).filter(([, number]) => number > 0);
  const told = parts.map(([kind, number]) => `${percent(number / all)} ${KINDS[kind][0]}`);
  const cut = truncated ? " There is more than is shown." : "";
  const what = `${counted(objects.length, "object")}, ${counted(all, "chunk")}`;
  return `${what}: ${told.join(", ")}.${cut}`;
}
