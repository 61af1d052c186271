import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { argmax, candidates, sampleToken } from "../../../src/text/tokens/sample.js";

const logitsOf = fc
  .array(fc.double({ min: -30, max: 30, noNaN: true }), { minLength: 1, maxLength: 60 })
  .map((list) => Float32Array.from(list));
const temperatureOf = fc.double({ min: 0.01, max: 5, noNaN: true });

/** Every probability the slow way. */
function softmax(logits: Float32Array, temperature: number): number[] {
  const largest = Math.max(...logits);
  const weights = [...logits].map((logit) => Math.exp((logit - largest) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

describe("candidates", () => {
  it("have probabilities that sum to 1 and are the model's own without limits", () => {
    fc.assert(
      fc.property(logitsOf, temperatureOf, (logits, temperature) => {
        const { ids, probabilities } = candidates(logits, { temperature });
        expect([...ids]).toEqual([...logits.keys()]);
        softmax(logits, temperature).forEach((expected, i) => expect(probabilities[i]).toBeCloseTo(expected, 12));
      }),
    );
  });

  it("top-k keeps exactly the k most likely, the lowest ids among equals", () => {
    const coarse = fc
      .array(fc.integer({ min: -3, max: 3 }), { minLength: 1, maxLength: 40 })
      .map((list) => Float32Array.from(list));
    fc.assert(
      fc.property(coarse, fc.integer({ min: 1, max: 50 }), temperatureOf, (logits, topK, temperature) => {
        const { ids, probabilities } = candidates(logits, { temperature, topK });
        const expected = [...logits.keys()].sort((a, b) => at(logits, b) - at(logits, a) || a - b).slice(0, topK);
        expect([...ids]).toEqual(expected);
        expect(probabilities.reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 12);
      }),
    );
  });

  it("top-p keeps the smallest set whose mass is at least p", () => {
    fc.assert(
      fc.property(
        logitsOf,
        fc.double({ min: 0.001, max: 0.999, noNaN: true }),
        temperatureOf,
        (logits, topP, temperature) => {
          const all = softmax(logits, temperature);
          const ids = [...candidates(logits, { temperature, topP }).ids];
          const mass = ids.reduce((sum, id) => sum + at(all, id), 0);
          expect(mass).toBeGreaterThanOrEqual(topP - 1e-9);
          if (ids.length > 1) expect(mass - at(all, ids.at(-1)!)).toBeLessThan(topP + 1e-9);
          const leastLikely = Math.min(...ids.map((id) => at(all, id)));
          all.forEach((p, id) => expect(ids.includes(id) || p <= leastLikely).toBe(true));
        },
      ),
    );
  });

  it.each([{ topK: 40 }, { topP: 0.5 }])("%j of a large vocabulary takes a few looks at each logit", (limit) => {
    const stream = randomStream(3, "logits");
    const logits = Float32Array.from({ length: 20_000 }, (_, id) => 12 * stream.uniformAt(id));
    let looks = 0;
    const counted = new Proxy(logits, {
      get: (target, key): unknown => {
        if (key !== "length") looks++;
        return Reflect.get(target, key);
      },
    });
    expect(candidates(counted, { temperature: 0.5, ...limit })).toEqual(
      candidates(logits, { temperature: 0.5, ...limit }),
    );
    // Sorting them all takes some thirty.
    expect(looks / logits.length).toBeLessThan(12);
  });

  it("top-p counts the mass that top-k left", () => {
    const logits = Float32Array.from([0.5, 0.3, 0.1, 0.1].map(Math.log));
    expect([...candidates(logits, { temperature: 1, topP: 0.6 }).ids]).toEqual([0, 1]);
    expect([...candidates(logits, { temperature: 1, topK: 2, topP: 0.6 }).ids]).toEqual([0]);
  });
});

describe("sampleToken", () => {
  it("at temperature 0 takes the largest logit, the lowest index among equals", () => {
    expect(sampleToken([1, 3, 2, 3], { temperature: 0 }, 0.99)).toBe(1);
    fc.assert(
      fc.property(logitsOf, fc.double({ min: 0, max: 0.999, noNaN: true }), (logits, uniform) => {
        expect(sampleToken(logits, { temperature: 0 }, uniform)).toBe(logits.indexOf(Math.max(...logits)));
        expect(sampleToken(logits, { temperature: 2, topK: 1 }, uniform)).toBe(logits.indexOf(Math.max(...logits)));
      }),
    );
  });

  it("draws each token as often as its probability says", () => {
    const logits = Float32Array.from([0.6, 0.3, 0.1].map(Math.log));
    const stream = randomStream(7, "sample");
    const counts = [0, 0, 0];
    for (let i = 0; i < 20_000; i++) counts[sampleToken(logits, { temperature: 1 }, stream.uniformAt(i))]! += 1;
    [0.6, 0.3, 0.1].forEach((p, id) => expect(at(counts, id) / 20_000).toBeCloseTo(p, 1.5));
  });

  it("stays sound for extreme logits and temperatures and never draws the impossible", () => {
    expect(sampleToken([1e38, -1e38, 0], { temperature: 1e-300 }, 0.5)).toBe(0);
    expect(sampleToken([1000, 1001], { temperature: 1 }, 0.999999)).toBe(1);
    for (const uniform of [0, 0.5, 1 - 2 ** -32]) {
      expect(sampleToken([-Infinity, 2, -Infinity], { temperature: 1 }, uniform)).toBe(1);
      expect(sampleToken([-Infinity, 2, -Infinity], { temperature: 1, topK: 3, topP: 0.9999 }, uniform)).toBe(1);
    }
  });

  it("refuses settings out of range and logits of a diverged model", () => {
    expect(() => sampleToken([1], { temperature: -1 }, 0)).toThrow("temperature is -1");
    expect(() => sampleToken([1], { temperature: 1, topK: 0 }, 0)).toThrow("top-k is 0");
    expect(() => sampleToken([1], { temperature: 1, topP: 1.1 }, 0)).toThrow("top-p is 1.1");
    expect(() => argmax([1, NaN])).toThrow("logit 1 is not a number");
    expect(() => argmax([1, Infinity])).toThrow("logit 1 is infinite");
    expect(() => argmax([-Infinity])).toThrow("every logit is minus infinity");
    expect(() => argmax([])).toThrow("there are no logits");
  });
});
