import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { dealNext, openMix, shares } from "../../../src/text/tokens/mix.js";

const counting = (length: number, first: number): Int32Array => Int32Array.from({ length }, (_, i) => first + i);
const weights = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 5 });

describe("a part of a mix that is too short", () => {
  it("is named, with what to do", () => {
    const parts = [
      { name: "long", weight: 1, tokens: counting(100, 0) },
      { name: "short", weight: 1, tokens: counting(5, 0) },
    ];
    expect(() => openMix(parts, { batch: 1, sequence: 8, seed: 0 })).toThrow(
      expect.objectContaining({ where: "short", hint: "give more text or a shorter sequence" }),
    );
  });
});

describe("dealing sequences to parts", () => {
  it("keeps every part within one sequence of its share for two parts, and never far for more", () => {
    fc.assert(
      fc.property(weights, fc.integer({ min: 1, max: 300 }), (partWeights, sequences) => {
        const of = shares(partWeights.map((weight) => ({ weight })));
        const counts = partWeights.map(() => 0);
        for (let dealt = 1; dealt <= sequences; dealt++) {
          dealNext(of, counts);
          counts.forEach((count, i) =>
            expect(Math.abs(count - dealt * at(of, i))).toBeLessThan(of.length <= 2 ? 1 : of.length - 1),
          );
        }
      }),
    );
  });

  it("0.5, 0.25 and 0.25 take turns", () => {
    const counts = [0, 0, 0];
    expect(Array.from({ length: 8 }, () => dealNext([0.5, 0.25, 0.25], counts))).toEqual([0, 1, 2, 0, 0, 1, 2, 0]);
  });
});

describe("batches of a data mix", () => {
  const settings = { batch: 3, sequence: 4, seed: 7 };
  const parts = [
    { name: "a", weight: 3, tokens: counting(41, 0) },
    { name: "b", weight: 1, tokens: Uint16Array.from(counting(25, 1000)) },
  ];

  it("hold whole windows with the next tokens as targets, each window of a part once in its epoch", () => {
    const reader = openMix(parts, settings);
    expect(reader.windows).toBe(10 + 6);
    const firstTokens: number[] = [];
    for (let step = 0; step < 40; step++) {
      const { inputs, targets } = reader.at(step);
      expect(targets).toEqual(inputs.map((token) => token + 1));
      for (let row = 0; row < 3; row++) firstTokens.push(at(inputs, row * 4));
    }
    const [a, b] = [firstTokens.filter((token) => token < 1000), firstTokens.filter((token) => token >= 1000)];
    expect([a.length, b.length]).toEqual([90, 30]);
    const once = (tokens: readonly number[]): number[] => [...tokens].sort((x, y) => x - y);
    for (let epoch = 0; epoch < 9; epoch++)
      expect(once(a.slice(10 * epoch, 10 * epoch + 10))).toEqual(Array.from({ length: 10 }, (_, i) => 4 * i));
    for (let epoch = 0; epoch < 5; epoch++)
      expect(once(b.slice(6 * epoch, 6 * epoch + 6))).toEqual(Array.from({ length: 6 }, (_, i) => 1000 + 4 * i));
    expect(a.slice(0, 10)).not.toEqual(a.slice(10, 20));
  });

  it("are a pure function of the step, whatever was read before", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(60), { maxLength: 8 }),
        fc.nat(60),
        fc.integer({ min: 1, max: 5 }),
        (before, step, batch) => {
          const reader = openMix(parts, { ...settings, batch });
          for (const earlier of before) reader.at(earlier);
          expect(reader.at(step)).toEqual(openMix(parts, { ...settings, batch }).at(step));
        },
      ),
    );
  });

  it("are the same for one large batch and for micro-batches; another seed orders the same parts otherwise", () => {
    const large = openMix(parts, { ...settings, batch: 12 }).at(5);
    const small = openMix(parts, settings);
    expect([20, 21, 22, 23].flatMap((step) => [...small.at(step).inputs])).toEqual([...large.inputs]);
    const other = openMix(parts, { ...settings, seed: 8, batch: 12 }).at(5);
    expect(other.inputs).not.toEqual(large.inputs);
    expect([...other.inputs].map((token) => token >= 1000)).toEqual([...large.inputs].map((token) => token >= 1000));
  });

  it("name the part that is too short", () => {
    expect(() => openMix([...parts, { name: "c", weight: 1, tokens: counting(4, 0) }], settings)).toThrow(
      "the training text has 4 tokens",
    );
    expect(() => openMix([], settings)).toThrow("the data mix has no text");
  });
});
