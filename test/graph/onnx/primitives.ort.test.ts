import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import type { Prim } from "../../../src/graph/ir/ir.js";
import { verify } from "../../../src/graph/ir/passes.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import { evaluateOnce } from "../../engine/onnxruntime/evaluate-once.js";
import { cases, makeCase } from "../ir/cases.js";

describe("every primitive on onnxruntime agrees with its reference evaluation, on random shapes", () => {
  it.each(Object.keys(cases) as Prim[])("%s", async (prim) => {
    await fc.assert(
      fc.asyncProperty(fc.gen(), async (draw) => {
        const { graph, feeds } = makeCase(prim, draw);
        verify(graph);
        const expected = evaluate(graph, feeds);
        const actual = await evaluateOnce(
          graph,
          feeds.map((data) => Float32Array.from(data)),
        );
        expected.forEach(({ data, shape }, i) => {
          expect(at(actual, i).shape).toEqual([...shape]);
          data.forEach((value, place) => {
            const element = at(at(actual, i).data, place);
            if (!(Math.abs(element - value) < 2e-5 * (1 + Math.abs(value))))
              expect.fail(`output ${i}[${place}]: ${element}, expected ${value}`);
          });
        });
      }),
      { numRuns: 25 },
    );
  });
});
