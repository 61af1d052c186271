/** Load, co-activation, information, classes of tokens and changes as they are written. */
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { changeWords, leftOutProblem, parseChange, requireChange } from "../../../src/experts/measures/changes.js";
import { coactivationOf, pairCounts } from "../../../src/experts/measures/coactivation.js";
import { countTable, mutualInformation, specialisation } from "../../../src/experts/measures/information.js";
import { loadOf } from "../../../src/experts/measures/load.js";
import { textOfPiece, tokenClass } from "../../../src/experts/measures/token-class.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { golden } from "../../support/golden.js";

describe("load", () => {
  it("is shares of an equal share, their spread, and those never chosen with what a sample excludes", () => {
    const load = loadOf([30, 10, 0, 40], 40);
    expect(load.shares).toEqual([1.5, 0.5, 0, 2]);
    expect([load.largest, load.smallest, load.dead, load.unchosen]).toEqual([2, 0, [2], [2]]);
    // numpy.std([30, 10, 0, 40]) / 20
    expect(load.variation).toBeCloseTo(0.7905694150420949, 14);
    expect((1 - load.unchosenBelow) ** 40).toBeCloseTo(0.05, 12);
  });
});

describe("co-activation", () => {
  it("counts pairs of one token", () => {
    expect(pairCounts(Int32Array.of(0, 1, 1, 2, 0, 1), 3, 2)).toEqual([
      [2, 2, 0],
      [2, 3, 1],
      [0, 1, 1],
    ]);
  });

  it("is 1 for all pairs where every pair is as frequent, which the product of loads is not", () => {
    const chosen: number[] = [];
    for (let a = 0; a < 8; a++) for (let b = a + 1; b < 8; b++) chosen.push(a, b);
    const { ratios } = coactivationOf(pairCounts(Int32Array.from(chosen), 8, 2));
    ratios.forEach((row, a) =>
      row.forEach((ratio, b) => (a === b ? expect(ratio).toBeNull() : expect(ratio).toBeCloseTo(1, 8))),
    );
  });

  it("is 1 for pairs that are the product of two factors, however uneven they are", () => {
    const factors = [1, 2, 3, 5, 8];
    const counts = factors.map((own, a) => factors.map((other, b) => (a === b ? 0 : own * other)));
    for (const row of coactivationOf(counts).ratios)
      for (const ratio of row) if (ratio !== null) expect(ratio).toBeCloseTo(1, 8);
  });

  it("keeps each expert's sum of pairs, and finds the pair that stands together", () => {
    const stream = randomStream(1, "pairs");
    const chosen: number[] = [];
    for (let i = 0; i < 2000; i++) {
      const together = stream.uniformAt(3 * i) < 0.3;
      const first = Math.floor(stream.uniformAt(3 * i + 1) * 6);
      const other = (first + 1 + Math.floor(stream.uniformAt(3 * i + 2) * 5)) % 6;
      chosen.push(...(together ? [2, 4] : [first, other]));
    }
    const { counts, ratios } = coactivationOf(pairCounts(Int32Array.from(chosen), 6, 2));
    counts.forEach((row, a) => {
      const expected = row.reduce((sum, count, b) => {
        const ratio = at(at(ratios, a), b);
        return ratio === null ? sum : sum + count / ratio;
      }, 0);
      expect(expected).toBeCloseTo(at(row, a), 4);
    });
    const values = ratios.flat().filter((ratio) => ratio !== null);
    expect(Math.max(...values)).toBe(at(at(ratios, 2), 4));
  });
});

describe("mutual information", () => {
  it("is that of the table in bits", () => {
    expect(
      mutualInformation([
        [5, 0],
        [0, 5],
      ]),
    ).toBe(1);
    expect(
      mutualInformation([
        [4, 6],
        [8, 12],
      ]),
    ).toBeCloseTo(0, 14);
    // numpy: sum(t / n * log2(t / e)), e the product of the margins over n
    expect(
      mutualInformation([
        [10, 2, 3],
        [1, 7, 9],
      ]),
    ).toBeCloseTo(0.3269414955122697, 12);
  });

  it("of choices that know nothing of the labels is chance's own, near Miller and Madow's correction", () => {
    const stream = randomStream(2, "choices");
    const units = 4000;
    const chosen = Int32Array.from({ length: units }, (_, i) => Math.floor(stream.uniformAt(i) * 8));
    const labels = Int32Array.from({ length: units }, (_, i) => Math.floor(stream.uniformAt(units + i) * 5));
    const result = specialisation({ chosen, perUnit: 1, experts: 8 }, labels, 5, { seed: 0, stream: "test" });
    const correction = ((8 - 1) * (5 - 1)) / (2 * units * Math.LN2);
    expect(result.byChance / correction).toBeGreaterThan(0.85);
    expect(result.byChance / correction).toBeLessThan(1.15);
    expect(result.p).toBeGreaterThan(0.05);
    expect(result.most).toBeGreaterThan(2.3);
  });

  it("of choices that are the label is the label's entropy, with the least p", () => {
    const labels = Int32Array.from({ length: 400 }, (_, i) => i % 4);
    const result = specialisation({ chosen: labels, perUnit: 1, experts: 4 }, labels, 4, { seed: 0, stream: "test" });
    expect(result.bits).toBeCloseTo(2, 12);
    expect(result.most).toBeCloseTo(2, 12);
    expect(result.p).toBe(0.01);
  });

  it("of units that hang together is no more than chance, although single choices would say so", () => {
    // Each of 12 sequences has a favourite expert of its own; which of two texts it is from says nothing of that.
    const stream = randomStream(3, "sequences");
    const chosen = Int32Array.from({ length: 12 * 200 }, (_, i) =>
      stream.uniformAt(i) < 0.7 ? Math.floor(stream.uniformAt(1e6 + Math.floor(i / 200)) * 6) : i % 6,
    );
    const bySequence = Int32Array.from({ length: 12 }, (_, i) => i % 2);
    const byToken = Int32Array.from(chosen, (_, i) => Math.floor(i / 200) % 2);
    const settings = { seed: 0, stream: "test" };
    expect(specialisation({ chosen, perUnit: 200, experts: 6 }, bySequence, 2, settings).p).toBeGreaterThan(0.05);
    expect(specialisation({ chosen, perUnit: 1, experts: 6 }, byToken, 2, settings).p).toBe(0.01);
  });

  it("counts by label", () => {
    expect(countTable({ chosen: Int32Array.of(0, 1, 1, 2), perUnit: 2, experts: 3 }, Int32Array.of(1, 0), 2)).toEqual([
      [0, 1, 1],
      [1, 1, 0],
    ]);
  });
});

describe("classes of tokens", () => {
  const plain = (text: string) => ({ text, special: false });

  it.each([
    [" the", null, "begins a word"],
    ["The", null, "begins a word"],
    ["ing", "go", "inside a word"],
    ["ing", " ", "begins a word"],
    [" ing", "go", "begins a word"],
    ["s", "'", "begins a word"],
    ["é", "caf", "inside a word"],
    [" 1865", "in", "digits"],
    ["٣", "a", "digits"],
    [",", "a", "punctuation"],
    [" +=", "a", "punctuation"],
    ["\n\n", ".", "white space"],
    ["", null, "white space"],
    ["мир", " ", "non-Latin"],
    ["\uFFFD", "a", "non-Latin"],
    ["語", "日", "non-Latin"],
  ] as const)("%j behind %j %s", (text, previous, expected) => {
    expect(tokenClass(plain(text), previous === null ? null : plain(previous))).toBe(expected);
  });

  it("special tokens are their own, and a word begins behind one", () => {
    const end = { text: "<|endoftext|>", special: true };
    expect(tokenClass(end, plain("a"))).toBe("special");
    expect(tokenClass(plain("a"), end)).toBe("begins a word");
  });

  it("the space of a piece that its decoder takes away is given back", () => {
    expect([textOfPiece("▁the", "the"), textOfPiece("Ġthe", " the"), textOfPiece("the", "the")]).toEqual([
      " the",
      " the",
      "the",
    ]);
  });
});

const lineOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (error instanceof UpcycleError) return error.line;
    throw error;
  }
  return "";
};

describe("changes", () => {
  it("are read as they are written", () => {
    expect(parseChange("without", "3:7,5:0").groups).toEqual([
      { layer: 3, experts: [7] },
      { layer: 5, experts: [0] },
    ]);
    const merged = parseChange("merged", "3:1+2,5:0+4+6");
    expect(changeWords(merged)).toBe("3:1+2,5:0+4+6");
    expect(lineOf(() => parseChange("without", "3:1+2"))).toMatch(
      /^--without: "3:1\+2" names no expert; write LAYER:EXPERT/,
    );
    expect(lineOf(() => parseChange("merged", "3:1"))).toMatch(/^--merged: "3:1" names no experts; write LAYER:A\+B/);
    expect(lineOf(() => parseChange("without", ""))).toMatch(/^--without: "" names no expert/);
  });

  it("are refused where a model cannot be run with them", async () => {
    const open = async (name: string) => {
      const checkpoint = await openCheckpoint(golden(name));
      await checkpoint.close();
      return checkpoint.spec;
    };
    const mixtral = await open("moe/mixtral");
    const refusal = (text: string, kind: "without" | "merged" = "without"): string =>
      lineOf(() => requireChange(mixtral, parseChange(kind, text)));
    expect(refusal("0:3")).toBe("");
    expect(refusal("0:4")).toBe("--without 0:4: layer 0 has experts 0 to 3, not 4");
    expect(refusal("2:0")).toBe("--without 2:0: the model has layers 0 to 1, not 2");
    expect(refusal("0:1,0:1")).toBe("--without 0:1,0:1: expert 1 of layer 0 is named twice");
    expect(refusal("0:1+2,0:2+3", "merged")).toContain("expert 2 of layer 0 is named twice");
    expect(refusal("0:0,0:1,0:2")).toContain("layer 0 would keep 1 of 4 experts, and a token chooses 2");
    const deepseek = await open("moe/deepseek_v3");
    expect(lineOf(() => requireChange(deepseek, parseChange("without", "0:0")))).toContain("layer 0 is dense");
    expect(leftOutProblem(deepseek, 1, [0])).toBeNull();
    expect(leftOutProblem(deepseek, 1, [0, 1, 2])).toContain("groups");
  });
});
