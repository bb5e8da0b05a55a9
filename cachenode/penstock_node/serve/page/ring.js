// The ring as a picture: each node a sector as wide as its share by weight, and as high as what it
// holds of it. A sector that leaves the dashed circle has another weight than its disks say.

import { Rows, Text, byId, drawn, element } from "./dom.js";
import { answers, byName, nodeLink, owned } from "./figures.js";
import { readable } from "./reading.js";
import { count, counted, share, size } from "./units.js";

const INNER = 48;
const SIDE = 208;
const PER_RATIO = 34; // Of the radius: where a node holds just what its weight says.
const RATIO_MAX = 1.6; // What is beyond is drawn as this.
const EVEN = 0.15; // So far from its share is chance: few large chunks, tiers that still fill.
const GAPS_MAX = 60; // More sectors than these touch each other.
const GAP = 0.012; // Radians.
const OFF_MIN = 0.025; // Radians that a sector has at least where something is wrong.
const LISTED_MAX = 5;
const KINDS = ["even", "unknown", "over", "under"];

/** Each node on the ring: its angles, its share by weight, and what it holds of all. */
export function sectors(nodes) {
  const onRing = nodes.filter((node) => node.share > 0);
  onRing.sort((one, other) => byName(one.zone, other.zone) || byName(one.id, other.id));
  const all = nodes.reduce((sum, node) => sum + owned(node).used, 0);
  const shares = onRing.reduce((sum, node) => sum + node.share, 0);
  let angle = 0;
  return onRing.map((node) => {
    const begin = angle;
    angle += (node.share / shares) * 2 * Math.PI;
    const bytes = owned(node).used;
    const held = all > 0 ? bytes / all : 0;
    const ratio = held / node.share;
    return { node, begin, end: angle, bytes, held, ratio, kind: kindOf(node, ratio, all) };
  });
}

function kindOf(node, ratio, all) {
  if (all === 0 || !answers(node)) return "unknown";
  if (ratio > 1 + EVEN) return "over";
  return ratio < 1 - EVEN ? "under" : "even";
}

const at = (angle, radius) =>
  `${(Math.sin(angle) * radius).toFixed(2)} ${(-Math.cos(angle) * radius).toFixed(2)}`;

/** The outline of a sector; a whole circle is a hair short of itself, or it would be nothing. */
function outline({ begin, end }, radius, gap) {
  const from = begin + gap / 2;
  const to = Math.min(end, begin + 2 * Math.PI - 0.001) - gap / 2;
  const isLong = to - from > Math.PI ? 1 : 0;
  return (
    `M${at(from, INNER)}L${at(from, radius)}A${radius} ${radius} 0 ${isLong} 1 ${at(to, radius)}` +
    `L${at(to, INNER)}A${INNER} ${INNER} 0 ${isLong} 0 ${at(from, INNER)}Z`
  );
}

/** A sector that can be seen, however many there are. */
function widened(sector) {
  const missing = Math.max(0, OFF_MIN - (sector.end - sector.begin));
  return { ...sector, begin: sector.begin - missing / 2, end: sector.end + missing / 2 };
}

const radiusOf = (ratio) => (INNER + PER_RATIO * Math.min(ratio, RATIO_MAX)).toFixed(1);

function told({ node, bytes, held, ratio }) {
  const holds = `holds ${share(held)} (${size(bytes)}), ${ratio.toFixed(2)} times its share`;
  return `${node.id}: weight ${count(node.weight)}, share ${share(node.share)}, ${holds}`;
}

/** The picture, what is read of it, and the nodes that are furthest from their weight. */
export class Ring {
  #sectors = [];
  #paths = new Map();
  #written = new Map();
  #cut = drawn("path", { class: "cut" });
  #marked = drawn("path", { class: "marked" });
  #reading = new Text(byId("ring-reading"));
  #summary = new Text(byId("ring-summary"));
  #middle;
  #list = new Rows(byId("ring-list"), offRow);
  #changed;

  constructor() {
    const figure = byId("ring-picture");
    for (const kind of KINDS) this.#paths.set(kind, drawn("path", { class: `sector ${kind}` }));
    const middle = drawn("text", { class: "middle", y: -1 });
    const below = drawn("text", { class: "middle-small", y: 13 }, "on the ring");
    this.#middle = new Text(middle);
    figure.append(
      drawn(
        "svg",
        { viewBox: "-104 -104 208 208", "aria-hidden": "true" },
        drawn("circle", { class: "band", r: INNER + PER_RATIO / 2, "stroke-width": PER_RATIO }),
        this.#paths.get("even"),
        this.#cut,
        ...KINDS.slice(1).map((kind) => this.#paths.get(kind)),
        drawn("circle", { class: "expected", r: INNER + PER_RATIO }),
        this.#marked,
        middle,
        below,
      ),
    );
    this.#changed = readable(figure, {
      label: "The ring: what each node holds beside its share. Arrow keys go from node to node",
      count: () => this.#sectors.length,
      first: () => 0,
      step: 10,
      at: (event) => this.#pointed(event),
      text: (position) => told(this.#sectors[position]),
      show: (position) => this.#look(position),
      open: (position) => location.assign(nodeLink(this.#sectors[position].node.id)),
    });
  }

  /** Show the answer of /api/overview. */
  show({ nodes }) {
    this.#sectors = sectors(nodes);
    this.#middle.write(count(this.#sectors.length));
    this.#draw();
    this.#tell(nodes);
    this.#changed();
  }

  #draw() {
    const gap = this.#sectors.length > 1 && this.#sectors.length <= GAPS_MAX ? GAP : 0;
    for (const [kind, path] of this.#paths) {
      const ofKind = this.#sectors.filter((sector) => sector.kind === kind);
      const wide = kind === "even" ? ofKind : ofKind.map(widened);
      const d = wide.map((sector) => outline(sector, radiusOf(sector.ratio), gap)).join("");
      this.#write(path, d);
    }
    // What is widened lies over its neighbours.
    const off = this.#sectors.filter(({ kind }) => kind !== "even").map(widened);
    this.#write(this.#cut, off.map((sector) => outline(sector, radiusOf(1), 0)).join(""));
  }

  #write(path, d) {
    if (d !== this.#written.get(path)) path.setAttribute("d", d);
    this.#written.set(path, d);
  }

  #tell(nodes) {
    const off = this.#sectors.filter(({ kind }) => kind === "over" || kind === "under");
    off.sort((one, other) => distance(other.ratio) - distance(one.ratio));
    this.#list.show(off.slice(0, LISTED_MAX), ({ node }) => node.id);
    this.#summary.write(summary(this.#sectors, off, nodes));
  }

  #pointed(event) {
    const { left, top, width, height } = event.currentTarget.getBoundingClientRect();
    const x = event.clientX - left - width / 2;
    const y = event.clientY - top - height / 2;
    if (Math.hypot(x, y) < (INNER / SIDE) * width) return null;
    const angle = (Math.atan2(x, -y) + 2 * Math.PI) % (2 * Math.PI);
    const found = this.#sectors.findIndex(({ end }) => angle < end);
    return found === -1 ? null : found;
  }

  #look(position) {
    const sector = position === null ? undefined : this.#sectors[position];
    this.#reading.write(sector ? told(sector) : "");
    this.#marked.setAttribute("d", sector ? outline(sector, radiusOf(RATIO_MAX), 0) : "");
  }
}

// How far off, in either direction: half its share is as far as twice.
const distance = (ratio) => Math.abs(Math.log(Math.max(ratio, 0.001)));

function summary(all, off, nodes) {
  const left = nodes.filter((node) => node.share === 0 && owned(node).used > 0);
  const outside = left.reduce((sum, node) => sum + owned(node).used, 0);
  const parts = [];
  if (all.length === 0) parts.push("No node is on the ring.");
  else if (all.every(({ bytes }) => bytes === 0)) parts.push("Nothing is cached yet.");
  else if (off.length === 0) parts.push(`Every node holds its share, within ${EVEN * 100} %.`);
  else parts.push(`${counted(off.length, "node")} off by more than ${EVEN * 100} %:`);
  if (left.length > 0) {
    parts.unshift(`Off the ring, ${counted(left.length, "node")} still hold ${size(outside)}.`);
  }
  return parts.join(" ");
}

function offRow(id) {
  const holds = element("span");
  const row = element(
    "li",
    {},
    element("a", { href: nodeLink(id) }, id),
    element("span", { class: "quiet" }, holds),
  );
  const text = new Text(holds);
  const write = ({ bytes, ratio }) =>
    text.write(`${size(bytes)}, ${ratio.toFixed(2)} times its share`);
  return { element: row, write };
}
