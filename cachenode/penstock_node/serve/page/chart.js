// A small chart of the last hour: lines, or areas that stand on each other.
// The picture is drawn in units of its samples and stretched, so that a new width costs nothing.

import { Text, drawn, element } from "./dom.js";
import { readable } from "./reading.js";
import { UNKNOWN, clock, duration } from "./units.js";

const HEIGHT = 100;
const SAMPLES_MAX = 360;
const NICE = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];
const KEYS_STEP = 30; // Samples of Page Up and Page Down: five minutes.

/** The least "nice" number that is not below `value`. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return NICE.find((nice) => nice * power >= value * 0.9999) * power;
}

/** What each series reaches up to where all stand on each other; null where nobody knows. */
export function stacked(lists) {
  const sums = new Array(lists[0].length).fill(0);
  return lists.map((values) =>
    values.map((value, i) => {
      if (value === null) return lists.every((each) => each[i] === null) ? null : sums[i];
      sums[i] += value;
      return sums[i];
    }),
  );
}

/** The runs of samples that are known, as [first, last]. */
export function runs(values) {
  const found = [];
  let first = null;
  values.forEach((value, i) => {
    if (value === null) first = null;
    else if (first === null) found.push([(first = i), i]);
    else found.at(-1)[1] = i;
  });
  return found;
}

const point = (i, value, top) => `${i} ${(HEIGHT - (value / top) * HEIGHT).toFixed(2)}`;

function line(values, top) {
  return runs(values)
    .map(([first, last]) => {
      const points = [];
      for (let i = first; i <= last; i += 1) points.push(point(i, values[i], top));
      // A sample alone would be no line.
      return `M${points.join("L")}${first === last ? "h.5" : ""}`;
    })
    .join("");
}

function area(upper, lower, top) {
  return runs(upper)
    .map(([first, last]) => {
      const points = [];
      for (let i = first; i <= last; i += 1) points.push(point(i, upper[i], top));
      for (let i = last; i >= first; i -= 1) points.push(point(i, lower?.[i] ?? 0, top));
      return `M${points.join("L")}Z`;
    })
    .join("");
}

/** One chart: `series` are {key, label, kind}, where `kind` is the colour's name. */
export class Chart {
  #series;
  #format;
  #isStacked;
  #history = null;
  #paths;
  #svg;
  #cursor = drawn("line", { class: "cursor", y1: 0, y2: HEIGHT, hidden: true });
  #top;
  #when;
  #values;
  #changed;

  constructor({ title, series, format, isStacked = false }) {
    this.#series = series;
    this.#format = format;
    this.#isStacked = isStacked;
    this.#paths = series.map(({ kind }) =>
      drawn("path", { class: `${isStacked ? "area" : "line"} kind-${kind}` }),
    );
    this.#svg = drawn(
      "svg",
      { preserveAspectRatio: "none", "aria-hidden": "true", viewBox: `0 0 1 ${HEIGHT}` },
      drawn("path", { class: "grid", d: `M0 0H${SAMPLES_MAX}M0 50H${SAMPLES_MAX}M0 100H360` }),
      ...[...this.#paths].reverse(),
      this.#cursor,
    );
    this.element = this.#frame(title);
  }

  #frame(title) {
    const top = element("span", { class: "top-value" });
    const when = element("span", { class: "when" });
    const legend = element("ul", { class: "legend" });
    const isOne = this.#series.length === 1;
    this.#top = new Text(top);
    this.#when = new Text(when);
    this.#values = this.#series.map(({ label, kind }) => {
      const value = element("b");
      const swatch = element("span", { class: `swatch kind-${kind}`, "aria-hidden": "true" });
      legend.append(element("li", {}, ...(isOne ? [] : [swatch, `${label} `]), value));
      return new Text(value);
    });
    const plot = element("div", { class: "plot" }, this.#svg, top);
    this.#changed = readable(plot, {
      label: `${title}, the last hour. Arrow keys read values`,
      count: () => this.#count,
      first: () => this.#count - 1,
      at: (event) => this.#positionAt(event),
      text: (position) => this.#readOut(position),
      show: (position) => this.#look(position),
      step: KEYS_STEP,
    });
    const ends = element("div", { class: "ends", "aria-hidden": "true" });
    ends.append(element("span", {}, "60 min ago"), when, element("span", {}, "now"));
    const heading = element("div", { class: "chart-head" }, element("h3", {}, title), legend);
    return element("figure", { class: "chart" }, heading, plot, ends);
  }

  get #count() {
    return this.#history === null ? 0 : this.#history.length;
  }

  /** Draw the answer of /api/history. */
  show({ step_s: stepS, until, series }) {
    const lists = this.#series.map(({ key }) => series[key] ?? []);
    const length = Math.max(...lists.map((list) => list.length));
    // A series that began later is unknown before.
    const values = lists.map((list) => [...new Array(length - list.length).fill(null), ...list]);
    this.#history = { values, length, stepS, until };
    const heights = this.#isStacked && length > 0 ? stacked(values) : values;
    const highest = Math.max(0, ...heights.flat());
    const top = ceiling(highest);
    this.#top.write(highest > 0 ? this.#format(top) : "");
    // The right edge is now; an hour that is not full yet begins late.
    const left = length - SAMPLES_MAX;
    this.#svg.setAttribute("viewBox", `${left} -1 ${SAMPLES_MAX - 1} ${HEIGHT + 2}`);
    this.#svg.firstElementChild.setAttribute("transform", `translate(${left})`);
    heights.forEach((list, n) => {
      const d = this.#isStacked ? area(list, heights[n - 1], top) : line(list, top);
      this.#paths[n].setAttribute("d", d);
    });
    this.#look(null);
    this.#changed();
  }

  #positionAt(event) {
    if (this.#count === 0) return null;
    const { left, width } = this.#svg.getBoundingClientRect();
    const fromRight = Math.round((1 - (event.clientX - left) / width) * (SAMPLES_MAX - 1));
    return Math.max(0, this.#count - 1 - fromRight);
  }

  #look(position) {
    this.#cursor.toggleAttribute("hidden", position === null);
    if (position !== null) {
      this.#cursor.setAttribute("x1", position);
      this.#cursor.setAttribute("x2", position);
    }
    this.#when.write(position === null ? "" : this.#timeOf(position));
    const at = position ?? this.#count - 1;
    this.#values.forEach((text, n) => text.write(this.#valueAt(n, at)));
  }

  #valueAt(n, position) {
    const value = this.#history?.values[n][position] ?? null;
    return value === null ? UNKNOWN : this.#format(value);
  }

  #timeOf(position) {
    const { until, stepS } = this.#history;
    const agoS = (this.#count - 1 - position) * stepS;
    return agoS === 0 ? "now" : `${clock(until - agoS)}, ${duration(agoS)} ago`;
  }

  #readOut(position) {
    const values = this.#series.map(({ label }, n) => `${label} ${this.#valueAt(n, position)}`);
    return `${this.#timeOf(position)}: ${values.join(", ")}`;
  }
}
