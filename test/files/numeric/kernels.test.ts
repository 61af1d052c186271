import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { kernelMemory, kernelPages, pageMemory } from "../../../src/files/numeric/kernels.js";

function normals(count: number, name: string, std = 1): Float32Array {
  const out = new Float32Array(count);
  randomStream(3, name).normals(out, 0, 0, std);
  return out;
}

/** Arrays in one memory, which hold these values; `begin` says where. */
function arraysInMemory(first: Float32Array, ...others: Float32Array[]) {
  const values = [first, ...others];
  const count = first.length;
  const { buffer, kernels } = kernelMemory(values.length * count * 4);
  const views = values.map((data, i) => {
    const view = new Float32Array(buffer, i * count * 4, count);
    view.set(data);
    return view;
  });
  return { kernels, views, begin: (i: number): number => i * count * 4 };
}

it("the bytes in kernels-wasm.ts are what kernels.wat assembles to", async () => {
  const script = new URL("../../../scripts/kernels.mjs", import.meta.url).href;
  const { assemble } = (await import(script)) as { assemble(): Promise<string> };
  expect(readFileSync(new URL("../../../src/files/numeric/kernels-wasm.ts", import.meta.url), "utf8")).toBe(
    await assemble(),
  );
});

it("blend is a dst + b src, to the rounding of float32, also onto itself", () => {
  const [a, b] = [normals(24, "dst"), normals(24, "src")];
  const { kernels, views, begin } = arraysInMemory(a, b);
  kernels.blend(begin(0), begin(1), 20, 0.75, -3);
  expect(views[0]).toEqual(
    a.map((x, i) => (i < 20 ? Math.fround(Math.fround(x * 0.75) + Math.fround(at(b, i) * -3)) : x)),
  );
  kernels.blend(begin(1), begin(1), 24, 0.5, 0);
  expect(views[1]).toEqual(b.map((x) => x * 0.5));
});

describe("add and sumSquares", () => {
  it("agree with plain loops and touch nothing else", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 1000 }), (quads, seed) => {
        const count = 4 * quads;
        const size = count + 8;
        const [a, b] = [normals(size, `a${seed}`), normals(size, `b${seed}`)];
        const { kernels, views, begin } = arraysInMemory(a, b);
        kernels.add(begin(0), begin(1), count);
        expect(views[0]).toEqual(a.map((x, i) => (i < count ? x + at(b, i) : x)));
        expect(views[1]).toEqual(b);
        const squares = b.subarray(0, count).reduce((sum, x) => sum + x * x, 0);
        expect(Math.abs(kernels.sumSquares(begin(1), count) - squares)).toBeLessThanOrEqual(1e-13 * (1 + squares));
      }),
      { numRuns: 30 },
    );
  });

  it("sumSquares adds up in float64: small numbers beside large ones, and squares beyond float32, count", () => {
    const values = new Float32Array(1 << 20).fill(1e-3);
    values[0] = 1e4;
    const { kernels, begin } = arraysInMemory(values);
    expect(kernels.sumSquares(begin(0), values.length) / (1e8 + ((1 << 20) - 1) * 1e-6)).toBeCloseTo(1, 10);
    const huge = arraysInMemory(Float32Array.of(1e30, 0, 0, -1e30));
    expect(huge.kernels.sumSquares(0, 4) / 2e60).toBeCloseTo(1, 6);
    const bad = arraysInMemory(Float32Array.of(1, NaN, 0, 0));
    expect(bad.kernels.sumSquares(0, 4)).toBeNaN();
  });
});

interface Adam {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  decay: number;
}

/** torch.optim.AdamW (amsgrad off), line by line, in float64. */
function torchAdamW(
  p: number[],
  m: number[],
  v: number[],
  g: Float32Array,
  step: number,
  { lr, beta1, beta2, eps, decay }: Adam,
): void {
  for (let i = 0; i < p.length; i++) {
    const mean = beta1 * at(m, i) + (1 - beta1) * at(g, i);
    const square = beta2 * at(v, i) + (1 - beta2) * at(g, i) ** 2;
    const denominator = Math.sqrt(square) / Math.sqrt(1 - beta2 ** step) + eps;
    p[i] = at(p, i) * (1 - lr * decay) - (lr / (1 - beta1 ** step)) * (mean / denominator);
    [m[i], v[i]] = [mean, square];
  }
}

describe("the adamw kernel", () => {
  const settings: [string, Adam, number][] = [
    ["usual", { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1 }, 1],
    ["torch's defaults", { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.01 }, 1],
    ["an eps that shows where it is added", { lr: 1e-2, beta1: 0.9, beta2: 0.99, eps: 1, decay: 0 }, 1],
    ["strong decay, which is decoupled from the moments", { lr: 1e-2, beta1: 0.5, beta2: 0.5, eps: 1e-6, decay: 5 }, 1],
    ["scaled gradients", { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1 }, 0.125],
  ];
  it.each(settings)("is torch.optim.AdamW: %s", (name, o, scale) => {
    const count = 64;
    const start = normals(count, `${name} p`);
    const { kernels, views, begin } = arraysInMemory(
      start,
      new Float32Array(count),
      new Float32Array(count),
      new Float32Array(count),
    );
    const [p, m, v] = [Array.from(start), new Array<number>(count).fill(0), new Array<number>(count).fill(0)];
    for (let step = 1; step <= 20; step++) {
      const g = normals(count, `${name} g${step}`, 0.1);
      at(views, 3).set(g);
      torchAdamW(
        p,
        m,
        v,
        g.map((x) => x * scale),
        step,
        o,
      );
      const rate = o.lr / (1 - o.beta1 ** step);
      const correct = 1 / Math.sqrt(1 - o.beta2 ** step);
      kernels.adamw(
        begin(0),
        begin(1),
        begin(2),
        begin(3),
        count,
        scale,
        o.beta1,
        1 - o.beta1,
        o.beta2,
        1 - o.beta2,
        rate,
        correct,
        o.eps,
        1 - o.lr * o.decay,
      );
      for (let i = 0; i < count; i++) {
        const error = (view: number, expected: readonly number[]): number =>
          Math.abs(at(at(views, view), i) - at(expected, i));
        expect(error(0, p), `p[${i}] after ${step}`).toBeLessThan(1e-6 * (1 + Math.abs(at(p, i))));
        expect(error(1, m)).toBeLessThan(1e-6);
        expect(error(2, v)).toBeLessThan(1e-6);
      }
    }
  });

  it("leaves weights with no gradient, no moment and no decay as they are, to the bit", () => {
    const start = normals(16, "still");
    const zero = (): Float32Array => new Float32Array(16);
    const { kernels, views, begin } = arraysInMemory(start, zero(), zero(), zero());
    kernels.adamw(begin(0), begin(1), begin(2), begin(3), 16, 1, 0.9, 0.1, 0.95, 0.05, 1e-3, 1, 1e-8, 1);
    expect(views[0]).toEqual(start);
  });
});

it("refuses more than one memory can hold", () => {
  expect(() => kernelMemory(2 ** 32 + 1)).toThrow("do not fit one WebAssembly memory");
});

describe("where the engine gets no addresses", () => {
  const refused = (): never => {
    throw new RangeError("WebAssembly.Memory(): could not allocate memory");
  };

  it("gives memory for writing that begins anywhere", () => {
    expect(pageMemory(5000, refused).byteLength).toBeGreaterThanOrEqual(5000);
  });

  it("refuses memory for weights, saying how much", () => {
    expect(() => kernelPages(16, refused)).toThrow(
      expect.objectContaining({
        kind: "stopped",
        message: expect.stringMatching(/^cannot get 1.0 MB of memory for weights/) as string,
      }),
    );
  });
});
