// The columns of the table of nodes, and one row of it.

import { Attribute, Bar, Text, element } from "./dom.js";
import { answers, filled, nodeLink, sum } from "./figures.js";
import { UNKNOWN, count, duration, percent, perSecond, rate, share, size } from "./units.js";

const STATES = ["away", "draining", "cordoned", "drained", "alive"]; // Those to look at first.
const unknown = -1; // Sorts behind everything that is known.

const known = (value) => (node) => (answers(node) ? value(node) : unknown);
const shown = (value, format) => (node) => (answers(node) ? format(value(node)) : UNKNOWN);

function rateColumn(key, title, value, format = rate) {
  return { key, title, of: known(value), text: shown(value, format) };
}

// `of` is what is sorted by; numbers begin with the largest, `isText` with the first.
export const COLUMNS = [
  { key: "node", title: "Node", isText: true, of: () => 0 },
  { key: "state", title: "State", isText: true, of: (node) => STATES.indexOf(node.state) },
  { key: "weight", title: "Weight", of: (node) => node.weight, text: weightText },
  { key: "share", title: "Share", of: (node) => node.share, text: (node) => share(node.share) },
  {
    key: "cached",
    title: "Cached",
    of: (node) => filled(node).used / (filled(node).capacity || 1),
    text: (node) => size(node.cached_bytes),
    hasBar: true,
  },
  {
    key: "hit",
    title: "Hit ratio",
    of: known((node) => node.hit_ratio ?? unknown),
    text: shown((node) => node.hit_ratio, percent),
  },
  rateColumn("read", "Read", (node) => sum(node.rates.read_bytes)),
  rateColumn("served", "Served", (node) => sum(node.rates.served_bytes)),
  rateColumn("origin", "Origin", (node) => node.rates.origin_bytes),
  rateColumn("failures", "Failures", (node) => node.rates.failures, perSecond),
  { key: "epoch", title: "Epoch", of: (node) => node.seen_epoch, text: epochText },
];

function weightText({ weight, weight_source: source }) {
  return `${count(weight)}${source === "override" ? "*" : ""}`;
}

function epochText({ seen_epoch: epoch }) {
  return epoch > 0 ? count(epoch) : UNKNOWN;
}

function stateText({ state, told_at: toldAt }, at) {
  if (state !== "away" || !(toldAt > 0)) return state;
  return `away ${duration(Math.max(0, at - toldAt))}`;
}

function placeText({ id, host, zone }) {
  return [host === id ? "" : host, zone].filter(Boolean).join(" · ");
}

/** A row without a node. */
function emptyRow() {
  const row = element("tr", { role: "row" });
  for (const { key, title, hasBar, isText } of COLUMNS) {
    const cell = element("td", {
      role: "cell",
      class: `${key}${isText ? "" : " number"}`,
      "data-label": title,
    });
    if (key === "node") cell.append(element("a"), element("small"));
    else if (key === "state") cell.append(element("span", { class: "badge" }));
    else cell.append(element("span"));
    if (hasBar) cell.append(element("span", { class: "bar", "aria-hidden": "true" }));
    row.append(cell);
  }
  return row;
}

/** One node's row. */
export class NodeRow {
  #place;
  #state;
  #stateAttribute;
  #cells;
  #bar;
  #late;
  #index;

  constructor(id) {
    const row = emptyRow();
    this.element = row;
    const [node, state, ...cells] = row.children;
    node.firstChild.href = nodeLink(id);
    node.firstChild.textContent = id;
    node.firstChild.title = id; // Where it is cut.
    this.#place = new Text(node.lastChild);
    this.#state = new Text(state.firstChild);
    this.#stateAttribute = new Attribute(row, "data-state");
    this.#cells = cells.map((cell) => new Text(cell.firstChild));
    this.#bar = new Bar(row.querySelector(".bar"));
    this.#late = new Attribute(row.lastChild, "data-late");
    this.#index = new Attribute(row, "aria-rowindex");
  }

  /** Show a node, which is the table's row `index`, at a time and in an epoch of the cluster. */
  write({ node, index, at, epoch }) {
    this.#index.write(String(index));
    this.#place.write(placeText(node));
    this.#state.write(stateText(node, at));
    this.#stateAttribute.write(node.state);
    this.#cells.forEach((text, n) => text.write(COLUMNS[n + 2].text(node)));
    const { used, capacity } = filled(node);
    this.#bar.write(used / capacity);
    const isLate = answers(node) && node.seen_epoch < epoch;
    this.#late.write(isLate ? "true" : null);
  }
}
