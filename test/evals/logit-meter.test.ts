import fc from "fast-check";
import { expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { comparer } from "../../src/evals/logit-meter.js";

const logSumExp = (x: readonly number[]): number => {
  const max = Math.max(...x);
  return max + Math.log(x.reduce((sum, value) => sum + Math.exp(value - max), 0));
};
const mean = (x: readonly number[]): number => x.reduce((a, b) => a + b, 0) / x.length;

it("gives what the definitions give, however the vocabulary is cut", () => {
  const logit = fc.float({ min: -50, max: 50, noNaN: true });
  const cases = fc.integer({ min: 1, max: 9 }).chain((vocab) =>
    fc.record({
      vocab: fc.constant(vocab),
      rows: fc.array(
        fc.record({
          a: fc.array(logit, { minLength: vocab, maxLength: vocab }),
          b: fc.array(logit, { minLength: vocab, maxLength: vocab }),
          target: fc.integer({ min: -1, max: vocab - 1 }),
        }),
        { minLength: 1, maxLength: 4 },
      ),
      step: fc.integer({ min: 1, max: vocab }),
    }),
  );
  fc.assert(
    fc.property(cases, ({ vocab, rows, step }) => {
      const counted = rows.filter(({ target }) => target >= 0);
      fc.pre(counted.length > 0);
      const compared = comparer(vocab);
      const meter = compared.open(Int32Array.from(rows, ({ target }) => target));
      for (let first = 0; first < vocab; first += step) {
        const count = Math.min(step, vocab - first);
        const piece = (of: "a" | "b"): Float32Array =>
          Float32Array.from(rows.flatMap((row) => row[of].slice(first, first + count)));
        meter.add(piece("a"), piece("b"), first, count);
      }
      meter.close();
      const comparison = compared.result();
      const differences = counted.flatMap(({ a, b }) => a.map((value, i) => Math.abs(value - at(b, i))));
      expect(comparison.tokens).toBe(counted.length);
      expect(comparison.maxAbsLogitDiff).toBeCloseTo(Math.max(...differences), 10);
      expect(comparison.meanAbsLogitDiff).toBeCloseTo(mean(differences), 8);
      expect(comparison.maxAbsLogit).toBe(Math.max(...counted.flatMap(({ a }) => a.map(Math.abs))));
      expect(comparison.parentLoss).toBeCloseTo(mean(counted.map(({ a, target }) => logSumExp(a) - at(a, target))), 8);
      expect(comparison.childLoss).toBeCloseTo(mean(counted.map(({ b, target }) => logSumExp(b) - at(b, target))), 8);
      const divergence = counted.map(({ a, b }) =>
        a.reduce((sum, x, i) => sum + Math.exp(x - logSumExp(a)) * (x - logSumExp(a) - at(b, i) + logSumExp(b)), 0),
      );
      expect(comparison.klDivergence).toBeCloseTo(mean(divergence), 7);
      const best = (x: readonly number[]): number => x.indexOf(Math.max(...x));
      expect(comparison.topAgreement).toBeCloseTo(mean(counted.map(({ a, b }) => Number(best(a) === best(b)))), 10);
    }),
  );
});

it("keeps a NaN and an infinity, wherever they stand", () => {
  for (const bad of [NaN, Infinity]) {
    for (const place of [0, 1, 2]) {
      const compared = comparer(3);
      const meter = compared.open(Int32Array.of(0));
      const child = Float32Array.of(1, 2, 3);
      child[place] = bad;
      meter.add(Float32Array.of(1, 2, 3), child, 0, 3);
      meter.close();
      expect(Number.isFinite(compared.result().maxAbsLogitDiff)).toBe(false);
    }
  }
});
