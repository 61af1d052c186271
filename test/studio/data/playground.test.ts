import { describe, expect, it } from "vitest";
import {
  emptyText,
  partingOf,
  pathBelow,
  textWords,
  withLine,
  type GrowingText,
} from "../../../src/studio/data/playground.js";

const prompt = {
  type: "prompt",
  row: 0,
  tokens: [{ id: 7, text: "The" }],
  layers: [{ layer: 1, experts: 4, topK: 2 }],
};
const token = (
  place: number,
  id: number,
  logProbability: number,
  others: readonly (readonly [number, number])[] = [],
): object => ({
  type: "token",
  row: 0,
  place,
  id,
  text: ` t${id}`,
  logProbability,
  alternatives: others.map(([other, value]) => ({ id: other, text: ` t${other}`, logProbability: value })),
});
const textOf = (...lines: readonly unknown[]): GrowingText =>
  [prompt, ...lines].reduce<GrowingText>(withLine, emptyText);

describe("a text that grows", () => {
  it("is the prompt, then token by token, each with its experts once it was read", () => {
    const layers = [{ layer: 1, experts: [3, 0], weights: [0.7, 0.3] }];
    const text = textOf(token(1, 5, -0.1), { type: "experts", row: 0, place: 0, layers }, token(2, 6, -0.2), {
      type: "done",
      tokensPerSecond: 12,
    });
    expect(text.tokens.map(({ id }) => id)).toEqual([7, 5, 6]);
    expect(text.tokens.map(({ layers: found }) => found)).toEqual([layers, [], []]);
    expect(text).toMatchObject({ promptTokens: 1, routers: [{ experts: 4 }], tokensPerSecond: 12, ended: false });
    expect(withLine(text, { type: "end", exitCode: 2, error: "no" })).toMatchObject({ ended: true, error: "no" });
    for (const line of [null, 3, "x", [], {}, { type: "alert" }]) expect(withLine(text, line)).toBe(text);
  });
});

describe("where two texts part", () => {
  it("is the first token that differs, and behind equal tokens log-probabilities are compared", () => {
    const a = textOf(token(1, 5, -0.1, [[9, -3]]), token(2, 6, -0.2, [[8, -1]]), token(3, 1, -9));
    const b = textOf(token(1, 5, -0.15, [[9, -3.01]]), token(2, 8, -1.25, [[6, -0.2]]), token(3, 1, -1));
    const parting = partingOf(a, b);
    expect(parting).toMatchObject({ common: 1, place: 2 });
    expect(parting!.difference).toBeCloseTo(0.25, 12);
  });

  it("is nowhere while they are the same, and at the end of the shorter one where both have ended", () => {
    const [long, short] = [textOf(token(1, 5, -0.1), token(2, 6, -0.2)), textOf(token(1, 5, -0.1))];
    expect(partingOf(long, short)).toEqual({ common: 1, place: null, difference: 0 });
    const end = { type: "end", exitCode: 0, error: null };
    expect(partingOf(withLine(long, end), withLine(short, end))).toMatchObject({ common: 1, place: 2 });
  });

  it("is not asked of models that read the prompt as other tokens, or have not read it yet", () => {
    expect(partingOf(emptyText, emptyText)).toBeNull();
    const other = [{ ...prompt, tokens: [{ id: 8, text: "The" }] }].reduce<GrowingText>(withLine, emptyText);
    expect(partingOf(textOf(), other)).toBeNull();
  });
});

describe("the command", () => {
  it("names the model, all that decides the text, and asks for what the page shows", () => {
    const request = { model: "m/last", prompt: "-a 'b", seed: 3, temperature: 0, maxTokens: 9 };
    const words = textWords(request, pathBelow("runs/", "m/last"), 2);
    expect(words.slice(0, 5)).toEqual(["upcycle", "generate", "runs/m/last", "--prompt", "-a 'b"]);
    expect(words.join(" ")).toContain("--seed 3 --temperature 0 --max-new-tokens 9 --threads 2 --device cpu");
    expect(words.slice(-3)).toEqual(["--experts", "--stream", "--json"]);
    expect(pathBelow("runs", "")).toBe("runs");
  });
});
