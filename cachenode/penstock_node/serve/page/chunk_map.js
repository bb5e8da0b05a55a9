// The chunks of one object as tiles: who should keep each, and who does.

import { Text, drawn, element } from "./dom.js";
import { shortName } from "./models.js";
import { readable } from "./reading.js";
import { counted, percent, size } from "./units.js";

const PITCHES = [
  [400, 16],
  [4000, 11],
  [Infinity, 7],
]; // Pixels from tile to tile, for up to so many chunks.
const GAP = 2;

/** What a chunk may be, and how that is told; of one node alone, other words fit. */
export const KINDS = {
  whole: ["at every owner", "its own, held"],
  fewer: ["at some owners", ""],
  elsewhere: ["elsewhere only", "held for others"],
  missing: ["held by none", "its own, missing"],
  other: ["", "of other nodes"],
};

/** What a chunk is: to the cluster, or where `node` is a position, to that node. */
export function kindOf([owners, holders], node = null) {
  if (node === null) return kindForAll(owners, holders);
  const isOwner = owners.includes(node);
  const isHolder = holders.includes(node);
  if (isOwner) return isHolder ? "whole" : "missing";
  return isHolder ? "elsewhere" : "other";
}

function kindForAll(owners, holders) {
  if (holders.length === 0) return "missing";
  const holding = owners.filter((owner) => holders.includes(owner)).length;
  if (holding === 0) return "elsewhere";
  return holding === owners.length ? "whole" : "fewer";
}

/** One object: a heading, tiles, and what is read of them. */
export class ChunkMap {
  #paths = new Map();
  #marked = drawn("path", { class: "marked" });
  #svg;
  #frame;
  #facts;
  #reading;
  #names = [];
  #object = { chunks: [] };
  #node = null;
  #columns = 1;
  #pitch = 16;
  #changed;

  constructor(url) {
    for (const kind of Object.keys(KINDS)) {
      this.#paths.set(kind, drawn("path", { class: `chunk ${kind}` }));
    }
    this.#svg = drawn("svg", { "aria-hidden": "true" }, ...this.#paths.values(), this.#marked);
    this.#frame = element("div", { class: "tiles" }, this.#svg);
    const facts = element("span", { class: "quiet" });
    const reading = element("p", { class: "reading" });
    this.#facts = new Text(facts);
    this.#reading = new Text(reading);
    const heading = element("h3", {}, shortName(url));
    this.element = element("article", { class: "object" }, heading, facts, this.#frame, reading);
    this.#changed = readable(this.#frame, {
      label: `Chunks of ${shortName(url)}. Arrow keys go from chunk to chunk`,
      count: () => this.#object.chunks.length,
      first: () => 0,
      row: () => this.#columns,
      step: 100,
      at: (event) => this.#pointed(event),
      text: (position) => this.#told(position),
      show: (position) => this.#look(position),
    });
    // In the next frame: what is drawn changes the height, which is observed too.
    new ResizeObserver(() => requestAnimationFrame(() => this.#resize())).observe(this.#frame);
  }

  /** Show an object of /api/chunks; `names` of all nodes, and the position of one, or null. */
  write({ object, names, node }) {
    this.#object = object;
    this.#names = names;
    this.#node = node;
    const { chunks, version } = object;
    const held = chunks.filter(([, holders]) => holders.length > 0).length;
    const part = percent(chunks.length > 0 ? held / chunks.length : 1);
    const all = `${size(object.size)} in ${counted(chunks.length, "chunk")}`;
    this.#facts.write(`${all}, ${part} held, version ${version}`);
    this.#layOut();
    this.#draw();
    this.#changed();
  }

  #resize() {
    const before = this.#columns;
    this.#layOut();
    if (before !== this.#columns) this.#draw();
  }

  #layOut() {
    const { length } = this.#object.chunks;
    this.#pitch = PITCHES.find(([most]) => length <= most)[1];
    const width = this.#frame.clientWidth || 600;
    this.#columns = Math.max(1, Math.floor(width / this.#pitch));
  }

  #draw() {
    const tiles = new Map([...this.#paths.keys()].map((kind) => [kind, []]));
    const side = this.#pitch - GAP;
    this.#object.chunks.forEach((chunk, index) => {
      tiles.get(kindOf(chunk, this.#node)).push(this.#tile(index, side));
    });
    for (const [kind, path] of this.#paths) path.setAttribute("d", tiles.get(kind).join(""));
    const rows = Math.ceil(this.#object.chunks.length / this.#columns);
    this.#svg.setAttribute("width", this.#columns * this.#pitch);
    this.#svg.setAttribute("height", Math.max(1, rows) * this.#pitch);
  }

  #tile(index, side) {
    const x = (index % this.#columns) * this.#pitch + 1;
    const y = Math.floor(index / this.#columns) * this.#pitch + 1;
    return `M${x} ${y}h${side}v${side}h${-side}z`;
  }

  #pointed(event) {
    const { left, top } = this.#svg.getBoundingClientRect();
    const column = Math.floor((event.clientX - left) / this.#pitch);
    const row = Math.floor((event.clientY - top) / this.#pitch);
    const index = row * this.#columns + column;
    const isTile = column >= 0 && column < this.#columns && row >= 0;
    return isTile && index < this.#object.chunks.length ? index : null;
  }

  #look(position) {
    const d = position === null ? "" : this.#tile(position, this.#pitch - GAP);
    this.#marked.setAttribute("d", d);
    this.#reading.write(position === null ? "" : this.#told(position));
  }

  #told(position) {
    const [owners, holders] = this.#object.chunks[position];
    const { chunk_size: chunkSize, size: all } = this.#object;
    const begin = position * chunkSize;
    const range = `${size(begin)} to ${size(Math.min(all, begin + chunkSize))}`;
    const lacking = owners.filter((owner) => !holders.includes(owner));
    const missing = lacking.length > 0 ? `; missing at ${this.#named(lacking)}` : "";
    const held = `held by ${this.#named(holders)}`;
    return `chunk ${position}, ${range}: owned by ${this.#named(owners)}; ${held}${missing}`;
  }

  #named(positions) {
    return positions.map((position) => this.#names[position]).join(", ") || "none";
  }
}
