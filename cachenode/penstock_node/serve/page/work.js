// What the cluster is busy with: chunks on their way to new owners, and warm-ups.

import { Attribute, Bar, Rows, Text, byId, element } from "./dom.js";
import { nodeLink } from "./figures.js";
import { count, counted, duration, percent, rate, size } from "./units.js";

const HANDOVERS_MAX = 6;

/** How long `rest` takes if it goes on as it goes now. */
function remaining(rest, perS) {
  return perS > 0 ? `, about ${duration(rest / perS)} left` : "";
}

function progressRow(label) {
  const title = element("span", { class: "title" });
  const detail = element("span", { class: "quiet" });
  const bar = element("span", {
    class: "bar",
    role: "progressbar",
    "aria-label": label,
    "aria-valuemin": "0",
    "aria-valuemax": "100",
  });
  const row = element("li", {}, title, bar, detail);
  const length = new Bar(bar);
  const now = new Attribute(bar, "aria-valuenow");
  const show = (part) => {
    length.write(part);
    now.write(String(Math.round(100 * Math.min(1, part || 0))));
  };
  return { row, title, detail: new Text(detail), show };
}

function warmupRow(key, at) {
  const { row, title, detail, show } = progressRow("warm-up");
  const name = new Text(title);
  const write = (warmup) => {
    const { chunks, chunks_done: done, bytes, bytes_done: bytesDone, started_at: since } = warmup;
    name.write(warmup.name);
    show(chunks > 0 ? done / chunks : 1);
    const perS = bytesDone / Math.max(1, at() - since);
    detail.write(
      `${size(bytesDone)} of ${size(bytes)}, ${count(done)} of ${counted(chunks, "chunk")}` +
        `${remaining(bytes - bytesDone, perS)}, by ${warmup.node}`,
    );
  };
  return { element: row, write };
}

function handoverRow(id, mostWaiting) {
  const waiting = element("span");
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  const row = element(
    "li",
    {},
    element("a", { href: nodeLink(id), class: "title" }, id),
    bar,
    element("span", { class: "quiet" }, waiting),
  );
  const length = new Bar(bar);
  const text = new Text(waiting);
  const write = ({ handoff_waiting_bytes: bytes, rates }) => {
    length.write(bytes / mostWaiting());
    const perS = rates.handoff_bytes;
    text.write(`${size(bytes)} to come, ${rate(perS)}${remaining(bytes, perS)}`);
  };
  return { element: row, write };
}

/** Both lists, each with a line that says what there is. */
export class Work {
  #at = 0;
  #mostWaiting = 1;
  #warmups = new Rows(byId("warmups"), (key) => warmupRow(key, () => this.#at));
  #handovers = new Rows(byId("handovers"), (id) => handoverRow(id, () => this.#mostWaiting));
  #warming = new Text(byId("warmups-summary"));
  #moving = new Text(byId("handovers-summary"));

  /** Show the answer of /api/overview. */
  show({ nodes, warmups, at }) {
    this.#at = at;
    this.#showHandovers(nodes);
    this.#warmups.show(warmups, ({ node, name, started_at: since }) => `${node} ${since} ${name}`);
    this.#warming.write(warmups.length === 0 ? "No warm-up runs." : running(warmups));
  }

  #showHandovers(nodes) {
    const waiting = nodes.filter((node) => node.handoff_waiting_bytes > 0);
    waiting.sort((one, other) => other.handoff_waiting_bytes - one.handoff_waiting_bytes);
    this.#mostWaiting = waiting[0]?.handoff_waiting_bytes ?? 1;
    this.#handovers.show(waiting.slice(0, HANDOVERS_MAX), ({ id }) => id);
    this.#moving.write(waiting.length === 0 ? "Every chunk is at its owner." : moving(waiting));
  }
}

function running(warmups) {
  const all = warmups.reduce((sum, { bytes }) => sum + bytes, 0);
  const done = warmups.reduce((sum, { bytes_done: bytes }) => sum + bytes, 0);
  return `${counted(warmups.length, "warm-up")}, ${percent(all > 0 ? done / all : 1)} done.`;
}

function moving(waiting) {
  const bytes = waiting.reduce((sum, node) => sum + node.handoff_waiting_bytes, 0);
  const perS = waiting.reduce((sum, { rates }) => sum + rates.handoff_bytes, 0);
  const rest = waiting.length - HANDOVERS_MAX;
  const most = rest > 0 ? ` The ${HANDOVERS_MAX} with most:` : "";
  const left = remaining(bytes, perS);
  return `${size(bytes)} on the way to ${counted(waiting.length, "new owner")}${left}.${most}`;
}
