/** Every primitive on random shapes. On the CPU the kernels are emulated: see test/support/cuda.ts. */
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { cudaBackend } from "../../../src/engine/cuda/backend.js";
import { typeOf, type Prim } from "../../../src/graph/ir/ir.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import { cases, makeCase, type Case } from "../../graph/ir/cases.js";
import { cudaMachine, isThorough } from "../../support/cuda.js";
import type { CudaLowerOptions } from "../../../src/engine/cuda/lowering/options.js";
import { oldest, runOnCuda } from "./run-list.js";

/** Relative to an output's largest number (at least 1), where it is not 1e-5. */
const float32Bounds: Partial<Record<Prim, number>> = {
  // It ends where an iteration moves its factors by this tolerance: rounding decides whether there is one more.
  sinkhorn: 1e-4,
};

const numRuns = isThorough ? 100 : 12;

describe.skipIf(cudaMachine === "no machine")(`on ${cudaMachine}, agrees with the float64 interpreter`, async () => {
  const runtime = cudaMachine === "no machine" ? null : await cudaBackend().openOperations({ threads: 1 });
  afterAll(() => runtime?.close());
  let run = 0;

  const outputsOf = async ({ graph, feeds }: Case) => {
    const inputs = graph.inputs.map((id, i) =>
      typeOf(graph, id).dtype === "int" ? Int32Array.from(feeds[i]!) : Float32Array.from(feeds[i]!),
    );
    return runtime!.run(`${run++}`, graph, inputs);
  };

  it.each(Object.keys(cases) as Prim[])("%s", async (prim) => {
    await fc.assert(
      fc.asyncProperty(fc.gen(), async (draw) => {
        const one = makeCase(prim, draw);
        const expected = evaluate(one.graph, one.feeds);
        const actual = await outputsOf(one);
        expect(actual.length).toBe(expected.length);
        for (const [i, { data }] of expected.entries()) {
          const found = actual[i]!;
          expect(found.length).toBe(data.length);
          const size = Math.max(1, ...data.map(Math.abs));
          for (const [at, value] of data.entries())
            if (!(Math.abs(found[at]! - value) <= (float32Bounds[prim] ?? 1e-5) * size))
              expect.fail(`output ${i}[${at}]: ${found[at]}, expected ${value}`);
        }
      }),
      { numRuns },
    );
  });
});

/** In units of 2^-8, the last place of bfloat16, relative to an output's largest number (at least 1). */
const bfloat16Bounds: Partial<Record<Prim, number>> = {
  // Products of rounded numbers, then of rounded probabilities.
  attention: 8,
  attentionGrad: 24,
  matmul: 8,
  groupedMatmul: 8,
  groupedMatmulGradW: 8,
  headCrossEntropy: 8,
  headCrossEntropyGrad: 12,
  layerNormGrad: 8,
  rmsNormGrad: 8,
};
const usualBound = 4;

/** The nearest number of bfloat16: 8 bits of mantissa. Integers up to 256 stay. */
function bfloat16(x: number): number {
  if (x === 0) return 0;
  const unit = 2 ** (Math.floor(Math.log2(Math.abs(x))) - 7);
  return Math.round(x / unit) * unit;
}

/** The kernels that the GPU gets, and those that every GPU from compute capability 8.0 on runs. */
const tables: readonly (readonly [string, CudaLowerOptions])[] = [
  ["the GPU's kernels", {}],
  ...(cudaMachine === "a GPU" ? [["kernels of 8.0", { chip: oldest }] as const] : []),
];

describe.skipIf(cudaMachine === "no machine").each(tables)(`on ${cudaMachine}, in bfloat16, %s`, (_, table) => {
  it.each(Object.keys(cases) as Prim[])("%s is as near to the interpreter as bfloat16 allows", async (prim) => {
    await fc.assert(
      fc.asyncProperty(fc.gen(), async (draw) => {
        const { graph, feeds: exact } = makeCase(prim, draw);
        const feeds = exact.map((data) => data.map(bfloat16));
        const expected = evaluate(graph, feeds);
        const actual = await runOnCuda(graph, feeds, { ...table, precision: "bf16" });
        const bound = (bfloat16Bounds[prim] ?? usualBound) * 2 ** -8;
        for (const [i, { data }] of expected.entries()) {
          const size = Math.max(1, ...data.map(Math.abs));
          for (const [at, value] of data.entries())
            if (!(Math.abs(actual[i]![at]! - value) <= bound * size))
              expect.fail(`output ${i}[${at}]: ${actual[i]![at]}, expected ${value}`);
        }
      }),
      { numRuns: numRuns / 2 },
    );
  });
});
