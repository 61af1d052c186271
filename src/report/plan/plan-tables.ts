/** The tables of a plan as plain texts, for terminal and page alike. */
import { bytes, compact, duration, fixed, grouped, notAvailable, percent, significant } from "../../base/format.js";
import type { CatchUp } from "../../laws/planner/crossing.js";
import type { Plan } from "../../laws/planner/plan.js";
import { armNames } from "../../laws/planner/arms.js";
import type { ModelPlan } from "../../laws/planner/plan-types.js";
import { publishedRuns } from "../../laws/planner/published-runs.js";
import type { Interval } from "../../laws/planner/verdict.js";
import { loss4, orNone } from "./plan-words.js";

/** One table of a plan as plain texts. */
export interface PlanTable {
  readonly id: string;
  readonly title: string;
  /** What the numbers mean, in a sentence. */
  readonly note: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Columns that hold words, not numbers; the first one always does. */
  readonly words: readonly number[];
}

const modelName = ({ name }: ModelPlan): string => name;
const range = (interval: Interval | null, show: (value: number) => string): string =>
  interval === null ? notAvailable : `${show(interval.low)}-${show(interval.high)}`;

/** All tables of a plan. */
export function planTables(plan: Plan): readonly PlanTable[] {
  return [
    armTable(plan),
    crossingTable(plan),
    modelTable(plan),
    flopsTable(plan),
    layoutTable(plan),
    memoryTable(plan),
    timeTable(plan),
    sensitivityTable(plan),
    backtestTable(plan),
    backtestLawTable(plan),
    calibrationTable(plan),
  ];
}

function armTable({ arms, level, currency, gpus, gpu, batchTokens, calibration }: Plan): PlanTable {
  const isCalibrated = arms.some(({ secondsInterval }) => secondsInterval !== null);
  const times = `Times: x ${fixed(calibration.low, 1)} to ${fixed(calibration.high, 1)} (${percent(level)}).`;
  const marks = [
    ...(arms.some(({ unclamped }) => unclamped !== null)
      ? ["* the law lies above the parent there, whose loss is shown"]
      : []),
    ...(arms.some(({ loss, otherRecipe }) => loss !== null && otherRecipe) ? ["~ the laws are of another recipe"] : []),
  ].join("; ");
  return {
    id: "arms",
    title: "What the budget buys",
    words: [],
    note:
      `On ${gpus} x ${gpu.title}, ${compact(batchTokens)} tokens a step.${isCalibrated ? ` ${times}` : ""}` +
      (marks === "" ? "" : ` ${marks}.`),
    head: ["", "tokens", "loss", `${percent(level)} range`, "time", "GPU hours", currency],
    rows: arms.map((arm) => [
      arm.label,
      orNone(arm.tokens, compact),
      orNone(arm.loss, loss4) + (arm.loss !== null && arm.otherRecipe ? "~" : "") + (arm.unclamped === null ? "" : "*"),
      range(arm.interval, loss4),
      orNone(arm.seconds, duration),
      orNone(arm.gpuHours, compact),
      orNone(arm.money, compact),
    ]),
  };
}

function catchUpCell({ outcome, tokens }: CatchUp): string {
  if (outcome === "at") return orNone(tokens, compact);
  return outcome === "always-ahead" ? "never" : "none";
}

function crossingTable({ recipes, level }: Plan): PlanTable {
  const hasOptima = recipes.some((recipe) => recipe.optimum !== null);
  return {
    id: "crossings",
    title: "How long upcycling stays ahead",
    words: [],
    note:
      "D*: tokens after which a mixture from scratch has caught up; our definitions. Sunk: the parent costs " +
      "nothing. By tokens, by FLOPs: the parent's training is charged, scratch gets " +
      ("as much more; none: upcycling is never ahead. FLOPs: per token, over the dense model's. Best N and D2: " +
        "the same compute with parents of any size."),
    head: [
      "recipe",
      "FLOPs",
      "D* sunk",
      `${percent(level)} range`,
      "by tokens",
      "by FLOPs",
      ...(hasOptima ? ["best N", "best D2"] : []),
    ],
    rows: recipes.map((recipe) => {
      const { optimum } = recipe;
      const optimumCells = optimum === null ? ["", ""] : [compact(optimum.size), compact(optimum.tokens)];
      return [
        recipe.name,
        significant(recipe.ratio),
        catchUpCell(recipe.sunk),
        sunkRange(recipe),
        catchUpCell(recipe.chargedTokens),
        catchUpCell(recipe.chargedFlops),
        ...(hasOptima ? optimumCells : []),
      ];
    }),
  };
}

/** The interval of D*; draws in which scratch never catches up have none. */
function sunkRange({ sunkInterval }: Plan["recipes"][number]): string {
  if (sunkInterval === null) return notAvailable;
  const ends = range(sunkInterval, (value) => compact(value, 2));
  return sunkInterval.share > 0.995 ? ends : `${ends} or never`;
}

function modelTable({ models }: Plan): PlanTable {
  return {
    id: "models",
    title: "Models",
    words: [],
    note:
      "Active: parameters that touch a token, with both embeddings and without any. FLOPs per token, forward and " +
      "backward; MFU: their share of the peak in bf16, calibrated on published trainings unless it was measured.",
    head: ["model", "parameters", "active", "no embedding", "TFLOP/1K tok.", "MFU", "tokens/s"],
    rows: models.map((model) => [
      modelName(model),
      compact(model.params.total),
      compact(model.params.active),
      compact(model.params.active - model.params.embedding),
      significant((3 * model.flops.total) / 1e9),
      orNone(model.mfu, percent),
      orNone(model.tokensPerSecond, compact),
    ]),
  };
}

function flopsTable({ models, sequence }: Plan): PlanTable {
  const giga = (value: number): string => (value === 0 ? "0" : significant(value / 1e9));
  return {
    id: "flops",
    title: "GFLOP per token",
    words: [],
    note:
      `At sequence ${grouped(sequence)}, two per multiply-add, causal attention. Backward is twice forward; full ` +
      "recomputation adds the blocks once more.",
    head: ["model", "proj.", "attention", "FFN", "router", "head", "forward", "backward", "again"],
    rows: models.map((model) => {
      const { projections, attention, ffn, experts, shared, router, head, total } = model.flops;
      const again = model.placing.best?.layout.recompute === "full" ? total - head : 0;
      return [
        modelName(model),
        giga(projections),
        giga(attention),
        giga(ffn + experts + shared),
        giga(router),
        giga(head),
        giga(total),
        giga(2 * total),
        giga(again),
      ];
    }),
  };
}

function layoutTable({ models, gpus }: Plan): PlanTable {
  return {
    id: "layout",
    title: "Parallel layout",
    words: [8],
    note:
      `The fastest of all that fit on ${gpus} GPUs. TP*CP*DP*PP = ETP*EP*EDP*PP = ${gpus}. Micro: sequences x ` +
      "micro-batches a step.",
    head: ["model", "TP", "PP", "VPP", "CP", "EP", "ETP", "DP", "recompute", "micro", "fit"],
    rows: models.map(layoutRow),
  };
}

function layoutRow(model: ModelPlan): string[] {
  const { best, fitting, tried: triedLayouts } = model.placing;
  const fit = `${fitting}/${triedLayouts}`;
  if (best === null) {
    const size = model.needs === null ? "does not fit" : `fits on ${model.needs}`;
    return [modelName(model), ...new Array<string>(7).fill("-"), size, "-", fit];
  }
  const { tp, pp, vpp, cp, ep, etp, dp, recompute, microBatch, microBatches } = best.layout;
  return [
    modelName(model),
    ...[tp, pp, vpp, cp, ep, etp, dp].map(String),
    recompute,
    `${microBatch} x ${microBatches}`,
    fit,
  ];
}

const gb = (value: number): string => significant(value / 1e9);

function memoryTable({ models, gpu }: Plan): PlanTable {
  return {
    id: "memory",
    title: "GB on the fullest GPU",
    words: [],
    note:
      "Per parameter held: 2 bytes of weights, 4 of gradients, 12 of optimizer state over the data-parallel " +
      `ranks. It has ${bytes(gpu.memory, 3)}; reserve is for the runtime and fragmentation.`,
    head: ["model", "weights", "gradients", "optimizer", "activations", "logits", "reserve", "sum"],
    rows: models.map((model) => {
      const memory = model.placing.best?.bytes;
      if (memory === undefined) return [modelName(model), "-", "-", "-", "-", "-", "-", `> ${gb(gpu.memory)}`];
      const { weights, gradients, optimizer, activations, logits, reserve, total } = memory;
      return [modelName(model), ...[weights, gradients, optimizer, activations, logits, reserve, total].map(gb)];
    }),
  };
}

/** The sums of the fullest GPU, written out: `weights 2 x (0.803B + 2.82B) = 7.24 GB; ...`. */
export function memorySums({ models, sequence }: Plan): readonly string[] {
  return models.flatMap((model): string[] => {
    const best = model.placing.best;
    if (best === null) return [];
    const { layout, bytes: memory } = best;
    const [plain, experts] = [compact(memory.plainParams), compact(memory.expertParams)];
    const ranks = layout.dp * layout.cp;
    const isDense = memory.expertParams === 0;
    const count = isDense ? plain : `(${plain} + ${experts} of experts)`;
    const states = isDense ? `12 x ${plain} / ${ranks}` : `12 x (${plain} / ${ranks} + ${experts} / ${layout.edp})`;
    const tokens = (sequence * layout.microBatch) / layout.cp;
    return [
      `${modelName(model)}: weights 2 x ${count} = ${gb(memory.weights)} GB; gradients 4 x the same = ` +
        `${gb(memory.gradients)} GB; optimizer ${states} = ${gb(memory.optimizer)} GB; ` +
        (`activations of ${grouped(tokens)} tokens a micro-batch, ${layout.recompute} recomputed, ` +
          `${gb(memory.activations)} GB; logits ${gb(memory.logits)} GB; reserve ${gb(memory.reserve)} GB.`),
    ];
  });
}

function timeTable({ models }: Plan): PlanTable {
  return {
    id: "time",
    title: "Seconds of a step",
    words: [],
    note:
      "By the speed model, before it is calibrated, a step of the whole cluster: computing; communication of each " +
      "kind that does not hide behind it; the pipeline's bubble.",
    head: ["model", "compute", "TP", "EP", "CP", "PP", "DP", "sum", "tokens"],
    rows: models.map((model) => {
      const best = model.placing.best;
      if (best === null) return [modelName(model), "-", "-", "-", "-", "-", "-", "-", "-"];
      const { compute, tensor, expert, context, pipeline, data, total } = best.seconds;
      return [
        modelName(model),
        ...[compute, tensor, expert, context, pipeline, data, total].map((value) =>
          value === 0 ? "0" : significant(value),
        ),
        compact(best.tokensPerStep),
      ];
    }),
  };
}

function sensitivityTable({ sensitivity }: Plan): PlanTable {
  const end = ({ label, best, gain }: Plan["sensitivity"][number]["low"]): [string, string] => [
    `${label}: ${armNames[best]}`,
    (gain >= 0 ? "+" : "") + fixed(gain, 4),
  ];
  return {
    id: "sensitivity",
    title: "What the answer hangs on",
    words: [1, 3],
    note:
      "One assumption moved at a time: the best choice then, and by how many nats upcycling beats continued " +
      "dense. * the best choice changes.",
    head: ["assumption", "one way", "gain", "other way", "gain"],
    rows: sensitivity.map(({ assumption, low, high, decides }) => [
      decides ? `${assumption} *` : assumption,
      ...end(low),
      ...end(high),
    ]),
  };
}

/** A share in per cent, with its sign where it does not round to 0. */
function share(value: number): string {
  const digits = fixed(Math.abs(100 * value), 1);
  if (Number(digits) === 0) return digits;
  return `${value < 0 ? "-" : "+"}${digits}`;
}

/** What was measured: a share of the other's loss, or an order. */
function measuredCell({ comparison: { measured } }: Plan["backtest"][number]): string {
  if (measured.kind === "loss") return `${share(measured.difference)} %`;
  return { "-1": "lower", "0": "alike", "1": "higher" }[String(measured.order) as "-1" | "0" | "1"];
}

/** What the plan says: the interval, with the verdict where there is one. */
function answerCell({ answer: { verdict, interval, basis, difference } }: Plan["backtest"][number]): string {
  const ends = interval === null ? share(difference) : `${share(interval.low)} to ${share(interval.high)}`;
  if (basis === "published") return `${ends} %, open`;
  return `${ends} %, ${verdict}`;
}

const othersNames = { dense: "continued dense", scratch: "from scratch", parent: "the parent" } as const;

function backtestTable({ backtest, level }: Plan): PlanTable {
  return {
    id: "backtest",
    title: "Published comparisons beside this plan's answers",
    words: [1, 2, 3, 4, 5],
    note:
      "Loss of the upcycled model against another after equal tokens, in % of the other's. Said here: the " +
      `${percent(level)} interval and the verdict, with the comparison itself left out of the evidence; open: no ` +
      "verdict. Accuracies, figures and rules give an order only.",
    head: ["parent", "N, D1, D2", "against", "measured", "said here", "result"],
    rows: backtest.map((row) => {
      const { title, recipe, size, seen, tokens, assumed, against } = row.comparison;
      return [
        recipe === null ? title : `${title} ${recipe}`,
        [size, seen, tokens].map((value) => compact(value, 2)).join(", ") + (assumed === null ? "" : " (ours)"),
        othersNames[against],
        measuredCell(row),
        answerCell(row),
        row.outcome,
      ];
    }),
  };
}

function backtestLawTable({ backtest }: Plan): PlanTable {
  const names = backtest[0]?.laws.map(({ name }) => name) ?? [];
  return {
    id: "backtest-laws",
    title: "What each law says for them",
    words: [1],
    note:
      "As the laws stand, also where they do not reach: the difference in % of the other's loss. Reuse saturates: " +
      "the second model of the dense arm, whose gains from D2 fall with ln D1.",
    head: ["parent", "measured", ...names],
    rows: backtest.map((row) => [
      row.comparison.title + (row.comparison.recipe === null ? "" : ` ${row.comparison.recipe}`),
      measuredCell(row),
      ...row.laws.map(({ difference }) => share(difference)),
    ]),
  };
}

const readWords = {
  text: "read in the paper",
  abstract: "read in the abstract",
  notes: "from notes about the paper",
} as const;

/** Where each published comparison was read, in the order of the table. */
export function comparisonSources({ backtest }: Plan): readonly (readonly [name: string, text: string])[] {
  return backtest.map(({ comparison: { title, recipe, words, source, read, assumed } }) => [
    recipe === null ? title : `${title} ${recipe}`,
    `${words} [${source}; ${readWords[read]}${assumed === null ? "" : `; ours: ${assumed}`}]`,
  ]);
}

function calibrationTable({ calibration, level }: Plan): PlanTable {
  return {
    id: "calibration",
    title: "Times beside published trainings",
    words: [1, 5],
    note:
      `GPU hours by the speed model over the published ones: geometric mean ${fixed(calibration.speed, 2)}, by which ` +
      `all speeds of this plan are multiplied. One more training takes ${fixed(calibration.low, 2)} to ` +
      `${fixed(calibration.high, 2)} times the calibrated time (${percent(level)}).`,
    head: ["training", "GPU", "published h", "model h", "ratio", "ours"],
    rows: publishedRuns.map(({ title, gpu, precision, published, predicted, assumed }) => [
      title,
      precision === "bf16" ? gpu : `${gpu} ${precision}`,
      compact(published),
      compact(predicted),
      fixed(predicted / published, 2),
      assumed ?? "",
    ]),
  };
}
