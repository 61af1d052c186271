import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { laws } from "../../src/laws/fitting/catalogue.js";
import { effectiveExperts } from "../../src/laws/forms/effective-experts.js";
import { published, publishedById } from "../../src/laws/forms/published.js";
import { naturalOf, placesOf, predict, type Law } from "../../src/laws/forms/types.js";
import { dataFile, gridOf, haveData, law, publishedParams, simulated, spaced } from "./data.js";
import { at as elementAt, valueAt } from "../../src/base/at.js";
import { present } from "../support/present.js";

const values: Record<string, number[]> = {
  N: spaced(1e8, 2e9, 3),
  D: spaced(1e9, 1e11, 3),
  D1: spaced(2e9, 7e10, 3),
  D2: spaced(1e9, 4e10, 3),
  E: [1, 8, 64],
  G: [1, 4, 16],
  S: [0, 0.5, 0.9],
  U: [5e8, 8e9],
  S1: [0.1, 1, 8],
  S2: [0, 1e-4, 3e-4],
  P: [1, 2, 6],
  A: [0.03, 0.1, 0.5],
  C: [1e19, 1e21],
};
const placesFor = ({ columns }: Law) =>
  gridOf(Object.fromEntries(columns.map(({ name }) => [name, valueAt(values, name)])));
const plain: Record<string, Record<string, number>> = {
  kaplan: { Nc: 6e13, alphaN: 0.08, Dc: 2e13, alphaD: 0.1 },
  "upcycling-data": { A: 12, alpha1: 0.05, alpha2: 0.1, alpha3: 8e-4, E: 1.2 },
  "upcycling-no-interaction": { A: 12, alpha1: 0.05, alpha2: 0.1, B: 8, beta: 0.11, E: 0.3 },
  "upcycling-additive": { A1: 8, alpha1: 0.12, A2: 9, alpha2: 0.13, B: 8, beta: 0.11, E: 0.3 },
  "upcycling-data-no-interaction": { A: 12, alpha1: 0.05, alpha2: 0.1, E: 1.2 },
  "upcycling-data-additive": { A1: 8, alpha1: 0.12, A2: 9, alpha2: 0.13, E: 0.3 },
  "upcycling-data-total": { A: 12, alpha: 0.12, E: 0.3 },
  farseer: { a3: -0.02, gamma: 0.17, b3: 0.5, a2: 90, beta: -0.1, b2: -6, a1: -0.12, alpha: 0.12, b1: 0.4 },
  "data-constrained": { A: 500, B: 1500, E: 1.8, alpha: 0.35, beta: 0.36, R_D: 15, R_N: 5 },
  "lr-annealing": { L0: 2.5, A: 0.5, alpha: 0.5, C: 300 },
  sparsity: { A: 12, alpha1: 0.05, alpha2: 0.1, alpha3: 8e-4, E: 1.2 },
  "upcycling-total": { A: 12, alpha: 0.12, B: 8, beta: 0.11, E: 0.3 },
};
const paramsFor = ({ id }: Law): Record<string, number> => ({
  ...(plain[id] ?? present(published.find((coefficients) => coefficients.law === id)).params),
});

// A law over groups is made of these; shared.test.ts holds it to them.
describe.each(laws.filter(({ groups }) => groups === undefined).map((form) => [form.id, form] as const))(
  "%s",
  (_, form) => {
    const params = paramsFor(form);
    const places = placesFor(form);
    const bound = form.bind({ ...places, loss: predict(form, params, places) });
    const theta = bound.internal(naturalOf(form, params));

    it("goes to internal parameters and back", () => {
      bound
        .natural(theta)
        .forEach((value, j) => expect(value / valueAt(params, elementAt(form.parameters, j).name)).toBeCloseTo(1, 10));
    });

    it("has the gradient of its prediction", () => {
      const { n, p } = bound;
      const jacobian = new Float64Array(n * p);
      const [here, above, below] = [new Float64Array(n), new Float64Array(n), new Float64Array(n)];
      bound.evaluate(theta, here);
      bound.jacobian(jacobian);
      const slopes = Float64Array.from({ length: n }, (_, i) => Math.sin(i));
      const pulled = new Float64Array(p);
      bound.pullback(slopes, pulled);
      for (let j = 0; j < p; j++) {
        const near = theta.slice();
        near[j]! += 1e-6;
        bound.evaluate(near, above);
        near[j]! -= 2e-6;
        bound.evaluate(near, below);
        for (let i = 0; i < n; i++)
          expect(jacobian[j * n + i]).toBeCloseTo((elementAt(above, i) - elementAt(below, i)) / 2e-6, 7);
        expect(pulled[j]).toBeCloseTo(
          slopes.reduce((sum, slope, i) => sum + slope * elementAt(jacobian, j * n + i), 0),
          10,
        );
      }
    });

    it("has coordinates with their gradients", () => {
      const gradient = new Float64Array(bound.p);
      form.parameters.forEach(({ name, role }, j) => {
        const at = bound.coordinate(j);
        expect(at.at(theta, gradient)).toBeCloseTo(
          role === "coefficient" ? Math.log(valueAt(params, name)) : valueAt(params, name),
          9,
        );
        const near = theta.slice();
        const k = gradient.findIndex((slope) => slope !== 0);
        near[k]! += 1e-6;
        expect((at.at(near, null) - at.at(theta, null)) / 1e-6).toBeCloseTo(elementAt(gradient, k), 4);
      });
    });

    it("predicts the same wherever it is centred", () => {
      const elsewhere = form.bind(simulated(form, params, placesFor({ ...form, columns: form.columns })));
      const one = placesOf(
        Object.fromEntries(form.columns.map(({ name }) => [name, [elementAt(valueAt(values, name), 1) * 0.9]])),
      );
      const out = new Float64Array(1);
      elsewhere.at(one).evaluate(elsewhere.internal(naturalOf(form, params)), out);
      expect(Math.exp(elementAt(out, 0))).toBeCloseTo(elementAt(predict(form, params, one), 0), 10);
    });

    it("has words for itself, its columns and its parameters", () => {
      expect(form.formula).toMatch(/^(L|log10 L|EL)\b/);
      expect(form.source).toMatch(/arXiv|our definition/);
      for (const { name, meaning, unit } of [...form.columns, ...form.parameters])
        expect([name, meaning, unit]).not.toContain("");
      for (const { name } of form.parameters) expect(form.formula).toContain(name);
    });
  },
);

describe("published coefficients", () => {
  it.each(published.map((coefficients) => [coefficients.id, coefficients] as const))(
    "%s fit their law",
    (_, { law: id, params }) => {
      expect(Object.keys(params).sort()).toEqual(
        law(id)
          .parameters.map(({ name }) => name)
          .sort(),
      );
    },
  );

  it("of Table 2 give the reference's predictions", () => {
    const at = (id: string, columns: Record<string, number>): number => {
      const { law: form, params } = present(publishedById(id));
      return elementAt(
        predict(
          law(form),
          params,
          placesOf(Object.fromEntries(Object.entries(columns).map(([name, value]) => [name, [value]]))),
        ),
        0,
      );
    };
    expect(at("liew-upcycled", { N: 1e9, D1: 5e10, D2: 1e10 })).toBeCloseTo(2.2577, 4);
    expect(at("liew-dense", { N: 1e9, D: 5e10 })).toBeCloseTo(2.2868, 4);
    expect(at("liew-dense", { N: 1e9, D: 74e9 })).toBeCloseTo(2.2525, 4);
    expect(at("liew-upcycled", { N: 1e9, D1: 74e9, D2: 37e9 })).toBeCloseTo(2.1442, 4);
    expect(at("liew-moe", { N: 1e9, D: 37e9 })).toBeCloseTo(2.1447, 4);
    expect(at("liew-moe", { N: 1e9, D: 111e9 })).toBeCloseTo(2.0415, 4);
    expect(at("liew-moe", { N: 1e9, D: 1e11 })).toBeCloseTo(2.0505, 4);
  });

  it.skipIf(!haveData)("of Table 2 give the test vectors", () => {
    const { vectors } = JSON.parse(readFileSync(dataFile("liew_table2_vectors.json"), "utf8")) as {
      vectors: Record<string, number>[];
    };
    expect(vectors).toHaveLength(36);
    const column = (name: string): number[] => vectors.map((vector) => valueAt(vector, name));
    const places = placesOf({ N: column("N"), D1: column("D1"), D2: column("D2") });
    const close = (actual: Float64Array, name: string): void =>
      actual.forEach((value, i) => expect(value).toBeCloseTo(valueAt(elementAt(vectors, i), name), 12));
    close(predict(law("upcycling"), publishedParams("liew-upcycled"), places), "upcycled");
    close(
      predict(law("joint"), publishedParams("liew-dense"), placesOf({ N: column("N"), D: column("D1") })),
      "dense_at_D1",
    );
    close(
      predict(law("joint"), publishedParams("liew-moe"), placesOf({ N: column("N"), D: column("D2") })),
      "moe_scratch_at_D2",
    );
  });

  it.each([
    [1, 30.364, -0.1817, 53.9838, -0.1965],
    [8, 21.833, -0.1676, 119.9126, -0.2338],
    [32, 16.5424, -0.1557, 234.6726, -0.2652],
  ])("of Ludziejewski give Table 4 at %i experts within 0.3 %%", (experts, m, mu, n, nu) => {
    const { a, alpha, delta, gamma, b, beta, omega, zeta, Es, Em } = publishedParams("ludziejewski");
    const { logEhat } = effectiveExperts(experts, present(Es), present(Em));
    const close = (actual: number, expected: number): void =>
      expect(Math.abs(actual / expected - 1)).toBeLessThan(3e-3);
    close(present(a) * Math.exp(present(delta) * logEhat), m);
    close(present(alpha) + present(gamma) * logEhat, mu);
    close(present(b) * Math.exp(present(omega) * logEhat), n);
    close(present(beta) + present(zeta) * logEhat, nu);
    // The law itself, through two predictions that differ only in N.
    const { params } = present(publishedById("ludziejewski"));
    const [one, other] = predict(
      law("ludziejewski"),
      params,
      placesOf({ N: [1e8, 1e9], D: [1e10, 1e10], E: [experts, experts] }),
    );
    close(present(one) - present(other), m * (1e8 ** mu - 1e9 ** mu));
  });

  it("know that one expert counts as Es and many as Em", () => {
    expect(Math.exp(effectiveExperts(1, 2.0732, 290.4521).logEhat)).toBeCloseTo(2.0732, 10);
    expect(Math.exp(effectiveExperts(1e9, 2.0732, 290.4521).logEhat)).toBeCloseTo(290.4521, 3);
    expect(Math.exp(effectiveExperts(8, 2.0732, 290.4521).logEhat)).toBeCloseTo(8.8124, 4);
  });
});
