/** Every primitive on random shapes. On the CPU the kernels are emulated: see test/support/cuda.ts. */
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { cudaBackend } from "../../../src/engine/cuda/backend.js";
import { typeOf, type Prim } from "../../../src/graph/ir/ir.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import { cases, makeCase, type Case } from "../../graph/ir/cases.js";
import { cudaMachine } from "../../support/cuda.js";

const numRuns = cudaMachine === "a GPU" ? 100 : 25;

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
            if (!(Math.abs(found[at]! - value) <= 1e-5 * size))
              expect.fail(`output ${i}[${at}]: ${found[at]}, expected ${value}`);
        }
      }),
      { numRuns },
    );
  });
});
