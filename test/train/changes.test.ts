import { describe, expect, it } from "vitest";
import { changeWords, changesBetween } from "../../src/train/changes.js";

describe("differences of settings", () => {
  it("are found in any depth; the order of keys is none", () => {
    expect(changesBetween({ a: 1, b: { c: [1, 2], d: null } }, { b: { d: null, c: [1, 2] }, a: 1 })).toEqual([]);
    const changes = changesBetween(
      { a: 1, b: { c: [1, 2], d: null }, e: { f: 1 } },
      { b: { c: [2], d: 0 }, e: 5, g: "x" },
    );
    expect(changeWords(changes)).toBe(
      'a is gone (was 1), b.c was [1,2] and is [2], b.d was null and is 0, e was {"f":1} and is 5, and 1 more differ',
    );
  });

  it("are shown cut where they are long, and escaped", () => {
    expect(changeWords(changesBetween({ a: "\u001b[2J\n" }, { a: "x".repeat(1000) }))).toBe(
      `a was "\\u001b[2J\\n" and is "${"x".repeat(58)}…`,
    );
  });
});
