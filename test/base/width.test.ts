import { describe, expect, it } from "vitest";
import { beginning, displayWidth, padded, shortened } from "../../src/base/width.js";

describe("the width of a text on a terminal", () => {
  it.each([
    ["plain", 5],
    ["日本", 4],
    ["e\u0301", 1],
    ["🐋", 2],
    ["👩🏽‍🚀", 2],
    ["한", 2],
    ["", 0],
  ])("of %j is %i", (text, columns) => expect(displayWidth(text)).toBe(columns));

  it("is what padding counts, on either side, and padding never cuts", () => {
    expect([padded("日本", 6), padded("日本", 6, "right"), padded("plain", 3)]).toEqual(["日本  ", "  日本", "plain"]);
  });
});

describe("the beginning of a text", () => {
  it("fits into the columns, cuts no wide character, and has at least one character", () => {
    expect([beginning("plain", 3), beginning("日本語", 5), beginning("日本語", 1), beginning("", 4)]).toEqual([
      "pla",
      "日本",
      "日",
      "",
    ]);
  });
});

describe("a shortened text", () => {
  it("keeps both ends around a mark, and is whole where it fits", () => {
    expect(shortened("layers.10.mlp.weight", 11)).toBe("layer…eight");
    expect(shortened("layers.10.mlp.weight", 20)).toBe("layers.10.mlp.weight");
    expect(shortened("日本語日本語", 8)).toBe("日…本語");
  });

  it.each([0, 1, 2, 3, 7])("is at most %i columns wide, whatever its characters", (width) => {
    for (const text of ["plain words", "日本語日本語", "🐋🐋🐋🐋"])
      expect(displayWidth(shortened(text, width))).toBeLessThanOrEqual(width);
  });
});
