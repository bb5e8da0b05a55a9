// The cluster in figures: how much is read and from where, hit ratio, origins, room, nodes.

import { Attribute, Bar, Text, byId, element } from "./dom.js";
import { SOURCES } from "./history.js";
import { UNKNOWN, count, percent, perSecond, rate, size } from "./units.js";

const STATES = ["alive", "away", "cordoned", "draining", "drained"];

/** What of `rates.read_bytes` comes from where, and the sum. */
export function sources(rates) {
  const parts = Object.keys(SOURCES).map((source) => rates.read_bytes?.[source] ?? 0);
  return { parts, sum: parts.reduce((sum, part) => sum + part, 0) };
}

/** How many nodes are in each state, in the order of STATES. */
export function states(nodes) {
  const found = Object.fromEntries(STATES.map((state) => [state, 0]));
  for (const { state } of nodes) found[state] = (found[state] ?? 0) + 1;
  return found;
}

/** A bar of all sources beside each other, with what each brings. */
export class Split {
  #bars = [];
  #values = [];

  constructor(bar, legend) {
    for (const [source, label] of Object.entries(SOURCES)) {
      const part = element("span", { class: `kind-${source}` });
      const value = element("b");
      const swatch = element("span", { class: `swatch kind-${source}`, "aria-hidden": "true" });
      bar.append(part);
      legend.append(element("li", {}, swatch, `${label} `, value));
      this.#bars.push(new Bar(part));
      this.#values.push(new Text(value));
    }
  }

  /** Show a record of rates; null where nobody knows them. */
  show(rates) {
    const { parts, sum } = sources(rates ?? {});
    parts.forEach((part, n) => {
      this.#bars[n].write(sum > 0 ? part / sum : 0);
      this.#values[n].write(rates === null ? UNKNOWN : rate(part));
    });
  }
}

/** The tiles at the top of the page. */
export class Totals {
  #split = new Split(byId("total-split"), byId("total-sources"));
  #read = new Text(byId("total-read"));
  #hit = new Text(byId("total-hit"));
  #hitBar = new Bar(byId("total-hit-bar"));
  #origin = new Text(byId("total-origin"));
  #requests = new Text(byId("total-requests"));
  #failures = new Text(byId("total-failures"));
  #failing = new Attribute(byId("total-failures"), "class");
  #cached = new Text(byId("total-cached"));
  #capacity = new Text(byId("total-capacity"));
  #cachedBar = new Bar(byId("total-cached-bar"));
  #nodes = new Text(byId("total-nodes"));
  #away = new Text(byId("total-away"));
  #states = new Text(byId("total-states"));

  /** Show the answer of /api/overview. */
  show({ total, nodes }) {
    const { rates } = total;
    this.#split.show(rates);
    this.#read.write(rate(sources(rates).sum));
    this.#hit.write(percent(total.hit_ratio));
    this.#hitBar.write(total.hit_ratio ?? 0);
    this.#origin.write(rate(rates.origin_bytes));
    this.#requests.write(`${perSecond(rates.origin_requests)} requests`);
    this.#failures.write(`${perSecond(rates.failures)} failures`);
    this.#failing.write(rates.failures > 0 ? "bad" : null);
    this.#cached.write(size(total.cached_bytes));
    this.#capacity.write(`of ${size(total.owned_capacity_bytes)} for the ring`);
    this.#cachedBar.write(total.cached_bytes / total.owned_capacity_bytes);
    this.#showNodes(states(nodes), total);
  }

  #showNodes(found, { nodes, away }) {
    this.#nodes.write(count(nodes));
    this.#away.write(away > 0 ? `${count(away)} away` : "");
    const parts = Object.entries(found).filter(([state, number]) => number > 0 && state !== "away");
    this.#states.write(parts.map(([state, number]) => `${count(number)} ${state}`).join(", "));
  }
}
