import { describe, expect, it } from "vitest";
import {
  bytes,
  compact,
  duration,
  fixed,
  flops,
  folded,
  grouped,
  meanWithSpread,
  percent,
  rate,
  significant,
  table,
  wrap,
} from "../../src/base/format.js";

describe("a number as text", () => {
  it.each([
    [significant(0), "0"],
    [significant(1234.4), "1234"],
    [significant(0.012345), "0.0123"],
    [significant(9.999), "10.0"],
    [significant(-0.000012345, 2), "-1.2e-5"],
    [significant(Number.NaN), "n/a"],
    [fixed(3.4119), "3.412"],
    [fixed(Infinity), "n/a"],
    [grouped(1234567.4), "1,234,567"],
    [grouped(-1000), "-1,000"],
    [grouped(-0.2), "0"],
    [grouped(999), "999"],
    [compact(512), "512"],
    [compact(1_234_567), "1.23M"],
    [compact(999_999), "1.00M"],
    [compact(12_345), "12.3K"],
    [compact(4_560_000_000), "4.56B"],
    [bytes(4_600_000_000), "4.6 GB"],
    [bytes(999), "999 B"],
    [bytes(123_400_000), "123 MB"],
    [bytes(999_960), "1.0 MB"],
    [flops(1.234e15), "1.23 PFLOP"],
    [rate(3723.6), "3,724 tok/s"],
    [rate(4.26, "step"), "4.3 step/s"],
    [percent(0.0153), "1.5 %"],
    [duration(0.42), "0.42 s"],
    [duration(42.4), "42 s"],
    [duration(200), "3 min 20 s"],
    [duration(7500), "2 h 05 min"],
    [duration(3599.6), "1 h 00 min"],
    [duration(273_600), "3 d 4 h"],
  ])("%s is %s", (text, expectedText) => expect(text).toBe(expectedText));

  it("with its spread is the mean and how far the furthest seed lies from it", () => {
    expect(meanWithSpread([3.4, 3.42])).toBe("3.410 ± 0.010");
    expect(meanWithSpread([3, 3, 3.3], 2)).toBe("3.10 ± 0.20");
    expect(meanWithSpread([3.4])).toBe("3.400");
    expect(meanWithSpread([Number.NaN])).toBe("n/a");
  });
});

describe("a folded line", () => {
  it("indents what goes on, within the width", () => {
    expect(folded("one two three", 9)).toEqual(["one two", "  three"]);
    expect(folded("one two", 9)).toEqual(["one two"]);
  });
});

describe("wrapped text", () => {
  it("breaks at spaces and cuts words that are longer than a line", () => {
    expect(wrap("one two three", 8)).toEqual(["one two", "three"]);
    expect(wrap("abcdefgh ij", 3)).toEqual(["abc", "def", "gh", "ij"]);
    expect(wrap("weights of layers.0.mlp.gate_proj", 16)).toEqual(["weights of", "layers.0.mlp.", "gate_proj"]);
  });

  it("shows a line's end in a name instead of obeying it, and keeps long words where they must stay whole", () => {
    expect(wrap("a\nb \u001b[31m", 20)).toEqual(["a\\nb \\u001b[31m"]);
    expect(wrap("see /a/very/long/path now", 8, "keep")).toEqual(["see", "/a/very/long/path", "now"]);
  });

  it("measures what terminals show: wide characters, emoji and combining marks", () => {
    expect(wrap("日本語 日本", 9)).toEqual(["日本語", "日本"]);
    expect(wrap("日本語日本", 4)).toEqual(["日本", "語日", "本"]);
    expect(wrap("é é é", 5)).toEqual(["é é é"]);
    expect(wrap("🐋🐋 🐋", 5)).toEqual(["🐋🐋", "🐋"]);
  });
});

describe("a table", () => {
  it("aligns columns under a ruled heading", () => {
    const text = table(
      [
        ["arm", "loss"],
        ["dense", "3.463"],
        ["coarse", "3.4"],
      ],
      ["left", "right"],
    );
    expect(text).toEqual(["arm      loss", "------  -----", "dense   3.463", "coarse    3.4"]);
  });

  it("keeps every line within the width and loses no text", () => {
    const words = "a long label that cannot fit beside the numbers of this row";
    const text = table(
      [
        ["arm", "loss"],
        [words, "3.463"],
      ],
      ["left", "right"],
      30,
    );
    expect(Math.max(...text.map((line) => line.length))).toBeLessThanOrEqual(30);
    for (const word of words.split(" ")) expect(text.join("\n")).toContain(word);
  });

  it("shows control characters of cells, cuts a cell without end, and aligns by what a terminal shows", () => {
    const text = table(
      [
        ["name", "n"],
        ["日本\nx", "1"],
        ["a\u001b[2J", "22"],
      ],
      ["left", "right"],
    );
    expect(text).toEqual(["name         n", "----------  --", "日本\\nx      1", "a\\u001b[2J  22"]);
    const endless = table([["shape"], [`[${"1, ".repeat(100_000)}1]`]], ["left"]).join("");
    expect(endless.length).toBeLessThan(2000);
    expect(endless).toMatch(/\[299\d\d\d more/);
  });

  it("becomes a list where numbers would have to be cut", () => {
    const rows = [
      ["tensor", "max", "mean", "relative"],
      ["model.layers.0.q", "1.23e-5", "4.56e-6", "7.89e-4"],
    ];
    expect(table(rows, ["left", "right", "right", "right"], 34)).toEqual([
      "model.layers.0.q",
      "  max       1.23e-5",
      "  mean      4.56e-6",
      "  relative  7.89e-4",
    ]);
  });
});
