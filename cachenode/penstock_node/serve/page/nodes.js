// The table of nodes: sorted by a column's button, filtered by words, written cell by cell.

import { Attribute, Rows, Text, byId, element } from "./dom.js";
import { byName } from "./figures.js";
import { InView } from "./in_view.js";
import { COLUMNS, NodeRow } from "./node_row.js";
import { count, counted } from "./units.js";

const [NAME, STATE] = COLUMNS;

/** The table, its header's buttons and its filter. */
export class Nodes {
  #overview = { nodes: [], at: 0, epoch: 0 };
  #ranks = new Map(); // Of ids, as people count.
  #order = []; // Ids of all that the filter lets through, as they are shown.
  #byId = new Map();
  #body = byId("node-rows");
  #headers = new Map();
  #rows = new Rows(this.#body, (id) => new NodeRow(id));
  #inView = new InView(this.#body, () => this.#draw());
  #told = new Text(byId("node-count"));
  #rowCount = new Attribute(byId("node-table"), "aria-rowcount");
  #filter = byId("node-filter");
  #sortedBy = STATE;
  #isReversed = false;

  constructor() {
    for (const column of COLUMNS) byId("node-columns").append(this.#header(column));
    this.#filter.addEventListener("input", () => this.#arrange());
    this.#markSorted();
  }

  #header(column) {
    const button = element("button", { type: "button" }, column.title);
    const header = element("th", { role: "columnheader", scope: "col" }, button);
    header.className = `${column.key}${column.isText ? "" : " number"}`;
    button.addEventListener("click", () => this.#sortBy(column));
    this.#headers.set(column, header);
    return header;
  }

  /** Show the answer of /api/overview. */
  show(overview) {
    this.#overview = overview;
    this.#byId = new Map(overview.nodes.map((node) => [node.id, node]));
    const isSame = this.#rank();
    // Rows do not move away under a pointer, or from who reads them by keyboard.
    if (isSame && this.#filter.value === "" && this.#body.matches(":hover, :focus-within")) {
      this.#draw();
    } else this.#arrange();
    byId("node-note").hidden = !overview.nodes.some((node) => node.weight_source === "override");
  }

  /** Order the names anew where there are others than before; tell whether there are not. */
  #rank() {
    const { nodes } = this.#overview;
    if (this.#ranks.size === nodes.length && nodes.every(({ id }) => this.#ranks.has(id))) {
      return true;
    }
    const ids = nodes.map(({ id }) => id).sort(byName);
    this.#ranks = new Map(ids.map((id, rank) => [id, rank]));
    return false;
  }

  #sortBy(column) {
    this.#isReversed = column === this.#sortedBy && !this.#isReversed;
    this.#sortedBy = column;
    this.#markSorted();
    this.#arrange();
  }

  #markSorted() {
    for (const [column, header] of this.#headers) {
      const isDown = Boolean(column.isText) === this.#isReversed;
      if (column !== this.#sortedBy) header.removeAttribute("aria-sort");
      else header.setAttribute("aria-sort", isDown ? "descending" : "ascending");
    }
  }

  #arrange() {
    const wanted = this.#filtered();
    this.#sort(wanted);
    this.#order = wanted.map(({ id }) => id);
    this.#draw();
    const all = counted(this.#byId.size, "node");
    const isAll = wanted.length === this.#byId.size;
    this.#told.write(isAll ? all : `${count(wanted.length)} of ${all}`);
  }

  #draw() {
    const { at, epoch } = this.#overview;
    const [first, last] = this.#inView.range(this.#order.length);
    const items = [];
    const add = (position) => {
      const node = this.#byId.get(this.#order[position]);
      items.push({ node, index: position + 2, at, epoch }); // The header is row 1.
    };
    // The row that has the focus stays, however far it is scrolled away.
    const focused = this.#focused();
    if (focused !== -1 && focused < first) add(focused);
    for (let position = first; position < last; position += 1) add(position);
    if (focused >= last) add(focused);
    this.#rows.show(items, ({ node }) => node.id);
    for (const row of this.#body.children) {
      row.classList.toggle("unseen", this.#isOutside(row, focused, first, last));
    }
    this.#inView.makeRoom(this.#order.length);
    this.#rowCount.write(String(this.#order.length + 1));
    if (this.#inView.measure(this.#body.querySelector("tr:not(.unseen)"))) this.#draw();
  }

  #focused() {
    const link = this.#body.querySelector("a:focus");
    return link === null ? -1 : this.#order.indexOf(link.textContent);
  }

  #isOutside(row, focused, first, last) {
    if (focused === -1 || (focused >= first && focused < last)) return false;
    return row.contains(document.activeElement);
  }

  #sort(nodes) {
    const { of, isText } = this.#sortedBy;
    const values = new Map(nodes.map((node) => [node, of(node)]));
    const sign = Boolean(isText) === this.#isReversed ? -1 : 1;
    // Equal ones stand by name, and only the names' own column turns that round.
    const nameSign = this.#sortedBy === NAME ? sign : 1;
    nodes.sort(
      (one, other) =>
        sign * (values.get(one) - values.get(other)) ||
        nameSign * (this.#ranks.get(one.id) - this.#ranks.get(other.id)),
    );
  }

  #filtered() {
    const words = this.#filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const { nodes } = this.#overview;
    if (words.length === 0) return [...nodes];
    return nodes.filter((node) => {
      const { id, host, zone, state, version } = node;
      const text = [id, host, zone, state, version].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
  }
}
