/** A plan in words and tables, for terminal and page alike. */
import { at } from "../../base/at.js";
import { bytes, compact, duration, fixed, grouped, notAvailable, percent, significant } from "../../base/format.js";
import type { CatchUp } from "../../laws/planner/crossing.js";
import type { ArmId, PlanBudget } from "../../laws/planner/arms.js";
import type { Plan } from "../../laws/planner/plan.js";
import type { ArmPlan, Interval, ModelPlan } from "../../laws/planner/plan-types.js";
import { recipeName } from "../../surgery/planning/recipe.js";

export interface PlanTable {
  readonly id: string;
  readonly title: string;
  /** What the numbers are, in a sentence. */
  readonly note: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Columns that hold words, not numbers; the first one always does. */
  readonly words: readonly number[];
}

export const armNames: Readonly<Record<ArmId, string>> = {
  dense: "continued dense",
  upcycled: "upcycled",
  scratch: "from scratch",
};

const armName = ({ id, recipe }: Pick<ArmPlan, "id" | "recipe">): string =>
  recipe === null ? armNames[id] : `${armNames[id]} ${recipe}`;
const modelName = ({ recipe }: ModelPlan): string => (recipe === null ? "dense" : recipeName(recipe));
const range = (found: Interval | null, show: (value: number) => string): string =>
  found === null ? notAvailable : `${show(found.low)}-${show(found.high)}`;
const loss4 = (value: number): string => fixed(value, 4);
const orNone = (value: number | null, show: (known: number) => string): string =>
  value === null ? notAvailable : show(value);

export function budgetWords({ tokens, gpuHours, money, days }: PlanBudget, currency: string): string {
  const parts = [
    tokens === null ? "" : `${compact(tokens)} tokens`,
    gpuHours === null ? "" : `${compact(gpuHours)} GPU hours`,
    money === null ? "" : `${compact(money)} ${currency}`,
    days === null ? "" : `${significant(days, 2)} days`,
  ].filter((part) => part !== "");
  return parts.length === 1 ? at(parts, 0) : `the least of ${parts.join(", ")}`;
}

/** The answer in two or three sentences, the first of which says what to do. */
export function planAnswer(plan: Plan): readonly string[] {
  const { best, main, recipes, aheadOfDense } = plan;
  const arms = plan.arms.filter(({ recipe }) => recipe === null || recipe === main);
  const dense = arms.find(({ id }) => id === "dense");
  const upcycled = arms.find(({ id }) => id === "upcycled");
  const scratch = arms.find(({ id }) => id === "scratch");
  if (best === null || dense?.loss == null || upcycled?.loss == null || scratch?.loss == null) {
    const out = arms.filter(({ loss }) => loss === null).map(armName);
    return [`No answer: ${out.join(", ")} cannot be trained on this hardware within this budget.`];
  }
  const winner = at(plan.arms, best.arm);
  const gain = dense.loss - upcycled.loss;
  const against = scratch.loss - upcycled.loss;
  const tokens = `with ${compact(upcycled.tokens!)} tokens ${armName(upcycled)} reaches ${loss4(upcycled.loss)}`;
  const comparison =
    `continued dense ${loss4(dense.loss)} with ${compact(dense.tokens!)}, from scratch ${loss4(scratch.loss)} ` +
    `with ${compact(scratch.tokens!)}`;
  const overtaking = aheadOfDense === null ? "" : ` At equal tokens upcycling moves ahead at ${compact(aheadOfDense)}.`;
  const first: Record<ArmId, string> = {
    upcycled:
      `Upcycle: ${tokens}, ${fixed(gain, 4)} nats below the dense model trained on and ${fixed(against, 4)} ` +
      `below a mixture from scratch (${comparison}).`,
    dense: `Train the dense model on: ${tokens}, no better (${comparison}).${overtaking}`,
    scratch:
      `By the laws a mixture from scratch gets furthest: ${tokens}, ${fixed(-against, 4)} nats above it ` +
      `(${comparison}).${gain > 0 ? " Upcycling still beats training the dense model on." : ""}`,
  };
  const sure =
    best.share === null
      ? ""
      : best.share >= 0.7
        ? `The order holds in ${percent(best.share)} of draws of the coefficients.`
        : `Too close to call: only ${percent(best.share)} of draws of the coefficients agree.`;
  const hang = plan.sensitivity.filter(({ decides }) => decides).map(({ assumption }) => at(assumption.split(","), 0));
  const star = recipes.find(({ name }) => name === main)?.sunk;
  const until =
    star === undefined
      ? ""
      : star.outcome === "at"
        ? `Scratch catches up with the upcycled model at D* = ${compact(star.tokens!)} tokens, the parent's ` +
          "training not counted."
        : star.outcome === "always-ahead"
          ? "Scratch never catches up within the laws, the parent's training not counted."
          : "Scratch is ahead from the first token on.";
  return [
    first[winner.id],
    [until, sure].filter((text) => text !== "").join(" "),
    hang.length === 0
      ? "No single assumption of those varied below changes the best choice."
      : `The choice hangs on: ${hang.join("; ")}.`,
  ].filter((text) => text !== "");
}

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
  ];
}

function armTable({ arms, level, currency, gpus, gpu, batchTokens }: Plan): PlanTable {
  return {
    id: "arms",
    title: "What the budget buys",
    words: [],
    note:
      `On ${gpus} x ${gpu.title}, ${compact(batchTokens)} tokens a step. * the law lies above the parent there, ` +
      "whose loss is shown; ~ the laws are of another recipe.",
    head: ["", "tokens", "loss", `${percent(level)} range`, "time", "GPU hours", currency],
    rows: arms.map((arm) => [
      armName(arm),
      orNone(arm.tokens, compact),
      orNone(arm.loss, loss4) + (arm.otherRecipe ? "~" : "") + (arm.unclamped === null ? "" : "*"),
      range(arm.interval, loss4),
      orNone(arm.seconds, duration),
      orNone(arm.gpuHours, compact),
      orNone(arm.money, compact),
    ]),
  };
}

const caught = ({ outcome, tokens }: CatchUp): string =>
  outcome === "at" ? compact(tokens!) : outcome === "always-ahead" ? "never" : "none";

function crossingTable({ recipes, level }: Plan): PlanTable {
  const optimum = recipes.some((recipe) => recipe.optimum !== null);
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
      ...(optimum ? ["best N", "best D2"] : []),
    ],
    rows: recipes.map((recipe) => [
      recipe.name,
      significant(recipe.ratio),
      caught(recipe.sunk),
      recipe.sunkInterval === null
        ? notAvailable
        : range(recipe.sunkInterval, (value) => compact(value, 2)) +
          (recipe.sunkInterval.share > 0.995 ? "" : " or never"),
      caught(recipe.chargedTokens),
      caught(recipe.chargedFlops),
      ...(recipe.optimum === null
        ? optimum
          ? ["", ""]
          : []
        : [compact(recipe.optimum.size), compact(recipe.optimum.tokens)]),
    ]),
  };
}

function modelTable({ models }: Plan): PlanTable {
  return {
    id: "models",
    title: "Models",
    words: [],
    note:
      "Active: parameters that touch a token, with both embeddings and without any. FLOPs per token, forward and " +
      "backward; MFU: their share of peak.",
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
    rows: models.map((model) => {
      const { best, fitting, tried } = model.placing;
      const fit = `${fitting}/${tried}`;
      if (best === null)
        return [
          modelName(model),
          "-",
          "-",
          "-",
          "-",
          "-",
          "-",
          "-",
          model.needs === null ? "does not fit" : `fits on ${model.needs}`,
          "-",
          fit,
        ];
      const { tp, pp, vpp, cp, ep, etp, dp, recompute, microBatch, microBatches } = best.layout;
      return [
        modelName(model),
        ...[tp, pp, vpp, cp, ep, etp, dp].map(String),
        recompute,
        `${microBatch} x ${microBatches}`,
        fit,
      ];
    }),
  };
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
      const found = model.placing.best?.bytes;
      if (found === undefined) return [modelName(model), "-", "-", "-", "-", "-", "-", `> ${gb(gpu.memory)}`];
      return [
        modelName(model),
        ...[
          found.weights,
          found.gradients,
          found.optimizer,
          found.activations,
          found.logits,
          found.reserve,
          found.total,
        ].map(gb),
      ];
    }),
  };
}

/** The sums of the fullest GPU, written out: `weights 2 x (0.803B + 2.82B) = 7.24 GB; ...`. */
export function memorySums({ models, sequence }: Plan): readonly string[] {
  return models.flatMap((model): string[] => {
    const best = model.placing.best;
    if (best === null) return [];
    const { layout, bytes: found } = best;
    const count =
      found.expertParams === 0
        ? compact(found.plainParams)
        : `(${compact(found.plainParams)} + ${compact(found.expertParams)} of experts)`;
    const states =
      found.expertParams === 0
        ? `12 x ${compact(found.plainParams)} / ${layout.dp * layout.cp}`
        : `12 x (${compact(found.plainParams)} / ${layout.dp * layout.cp} + ${compact(found.expertParams)} / ` +
          `${layout.edp})`;
    const tokens = (sequence * layout.microBatch) / layout.cp;
    return [
      `${modelName(model)}: weights 2 x ${count} = ${gb(found.weights)} GB; gradients 4 x the same = ` +
        `${gb(found.gradients)} GB; optimizer ${states} = ${gb(found.optimizer)} GB; ` +
        (`activations of ${grouped(tokens)} tokens a micro-batch, ${layout.recompute} recomputed, ` +
          `${gb(found.activations)} GB; logits ${gb(found.logits)} GB; reserve ${gb(found.reserve)} GB.`),
    ];
  });
}

function timeTable({ models }: Plan): PlanTable {
  return {
    id: "time",
    title: "Seconds of a step",
    words: [],
    note:
      "By the speed model, a step of the whole cluster: computing; communication of each kind that does not hide " +
      "behind it; the pipeline's bubble.",
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

/** Facts about the split of tokens and of compute, in sentences. */
export function splitWords({ split, recipes, main, seen, size }: Plan): readonly string[] {
  const sentences: string[] = [];
  const first = recipes.find(({ name }) => name === main);
  if (first?.optimum != null) {
    const { size: best, tokens, loss } = first.optimum;
    const side = best > size ? "larger" : "smaller";
    sentences.push(
      `The compute of ${first.name}, with parents of any size that have seen D1 = ${compact(seen)} for ` +
        `nothing, is best spent on N = ${compact(best)} and D2 = ${compact(tokens)} (loss ${loss4(loss)}): ` +
        `${best / size > 1.25 || best / size < 0.8 ? `a ${side} parent than this one` : "about this size"}.`,
    );
  }
  if (split !== null) {
    sentences.push(
      `Were nothing trained yet: of ${compact(split.total)} tokens in all, ${percent(split.share)} dense and ` +
        `the rest upcycled would be best (${loss4(split.loss)}), and a mixture from scratch ` +
        `${split.scratch < split.loss ? "better still" : "worse"} (${loss4(split.scratch)}).`,
    );
  }
  return sentences;
}
