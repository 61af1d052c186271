import { describe, expect, it } from "vitest";
import { randomStream } from "../../src/base/random.js";
import { TrainState } from "../../src/ort/state.js";
import type { AdamW } from "../../src/step/runtime.js";

const params = [
  { key: "a", shape: [3, 5] },
  { key: "b", shape: [7] },
  { key: "c", shape: [] },
  { key: "d", shape: [16, 2] },
  { key: "e", shape: [33] },
];
const kinds = ["weight", "moment1", "moment2", "gradient", "accumulated"] as const;
const padded = 16 + 16 + 16 + 32 + 48;
const adamw: AdamW = { learningRate: 0.1, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.5, decayOn: "matrices", clipNorm: null, update: 1 };

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
  Object.fromEntries(state.params.flatMap(({ key }) => kinds.map((kind) => [`${kind} ${key}`, Array.from(state.view(kind, key))])));

describe("train state", () => {
  it("gives every parameter five regions that share nothing", () => {
    const state = new TrainState(params, true);
    let number = 0;
    for (const { key } of params) for (const kind of kinds) state.view(kind, key).fill(++number);
    number = 0;
    for (const { key, shape } of params) {
      for (const kind of kinds) {
        const view = state.view(kind, key);
        expect(view.length).toBe(shape.reduce((a: number, b) => a * b, 1));
        expect(view.byteOffset % 64).toBe(0);
        expect(view.every((x) => x === number + 1), `${kind} ${key}`).toBe(true);
        number++;
      }
    }
    expect(state.view("weight", "a").buffer).toBe(state.view("weight", "e").buffer);
  });

  it("views are the state, not copies", () => {
    const state = new TrainState(params, false);
    state.view("weight", "b")[3] = 5;
    expect(state.view("weight", "b")[3]).toBe(5);
    expect(() => state.view("accumulated", "b")).toThrow("without accumulation");
    expect(() => state.view("weight", "z")).toThrow("no parameter z");
  });

  it.each([[1, padded * 5 * 4], [2, 80 * 5 * 4], [3, 48 * 5 * 4]])("computes the same in %i arenas", (arenas, bytes) => {
    const one = new TrainState(params, true);
    const several = new TrainState(params, true, bytes);
    expect(new Set(params.map(({ key }) => several.view("weight", key).buffer)).size).toBe(arenas);
    for (const state of [one, several]) {
      fill(state);
      state.addGradients();
      state.update("accumulated", 0.25, adamw);
    }
    expect(snapshot(several)).toEqual(snapshot(one));
    expect(several.gradientNorm("accumulated", 0.5)).toBe(one.gradientNorm("accumulated", 0.5));
  });

  it("refuses a parameter larger than an arena, naming it", () => {
    expect(() => new TrainState(params, true, 47 * 5 * 4)).toThrow("parameter e alone exceeds one WebAssembly memory");
  });

  it("norm is that of all gradients, padding included as zeros after updates", () => {
    const state = new TrainState(params, true);
    fill(state);
    let squares = 0;
    for (const { key } of params) for (const g of state.view("gradient", key)) squares += g * g;
    expect(state.gradientNorm("gradient", 3)).toBeCloseTo(3 * Math.sqrt(squares), 9);
    for (let update = 1; update <= 3; update++) {
      state.addGradients();
      state.update("accumulated", 1, { ...adamw, update });
    }
    expect(state.gradientNorm("gradient", 3)).toBeCloseTo(3 * Math.sqrt(squares), 9);
    const whole = new Float32Array(state.view("weight", "a").buffer);
    const used = params.reduce((sum, { shape }) => sum + shape.reduce((a: number, b) => a * b, 1), 0);
    expect(whole.filter((x) => x !== 0).length).toBeLessThanOrEqual(5 * used);
  });

  it("accumulates", () => {
    const state = new TrainState(params, true);
    fill(state);
    const before = snapshot(state);
    state.addGradients();
    for (const { key } of params) {
      const sum = before[`accumulated ${key}`]!.map((x, i) => Math.fround(x + before[`gradient ${key}`]![i]!));
      expect(Array.from(state.view("accumulated", key))).toEqual(sum);
      expect(Array.from(state.view("gradient", key))).toEqual(before[`gradient ${key}`]);
    }
  });

  it.each([["matrices", ["a", "d"]], ["all", ["a", "b", "c", "d", "e"]]] as const)("decays %s", (decayOn, decayed) => {
    // With zero gradients and moments the only change is p * (1 - rate * decay).
    const state = new TrainState(params, false);
    for (const { key } of params) state.view("weight", key).fill(2);
    state.update("gradient", 1, { ...adamw, decayOn });
    for (const { key } of params) {
      const expected = (decayed as readonly string[]).includes(key) ? Math.fround(2 * Math.fround(1 - 0.1 * 0.5)) : 2;
      expect(state.view("weight", key).every((x) => x === expected), key).toBe(true);
    }
  });

  it("corrects the bias by the number of the update", () => {
    // At update t with fresh moments, m/(1-b1^t) and v/(1-b2^t) are g(1-b1)/(1-b1^t) and g²(1-b2)/(1-b2^t).
    for (const update of [1, 2, 10]) {
      const state = new TrainState([{ key: "w", shape: [4, 4] }], false);
      state.view("gradient", "w").fill(0.5);
      state.update("gradient", 1, { ...adamw, weightDecay: 0, update });
      const m = (0.5 * 0.1) / (1 - 0.9 ** update);
      const v = (0.25 * 0.05) / (1 - 0.95 ** update);
      expect(state.view("weight", "w")[5]!).toBeCloseTo(-0.1 * m / (Math.sqrt(v) + 1e-8), 6);
    }
  });
});
