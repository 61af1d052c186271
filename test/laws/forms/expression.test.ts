import { describe, expect, it } from "vitest";
import { expressionLaw } from "../../../src/laws/forms/expression-law.js";
import { compileExpression, parseExpression, textOf } from "../../../src/laws/forms/expression.js";
import { checkPoints } from "../../../src/laws/forms/check.js";
import { predict } from "../../../src/laws/forms/types.js";
import { fitLaw } from "../../../src/laws/fitting/fit.js";
import { gridOf, law, publishedParams, simulated, spaced } from "../data.js";

const valueOf = (text: string, row: number[] = [], names: string[] = []): number =>
  compileExpression(parseExpression(text), [], names)([], row).value;

describe("formulas", () => {
  it.each([
    ["1 + 2 * 3", 7],
    ["(1 + 2) * 3", 9],
    ["2^3^2", 512],
    ["-2^2", -4],
    ["2^-1", 0.5],
    ["8 / 4 / 2", 1],
    ["1 - 2 - 3", -4],
    ["1e3 + .5", 1000.5],
    ["ln(exp(2))", 2],
    ["log10(1000)", 3],
    ["sqrt(16)", 4],
    ["--2", 2],
    ["1-1", 0],
    ["max(1, 2)", 2],
    ["min(3, 1, 2) * 2", 2],
    ["0^0.5", 0],
  ])("%s is %d", (text, value) => {
    expect(valueOf(text)).toBeCloseTo(value, 12);
  });

  it.each([
    ["", "a number, a name or a parenthesis, found the end"],
    ["1 +", "found the end"],
    ["(1", 'expected ")", found the end'],
    ["1 2", 'an operator (+ - * / ^), found "2"'],
    ["sin(1)", 'expected a function (ln, log10, exp, sqrt, max, min), found "sin"'],
    ["a; b", 'found ";"'],
    ["1 + $", 'found "$"'],
    ["max(1)", 'expected "," and another argument, found ")"'],
    ["(".repeat(300) + "1", "nested more than 200 levels"],
    ["-".repeat(300) + "1", "nested more than 200 levels"],
    ["N+".repeat(2000) + "N", "the law has 4001 characters, limit 4000"],
    ["1e999", 'the number "1e999" is too large'],
  ])("%j is refused", (text, words) => {
    expect(() => parseExpression(text)).toThrow(words);
  });

  it("are cut in messages", () => {
    expect(() => parseExpression(`${"N+".repeat(1000)}$`)).toThrow(/^in the law "(N\+){58}N\.\.\.": expected/);
  });

  it("are computed when they are as long as they may be", () => {
    expect(valueOf(`${"N+".repeat(1999)}N`, [1], ["N"])).toBe(2000);
  });

  it.each([
    "a-(b-c)",
    "a-b-c",
    "(a+b)*c",
    "a^(-b)",
    "(a^b)^c",
    "a^b^c",
    "-(a+b)^2",
    "ln(a-1)/(b/c)",
    "(-a)*b",
    "max(a,b-c)^2",
  ])("%s is written as it was read", (text) => {
    expect(textOf(parseExpression(text))).toBe(text);
  });

  it("carry their derivatives", () => {
    const parameters = ["a", "b"];
    const evaluate = compileExpression(
      parseExpression("a * x^-b + ln(a * b) / sqrt(b) - exp(b - x) + (a / x)^b + log10(a)"),
      parameters,
      ["x"],
    );
    const at = [1.3, 0.7];
    const slopes = evaluate(at, [2]).slopes.slice();
    parameters.forEach((_, j) => {
      const valueNear = (by: number): number =>
        evaluate(
          at.map((value, k) => (k === j ? value + by : value)),
          [2],
        ).value;
      expect(slopes[j]).toBeCloseTo((valueNear(1e-6) - valueNear(-1e-6)) / 2e-6, 7);
    });
  });
});

describe("laws from formulas", () => {
  it("find what the named law finds", () => {
    const points = simulated(
      law("chinchilla"),
      publishedParams("hoffmann"),
      gridOf({ N: spaced(1e8, 1e10, 5), D: spaced(1e9, 1e11, 5) }),
    );
    const fit = fitLaw(expressionLaw("L = A*N^-alpha + B*D^-beta + E"), points, { loss: { name: "mse", delta: 0 } });
    expect(fit.params.alpha).toBeCloseTo(0.34, 8);
    expect(fit.params.E).toBeCloseTo(1.69, 8);
    expect(fit.law.formula).toBe("L(N, D) = A*N^-alpha + B*D^-beta + E");
  });

  it("let a parameter be negative where its start is not positive", () => {
    const points = simulated(
      expressionLaw("a + s * ln(N)", [], { start: { s: -0.1 } }),
      { a: 5, s: -0.13 },
      gridOf({ N: spaced(1e8, 1e10, 9) }),
    );
    const fit = fitLaw(expressionLaw("a + s * ln(N)", [], { start: { s: 0, a: 3 } }), points, {
      loss: { name: "mse", delta: 0 },
    });
    expect(fit.params.s).toBeCloseTo(-0.13, 8);
  });

  it("take further columns that are named", () => {
    expect(expressionLaw("a * H^-b", ["H"]).columns.map(({ name }) => name)).toEqual(["H"]);
  });

  it.each([
    ["a * b", "uses no column"],
    ["N^-0.3", "has no parameter"],
  ])("%s is refused", (text, words) => {
    expect(() => expressionLaw(text)).toThrow(words);
  });

  it.each(["constructor", "__proto__", "toString", "hasOwnProperty"])(
    "refuse the name %s, which every object has",
    (name) => {
      expect(() => expressionLaw(`E + ${name}*N^(-alpha)`)).toThrow(`"${name}" is not allowed as a name`);
      expect(() => expressionLaw(`E + A*${name}^(-alpha)`, [name])).toThrow(`"${name}" is not allowed as a name`);
    },
  );

  it.each([
    ["E+A/(N-N)", 'in the law "E+A/(N-N)": "A/(N-N)" is not a finite number at N = 10.0M for any of 4000 starts'],
    ["E+exp(exp(exp(exp(N))))", '"exp(N)" is not a finite number at N = 10.0M'],
    ["E+A*ln(N-3e7)", '"ln(N-30000000)" is not a finite number at N = 10.0M'],
    // One point alone is outside of what the formula allows.
    ["E+A/(N-1e8)", '"A/(N-100000000)" is not a finite number at N = 100M'],
    ["E+A*N^-a+sqrt(-1)", '"sqrt(-1)" is not a finite number'],
    ["-exp(A*N^-a)", 'the law "-exp(A*N^-a)" is not positive at N = 10.0M'],
    ["max(A*N^-a,ln(-N))", '"ln(-N)" is not a finite number at N = 10.0M'],
  ])("%s is refused with the part that is finite or positive nowhere", (text, words) => {
    const points = { ...gridOf({ N: spaced(1e7, 1e9, 5) }), loss: Float64Array.of(4, 3.5, 3.2, 3, 2.9) };
    for (const starts of ["projection", "grid"] as const)
      expect(() => fitLaw(expressionLaw(text), points, { starts })).toThrow(words);
  });

  it("refuses starts of unknown parameters", () => {
    expect(() => expressionLaw("a * N^-b", [], { start: { c: 1 } })).toThrow("has no parameter c");
  });

  it.each([
    ["A*N^a + E", { A: 400, a: -0.34, E: 1.7 }],
    ["A*N^-a - B*N^b + E", { A: 400, a: 0.34, B: -0.002, b: 0.2, E: 1.5 }],
    ["E - A*N^a", { E: 1.6, A: -400, a: -0.34 }],
  ])("%s is fitted whatever the signs of its parameters", (text, params) => {
    const places = gridOf({ N: spaced(1e7, 1e10, 16) });
    const truth = expressionLaw(text);
    const points = { ...places, loss: predict(truth, params, places) };
    const fit = fitLaw(truth, points, { loss: { name: "mse", delta: 0 } });
    expect(fit.objective).toBeLessThan(1e-16);
    if (!text.includes("B"))
      for (const [name, value] of Object.entries(params)) expect(fit.params[name]).toBeCloseTo(value, 4);
  });

  it("keeps parameters inside their bounds, and refuses starts outside", () => {
    const places = gridOf({ N: spaced(1e7, 1e10, 16) });
    const points = { ...places, loss: predict(expressionLaw("A*N^a+E"), { A: 400, a: -0.34, E: 1.7 }, places) };
    const bounded = expressionLaw("A*N^a+E", [], { bounds: { a: [0, Infinity] } });
    expect(fitLaw(bounded, points).params.a).toBeGreaterThanOrEqual(0);
    expect(() => expressionLaw("A*N^a+E", [], { start: { a: -1 }, bounds: { a: [0, 1] } })).toThrow(
      "a starts at -1, outside of its bounds 0 to 1",
    );
  });

  it("takes columns with zeros", () => {
    const places = gridOf({ N: spaced(1e7, 1e9, 4), dropout: [0, 0.1, 0.2] });
    const form = expressionLaw("A*N^-a + B*dropout^b + E", ["dropout"]);
    const params = { A: 400, a: 0.34, B: 0.5, b: 1.5, E: 1.7 };
    const points = { ...places, loss: predict(form, params, places) };
    expect(checkPoints(form, points)).toEqual([
      "12 points for 5 parameters are few: intervals are wide and depend on every point.",
    ]);
    const fit = fitLaw(form, points, { loss: { name: "mse", delta: 0 } });
    expect(fit.objective).toBeLessThan(1e-16);
    expect(fit.params.b).toBeCloseTo(1.5, 5);
  });

  it("that describe nothing say so", () => {
    const places = gridOf({ N: spaced(1e7, 1e10, 12), D: spaced(1e9, 1e11, 3) });
    const points = simulated(law("chinchilla"), publishedParams("besiroglu"), places, 0.001);
    const fit = fitLaw(expressionLaw("A*N^a", [], { bounds: { a: [0, Infinity] } }), points);
    expect(fit.status).toBe("no-better-than-constant");
    expect(fitLaw(expressionLaw("A*N^a+E"), points).status).toBe("converged");
  });
});
