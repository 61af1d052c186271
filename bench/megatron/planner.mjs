// planner.mjs SUMMARY.json [--single RESULT.json] [--result FILE --hardware TEXT --versions TEXT]: the planner beside
// the sweep of all.py (its summary.json, or a result made of one). Constants are set once by runs on one GPU, for the
// dense model and for the one with experts: a factor on the planner's time, milliseconds that each layer (and expert)
// of a micro-batch costs beside it, and bytes beside the planner's. Then they stay, and the runs on two GPUs are
// predicted. --single: a result whose runs on one GPU count too. --result writes a dated result. Needs no GPU.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gpuNamed, hardwareTable } from "../../dist/cli/plan.js";
import { costLayout } from "../../dist/laws/planner/layout.js";
import { defaultSpeed } from "../../dist/laws/planner/speed.js";
import { specFromConfig } from "../../dist/model/decoder/config.js";
import { sweepModels, sweepSequence, sweepBatch } from "./sweep.mjs";

/** Within so much of what was measured. */
const wanted = 0.2;
/** The planner's best layout may be so much slower than the best measured one. */
const wantedOfBest = 0.1;

/** What the name of a run says: `moe-2ep2mb4`; null for another name. */
function layoutOf(run) {
  const found = /^(?:sweep-)?(dense|moe)-(\d)(?:(tp|pp|ep)(\d))?mb(\d)$/.exec(run);
  if (found === null) return null;
  const [, model, gpuText, kind = "tp", degree = "1", micro] = found;
  const [gpus, microBatch] = [Number(gpuText), Number(micro)];
  const of = (name) => (kind === name ? Number(degree) : 1);
  const [tp, pp, ep] = ["tp", "pp", "ep"].map(of);
  const dp = gpus / (tp * pp);
  const layout = { tp, pp, vpp: 1, cp: 1, ep, etp: tp, dp, edp: gpus / (tp * pp * ep), microBatch };
  const microBatches = sweepBatch / (dp * microBatch);
  return { model, gpus, layout: { ...layout, microBatches, recompute: "selective" } };
}

/** Runs with their times and bytes, from a summary of all.py or a result that was made of one. */
function measuredRuns(document) {
  const rows = Array.isArray(document) ? document : document.sweep;
  return rows.flatMap((row) => {
    const name = row.run ?? row.name;
    const found = layoutOf(name);
    if (found === null || (row.code ?? 0) !== 0) return [];
    const seconds = (row["median milliseconds of steps 3 to 12"] ?? median(row.milliseconds.slice(2))) / 1000;
    const bytes =
      row.memory === undefined
        ? Math.max(...row["device GB in use at the end"]) * 1e9
        : Math.max(...row.memory.map(({ device }) => device));
    return [{ run: name.replace(/^sweep-/, ""), ...found, seconds, bytes }];
  });
}

const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/** Launches of a step on a rank, in layers and experts: each micro-batch in each layer of a stage, and the bubble. */
function launches({ model, layout: { pp, ep, microBatches } }) {
  const { layers, experts } = sweepModels[model];
  const passes = (microBatches + pp - 1) * (layers / pp);
  return { layers: passes, experts: passes * (experts / ep) };
}

/** Least squares of relative errors: seconds = factor * planned + each * count, none below 0. */
function fitted(rows) {
  const sum = (of) => rows.reduce((total, row) => total + of(row), 0);
  const [p, c] = [({ planned, seconds }) => planned / seconds, ({ count, seconds }) => count / seconds];
  const [pp, pc, cc] = [sum((r) => p(r) ** 2), sum((r) => p(r) * c(r)), sum((r) => c(r) ** 2)];
  const [p1, c1] = [sum(p), sum(c)];
  const determinant = pp * cc - pc * pc;
  const each = determinant > 1e-12 * pp * cc ? (pp * c1 - pc * p1) / determinant : 0;
  if (!(each > 0)) return { factor: p1 / pp, each: 0 };
  return { factor: (p1 - each * pc) / pp, each };
}

/** The constants of one GPU, and every run beside what they predict. */
function compared(runs, costOf) {
  const costed = runs.map((run) => ({ ...run, cost: costOf(run) }));
  const single = (model) => costed.filter((run) => run.model === model && run.gpus === 1);
  const rowsOf = (model, count, known = 0) =>
    single(model).map((run) => ({
      planned: run.cost.seconds.total,
      count: launches(run)[count],
      seconds: run.seconds - known * launches(run).layers,
    }));
  const dense = fitted(rowsOf("dense", "layers"));
  const moe = fitted(rowsOf("moe", "experts", dense.each));
  const extra = (model) => {
    const rows = single(model);
    return rows.reduce((sum, { bytes, cost }) => sum + bytes - cost.bytes.total, 0) / Math.max(1, rows.length);
  };
  const constants = {
    dense: { timesDefault: dense.factor, secondsPerLayer: dense.each, extraBytes: extra("dense") },
    moe: { timesDefault: moe.factor, secondsPerExpert: moe.each, extraBytes: extra("moe") },
  };
  const rows = costed.map((run) => {
    const { timesDefault, extraBytes } = constants[run.model];
    const { layers, experts } = launches(run);
    const beside = dense.each * layers + (run.model === "moe" ? moe.each * experts : 0);
    const seconds = timesDefault * run.cost.seconds.total + beside;
    const bytes = run.cost.bytes.total + extraBytes;
    return {
      run: run.run,
      calibrates: run.gpus === 1,
      milliseconds: Math.round(1000 * run.seconds),
      predicted: Math.round(1000 * seconds),
      offTime: Number((seconds / run.seconds - 1).toFixed(3)),
      GB: Number((run.bytes / 1e9).toFixed(1)),
      predictedGB: Number((bytes / 1e9).toFixed(1)),
      offMemory: Number((bytes / run.bytes - 1).toFixed(3)),
    };
  });
  return { constants, rows, best: bestOf(rows) };
}

/** For each model the layout of two GPUs that the planner finds best, and how much slower it is than the best one. */
function bestOf(rows) {
  return Object.fromEntries(
    ["dense", "moe"].flatMap((model) => {
      const two = rows.filter(({ run, calibrates }) => !calibrates && run.startsWith(model));
      if (two.length === 0) return [];
      const by = (key) => two.toSorted((a, b) => a[key] - b[key])[0];
      const [chosen, fastest] = [by("predicted"), by("milliseconds")];
      const slower = Number((chosen.milliseconds / fastest.milliseconds - 1).toFixed(3));
      return [[model, { planner: chosen.run, measured: fastest.run, slower }]];
    }),
  );
}

/** What does not hold, in words. */
function failures({ rows, best }) {
  return [
    ...(rows.some(({ calibrates }) => !calibrates) ? [] : ["no run on two GPUs"]),
    // What has no constants, since its runs on one GPU are missing, is no number.
    ...rows.flatMap(({ run, calibrates, offTime, offMemory }) =>
      !calibrates && !(Math.max(Math.abs(offTime), Math.abs(offMemory)) <= wanted)
        ? [`${run}: time off by ${offTime}, memory by ${offMemory}, at most ${wanted}`]
        : [],
    ),
    ...Object.values(best).flatMap(({ planner, measured, slower }) =>
      !(slower <= wantedOfBest) ? [`the planner's ${planner} is ${slower} slower than ${measured}`] : [],
    ),
  ];
}

/** The planner's cost of a run, on one kind of GPU. */
async function planner(name = "h200-sxm") {
  const gpu = gpuNamed(await hardwareTable(undefined), name);
  const specs = Object.fromEntries(
    Object.entries(sweepModels).map(([model, { config }]) => [model, specFromConfig(config, model)]),
  );
  return ({ model, gpus, layout }) => {
    const request = { spec: specs[model], gpu, gpus, sequence: sweepSequence, speed: defaultSpeed };
    return costLayout({ ...request, batchTokens: sweepBatch * sweepSequence }, layout);
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values: flags, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      single: { type: "string" },
      result: { type: "string" },
      hardware: { type: "string", default: "two NVIDIA H200 of one host" },
      versions: { type: "string", default: "" },
    },
  });
  const read = (path) => measuredRuns(JSON.parse(readFileSync(path, "utf8")));
  const own = read(positionals[0]);
  const others = flags.single === undefined ? [] : read(flags.single);
  const known = new Set(own.map(({ run }) => run));
  const runs = [...own, ...others.filter(({ run, gpus }) => gpus === 1 && !known.has(run))];
  const found = compared(runs, await planner());
  const failed = failures(found);
  const result = {
    what: "Megatron-LM's sweep of layouts on one and two GPUs (bench/megatron/all.py) beside the planner",
    date: new Date().toISOString().slice(0, 10),
    hardware: flags.hardware,
    versions: flags.versions,
    ...found,
    failures: failed,
  };
  console.log(JSON.stringify(result, null, 1));
  if (flags.result !== undefined) writeFileSync(flags.result, `${JSON.stringify(result, null, 1)}\n`);
  if (failed.length > 0) process.exitCode = 1;
}
