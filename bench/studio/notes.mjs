// What was measured, as it is printed and written: medians with their range, beside what they must be.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, platform, release, totalmem } from "node:os";
import { dirname } from "node:path";
import { toolVersion } from "../../dist/surgery/convert/version.js";

export const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

const shown = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** An interval that holds the median of a population with at least 95 %, by order statistics; null for few values. */
export function medianInterval(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const n = sorted.length;
  // P(at most k of n values lie below the median), for the largest k that is below 2.5 %.
  let [term, sum, k] = [0.5 ** n, 0, 0];
  while (sum + term <= 0.025) {
    sum += term;
    k++;
    term *= (n - k + 1) / k;
  }
  return k === 0 ? null : [sorted[k - 1], sorted[n - k]];
}

export class Notes {
  results = {};
  versions = {};
  #isPartial;

  /** @param {{ isPartial: boolean }} settings whether what the file holds of other parts stays in it */
  constructor({ isPartial }) {
    this.#isPartial = isPartial;
  }

  loadBefore = loadavg()[0];

  /**
   * Notes values; `below` is what `of` them ("median" or "highest") must be below.
   *
   * @param {string} name
   * @param {number | number[]} values
   * @param {{ unit?: string, below?: number, of?: string }} [settings]
   */
  add(name, values, { unit = "ms", below, of = "median" } = {}) {
    const list = Array.isArray(values) ? values : [values];
    const found = { median: median(list), lowest: Math.min(...list), highest: Math.max(...list) };
    const holds = below === undefined ? undefined : found[of] < below;
    const measured = new Date().toISOString();
    this.results[name] = {
      measured,
      ...found,
      unit,
      ...(below !== undefined && { must: { of, below }, holds }),
      values: list,
    };
    const range = list.length > 1 ? ` (${shown(found.lowest)} to ${shown(found.highest)}, ${list.length} times)` : "";
    const must =
      below === undefined ? "" : `  ${of === "median" ? "" : `${of} `}below ${below}: ${holds ? "pass" : "MISS"}`;
    console.log(`${name.padEnd(62)} ${shown(found.median)} ${unit}${range}${must}`);
  }

  /** Writes all to a file, with what the machine was. */
  write(file) {
    const before = this.#isPartial ? this.#read(file) : {};
    const record = {
      date: new Date().toISOString(),
      hardware: {
        cpu: cpus()[0]?.model,
        cores: cpus().length,
        memoryBytes: totalmem(),
        system: `${platform()} ${release()}`,
        loadBefore: this.loadBefore,
      },
      versions: { upcycle: toolVersion, node: process.version, ...before.versions, ...this.versions },
      results: { ...before.results, ...this.results },
    };
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, `${JSON.stringify(record, null, 1)}\n`);
    console.log(`written to ${file}`);
  }

  #read(file) {
    try {
      return JSON.parse(readFileSync(file, "utf8"));
    } catch {
      return {};
    }
  }
}
