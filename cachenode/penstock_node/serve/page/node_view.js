// One node: what it is, its tiers, what it reads and serves, and its last hour.

import { Bar, Rows, Text, byId, element } from "./dom.js";
import { answers } from "./figures.js";
import { History } from "./history.js";
import { Split } from "./totals.js";
import { UNKNOWN, clock, count, duration, percent, perSecond, rate, share, size } from "./units.js";

const PLANES = { bulk: "bulk", host: "own machine", grpc: "gRPC", s3: "S3", hub: "hub" };

const FACTS = {
  State: ({ state }) => state,
  Host: ({ host }) => host,
  Zone: ({ zone }) => zone || UNKNOWN,
  Weight: ({ weight, weight_source: source }) =>
    `${count(weight)}, ${source === "override" ? "set by an operator" : "by its capacity"}`,
  Share: ({ share: part }) => share(part),
  "Hit ratio": (node) => (answers(node) ? percent(node.hit_ratio) : UNKNOWN),
  "In memory on its way": ({ inflight_bytes: bytes }) => size(bytes),
  "To come by hand-over": ({ handoff_waiting_bytes: bytes }) => size(bytes),
  Epoch: ({ seen_epoch: epoch }) => (epoch > 0 ? count(epoch) : UNKNOWN),
  Version: ({ version }) => version || UNKNOWN,
  "Last answer": ({ told_at: toldAt }, at) => lastAnswer(toldAt, at),
};

const RATES = {
  "From origins": ({ origin_bytes: bytes }) => rate(bytes),
  "Origin requests": ({ origin_requests: requests }) => perSecond(requests),
  Failures: ({ failures }) => perSecond(failures),
  Evicted: ({ evicted_bytes: bytes }) => rate(bytes),
  "Handed over": ({ handoff_bytes: bytes }) => rate(bytes),
};

function lastAnswer(toldAt, at) {
  if (!(toldAt > 0)) return "never";
  return `${clock(toldAt)}, ${duration(Math.max(0, at - toldAt))} ago`;
}

/** A list of names and values; the values are written. */
class Facts {
  #texts = [];

  constructor(parent, names) {
    for (const name of names) {
      const value = element("dd");
      parent.append(element("div", {}, element("dt", {}, name), value));
      this.#texts.push(new Text(value));
    }
  }

  write(values) {
    values.forEach((value, n) => this.#texts[n].write(value));
  }
}

function tierRow(path) {
  const role = element("span", { class: "quiet" });
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  const used = element("span");
  const row = element("li", {}, element("span", { class: "title" }, path), role, bar, used);
  const roleText = new Text(role);
  const usedText = new Text(used);
  const length = new Bar(bar);
  const write = (tier) => {
    row.classList.toggle("bad", !tier.is_healthy);
    roleText.write(tier.is_healthy ? tier.role : `${tier.role}, taken out: its disk fails`);
    usedText.write(`${size(tier.used_bytes)} of ${size(tier.capacity_bytes)}`);
    length.write(tier.used_bytes / tier.capacity_bytes);
  };
  return { element: row, write };
}

/** The view of `#/node?id=…`. */
export class NodeView {
  #id = "";
  #facts = new Facts(byId("node-facts"), Object.keys(FACTS));
  #rates = new Facts(byId("node-rates"), Object.keys(RATES));
  #served = new Facts(byId("node-served"), Object.values(PLANES));
  #tiers = new Rows(byId("node-tiers"), tierRow);
  #split = new Split(byId("node-split"), byId("node-sources"));
  #history = new History(byId("node-charts"));
  #summary = new Text(byId("node-summary"));

  /** Name the node that is asked for. */
  open(id) {
    this.#id = id;
    byId("node-title").textContent = id;
    this.showHistory({ step_s: 10, until: 0, series: {} });
  }

  /** Show the answer of /api/overview. */
  show({ nodes, at }) {
    const node = nodes.find(({ id }) => id === this.#id);
    byId("node-body").hidden = node === undefined;
    if (node === undefined) {
      this.#summary.write("The cluster has no node of this name.");
      return;
    }
    const isKnown = answers(node);
    this.#summary.write(isKnown ? "" : "It does not answer: what is shown is what it told last.");
    this.#facts.write(Object.values(FACTS).map((text) => text(node, at)));
    const now = (text) => (isKnown ? text(node.rates) : UNKNOWN);
    this.#rates.write(Object.values(RATES).map(now));
    const served = (plane) => now(({ served_bytes: bytes }) => rate(bytes[plane] ?? 0));
    this.#served.write(Object.keys(PLANES).map(served));
    this.#split.show(isKnown ? node.rates : null);
    this.#tiers.show(node.tiers ?? [], ({ path }) => path);
  }

  /** Show the answer of /api/history. */
  showHistory(history) {
    this.#history.show(history);
  }
}
