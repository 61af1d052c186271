import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import type { PrimAttrs, RouteRule, ValueId } from "../../../src/graph/ir/ir.js";
import { verify } from "../../../src/graph/ir/passes.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import { megatronRouting } from "../../support/megatron.js";

const plain = (score: "softmax" | "sigmoid", renormalised: boolean): RouteRule => ({
  score,
  jitter: 0,
  renormalise: renormalised ? { plus: 0, atLeast: 0 } : null,
  groups: null,
  corrected: false,
  scaling: 1,
});

function run(build: (b: GraphBuilder) => readonly ValueId[], feeds: readonly (readonly number[])[]): number[][] {
  const b = new GraphBuilder();
  const graph = b.finish(build(b));
  verify(graph);
  return evaluate(
    graph,
    feeds.map((data) => Float64Array.from(data)),
  ).map(({ data }) => Array.from(data));
}

const rowsOf = (flat: readonly number[], width: number): number[][] =>
  Array.from({ length: flat.length / width }, (_, i) => flat.slice(i * width, (i + 1) * width));
const softmax = (row: readonly number[]): number[] => {
  const sum = row.reduce((a, x) => a + Math.exp(x - Math.max(...row)), 0);
  return row.map((x) => Math.exp(x - Math.max(...row)) / sum);
};

describe("Sinkhorn", () => {
  const settle = { iterations: 1000, tolerance: 1e-4 };

  it.each(megatronRouting.sinkhorn.map((golden, i) => [i, golden] as const))(
    "Megatron's choices and weights, case %i",
    (_, { k, logits, matrix, chosen, weights }) => {
      const [tokens, experts] = [logits.length, at(logits, 0).length];
      const [v, picked, ownWeights] = run(
        (b) => {
          const l = b.input("logits", "f32", [tokens, experts]);
          const factors = b.op("sinkhorn", [l], settle);
          const best = b.apply("routeTopK", [b.mul(b.op("softmax", [l], {}), factors)], {
            k,
            rule: plain("softmax", false),
          })[1];
          return [
            factors,
            best,
            b.op("routeWeights", [l, best], { rule: plain(k === 1 ? "sigmoid" : "softmax", false) }),
          ];
        },
        [logits.flat()],
      ) as [number[], number[], number[]];
      const pairs = rowsOf(picked, k).map((row, t) =>
        row.map((expert, i) => [expert, at(at(rowsOf(ownWeights, k), t), i)] as const).sort((a, b) => a[0] - b[0]),
      );
      expect(pairs.map((row) => row.map(([expert]) => expert))).toEqual(chosen);
      pairs.forEach((row, t) => row.forEach(([, weight], i) => expect(weight).toBeCloseTo(at(at(weights, t), i), 10)));
      // Megatron's matrix, up to the size of each row and the eps in it.
      logits.forEach((row, t) => {
        const own = softmax(row.map((logit, e) => logit + Math.log(at(v, e))));
        const total = at(matrix, t).reduce((a, x) => a + x, 0);
        own.forEach((share, e) => expect(share).toBeCloseTo(at(at(matrix, t), e) / total, 6));
      });
    },
  );

  it("balances whatever it is given: columns of the scaled matrix have equal sums", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 6 }),
        fc.integer(),
        (tokens, experts, seed) => {
          const logits = Array.from({ length: tokens * experts }, (_, i) => 2 * Math.sin(seed + 7.3 * i));
          const [v] = run(
            (b) => [b.op("sinkhorn", [b.input("l", "f32", [tokens, experts])], { iterations: 2000, tolerance: 0 })],
            [logits],
          ) as [number[]];
          const shares = rowsOf(logits, experts).map((row) =>
            softmax(row.map((logit, e) => logit + Math.log(at(v, e)))),
          );
          for (let e = 0; e < experts; e++)
            expect(shares.reduce((sum, row) => sum + at(row, e), 0)).toBeCloseTo(tokens / experts, 5);
        },
      ),
      { numRuns: 30 },
    );
  });

  it("stays finite for logits whose exponentials do not", () => {
    const [v] = run(
      (b) => [b.op("sinkhorn", [b.input("l", "f32", [2, 3])], settle)],
      [[1000, 0, -1000, 999, 3, -500]],
    ) as [number[]];
    expect(v.every((factor) => Number.isFinite(factor) && factor > 0)).toBe(true);
  });
});

/** Slot by slot: a choice stays if fewer than `rows` better ones of its expert are there. */
function underCapacity(
  weights: readonly number[],
  experts: readonly number[],
  rows: number,
  by: "weight" | "position",
): number[] {
  return experts.map((expert, slot) => {
    const better = experts.filter(
      (other, i) =>
        other === expert &&
        (by === "weight" && weights[i] !== weights[slot] ? at(weights, i) > at(weights, slot) : i < slot),
    );
    return better.length < rows ? 1 : 0;
  });
}

describe("capacity", () => {
  it.each(megatronRouting.drop.map((golden, i) => [i, golden] as const))(
    "Megatron's dropped weights, case %i",
    (_, { k, factor, renormalised, logits, capacity, ...golden }) => {
      const [tokens, experts] = [logits.length, at(logits, 0).length];
      expect(Math.ceil(((tokens * k) / experts) * factor)).toBe(capacity);
      for (const [policy, by] of [
        ["probs", "weight"],
        ["position", "position"],
      ] as const) {
        const [weights, chosen] = run(
          (b) => {
            const [w, c] = b.apply("routeTopK", [b.input("logits", "f32", [tokens, experts])], {
              k,
              rule: plain("softmax", renormalised),
            }) as [ValueId, ValueId];
            return [w, b.op("expertCapacity", [w, c], { experts, rows: Math.min(capacity, tokens), by })];
          },
          [logits.flat()],
        ) as [number[], number[]];
        const dense = Array.from({ length: tokens }, () => new Array<number>(experts + 1).fill(0));
        chosen.forEach((expert, slot) => (at(dense, Math.floor(slot / k))[expert] = at(weights, slot)));
        for (const row of dense) row.pop();
        dense.forEach((row, t) =>
          row.forEach((weight, e) =>
            expect(weight, `${policy} token ${t} expert ${e}`).toBeCloseTo(at(at(golden[policy], t), e), 10),
          ),
        );
      }
    },
  );

  const choices = fc.record({
    tokens: fc.integer({ min: 1, max: 8 }),
    experts: fc.integer({ min: 1, max: 5 }),
    top: fc.integer({ min: 1, max: 5 }),
    cap: fc.integer({ min: 1, max: 8 }),
    by: fc.constantFrom("weight" as const, "position" as const),
    noise: fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 40, maxLength: 40 }),
  });

  it("keeps each expert's best choices, ties to the first slot", () => {
    fc.assert(
      fc.property(choices, ({ tokens, experts, top, cap, by, noise }) => {
        const [k, rows] = [Math.min(top, experts), Math.min(cap, tokens)];
        const chosen = Array.from({ length: tokens }, (_, t) => at(noise, t) % experts).flatMap((first) =>
          Array.from({ length: k }, (_, i) => (first + i) % experts),
        );
        const weights = chosen.map((_, slot) => at(noise, (slot * 7) % 40) / 4);
        const attrs: PrimAttrs["expertCapacity"] = { experts, rows, by };
        const [served, counts, order] = run(
          (b) => {
            const left = b.op(
              "expertCapacity",
              [b.input("w", "f32", [tokens, k]), b.input("c", "int", [tokens, k])],
              attrs,
            );
            const [sorted, , sizes] = b.apply("expertSort", [left], { experts, drops: true }) as [
              ValueId,
              ValueId,
              ValueId,
            ];
            return [left, sizes, sorted];
          },
          [weights, chosen],
        ) as [number[], number[], number[]];
        const expected = underCapacity(weights, chosen, rows, by);
        expect(served).toEqual(chosen.map((expert, slot) => (expected[slot] === 1 ? expert : experts)));
        expect(counts).toEqual(
          Array.from({ length: experts }, (_, e) => Math.min(rows, chosen.filter((expert) => expert === e).length)),
        );
        // Dropped slots sort last, in their order.
        expect(order.slice(counts.reduce((a, c) => a + c, 0))).toEqual(
          expected.flatMap((stays, slot) => (stays === 1 ? [] : [slot])),
        );
      }),
    );
  });

  it.each([
    ["weight", [3, 1, 1, 3]],
    ["position", [1, 1, 3, 3]],
  ] as const)("all tokens to one expert, by %s", (by, expected) => {
    const [served] = run(
      (b) =>
        b.apply("expertCapacity", [b.input("w", "f32", [4, 1]), b.input("c", "int", [4, 1])], {
          experts: 3,
          rows: 2,
          by,
        }),
      [
        [0.1, 0.4, 0.4, 0.3],
        [1, 1, 1, 1],
      ],
    );
    expect(served).toEqual(expected);
  });
});

it("counts choices in blocks, and dropped ones nowhere", () => {
  const [whole, halves] = run(
    (b) => {
      const chosen = b.input("c", "int", [4, 2]);
      return [
        b.op("expertCounts", [chosen], { experts: 3, blocks: 1 }),
        b.op("expertCounts", [chosen], { experts: 3, blocks: 2 }),
      ];
    },
    [[0, 1, 0, 2, 3, 1, 0, 1]],
  );
  expect(whole).toEqual([3, 3, 1]);
  expect(halves).toEqual([2, 1, 1, 1, 2, 0]);
});
