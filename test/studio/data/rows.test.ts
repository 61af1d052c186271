import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { csvOf } from "../../../src/report/page/csv.js";
import { filterExpression, rowWindow, shownRows, sortKeys } from "../../../src/studio/data/rows.js";
import type { RunRow } from "../../../src/studio/data/types.js";
import { row } from "./row.js";

const rows = [
  row({ name: "a/10", loss: 3, kind: "moe" }),
  row({ name: "a/9", loss: null, state: "running" }),
  row({ name: "B/1", loss: 2.5 }),
];
const names = (list: readonly RunRow[]): string[] => list.map(({ name }) => name);
const all = { filter: "", sort: "name", descending: false } as const;

describe("the list of runs", () => {
  it("is filtered by a regular expression over names, arms, kinds and states", () => {
    expect(names(shownRows(rows, { ...all, filter: "^a/\\d\\b|^b" }))).toEqual(["a/9", "B/1"]);
    expect(names(shownRows(rows, { ...all, filter: "running$" }))).toEqual(["a/9"]);
    expect(names(shownRows(rows, { ...all, filter: "MOE" }))).toEqual(["a/10"]);
  });

  it("looks for what is no regular expression as it is written", () => {
    expect(filterExpression("a/1(")).toBeNull();
    expect(names(shownRows([...rows, row({ name: "x(1" })], { ...all, filter: "X(" }))).toEqual(["x(1"]);
  });

  it("sorts numbers in names as numbers, and what is not measured last in both directions", () => {
    expect(names(shownRows(rows, all))).toEqual(["a/9", "a/10", "B/1"]);
    expect(names(shownRows(rows, { ...all, descending: true }))).toEqual(["B/1", "a/10", "a/9"]);
    expect(names(shownRows(rows, { ...all, sort: "loss" }))).toEqual(["B/1", "a/10", "a/9"]);
    expect(names(shownRows(rows, { ...all, sort: "loss", descending: true }))).toEqual(["a/10", "B/1", "a/9"]);
  });

  it.each(sortKeys)("keeps every row once, whatever it is sorted by: %s", (sort) => {
    for (const descending of [true, false])
      expect(names(shownRows(rows, { filter: "", sort, descending })).sort()).toEqual(names(rows).sort());
  });

  it("shows a window that covers what is on the screen and no row that is not there", () => {
    fc.assert(
      fc.property(
        fc.nat(5000),
        fc.nat(200_000),
        fc.integer({ min: 1, max: 2000 }),
        fc.nat(8),
        (total, top, height, more) => {
          const { first, count } = rowWindow({ top, height, rowHeight: 36, total }, more);
          expect(first).toBeGreaterThanOrEqual(0);
          expect(first + count).toBeLessThanOrEqual(total);
          const [from, to] = [Math.floor(top / 36), Math.ceil((top + height) / 36)];
          for (let i = Math.min(from, total); i < Math.min(to, total); i++) {
            expect(i).toBeGreaterThanOrEqual(first);
            expect(i).toBeLessThan(first + count);
          }
          expect(count).toBeLessThan(height / 36 + 20);
        },
      ),
      { numRuns: 300 },
    );
  });

  it("is written as CSV with quotes where they are needed", () => {
    expect(
      csvOf(
        ["a", "b"],
        [
          ['x,"y', null],
          [1, undefined],
        ],
      ),
    ).toBe('a,b\n"x,""y",\n1,\n');
  });
});
