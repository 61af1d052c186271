import { describe, expect, it } from "vitest";
import { isMissing, numberOf, provenSign } from "../../../src/laws/points/numbers.js";

describe("numbers", () => {
  it.each([
    ["7B", 7e9],
    ["1.3 m", 1.3e6],
    ["300K", 3e5],
    ["2T", 2e12],
    ["70 billion", 7e10],
    ["1,000", 1000],
    ["1,234,567.5", 1234567.5],
    ["50\u00a0000\u00a0000", 5e7],
    ["50\u202f000", 5e4],
    ["1_000_000", 1e6],
    ["1'000", 1000],
    ["1.5e9", 1.5e9],
    ["−2.5", -2.5],
    ["1e−3", 1e-3],
    [".5", 0.5],
    ["inf", Infinity],
  ])("%s with a decimal point is %d", (text, value) => {
    expect(numberOf(text, ".")).toBe(value);
  });

  it.each([
    ["3,21", 3.21],
    ["1.234,5", 1234.5],
    ["1.000.000", 1e6],
    ["1,5e9", 1.5e9],
    ["7,5B", 7.5e9],
  ])("%s with a decimal comma is %d", (text, value) => {
    expect(numberOf(text, ",")).toBe(value);
  });

  it.each(["7Q", "3,21", "1,00", "abc", "1.2.3", "12 34", "--1", "1e"])(
    "%j is no number with a decimal point",
    (text) => {
      expect(numberOf(text, ".")).toBeNaN();
    },
  );

  it.each([
    ["3,21", ","],
    ["3.21", "."],
    ["1.234,5", ","],
    ["1,234.5", "."],
    ["1,000,000", "."],
    ["0,123", ","],
    ["1,000", null],
    ["1.000", null],
    ["17", null],
    ["text", null],
  ])("%s proves the decimal sign %s", (text, sign) => {
    expect(provenSign(text)).toBe(sign);
  });

  it("are missing where cells say so", () => {
    expect(["", " ", "NaN", "n/a", "-", "None"].map(isMissing)).not.toContain(false);
    expect(["0", "x", "1"].map(isMissing)).not.toContain(true);
  });
});
