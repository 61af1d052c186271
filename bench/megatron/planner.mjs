/**
 * The planner beside measured steps of Megatron-LM. Constants are set by runs on one GPU, apart for dense models and
 * for those with experts: a factor on the planner's time, milliseconds that each layer (and each expert) of a
 * micro-batch costs beside it, a factor on the bytes of activations and logits, and for each model bytes beside the
 * planner's. Then they stay, and the runs on several GPUs are predicted.
 *
 *   node bench/megatron/planner.mjs RESULT.json     the sweep of that result; code 1 where the planner is off
 *
 * `analyse.mjs` uses it on the sweep of two, four and eight GPUs. Needs no GPU.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gpuNamed, hardwareTable } from "../../dist/cli/plan.js";
import { costLayout } from "../../dist/laws/planner/layout.js";
import { defaultSpeed } from "../../dist/laws/planner/speed.js";
import { specFromConfig } from "../../dist/model/decoder/config.js";
import { earlierModels } from "./sweep-models.mjs";

/** What is wanted of runs on several GPUs: shares of what was measured, and of the best measured time. */
export const wanted = { time: 0.2, memory: 0.1, best: 0.1 };

export const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/** The planner's cost of a run, on one kind of GPU. */
export async function plannerOf(name = "h200-sxm") {
  const gpu = gpuNamed(await hardwareTable(undefined), name);
  return ({ spec, gpus, sequence, sequences, layout }) => {
    const request = { spec, gpu, gpus, sequence, speed: defaultSpeed };
    return costLayout({ ...request, batchTokens: sequences * sequence }, layout);
  };
}

const expertsOf = ({ layers }) => layers.reduce((most, { ffn }) => Math.max(most, ffn.experts ?? 0), 0);
const kindOf = ({ spec }) => (expertsOf(spec) === 0 ? "dense" : "moe");

/** Launches of a step on a rank, in layers and experts: each micro-batch in each layer of a stage, and the bubble. */
function launches({ spec, layout: { pp, ep, microBatches } }) {
  const passes = (microBatches + pp - 1) * (spec.layers.length / pp);
  return { layers: passes, experts: passes * (expertsOf(spec) / ep) };
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

/**
 * The constants that runs on one GPU set. Each run: `model`, `spec`, `gpus`, `sequence`, `sequences`, `layout`, and as
 * measured `seconds` of a step and `bytes` on the fullest GPU.
 */
export function calibrated(runs, costOf) {
  const single = runs.filter(({ gpus }) => gpus === 1).map((run) => ({ ...run, cost: costOf(run) }));
  const rowsOf = (kind, count, known = 0) =>
    single
      .filter((run) => kindOf(run) === kind)
      .map((run) => ({
        planned: run.cost.seconds.total,
        count: launches(run)[count],
        seconds: run.seconds - known * launches(run).layers,
      }));
  const dense = fitted(rowsOf("dense", "layers"));
  const moe = fitted(rowsOf("moe", "experts", dense.each));
  return {
    dense: { timesDefault: dense.factor, secondsPerLayer: dense.each, ...bytesOf("dense") },
    moe: {
      ...{ timesDefault: moe.factor, secondsPerLayer: dense.each, secondsPerExpert: moe.each },
      ...bytesOf("moe"),
    },
  };

  /**
   * How many times the planner's bytes activations and logits take, from runs of one model with other micro-batches,
   * and for each model the bytes beside all others.
   */
  function bytesOf(kind) {
    const own = single.filter((run) => kindOf(run) === kind);
    const models = [...new Set(own.map(({ model }) => model))].map((model) => {
      const rows = own
        .filter((run) => run.model === model)
        .map(({ bytes, cost }) => ({ growing: growing(cost), rest: bytes - (cost.bytes.total - growing(cost)) }));
      const mean = (key) => rows.reduce((sum, row) => sum + row[key], 0) / rows.length;
      return { model, rows, growing: mean("growing"), rest: mean("rest") };
    });
    const moment = (other) =>
      models
        .flatMap(({ rows, ...means }) => rows.map((row) => (row.growing - means.growing) * (row[other] - means[other])))
        .reduce((a, b) => a + b, 0);
    const timesActivations = moment("growing") > 0 ? Math.max(0, moment("rest") / moment("growing")) : 1;
    const extraBytes = models.map((one) => [one.model, one.rest - timesActivations * one.growing]);
    return { timesActivations, extraBytes: Object.fromEntries(extraBytes) };
  }
}

/** Bytes that grow with the micro-batch. */
const growing = ({ bytes }) => bytes.activations + bytes.logits;

/** Seconds of a step and bytes of the fullest GPU, by the planner with these constants. */
export function predicted(run, constants, costOf) {
  const own = constants[kindOf(run)];
  const { timesDefault, secondsPerLayer, secondsPerExpert = 0, timesActivations, extraBytes } = own;
  const cost = costOf(run);
  const { seconds, bytes } = cost;
  const { layers, experts } = launches(run);
  return {
    seconds: timesDefault * seconds.total + secondsPerLayer * layers + secondsPerExpert * experts,
    bytes: bytes.total + (timesActivations - 1) * growing(cost) + (extraBytes[run.model] ?? NaN),
  };
}

/** The constants of one GPU, every run beside what they predict, and the planner's choice beside the fastest run. */
export function compared(runs, costOf) {
  const constants = calibrated(runs, costOf);
  const rows = runs.map((run) => {
    const { seconds, bytes } = predicted(run, constants, costOf);
    const { mfu } = costOf(run);
    return {
      run: run.name,
      model: run.model,
      gpus: run.gpus,
      calibrates: run.gpus === 1,
      milliseconds: Math.round(1000 * run.seconds),
      predicted: Math.round(1000 * seconds),
      offTime: Number((seconds / run.seconds - 1).toFixed(3)),
      GB: Number((run.bytes / 1e9).toFixed(1)),
      predictedGB: Number((bytes / 1e9).toFixed(1)),
      offMemory: Number((bytes / run.bytes - 1).toFixed(3)),
      tokensPerSecond: Math.round((run.sequences * run.sequence) / run.seconds),
      // Model FLOPs alone, over the peak in bf16.
      mfu: Number(((mfu * costOf(run).seconds.total) / run.seconds).toFixed(3)),
    };
  });
  return { constants, rows, best: bestOf(rows) };
}

/** For each model and number of GPUs the run that the planner finds best, and how much slower it is than the best. */
function bestOf(rows) {
  const groups = new Map();
  for (const row of rows)
    if (!row.calibrates) {
      const key = `${row.model} on ${row.gpus} GPUs`;
      groups.set(key, [...(groups.get(key) ?? []), row]);
    }
  return Object.fromEntries(
    [...groups].map(([key, group]) => {
      const by = (name) => group.toSorted((a, b) => a[name] - b[name])[0];
      const [chosen, fastest] = [by("predicted"), by("milliseconds")];
      const slower = Number((chosen.milliseconds / fastest.milliseconds - 1).toFixed(3));
      return [key, { planner: chosen.run, measured: fastest.run, slower }];
    }),
  );
}

/** What does not hold, in words. */
export function failures({ rows, best }, limits = wanted) {
  const several = rows.filter(({ calibrates }) => !calibrates);
  // What has no constants, since its runs on one GPU are missing, is no number.
  const off = (value, limit) => !(Math.abs(value) <= limit);
  return [
    ...(several.length > 0 ? [] : ["no run on several GPUs"]),
    ...several.flatMap(({ run, offTime, offMemory }) => [
      ...(off(offTime, limits.time) ? [`${run}: step time off by ${offTime}, at most ${limits.time}`] : []),
      ...(off(offMemory, limits.memory) ? [`${run}: memory off by ${offMemory}, at most ${limits.memory}`] : []),
    ]),
    ...Object.values(best).flatMap(({ planner, measured, slower }) =>
      !(slower <= limits.best) ? [`the planner's ${planner} is ${slower} slower than ${measured}`] : [],
    ),
  ];
}

/** A layout whose degrees are given, as the planner counts it. */
export function wholeLayout({ tp = 1, pp = 1, ep = 1, etp = tp, microBatch = 1 }, gpus, sequences) {
  const dp = gpus / (tp * pp);
  const microBatches = sequences / (dp * microBatch);
  const edp = gpus / (etp * pp * ep);
  return { tp, pp, vpp: 1, cp: 1, ep, etp, dp, edp, microBatch, microBatches, recompute: "selective" };
}

/** Runs of the result of two GPUs of 2026-11-30, whose names say their layouts. */
export function earlierRuns({ sweep }) {
  return sweep.map((row) => {
    const [, model, gpuText, kind = "tp", degree = "1", micro] = /^(\w+)-(\d)(?:(tp|pp|ep)(\d))?mb(\d)$/.exec(row.run);
    const [gpus, sequences] = [Number(gpuText), 16];
    return {
      name: row.run,
      ...{ model, gpus, sequence: 2048, sequences },
      spec: specFromConfig(earlierModels[model], model),
      layout: wholeLayout({ [kind]: Number(degree), microBatch: Number(micro) }, gpus, sequences),
      seconds: row["median milliseconds of steps 3 to 12"] / 1000,
      bytes: Math.max(...row["device GB in use at the end"]) * 1e9,
    };
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const runs = earlierRuns(JSON.parse(readFileSync(process.argv[2], "utf8")));
  const found = compared(runs, await plannerOf());
  const failed = failures(found);
  console.log(JSON.stringify({ ...found, failures: failed }, null, 1));
  if (failed.length > 0) process.exitCode = 1;
}
