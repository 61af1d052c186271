/**
 * Measures how fast scaling laws are fitted: `npm run bench:laws [-- --python PYTHON] [--threads 2] [--out FILE]`.
 *
 * The Chinchilla law is fitted to 240 points by Huber's loss (delta 1e-3) in three ways: variable projection with BFGS
 * on one thread; all 4,500 starts of Hoffmann et al.; 4,000 bootstrap draws. If the Python has scipy, it does the same
 * work for comparison: the same starts and objective with analytic gradients, L-BFGS-B with its default tolerances for
 * the starts, BFGS for the draws. It does a part of the work, and the time is scaled up. The benchmark prints a table
 * and writes bench/results/DATE-laws.json.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { dirname } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runFit } from "../dist/laws/points/fit.js";
import { lawById } from "../dist/laws/fitting/catalogue.js";
import { fitLaw } from "../dist/laws/fitting/fit.js";
import { chinchillaPoints } from "./laws-data.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { values: flags } = parseArgs({
  options: {
    python: { type: "string", default: "python3" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
    out: { type: "string" },
  },
});
const threads = Number(flags.threads);
const rounds = Number(flags.rounds);
const { data, points } = chinchillaPoints();
/** @type {import("../dist/laws/solvers/loss.js").Loss} */
const loss = { name: "huber", delta: 1e-3 };
const optimum = 0.0010182740178006;

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
async function timed(times, work) {
  const seconds = [];
  let result;
  for (let i = 0; i < times; i++) {
    const start = performance.now();
    result = await work();
    seconds.push((performance.now() - start) / 1000);
  }
  return { median: median(seconds), all: seconds, result };
}

/** @type {import("../dist/laws/points/fit.js").FitRequest} */
const request = {
  law: { id: "chinchilla" },
  points,
  loss,
  starts: "projection",
  bootstrap: 0,
  profile: false,
  level: 0.95,
  seed: 0,
  threads,
  compare: [],
  predict: [],
};
const loadBefore = loadavg()[0];
// The first fits compile the code; the target is about a warm process, the cold time is reported beside.
const cold = await timed(1, () => fitLaw(lawById("chinchilla"), points, { loss }));
for (let i = 0; i < 5; i++) fitLaw(lawById("chinchilla"), points, { loss });
const projection = await timed(rounds * 4, () => fitLaw(lawById("chinchilla"), points, { loss }));
const grid = await timed(rounds, () => runFit({ ...request, starts: "grid" }));
const bootstrap = await timed(rounds, () => runFit({ ...request, bootstrap: 4000 }));
const profiles = await timed(rounds, () => runFit({ ...request, profile: true }));

const asked = spawnSync(flags.python, [here("laws-scipy.py")], {
  input: JSON.stringify({
    N: [...points.columns.N],
    D: [...points.columns.D],
    loss: [...points.loss],
    delta: loss.delta,
  }),
  encoding: "utf8",
  maxBuffer: 1 << 26,
  env: { ...process.env, OMP_NUM_THREADS: "1" },
});
const scipy = asked.status === 0 ? JSON.parse(asked.stdout) : null;

const rows = [
  ["variable projection + BFGS, 1 thread", projection.median, 0.1, scipy?.projection],
  [`grid of 4,500 starts, ${threads} threads`, grid.median, 5, scipy?.grid],
  [`4,000 bootstrap draws, ${threads} threads`, bootstrap.median, 10, scipy?.bootstrap],
];
console.log(
  `${data}; objective ${projection.result.objective.toPrecision(14)} (best known ${optimum}); load before ` +
    `${loadBefore.toFixed(2)}`,
);
console.log(
  `${grid.result.fit.starts.atOptimum} of ${grid.result.fit.starts.tried} starts of the grid reach it; five ` +
    `profiles ${profiles.median.toFixed(3)} s; first fit of the process ${cold.median.toFixed(3)} s`,
);
for (const [name, seconds, target, theirs] of rows) {
  const other =
    theirs === undefined || theirs === null ? "" : `   scipy ${theirs.seconds.toFixed(2)} s (${theirs.note})`;
  console.log(
    `${name.padEnd(40)} ${seconds.toFixed(3).padStart(8)} s   target ${String(target).padStart(4)} s  ` +
      `${seconds <= target ? "met" : "MISSED"}${other}`,
  );
}

const date = new Date().toISOString();
const out = flags.out ?? here(`results/${date.slice(0, 10)}-laws.json`);
mkdirSync(dirname(out), { recursive: true });
const { version } = JSON.parse(readFileSync(here("../package.json"), "utf8"));
const plain = ({ median: seconds, all }) => ({ seconds, all });
writeFileSync(
  out,
  `${JSON.stringify(
    {
      date,
      hardware: {
        cpu: cpus()[0]?.model,
        cores: cpus().length,
        memoryBytes: totalmem(),
        system: `${process.platform} ${release()}`,
        loadBefore,
      },
      versions: { upcycle: version, node: process.versions.node, scipy: scipy?.version ?? null },
      config: { data, loss, threads, rounds },
      objective: projection.result.objective,
      params: projection.result.params,
      gridStarts: grid.result.fit.starts,
      standardErrors: Object.fromEntries(
        Object.entries(bootstrap.result.bootstrap).map(([name, { standardError }]) => [name, standardError]),
      ),
      results: {
        cold: plain(cold),
        projection: plain(projection),
        grid: plain(grid),
        bootstrap: plain(bootstrap),
        profiles: plain(profiles),
      },
      targets: { projection: 0.1, grid: 5, bootstrap: 10 },
      scipy,
    },
    null,
    1,
  )}\n`,
);
