// Sizes, times and shares as the command line prints them (penstock.units, penstock.cli.output).

const SIZE_UNITS = ["B", "kB", "MB", "GB", "TB"];
const COUNT = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

export const UNKNOWN = "–";

/** `bytes` for people, decimal: `90.9 MB`. */
export function size(bytes) {
  let rest = bytes;
  for (const unit of SIZE_UNITS) {
    const isLast = unit === "TB";
    if (Math.abs(rest) < (unit === "B" ? 1000 : 999.95) || isLast) {
      return `${rest.toFixed(unit === "B" ? 0 : 1)} ${unit}`;
    }
    rest /= 1000;
  }
  return UNKNOWN;
}

/** Bytes a second for people. */
export const rate = (bytesPerS) => `${size(bytesPerS)}/s`;

/** Some time for people: `0.4 s`, `12 s`, `3 min`, `2.5 h`. */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** A part of one, in percent; null, which nobody knows, is a dash. */
export const percent = (part) => (part === null ? UNKNOWN : `${(part * 100).toFixed(1)} %`);

/** A node's share of the ring: among a thousand nodes a tenth of a percent says nothing. */
export function share(part) {
  if (part === 0) return "0 %";
  return part < 0.01 ? `${(part * 100).toFixed(2)} %` : percent(part);
}

/** A number of things, with its thousands apart. */
export const count = (number) => COUNT.format(number);

/** Events a second: `0`, `0.4/s`, `1,200/s`. */
export function perSecond(number) {
  if (number === 0) return "0";
  return `${number < 10 ? number.toFixed(1) : count(Math.round(number))}/s`;
}

/** A number of things with their name: `1 node`, `3 nodes`. */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** The time of day of unix seconds, where the browser is. */
export const clock = (unixS) => CLOCK.format(unixS * 1000);
