import { describe, expect, it } from "vitest";
import { pairCounts } from "../../src/experts/measures/coactivation.js";
import { randomStream } from "../../src/base/random.js";
import { PairCounter, mostPairs, strongestPairs, weighted } from "../../src/train/pairs.js";

/** `k` different experts of each token. */
function choices(tokens: number, experts: number, k: number, seed: number): number[] {
  const stream = randomStream(seed, "choices");
  return Array.from({ length: tokens }, (_, token) => {
    const order = Array.from({ length: experts }, (_, expert) => expert);
    return order
      .map((expert) => [stream.uniformAt(token * experts + expert), expert] as const)
      .sort(([a], [b]) => a - b)
      .slice(0, k)
      .map(([, expert]) => expert);
  }).flat();
}

describe("pairs of experts", () => {
  it("are counted as upcycle experts counts them, over all batches", () => {
    const batches = [choices(40, 6, 3, 1), choices(40, 6, 3, 2)];
    const counter = new PairCounter();
    for (const chosen of batches) counter.add([chosen], [6], 40);
    const expected = pairCounts(Int32Array.from(batches.flat()), 6, 3);
    const [layer] = counter.shares;
    for (let a = 0; a < 6; a++)
      for (let b = a + 1; b < 6; b++) expect(layer!.shares[a * 6 + b]).toBeCloseTo(expected[a]![b]! / 80, 12);
  });

  it("are none where every token is given to one expert", () => {
    const counter = new PairCounter();
    counter.add(
      [
        [0, 1, 2, 0],
        [0, 1, 1, 2, 0, 2, 0, 1],
      ],
      [3, 3],
      4,
    );
    expect(counter.shares.map(({ shares }) => shares.length)).toEqual([0, 9]);
    expect(counter.shares.map(strongestPairs)).toEqual([
      [],
      [
        [0, 1, 0.5],
        [0, 2, 0.25],
        [1, 2, 0.25],
      ],
    ]);
  });

  it("are counted over so many tokens at most that a long measurement costs no more", () => {
    const counter = new PairCounter();
    counter.add([[0, 1].concat(Array.from({ length: 2 * 16_383 }, (_, i) => i % 2))], [3], 16_384);
    counter.add([Array.from({ length: 2 * 16_384 }, (_, i) => 1 + (i % 2))], [3], 16_384);
    expect(strongestPairs(counter.shares[0]!)[0]).toEqual([0, 1, 1]);
  });

  it("are all in the log for 16 experts, and the strongest of more", () => {
    const counted = (experts: number): ReturnType<typeof strongestPairs> => {
      const counter = new PairCounter();
      counter.add([choices(400, experts, 4, experts)], [experts], 400);
      return strongestPairs(counter.shares[0]!);
    };
    expect(counted(16)).toHaveLength(120);
    const strongest = counted(64);
    expect(strongest).toHaveLength(mostPairs);
    const shares = strongest.map(([, , share]) => share);
    expect(shares).toEqual([...shares].sort((a, b) => b - a));
    expect(JSON.stringify(counted(256)).length).toBeLessThan(3000);
  });

  it("are weighted like the parts of a data mix", () => {
    const part = (a: number, b: number): Parameters<typeof weighted>[0] => {
      const counter = new PairCounter();
      counter.add([[a, b]], [3], 1);
      return counter.shares[0]!;
    };
    expect(strongestPairs(weighted(part(1, 2), 0.75, weighted(part(0, 1), 0.25, undefined)))).toEqual([
      [1, 2, 0.75],
      [0, 1, 0.25],
      [0, 2, 0],
    ]);
  });
});
