import { describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import type { LossMetrics, TrainRuntime } from "../../src/engine/runtime/runtime.js";
import { coactivationRecord, measureAll, routingRecord } from "../../src/train/measure.js";

const settings = { batch: 1, sequence: 4, limitTokens: 8 };

/** Loss, counts and entropy made from the first id of a batch. */
const runtime = {
  evaluate: ({ ids }: { readonly ids: Int32Array }): Promise<LossMetrics> =>
    Promise.resolve({
      loss: at(ids, 0),
      balanceLoss: null,
      zLoss: null,
      counts: [[at(ids, 0), 4 - at(ids, 0), 0]],
      kept: [],
      entropy: [at(ids, 0) / 10],
      // Two experts of each of four tokens: 0 and 1, but of the last token the third one too.
      chosen: [[0, 1, 1, 0, 0, 1, at(ids, 0) > 1 ? 2 : 0, 1]],
    }),
} as unknown as TrainRuntime;

describe("measuring", () => {
  it("averages over batches, and over the parts of a data mix by their shares", async () => {
    const row = (first: number): Int32Array => Int32Array.from({ length: 9 }, (_, i) => (i < 4 ? first : first + 1));
    expect(await measureAll(runtime, row(1), settings)).toEqual({
      loss: 1.5,
      load: [[3 / 8, 5 / 8, 0]],
      entropy: [expect.closeTo(0.15, 12)],
      pairs: [expect.anything()],
      parts: null,
    });
    expect(coactivationRecord(await measureAll(runtime, row(1), settings))).toEqual({
      coactivation: [
        [
          [0, 1, 7 / 8],
          [1, 2, 1 / 8],
          [0, 2, 0],
        ],
      ],
    });
    const parts = [
      { name: "a", weight: 1, tokens: row(1) },
      { name: "b", weight: 1, tokens: row(3) },
    ];
    // Each part gets half of the tokens: one batch.
    expect(await measureAll(runtime, parts, settings)).toEqual({
      loss: 2,
      load: [[0.5, 0.5, 0]],
      entropy: [expect.closeTo(0.2, 12)],
      pairs: [expect.anything()],
      parts: { a: 1, b: 3 },
    });
  });

  it("names dead experts and the largest load", () => {
    expect(
      routingRecord({
        load: [
          [0.5, 0.5, 0, 0],
          [0.25, 0.25, 0.25, 0.25],
        ],
        entropy: [1, 1.2],
      }),
    ).toEqual({
      routing: { entropy: [1, 1.2], maxViolation: [1, 0], dead: [[2, 3], []] },
    });
    expect(routingRecord({ load: [[0.0024, 0.9976 / 3, 0.9976 / 3, 0.9976 / 3]], entropy: [1] }).routing!.dead).toEqual(
      [[0]],
    );
    expect(routingRecord({ load: [[0.0026, 0.9974 / 3, 0.9974 / 3, 0.9974 / 3]], entropy: [1] }).routing!.dead).toEqual(
      [[]],
    );
    expect(routingRecord({ load: [], entropy: [] })).toEqual({});
  });
});
