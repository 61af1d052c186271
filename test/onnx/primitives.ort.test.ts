import { describe, expect, it } from "vitest";
import type { Prim } from "../../src/graph/ir.js";
import { verify } from "../../src/graph/passes.js";
import { evaluate } from "../../src/graph/reference.js";
import { evaluateOnce } from "../../src/ort/session.js";
import { cases, makeCase } from "../graph/cases.js";

describe("every primitive on onnxruntime agrees with its reference evaluation", () => {
  for (const prim of Object.keys(cases) as Prim[]) {
    it(prim, async () => {
      for (let seed = 0; seed < 6; seed++) {
        const { graph, feeds } = makeCase(prim, seed);
        verify(graph);
        const expected = evaluate(graph, feeds);
        const actual = await evaluateOnce(graph, feeds.map((data) => Float32Array.from(data)));
        expected.forEach(({ data, shape }, i) => {
          expect(actual[i]!.shape).toEqual([...shape]);
          data.forEach((value, at) => expect(Math.abs(actual[i]!.data[at]! - value), `seed ${seed} output ${i}[${at}]`).toBeLessThan(2e-5));
        });
      }
    });
  }
});
