// The last hour of a node or of the whole cluster, as charts.

import { Chart } from "./chart.js";
import { perSecond, rate, size } from "./units.js";

/** Where bytes are read from, nearest first, and what each is called here. */
export const SOURCES = { memory: "memory", disk: "disk", peer: "peers", origin: "origin" };

const SINGLE = [
  ["From origins", "origin_bytes", "origin", rate],
  ["Handed over", "handoff_bytes", "peer", rate],
  ["Evicted", "evicted_bytes", "disk", rate],
  ["Cached", "cached_bytes", "memory", size],
  ["Failures", "failures", "bad", perSecond],
];

/** All charts of one view. */
export class History {
  #charts;

  constructor(parent) {
    const bySource = new Chart({
      title: "Read, by source",
      series: Object.entries(SOURCES).map(([source, label]) => ({
        key: `read_bytes.${source}`,
        label,
        kind: source,
      })),
      format: rate,
      isStacked: true,
    });
    const single = SINGLE.map(
      ([title, key, kind, format]) =>
        new Chart({ title, series: [{ key, label: title.toLowerCase(), kind }], format }),
    );
    this.#charts = [bySource, ...single];
    parent.append(...this.#charts.map(({ element }) => element));
  }

  /** Draw an answer of /api/history. */
  show(history) {
    for (const chart of this.#charts) chart.show(history);
  }
}
