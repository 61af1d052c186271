import { describe, expect, it } from "vitest";
import { at, valueAt } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { TrainState } from "../../../src/engine/onnxruntime/state.js";
import type { AdamW } from "../../../src/engine/runtime/runtime.js";

const params = [
  { key: "a", shape: [3, 5] },
  { key: "b", shape: [7] },
  { key: "c", shape: [] },
  { key: "d", shape: [16, 2] },
  { key: "e", shape: [33] },
];
const kinds = ["weight", "moment1", "moment2", "gradient", "accumulated"] as const;
const padded = 16 + 16 + 16 + 32 + 48;
const adamw: AdamW = {
  learningRate: 0.1,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  weightDecay: 0.5,
  decayOn: "matrices",
  clipNorm: null,
  update: 1,
};

function fill(state: TrainState): void {
  for (const { key } of state.params) {
    for (const kind of kinds) {
      const view = state.view(kind, key);
      randomStream(1, `${kind} ${key}`).normals(view, 0);
      if (kind === "moment2") view.forEach((x, i) => (view[i] = x * x));
    }
  }
}

const snapshot = (state: TrainState): Record<string, number[]> =>
  Object.fromEntries(
    state.params.flatMap(({ key }) => kinds.map((kind) => [`${kind} ${key}`, Array.from(state.view(kind, key))])),
  );

describe("train state", () => {
  it("gives every parameter five regions that share nothing", () => {
    const state = new TrainState(params, { accumulate: true });
    let number = 0;
    for (const { key } of params) for (const kind of kinds) state.view(kind, key).fill(++number);
    number = 0;
    for (const { key, shape } of params) {
      for (const kind of kinds) {
        const view = state.view(kind, key);
        expect(view.length).toBe(shape.reduce((a: number, b) => a * b, 1));
        expect(view.byteOffset % 64).toBe(0);
        expect(
          view.every((x) => x === number + 1),
          `${kind} ${key}`,
        ).toBe(true);
        number++;
      }
    }
    expect(state.view("weight", "a").buffer).toBe(state.view("weight", "e").buffer);
  });

  it("views are the state, not copies", () => {
    const state = new TrainState(params, { accumulate: false });
    state.view("weight", "b")[3] = 5;
    expect(state.view("weight", "b")[3]).toBe(5);
    expect(() => state.view("accumulated", "b")).toThrow("without accumulation");
    expect(() => state.view("weight", "z")).toThrow("no parameter z");
  });

  it.each([
    [1, padded * 5 * 4],
    [2, 80 * 5 * 4],
    [3, 48 * 5 * 4],
  ])("computes the same in %i arenas", async (arenas, bytes) => {
    const one = new TrainState(params, { accumulate: true });
    const several = new TrainState(params, { accumulate: true, arenaBytes: bytes });
    expect(new Set(params.map(({ key }) => several.view("weight", key).buffer)).size).toBe(arenas);
    for (const state of [one, several]) {
      fill(state);
      state.addGradients();
      await state.update("accumulated", 0.25, adamw);
    }
    expect(snapshot(several)).toEqual(snapshot(one));
    expect(several.gradientNorm("accumulated", 0.5)).toBe(one.gradientNorm("accumulated", 0.5));
  });

  it("refuses a parameter larger than an arena, naming it", () => {
    expect(() => new TrainState(params, { accumulate: true, arenaBytes: 47 * 5 * 4 })).toThrow(
      "parameter e alone exceeds one WebAssembly memory",
    );
  });

  it("norm is that of all gradients, padding included as zeros after updates", async () => {
    const state = new TrainState(params, { accumulate: true });
    fill(state);
    let squares = 0;
    for (const { key } of params) for (const g of state.view("gradient", key)) squares += g * g;
    expect(state.gradientNorm("gradient", 3)).toBeCloseTo(3 * Math.sqrt(squares), 9);
    for (let update = 1; update <= 3; update++) {
      state.addGradients();
      await state.update("accumulated", 1, { ...adamw, update });
    }
    expect(state.gradientNorm("gradient", 3)).toBeCloseTo(3 * Math.sqrt(squares), 9);
    const whole = new Float32Array(state.view("weight", "a").buffer);
    const used = params.reduce((sum, { shape }) => sum + shape.reduce((a: number, b) => a * b, 1), 0);
    expect(whole.filter((x) => x !== 0).length).toBeLessThanOrEqual(5 * used);
  });

  it("adds up the gradients of several micro-batches", () => {
    const state = new TrainState(params, { accumulate: true });
    fill(state);
    const before = snapshot(state);
    state.addGradients();
    for (const { key } of params) {
      const sum = valueAt(before, `accumulated ${key}`).map((x, i) =>
        Math.fround(x + at(valueAt(before, `gradient ${key}`), i)),
      );
      expect(Array.from(state.view("accumulated", key))).toEqual(sum);
      expect(Array.from(state.view("gradient", key))).toEqual(before[`gradient ${key}`]);
    }
  });

  it.each([
    ["matrices", ["a", "d"]],
    ["all", ["a", "b", "c", "d", "e"]],
  ] as const)("decays %s", async (decayOn, decayed) => {
    // With zero gradients and moments the only change is p * (1 - rate * decay).
    const state = new TrainState(params, { accumulate: false });
    for (const { key } of params) state.view("weight", key).fill(2);
    await state.update("gradient", 1, { ...adamw, decayOn });
    for (const { key } of params) {
      const expected = (decayed as readonly string[]).includes(key) ? Math.fround(2 * Math.fround(1 - 0.1 * 0.5)) : 2;
      expect(
        state.view("weight", key).every((x) => x === expected),
        key,
      ).toBe(true);
    }
  });

  it("corrects the bias by the number of the update", async () => {
    // At update t with fresh moments, m/(1-b1^t) and v/(1-b2^t) are g(1-b1)/(1-b1^t) and g²(1-b2)/(1-b2^t).
    for (const update of [1, 2, 10]) {
      const state = new TrainState([{ key: "w", shape: [4, 4] }], { accumulate: false });
      state.view("gradient", "w").fill(0.5);
      await state.update("gradient", 1, { ...adamw, weightDecay: 0, update });
      const m = (0.5 * 0.1) / (1 - 0.9 ** update);
      const v = (0.25 * 0.05) / (1 - 0.95 ** update);
      expect(at(state.view("weight", "w"), 5)).toBeCloseTo((-0.1 * m) / (Math.sqrt(v) + 1e-8), 6);
    }
  });

  it("keeps no moments and no gradients of what is frozen, and leaves it as it is", async () => {
    const state = new TrainState(params, { accumulate: false, frozen: new Set(["b", "d"]) });
    for (const { key } of params) state.view("weight", key).fill(2);
    for (const key of ["a", "c", "e"]) state.view("gradient", key).fill(1);
    expect(() => state.view("moment1", "b")).toThrow("b has no moment1: it is frozen");
    expect(() => state.view("gradient", "d")).toThrow("d has no gradient: it is frozen");
    expect(state.gradientNorm("gradient", 1)).toBeCloseTo(Math.sqrt(15 + 1 + 33), 12);
    await state.update("gradient", 1, adamw);
    for (const { key } of params)
      expect(
        state.view("weight", key).every((x) => x === 2),
        key,
      ).toBe(key === "b" || key === "d");
    // 4 of [a, c, e] and one of [b, d], each padded.
    expect(state.view("weight", "a").buffer.byteLength).toBe(
      65536 * Math.ceil(((4 * (16 + 16 + 48) + 16 + 32) * 4) / 65536),
    );
  });

  it("gives each parameter its own rate and decay", async () => {
    const tuning = { a: { rate: 3, decay: null }, d: { rate: 1, decay: 0 }, b: { rate: 1, decay: 0.9 } };
    const tuned = new TrainState(params, { accumulate: true, tuning });
    const updatedWith = async (learningRate: number, weightDecay: number): Promise<TrainState> => {
      const state = new TrainState(params, { accumulate: true });
      fill(state);
      await state.update("gradient", 1, { ...adamw, learningRate, weightDecay });
      return state;
    };
    fill(tuned);
    await tuned.update("gradient", 1, adamw);
    expect(tuned.view("weight", "a")).toEqual((await updatedWith(3 * adamw.learningRate, 0.5)).view("weight", "a"));
    expect(tuned.view("weight", "d")).toEqual((await updatedWith(adamw.learningRate, 0)).view("weight", "d"));
    for (const key of ["b", "c", "e"])
      expect(tuned.view("weight", key), key).toEqual((await updatedWith(adamw.learningRate, 0.5)).view("weight", key));
    expect(tuned.view("weight", "a")).not.toEqual((await updatedWith(adamw.learningRate, 0.5)).view("weight", "a"));
  });

  it("refuses to move a parameter by Muon without settings for it, naming the parameter", async () => {
    const tuning = { d: { rate: 1, decay: null, method: "muon" } } as const;
    const state = new TrainState(params, { accumulate: false, tuning });
    await expect(state.update("gradient", 1, adamw)).rejects.toThrow("d takes Muon, but the update has no settings");
  });
});
