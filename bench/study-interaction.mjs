/**
 * How well a grid of parents and further trainings would find the interaction term alpha3 of the upcycling law:
 *
 *   node bench/study-interaction.mjs [--noise 0.002] [--parent-noise 0.002] [--studies 200] [--width 8e-4]
 *     [--level 0.9] [--tokens 1] [--json]
 *
 * Each design is sizes N, tokens D1 of the parent and D2 since (each from the smallest to the largest in equal ratios),
 * parents of each place (each with a seed of its own), and seeds of the further training on each parent. The truth is
 * the published law (Liew et al. 2025) at the design's own places. ln of a loss has two deviations: `noise` of a run,
 * by the seed of its further training, and `parent-noise` that all runs from one parent share. Both are measured:
 * `noise` by the seeds of a study, `parent-noise` by parents of several seeds.
 *
 * Of so many simulated studies the law is fitted to each, as `upcycle fit` fits it with the loss mse. The width is that
 * of a normal interval of the given level with the deviation of the estimates, and so also what a repetition of the
 * study would give. The first column needs no fits: it is the width by the law's derivatives, of generalised least
 * squares. A design is chosen by the second; where none reaches the width, the last lines say what would.
 */
import { parseArgs } from "node:util";
import { randomStream } from "../dist/base/random.js";
import { lawById } from "../dist/laws/fitting/catalogue.js";
import { fitLaw } from "../dist/laws/fitting/fit.js";
import { publishedById } from "../dist/laws/forms/published.js";
import { naturalOf, placesOf, predict } from "../dist/laws/forms/types.js";
import { spaced } from "./laws-data.mjs";

const { values: flags } = parseArgs({
  options: {
    noise: { type: "string", default: "0.002" },
    "parent-noise": { type: "string", default: "0.002" },
    studies: { type: "string", default: "200" },
    width: { type: "string", default: "8e-4" },
    level: { type: "string", default: "0.9" },
    tokens: { type: "string", default: "1" },
    json: { type: "boolean", default: false },
  },
});
const [runNoise, parentNoise, studies, wanted, level, scale] = [
  flags.noise,
  flags["parent-noise"],
  flags.studies,
  flags.width,
  flags.level,
  flags.tokens,
].map(Number);

const law = lawById("upcycling");
const truth = publishedById("liew-upcycled").params;
const interaction = law.parameters.findIndex(({ name }) => name === "alpha3");

/** Two-sided quantiles of the normal distribution for the levels that are used. */
const quantiles = { 0.9: 1.6448536, 0.95: 1.959964 };
const z = quantiles[level];
if (z === undefined) throw new Error(`--level is ${level}, expected one of ${Object.keys(quantiles).join(", ")}`);

/** Tokens of a step of study 9 at scale 1; `--tokens` multiplies them. */
const step = 16 * 128 * scale;
const [two, three] = [
  [8e4, 3e5],
  [8e4, 1.6e5, 3e5],
];
/** Steps of the parents and of the further training: lowest, highest, how many. */
const narrow = { d1: [100, 400, 3], d2: [50, 200, 3] };
const wide = { d1: [50, 800, 3], d2: [25, 400, 3] };
const widest = { d1: [50, 3200, 3], d2: [25, 800, 3] };
const designs = [
  { name: "3 N, D1 and D2 over a factor of 4", sizes: three, ...narrow, parents: 1, seeds: 5 },
  { name: "3 N, D1 and D2 over a factor of 4", sizes: three, ...narrow, parents: 5, seeds: 1 },
  { name: "3 N, D1 and D2 over a factor of 16", sizes: three, ...wide, parents: 1, seeds: 5 },
  { name: "3 N, D1 and D2 over a factor of 16", sizes: three, ...wide, parents: 5, seeds: 1 },
  { name: "2 N, D1 and D2 over a factor of 16", sizes: two, ...wide, parents: 5, seeds: 1 },
  { name: "2 N, D1 over 64, D2 over 32", sizes: two, ...widest, parents: 1, seeds: 5 },
  // What was run first.
  { name: "2 N, D1 over 64, D2 over 32", sizes: two, ...widest, parents: 1, seeds: 7 },
  { name: "2 N, D1 over 64, D2 over 32", sizes: two, ...widest, parents: 3, seeds: 2 },
  // What recipes/studies/09-interaction.yaml has.
  { name: "2 N, D1 over 64, D2 over 32", sizes: two, ...widest, parents: 5, seeds: 1 },
  { name: "2 N, D1 over 64, D2 over 32", sizes: two, ...widest, parents: 5, seeds: 2 },
  { name: "3 N, D1 over 64, D2 over 32", sizes: three, ...widest, parents: 5, seeds: 2 },
];

/** Every run of a design: its place, and the parent that it starts from. */
function runsOf({ sizes, d1, d2, parents, seeds }) {
  const rows = [];
  const tokens = ([low, high, count]) => spaced(low * step, high * step, count);
  for (const N of sizes)
    for (const D1 of tokens(d1))
      for (let parent = 0; parent < parents; parent++)
        for (const D2 of tokens(d2))
          for (let seed = 0; seed < seeds; seed++) rows.push({ N, D1, D2, parent: `${N} ${D1} ${parent}` });
  return rows;
}

const placesIn = (rows) =>
  placesOf(Object.fromEntries(["N", "D1", "D2"].map((name) => [name, rows.map((row) => row[name])])));

/** FLOPs of a design by 6 N D, without embeddings: parents, and twice the FFN in the further training. */
function flopsOf(rows) {
  const parents = new Map(rows.map(({ parent, N, D1 }) => [parent, 6 * N * D1]));
  return [...parents.values()].reduce((a, b) => a + b, 0) + rows.reduce((sum, { N, D2 }) => sum + 10 * N * D2, 0);
}

/** Solves A x = b for a small symmetric positive definite matrix. */
function solve(matrix, right) {
  const n = right.length;
  const rows = matrix.map((row, i) => [...row, right[i]]);
  for (let i = 0; i < n; i++) {
    const pivot = rows
      .slice(i)
      .reduce((best, row, k) => (Math.abs(row[i]) > Math.abs(rows[best][i]) ? i + k : best), i);
    [rows[i], rows[pivot]] = [rows[pivot], rows[i]];
    for (let k = i + 1; k < n; k++) {
      const factor = rows[k][i] / rows[i][i];
      for (let j = i; j <= n; j++) rows[k][j] -= factor * rows[i][j];
    }
  }
  const x = new Array(n).fill(0);
  for (let i = n - 1; i >= 0; i--)
    x[i] = (rows[i][n] - rows[i].slice(i + 1, n).reduce((sum, value, j) => sum + value * x[i + 1 + j], 0)) / rows[i][i];
  return x;
}

/** Deviation of alpha3 by the derivatives of ln L, where runs of one parent share its error. */
function deviationByDerivatives(rows) {
  const places = placesIn(rows);
  const bound = law.bind({ ...places, loss: predict(law, truth, places) });
  const theta = bound.internal(naturalOf(law, truth));
  bound.evaluate(theta, new Float64Array(places.n));
  const flat = new Float64Array(bound.p * places.n);
  bound.jacobian(flat);
  const row = (j) => flat.subarray(j * places.n, (j + 1) * places.n);
  const groups = new Map();
  rows.forEach(({ parent }, i) => groups.set(parent, [...(groups.get(parent) ?? []), i]));
  // (s^2 I + t^2 1 1')^-1 = (I - c 1 1') / s^2 within a parent, c = t^2 / (s^2 + n t^2).
  const product = (a, b) => {
    let sum = 0;
    for (const members of groups.values()) {
      const c = parentNoise ** 2 / (runNoise ** 2 + members.length * parentNoise ** 2);
      const total = (vector) => members.reduce((all, i) => all + vector[i], 0);
      sum += members.reduce((all, i) => all + a[i] * b[i], 0) - c * total(a) * total(b);
    }
    return sum / runNoise ** 2;
  };
  const scales = Array.from({ length: bound.p }, (_, j) => Math.sqrt(product(row(j), row(j))));
  const information = scales.map((si, i) => scales.map((sj, j) => product(row(i), row(j)) / (si * sj)));
  // The internal parameter of alpha3 is alpha3 times a constant at most: its slope is taken numerically.
  const wantedSlope = scales.map((s, j) => slope(bound, theta, j) / s);
  const x = solve(information, wantedSlope);
  return Math.sqrt(x.reduce((sum, value, j) => sum + value * wantedSlope[j], 0));
}

/** d alpha3 / d internal parameter j. */
function slope(bound, theta, j) {
  const h = 1e-6 * Math.max(1, Math.abs(theta[j]));
  const at = (by) => bound.natural(theta.map((value, i) => (i === j ? value + by : value)))[interaction];
  return (at(h) - at(-h)) / (2 * h);
}

/** Estimates of alpha3 of simulated studies. */
function estimatesOf(rows) {
  const places = placesIn(rows);
  const exact = predict(law, truth, places);
  const parents = [...new Set(rows.map(({ parent }) => parent))];
  return Array.from({ length: studies }, (_, study) => {
    const deviates = new Float64Array(rows.length + parents.length);
    randomStream(study, "interaction").normals(deviates, 0, 0, 1);
    const shared = new Map(parents.map((parent, i) => [parent, deviates[rows.length + i] * parentNoise]));
    const loss = exact.map((value, i) => value * Math.exp(deviates[i] * runNoise + shared.get(rows[i].parent)));
    return fitLaw(law, { ...places, loss }, { loss: { name: "mse", delta: 0 } }).params.alpha3;
  });
}

const deviationOf = (values) => {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
};

const results = designs.map((one) => {
  const rows = runsOf(one);
  const byDerivatives = 2 * z * deviationByDerivatives(rows);
  const simulated = studies < 2 ? NaN : 2 * z * deviationOf(estimatesOf(rows));
  const width = Number.isFinite(simulated) ? simulated : byDerivatives;
  return {
    ...one,
    runs: rows.length,
    trained: new Set(rows.map(({ parent }) => parent)).size,
    flops: flopsOf(rows),
    byDerivatives,
    simulated,
    // Widths fall with the root of the number of parents and runs.
    repetitions: Math.ceil((width / wanted) ** 2),
  };
});

if (flags.json) console.log(JSON.stringify({ runNoise, parentNoise, studies, level, wanted, results }, null, 2));
else {
  console.log(`ln of a loss deviates by ${runNoise} from run to run and by ${parentNoise} from parent to parent`);
  for (const { name, parents, trained, seeds, runs, flops, byDerivatives, simulated, repetitions } of results)
    console.log(
      `${name}, ${parents} x ${seeds} runs of a place (${trained} parents, ${runs} runs, ${flops.toExponential(1)} ` +
        `FLOPs): width of the ${level * 100} % interval ${byDerivatives.toExponential(2)} by derivatives` +
        `${Number.isNaN(simulated) ? "" : `, ${simulated.toExponential(2)} simulated`}; ` +
        `narrower than ${wanted} with ${repetitions === 1 ? "this" : `${repetitions} times as many parents and runs`}`,
    );
}
