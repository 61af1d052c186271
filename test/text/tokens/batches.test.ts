import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import {
  evalBatches,
  IGNORED_TARGET,
  openBatches,
  windowCount,
  windowOrder,
  type Batch,
  type BatchSettings,
  type TokenRow,
} from "../../../src/text/tokens/batches.js";

/** One training batch on its own. */
const batchAt = (tokens: TokenRow, { step, ...settings }: BatchSettings & { readonly step: number }): Batch =>
  openBatches(tokens, settings).at(step);

/** Token i is i, so an input tells where it came from. */
const counting = (length: number): Int32Array => Int32Array.from({ length }, (_, i) => i);
const sizes = fc.record({
  length: fc.integer({ min: 2, max: 400 }),
  batch: fc.integer({ min: 1, max: 7 }),
  sequence: fc.integer({ min: 1, max: 20 }),
  seed: fc.integer(),
});
const trainable = sizes.filter(({ length, sequence }) => length > sequence);

/** First tokens of the sequences that batches 0..count-1 hold, in order. */
function starts(
  tokens: Int32Array,
  settings: { batch: number; sequence: number; seed: number },
  count: number,
): number[] {
  const reader = openBatches(tokens, settings);
  return Array.from({ length: count }, (_, step) => reader.at(step).inputs).flatMap((inputs) =>
    Array.from({ length: settings.batch }, (_, row) => at(inputs, row * settings.sequence)),
  );
}

describe("training batches", () => {
  it("show every window once in every epoch, in another order each time", () => {
    fc.assert(
      fc.property(trainable, ({ length, ...settings }) => {
        const tokens = counting(length);
        const { windows } = openBatches(tokens, settings);
        expect(windows).toBe(windowCount(length, settings.sequence));
        const windowStarts = starts(tokens, settings, Math.ceil((3 * windows) / settings.batch));
        for (let epoch = 0; epoch < 3; epoch++) {
          const once = windowStarts.slice(epoch * windows, (epoch + 1) * windows).sort((a, b) => a - b);
          expect(once).toEqual(Array.from({ length: windows }, (_, window) => window * settings.sequence));
        }
      }),
    );
    expect(windowOrder(50, 0, 0)).not.toEqual(windowOrder(50, 0, 1));
    expect(windowOrder(50, 0, 0)).not.toEqual(windowOrder(50, 1, 0));
  });

  it("targets are the next tokens and rows are whole windows", () => {
    fc.assert(
      fc.property(trainable, fc.nat(1000), ({ length, ...settings }, step) => {
        const { inputs, targets } = batchAt(counting(length), { ...settings, step });
        expect(inputs.length).toBe(settings.batch * settings.sequence);
        expect(targets).toEqual(inputs.map((token) => token + 1));
        inputs.forEach((token, i) => expect(token % settings.sequence).toBe(i % settings.sequence));
      }),
    );
  });

  it("are the same whether the run is resumed or not", () => {
    fc.assert(
      fc.property(trainable, fc.nat(100), ({ length, ...settings }, step) => {
        const tokens = counting(length);
        const reader = openBatches(tokens, settings);
        for (let earlier = 0; earlier < step; earlier++) reader.at(earlier);
        expect(reader.at(step)).toEqual(batchAt(tokens, { ...settings, step }));
      }),
    );
  });

  it("are the same data for one large batch and for micro-batches", () => {
    fc.assert(
      fc.property(
        trainable,
        fc.integer({ min: 1, max: 4 }),
        fc.nat(50),
        ({ length, ...settings }, accumulate, step) => {
          const tokens = counting(length);
          const large = batchAt(tokens, { ...settings, batch: settings.batch * accumulate, step });
          const steps = Array.from({ length: accumulate }, (_, i) => step * accumulate + i);
          const micro = steps.map((microStep) => batchAt(tokens, { ...settings, step: microStep }));
          expect(micro.flatMap(({ inputs }) => [...inputs])).toEqual([...large.inputs]);
          expect(micro.flatMap(({ targets }) => [...targets])).toEqual([...large.targets]);
        },
      ),
    );
  });

  it("need one window of text and sound sizes", () => {
    expect(() => openBatches(counting(8), { batch: 1, sequence: 8, seed: 0 })).toThrow(
      "the training text has 8 tokens, needed at least 9 for one sequence",
    );
    expect(() => openBatches(counting(8), { batch: 0, sequence: 2, seed: 0 })).toThrow("batch is 0");
    expect(() => openBatches(counting(8), { batch: 1, sequence: 1.5, seed: 0 })).toThrow("sequence is 1.5");
    expect(() => batchAt(counting(8), { batch: 1, sequence: 2, seed: 0, step: -1 })).toThrow("batch number -1");
  });

  it("stay as they are: a changed order would break every saved run", () => {
    expect([...windowOrder(8, 0, 0)]).toMatchInlineSnapshot(`
      [
        2,
        7,
        0,
        6,
        5,
        1,
        4,
        3,
      ]
    `);
    expect([...windowOrder(8, 0, 1)]).toMatchInlineSnapshot(`
      [
        7,
        6,
        4,
        0,
        2,
        3,
        5,
        1,
      ]
    `);
  });
});

describe("evaluation batches", () => {
  const limits = fc.option(fc.integer({ min: 1, max: 500 }), { nil: undefined });

  it("predict every token but the first exactly once, in order, up to the limit", () => {
    fc.assert(
      fc.property(sizes, limits, ({ length, batch, sequence }, limitTokens) => {
        const batches = [...evalBatches(counting(length), { batch, sequence, limitTokens })];
        const predicted = batches.flatMap(({ targets }) => [...targets].filter((target) => target !== IGNORED_TARGET));
        expect(predicted).toEqual([...counting(Math.min(length - 1, limitTokens ?? length)).map((i) => i + 1)]);
        for (const { inputs, targets, count } of batches) {
          expect([inputs.length, targets.length]).toEqual([batch * sequence, batch * sequence]);
          expect(targets.indexOf(IGNORED_TARGET)).toBe(count === targets.length ? -1 : count);
          targets.forEach((target, i) => expect(inputs[i]).toBe(target === IGNORED_TARGET ? 0 : target - 1));
        }
      }),
    );
  });

  it("need two tokens and a limit of one", () => {
    expect(() => [...evalBatches(counting(1), { batch: 1, sequence: 4 })]).toThrow("has 1 tokens, needed at least 2");
    expect(() => [...evalBatches(counting(9), { batch: 1, sequence: 4, limitTokens: 0 })]).toThrow("tokens is 0");
  });
});
