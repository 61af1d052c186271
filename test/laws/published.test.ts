/**
 * Fits of public data against the numbers published with them. The tables are not part of the project: they are read
 * from the shared data, or from the folder that UPCYCLE_LAW_DATA names, where present. `bench/laws-public.mjs` makes
 * them from clones of the repositories that hold the measurements.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { fitLaw } from "../../src/laws/fitting/fit.js";
import { isoFlop } from "../../src/laws/fitting/isoflop.js";
import { expressionLaw } from "../../src/laws/forms/expression-law.js";
import { placesOf, predict, type Law } from "../../src/laws/forms/types.js";
import { readPoints } from "../../src/laws/points/points.js";
import { at } from "../../src/base/at.js";
import { dataFile, law, publishedParams } from "./data.js";

const folder = process.env.UPCYCLE_LAW_DATA;
const file = (name: string): string => (folder === undefined ? dataFile(name) : join(folder, name));
const points = async (name: string, form: Law, mapping: Record<string, string> = {}) =>
  (await readPoints(file(name), form, { mapping: new Map(Object.entries(mapping)) })).points;

describe.skipIf(!existsSync(file("muennighoff-182.csv")))("Muennighoff et al. 2023, 182 runs", () => {
  it("have their optimum below the published values", async () => {
    const form = law("data-constrained-reuse");
    const fit = fitLaw(form, await points("muennighoff-182.csv", form));
    expect(fit.params.R_D).toBeCloseTo(95.365, 3);
    expect(fit.params.R_N).toBeCloseTo(1.7059, 4);
    expect(fit.objective).toBeCloseTo(0.0158046625, 10);
  });
});

describe.skipIf(!existsSync(file("gadre-c4-eval.csv")))("Gadre et al. 2024", () => {
  it("predict over-trained and larger models within the published errors", async () => {
    const form = expressionLaw("a*N^b + c*6^(b/2)*(M*N)^b + E", ["M"]);
    const all = await readPoints(file("gadre-c4-eval.csv"), form, { mapping: new Map([["M", "multiplier*20"]]) });
    const { columns, loss } = all.points;
    const small = [10569312, 78914048, 153677376, 411616256];
    // Lines of the models trained on RedPajama.
    const rows = Array.from({ length: all.points.n }, (_, i) => i).filter(
      (i) => at(all.lines, i) >= 36 && at(all.lines, i) <= 70,
    );
    const size = (i: number): number => at(columns.N ?? [], i);
    const multiple = (i: number): number => at(columns.M ?? [], i);
    const fitted = rows.filter(
      (i) => small.includes(size(i)) && (multiple(i) === 20 || (multiple(i) === 320 && size(i) === small[0])),
    );
    expect(fitted).toHaveLength(5);
    const fit = fitLaw(
      form,
      {
        ...placesOf({ N: fitted.map(size), M: fitted.map(multiple) }),
        loss: Float64Array.from(fitted, (i) => at(loss, i)),
      },
      { loss: { name: "mse-raw", delta: 0 } },
    );
    const error = (N: number, M: number): number => {
      const row = rows.find((i) => size(i) === N && multiple(i) === M) ?? NaN;
      const predicted = at(predict(form, fit.params, placesOf({ N: [N], M: [M] })), 0);
      return (100 * Math.abs(predicted - at(loss, row))) / at(loss, row);
    };
    expect(error(1439795200, 640)).toBeCloseTo(0.7103, 4);
    expect(error(6889410560, 20)).toBeCloseTo(0.732, 4);
  });
});

describe.skipIf(!existsSync(file("llama3-isoflops.csv")))(
  "Llama 3's IsoFLOP curves, as Open Athena read them off",
  () => {
    it("have the exponents of Approach 2 that were published with them", async () => {
      const { columns, loss } = await points("llama3-isoflops.csv", law("chinchilla"));
      const [N, D] = [columns.N ?? new Float64Array(), columns.D ?? new Float64Array()];
      const result = isoFlop(
        { N, D, C: N.map((size, i) => 6 * size * at(D, i)), loss },
        { level: 0.9, bootstrap: 0, seed: 0 },
      );
      expect(result?.size.exponent).toBeCloseTo(0.4632, 3);
      expect(result?.tokens.exponent).toBeCloseTo(0.5368, 3);
    });

    it("have the law of raw least squares that was published with them", async () => {
      const fit = fitLaw(law("chinchilla"), await points("llama3-isoflops.csv", law("chinchilla")), {
        loss: { name: "mse-raw", delta: 0 },
      });
      expect(fit.params.E).toBeCloseTo(0.6047, 4);
      expect(fit.params.A).toBeCloseTo(59.1, 0);
      expect(fit.params.B).toBeCloseTo(155.1, 1);
      expect(fit.params.alpha).toBeCloseTo(0.31, 4);
      expect(fit.params.beta).toBeCloseTo(0.3136, 4);
    });
  },
);

describe("Ling's efficiency leverage", () => {
  const form = law("efficiency-leverage");
  const leverage = (A: number, G: number): number =>
    at(predict(form, publishedParams("ling"), placesOf({ A: [A], G: [G], C: [1e22] })), 0);

  it("exceeds seven where the paper says so, at 1e22 FLOP, 3.1 % active experts, granularity 12", () => {
    expect(leverage(0.031, 12)).toBeCloseTo(7.24, 2);
  });

  it("is largest at a granularity of 8 to 12, as the paper finds", () => {
    const sizes = [1, 2, 4, 6, 8, 10, 11, 12, 14, 16, 32];
    const best = sizes.reduce((one, other) => (leverage(0.031, other) > leverage(0.031, one) ? other : one));
    expect(best).toBe(11);
  });

  it("is about that of the pilot model that the paper trained, a dense one of 7.2 times its active parameters", () => {
    // 12 of 384 experts and a shared one, of 384 at hidden size 2048: 6.11B against 0.85B, losses within 0.01.
    expect(leverage(13 / 385, 4096 / 384) / (6.11 / 0.85)).toBeCloseTo(1, 1);
  });
});
