/**
 * Measures by simulated studies whether what a fit says about its own errors is true:
 *
 *   node bench/laws-coverage.mjs [--studies 1000] [--cells a,b] [--level 0.9] [--bootstrap 0] [--resume FILE]
 *     [--out FILE]
 *
 * Each cell is a law with its true parameters, a table of places, and noise: of every point by itself, or of runs with
 * several checkpoints. Of each study the script fits the law and counts how often profile-likelihood intervals contain
 * the true parameters, the true loss at two places, and the loss of a new run there; how often the test of the form
 * raises an alarm, with the true form and with departures from it whose non-centrality after projection onto what the
 * form cannot describe is 25; how often dependent points are noticed where nobody names the runs; and how often points
 * are named as outliers, of clean tables and of those with gross errors in some points. Studies are seeded by their
 * number. With --resume the counts so far are kept in a file, and a stopped run goes on from there.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { randomStream } from "../dist/base/random.js";
import { bootstrapDraws, naturalDraws, summarise } from "../dist/laws/fitting/bootstrap.js";
import { lawById } from "../dist/laws/fitting/catalogue.js";
import { dependenceOf } from "../dist/laws/fitting/findings.js";
import { fitLaw, problemOf } from "../dist/laws/fitting/fit.js";
import { outliersOf } from "../dist/laws/fitting/outliers.js";
import { misfitOf } from "../dist/laws/fitting/misfit.js";
import { newRunInterval, noiseOfOne } from "../dist/laws/fitting/new-run.js";
import { profileParameter, profilePrediction } from "../dist/laws/fitting/profile.js";
import { runNoise, runNoiseOf } from "../dist/laws/fitting/run-noise.js";
import { tangentOf } from "../dist/laws/fitting/tangent.js";
import { publishedById } from "../dist/laws/forms/published.js";
import { naturalOf, placesOf, predict } from "../dist/laws/forms/types.js";
import { gridOf, spaced } from "./laws-data.mjs";

const { values: flags } = parseArgs({
  options: {
    studies: { type: "string", default: "1000" },
    cells: { type: "string" },
    level: { type: "string", default: "0.9" },
    bootstrap: { type: "string", default: "0" },
    resume: { type: "string" },
    out: { type: "string" },
  },
});
const [studies, level, draws] = [flags.studies, flags.level, flags.bootstrap].map(Number);

const chinchilla = { law: "chinchilla", truth: publishedById("besiroglu").params };
const upcycling = { law: "upcycling", truth: publishedById("liew-upcycled").params };
const perPoint = (noise) => ({ within: noise, between: 0 });
/** Seeds differ by more than evaluations of one run do. */
const perRun = { within: 0.0015, between: 0.006 };
const predictionsOf = {
  chinchilla: [
    { N: [1e9], D: [2e10] },
    { N: [7e9], D: [1e12] },
  ],
  upcycling: [
    { N: [5e8], D1: [2e10], D2: [1e10] },
    { N: [7e9], D1: [3e11], D2: [1e11] },
  ],
};
/** 9 runs, each with a size of its own, or 24 with a size and a parent; four checkpoints of each, in equal ratios. */
const checkpoints = (runs, name, low, high) => {
  const rows = runs.flatMap((run, r) =>
    spaced(low, high, 4).map((value) => ({ ...run, [name]: value, run: `run ${r}` })),
  );
  const names = Object.keys(rows[0]).filter((key) => key !== "run");
  return {
    ...placesOf(Object.fromEntries(names.map((key) => [key, rows.map((row) => row[key])]))),
    cluster: rows.map(({ run }) => run),
  };
};
const chinchillaRuns = checkpoints(
  spaced(5e7, 1.2e10, 9).map((N) => ({ N })),
  "D",
  3e9,
  3e11,
);
const upcyclingRuns = checkpoints(
  spaced(0.11e9, 1.1e9, 4).flatMap((N) => spaced(2e9, 74e9, 6).map((D1) => ({ N, D1 }))),
  "D2",
  0.9e9,
  37e9,
);
const grids = {
  chinchilla: gridOf({ N: spaced(5e7, 1.2e10, 6), D: spaced(1e9, 3e11, 6) }),
  chinchilla35: gridOf({ N: spaced(5e7, 1.2e10, 5), D: spaced(1e9, 3e11, 7) }),
  upcycling: gridOf({ N: spaced(0.11e9, 1.1e9, 4), D1: spaced(2e9, 74e9, 4), D2: spaced(0.9e9, 37e9, 4) }),
  upcycling36: gridOf({ N: spaced(0.11e9, 1.1e9, 3), D1: spaced(2e9, 74e9, 3), D2: spaced(0.9e9, 37e9, 4) }),
};
const mse = { name: "mse", delta: 0 };
const huber = { name: "huber", delta: 1e-3 };
const patterns = {
  "N x D": (u) => u[0] * u[1],
  "N^2": (u) => u[0] ** 2,
  "D^2": (u) => u.at(-1) ** 2,
  "N^2 x D": (u) => u[0] ** 2 * u.at(-1),
  "largest N off": (u) => (u[0] > 0.99 ? 1 : 0),
};

/** Every cell: what is simulated, and what is counted. */
const cells = {
  "independent chinchilla 6x6": { ...chinchilla, places: grids.chinchilla, noise: perPoint(0.006), loss: mse },
  "independent chinchilla 6x6 huber": { ...chinchilla, places: grids.chinchilla, noise: perPoint(0.006), loss: huber },
  "independent upcycling 4x4x4": { ...upcycling, places: grids.upcycling, noise: perPoint(0.002), loss: mse },
  "independent upcycling 4x4x4, 0.5 %": { ...upcycling, places: grids.upcycling, noise: perPoint(0.005), loss: mse },
  "clustered chinchilla 9x4": { ...chinchilla, places: chinchillaRuns, noise: perRun, loss: mse },
  "clustered chinchilla 9x4 huber": { ...chinchilla, places: chinchillaRuns, noise: perRun, loss: huber },
  "clustered upcycling 24x4": { ...upcycling, places: upcyclingRuns, noise: perRun, loss: mse },
  ...Object.fromEntries(
    Object.keys(patterns).map((pattern) => [
      `misfit chinchilla 5x7, ${pattern}`,
      { ...chinchilla, places: grids.chinchilla35, noise: perPoint(0.006), loss: mse, pattern },
    ]),
  ),
  ...Object.fromEntries(
    ["N x D", "D^2", "N^2"].map((pattern) => [
      `misfit upcycling 3x3x4, ${pattern}`,
      { ...upcycling, places: grids.upcycling36, noise: perPoint(0.003), loss: mse, pattern },
    ]),
  ),
  "true form chinchilla 5x7": {
    ...chinchilla,
    places: grids.chinchilla35,
    noise: perPoint(0.006),
    loss: mse,
    pattern: null,
  },
  "true form upcycling 3x3x4": {
    ...upcycling,
    places: grids.upcycling36,
    noise: perPoint(0.003),
    loss: mse,
    pattern: null,
  },
};

/** Points with gross errors: spread over the table, or those of the largest size, which pull the fit to themselves. */
const grossErrors = {
  "1 gross error": { points: [14], size: 8 },
  "3 gross errors": { points: [3, 14, 27], size: 8 },
  "6 gross errors on one side": { points: [3, 8, 14, 21, 27, 32], size: 8, side: 1 },
  "3 gross errors at the largest N": { points: [30, 32, 35], size: 10, side: 1 },
};
for (const [loss, name] of [
  [mse, ""],
  [huber, ", huber"],
])
  for (const [error, gross] of Object.entries(grossErrors))
    cells[`outliers chinchilla 6x6, ${error}${name}`] = {
      ...chinchilla,
      places: grids.chinchilla,
      noise: perPoint(0.006),
      loss,
      gross,
    };

function simulated({ law, truth, places, noise, departure, gross }, seed) {
  const runs = places.cluster === undefined ? [] : [...new Set(places.cluster)];
  const deviates = new Float64Array(places.n + runs.length + 4);
  randomStream(seed, "noise").normals(deviates, 0, 0, 1);
  const of = new Map(runs.map((run, r) => [run, deviates[places.n + r] * noise.between]));
  const errors = Float64Array.from(
    { length: places.n },
    (_, i) => deviates[i] * noise.within + (of.get(places.cluster?.[i]) ?? 0) + (departure?.[i] ?? 0),
  );
  gross?.points.forEach((i, k) => (errors[i] += (gross.side ?? (-1) ** k) * gross.size * noise.within));
  const loss = predict(lawById(law), truth, places).map((value, i) => value * Math.exp(errors[i]));
  const extra = Array.from(
    { length: 2 },
    (_, k) =>
      deviates[places.n + runs.length + 2 * k] * noise.within +
      deviates[places.n + runs.length + 2 * k + 1] * noise.between,
  );
  return { points: { ...places, loss }, extra };
}

/** The pattern, moved out of what the form can describe and scaled to a non-centrality of 25. */
function departureOf({ law, truth, places, noise, pattern }) {
  const exact = { ...places, loss: predict(lawById(law), truth, places) };
  const bound = lawById(law).bind(exact);
  bound.evaluate(bound.internal(naturalOf(bound.law, truth)), new Float64Array(places.n));
  const jacobian = new Float64Array(bound.p * places.n);
  bound.jacobian(jacobian);
  const columns = Object.values(places.columns).map((values) => {
    const logs = values.map(Math.log);
    const [low, high] = [Math.min(...logs), Math.max(...logs)];
    return logs.map((value) => (2 * (value - low)) / (high - low) - 1);
  });
  const raw = Float64Array.from({ length: places.n }, (_, i) => patterns[pattern](columns.map((values) => values[i])));
  const basis = [];
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const without = (vector) => basis.reduce((rest, own) => rest.map((v, i) => v - dot(own, rest) * own[i]), vector);
  for (let j = 0; j < bound.p; j++) {
    const rest = without(without(jacobian.slice(j * places.n, (j + 1) * places.n)));
    const size = Math.sqrt(dot(rest, rest));
    basis.push(rest.map((value) => value / size));
  }
  const rest = without(without(raw));
  const scale = (5 * noise.within) / Math.sqrt(dot(rest, rest));
  return rest.map((value) => value * scale);
}

const emptyTally = () => ({ inside: 0, open: 0, closedInside: 0, widths: [] });

function count(tally, { low, high, lowOpen = false, highOpen = false }, value) {
  const inside = (lowOpen || value >= low) && (highOpen || value <= high) ? 1 : 0;
  const open = lowOpen || highOpen ? 1 : 0;
  tally.inside += inside;
  tally.open += open;
  if (open === 0) tally.closedInside += inside;
  tally.widths.push(high - low);
}

function runStudy(cell, seed, result) {
  const law = lawById(cell.law);
  const { points, extra } = simulated(cell, seed);
  const fit = fitLaw(law, points, { loss: cell.loss });
  const problem = problemOf(fit.bound, points, cell.loss);
  const tangent = tangentOf(fit, problem);
  result.statuses[fit.status] = (result.statuses[fit.status] ?? 0) + 1;
  const misfit = misfitOf(fit, points, tangent);
  result.flagged += misfit?.isFlagged === true ? 1 : 0;
  const named = outliersOf(fit, problem).map(({ point }) => point);
  const wanted = cell.gross?.points ?? [];
  result.named += named.length > 0 ? 1 : 0;
  result.namedWell += named.length === wanted.length && named.every((point) => wanted.includes(point)) ? 1 : 0;
  if (cell.pattern !== undefined || cell.gross !== undefined) return;
  const { cluster, ...unnamed } = points;
  const noise = cluster === undefined ? null : runNoiseOf(fit, problem, cluster);
  const ofLogs = cluster === undefined ? null : runNoise(tangent, cluster, fit.residuals);
  const ofOne = noiseOfOne(fit.residuals, fit.bound.p, ofLogs);
  result.noticed += dependenceOf(fit, unnamed, tangent) === null ? 0 : 1;
  const tally = (key) => (result.intervals[key] ??= emptyTally());
  law.parameters.forEach(({ name: parameter }, j) =>
    count(tally(parameter), profileParameter(fit, problem, j, { level, noise }), cell.truth[parameter]),
  );
  predictionsOf[cell.law].forEach((at, k) => {
    const place = placesOf(at);
    const wanted = predict(law, cell.truth, place)[0];
    const interval = profilePrediction(fit, problem, place, { level, noise });
    const loss = predict(law, fit.params, place)[0];
    const where = k === 0 ? "among the points" : "beyond them";
    count(tally(`prediction ${where}`), interval, wanted);
    count(tally(`new run ${where}`), newRunInterval(interval, loss, ofOne), wanted * Math.exp(extra[k]));
  });
  if (draws === 0) return;
  const drawn = bootstrapDraws(problem, fit.theta, cluster, { seed, from: 0, to: draws });
  naturalDraws(fit.bound, drawn).forEach((values, j) => {
    const { name: parameter } = law.parameters[j];
    count(tally(`bootstrap ${parameter}`), summarise(values, level), cell.truth[parameter]);
  });
}

const saved =
  flags.resume !== undefined && existsSync(flags.resume) ? JSON.parse(readFileSync(flags.resume, "utf8")) : {};
const chosen = flags.cells === undefined ? Object.keys(cells) : flags.cells.split(";");
const results = saved;
const loadBefore = loadavg()[0];
for (const name of chosen) {
  const definition = cells[name];
  if (definition === undefined) throw new Error(`no cell ${name}; cells: ${Object.keys(cells).join("; ")}`);
  const cell =
    typeof definition.pattern === "string" ? { ...definition, departure: departureOf(definition) } : definition;
  const result = (results[name] ??= {
    studies: 0,
    seconds: 0,
    statuses: {},
    flagged: 0,
    noticed: 0,
    named: 0,
    namedWell: 0,
    intervals: {},
  });
  while (result.studies < studies) {
    const start = performance.now();
    const until = Math.min(studies, result.studies + 50);
    for (let study = result.studies; study < until; study++) runStudy(cell, study, result);
    result.studies = until;
    result.seconds += (performance.now() - start) / 1000;
    if (flags.resume !== undefined) writeFileSync(flags.resume, JSON.stringify(results));
  }
  describe(name, cell, result);
}

function describe(name, { pattern, noise, gross }, { studies: done, seconds, ...counts }) {
  const { statuses, flagged, noticed, named, namedWell, intervals } = counts;
  const share = (value) => `${((100 * value) / done).toFixed(1)} %`;
  console.log(
    `${name}: ${done} studies, ${seconds.toFixed(0)} s, ${JSON.stringify(statuses)}; form flagged ${share(flagged)}` +
      `${pattern === undefined && gross === undefined ? `; dependence noticed ${share(noticed)}` : ""}` +
      `; outliers named ${share(named)}, exactly those there are ${share(namedWell)}`,
  );
  if (pattern !== undefined) return;
  const [low, high] = noise.between > 0 ? [0.85, 0.95] : [0.87, 0.93];
  for (const [key, tally] of Object.entries(intervals)) {
    const part = tally.inside / done;
    const isOpen = tally.open > 0.02 * done;
    const isNewRun = key.startsWith("new run");
    const [least, most] = isNewRun ? [0.85, 0.95] : isOpen ? [0.87, 1] : [low, high];
    const met = part >= least && part <= most ? "met   " : "MISSED";
    console.log(
      `  ${key.padEnd(32)} ${share(tally.inside).padStart(7)}  ${met} open ${share(tally.open).padStart(7)}  ` +
        `median width ${median(tally.widths).toPrecision(3)}`,
    );
  }
}

function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;
}

if (flags.out !== undefined) {
  const { version } = JSON.parse(readFileSync(fileURLToPath(new URL("../package.json", import.meta.url)), "utf8"));
  const plain = Object.fromEntries(
    chosen.map((name) => {
      const { intervals, ...rest } = results[name];
      const shares = Object.entries(intervals).map(([key, tally]) => [
        key,
        {
          coverage: tally.inside / rest.studies,
          open: tally.open / rest.studies,
          medianWidth: median(tally.widths),
        },
      ]);
      const { law, truth, noise, loss, places, gross } = cells[name];
      const runs = new Set(places.cluster).size || null;
      const definition = { law, truth, noise, loss, points: places.n, runs, ...(gross && { gross }) };
      return [name, { ...definition, ...rest, intervals: Object.fromEntries(shares) }];
    }),
  );
  mkdirSync(dirname(flags.out), { recursive: true });
  const date = new Date().toISOString();
  const hardware = {
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    memoryBytes: totalmem(),
    system: `${process.platform} ${release()}`,
    loadBefore,
  };
  const versions = { upcycle: version, node: process.versions.node };
  const config = { studies, level, bootstrap: draws };
  writeFileSync(flags.out, `${JSON.stringify({ date, hardware, versions, config, cells: plain }, null, 1)}\n`);
}
