/**
 * Upcycles dense model folders into an MoE model folder (`surgery/planning/plan.ts`): the surgery that `make.ts`
 * carries out.
 */
import { cardFile } from "../../files/formats/model-files.js";
import { inputError } from "../../base/errors.js";
import type { Checkpoint, ModelSource } from "../../files/checkpoint/open.js";
import type { WeightFormat } from "../../files/checkpoint/weight-format.js";
import { plannedWeightBytes, type WriteDtype } from "../../files/checkpoint/write.js";
import { modelName } from "../../files/hub/reference.js";
import { requireAgreement } from "../planning/agree.js";
import { withRounding } from "../planning/expectation.js";
import { planUpcycle, type PlannedSlot, type SurgeryPlan } from "../planning/plan.js";
import { measuresRouter, promptsOf, recipeName, targetFamilies, type UpcycleRecipe } from "../planning/recipe.js";
import { servingWarnings } from "../planning/serving.js";
import type { RouterRows, UnitOrders } from "../planning/router-rows.js";
import { megatronObstacles } from "../../model/decoder/megatron.js";
import { ownFamily, type DecoderSpec } from "../../model/decoder/types.js";
import type { Slot } from "../../model/tensors/slots.js";
import { modelCard, type CardFacts } from "./card.js";
import { damageWords } from "./damage-words.js";
import { fileWarnings } from "./execute.js";
import { lineageOf, lineageRecord } from "./lineage.js";
import {
  makeModel,
  planModel,
  type MadeModel,
  type MakeEvent,
  type MakeOptions,
  type PlannedModel,
  type PreparedWork,
  type SourceOptions,
  type Surgery,
} from "./make.js";
import { calibratedRecipe, measuredRouter, type MeasureEvent, type MeasureTools } from "./measure.js";
import { readParentCard } from "./parent-card.js";
import { adapterFacts, adapterWords, sourceName, sourceOf, type Parents } from "./parents.js";
import { precisionsOf } from "./precision.js";
import { recordFile, recordOf, type UpcycleRecord } from "./record.js";
import { toolVersion } from "./version.js";

/** What to upcycle, and how; `source` is the dense base. */
export interface UpcycleOptions extends SourceOptions {
  /** Further dense models, 1 and up in the recipe's `parents`; `source` is the base. */
  readonly parents?: readonly ModelSource[] | undefined;
  readonly recipe: UpcycleRecipe;
  /** The rows of a router that is measured (`promptRouter`, `centroidRouter`). A plan can be made without them. */
  readonly routerRows?: RouterRows | undefined;
  /** The order of hidden units in a split by activation (`activationSplit`). A plan can be made without them. */
  readonly unitOrders?: UnitOrders | undefined;
  /** Precision of the routers; if left out that of all other tensors (some families have theirs in float32 anyway). */
  readonly routerDtype?: WriteDtype | undefined;
  /** `safetensors` if left out: a model folder of Hugging Face. */
  readonly format?: WeightFormat | undefined;
}

/** What to upcycle, how, and where to. */
export type ConvertOptions = UpcycleOptions & MakeOptions;

/** How a model would be upcycled. */
export interface ConversionPlan extends PlannedModel<SurgeryPlan> {
  /** Precision of the routers; null: that of all other tensors. */
  readonly routerDtype: WriteDtype | null;
  /** The precision of each slot. */
  readonly slotDtype: (slot: Slot) => WriteDtype;
  /** The adapter that is merged into each parent, the base first, in words; null: none. */
  readonly adapters: readonly (string | null)[];
}

/** What was written beside an upcycled model's weights. */
export interface ConversionDetails {
  readonly record: UpcycleRecord;
  /** What README.md in the folder says; nothing has been measured yet. */
  readonly card: CardFacts;
}

/** An upcycled model. */
export type Conversion = MadeModel<ConversionPlan, ConversionDetails>;

/** Upcycling as a surgery, for `makeModel` and the workflow. */
export function upcycling(options: UpcycleOptions): Surgery<ConversionPlan, ConversionDetails> {
  const { source, parents = [], recipe, routerRows } = options;
  const sources = [source, ...parents] as const;
  const [calibrates, measures] = [needsCalibration(recipe), measuresRouter(recipe) && routerRows === undefined];
  return {
    sources,
    plansByMeasuring: calibrates,
    beforehand: () => requirePlannable(options),
    plan: (opened) => planFor(opened, options),
    requireComplete,
    prepare: (opened, planned) =>
      prepare(opened, planned, [sourceName(source), ...parents.map(sourceName)], options.format),
    card: ({ card, damage }, preservation) => modelCard({ ...card, preservation, damage: damageWords(damage) }),
    ...(calibrates || measures ? { measured: (tools) => measured(options, tools) } : {}),
  };
}

/** What `convertCheckpoint` would do, from config and file headers alone; writes nothing. Throws like it. */
export async function planConversion(options: UpcycleOptions): Promise<ConversionPlan> {
  return planModel(upcycling(options));
}

/**
 * Makes the MoE model folder; `out` appears only when it is complete. Throws inputError for a source, recipe, target or
 * folder that cannot be used, stopError for a full disk, interruptedError when `signal` fires.
 */
export function convertCheckpoint(
  options: ConvertOptions,
): AsyncGenerator<MakeEvent<ConversionPlan>, Conversion, undefined> {
  return makeModel(upcycling(options), options);
}

/** Whether the recipe asks for factors that are to be measured, and were not yet. */
function needsCalibration({ scaling, calibration }: UpcycleRecipe): boolean {
  return scaling === "calibrated" && calibration === null;
}

/**
 * Throws inputError for models and a recipe that do not go together, from configs and file headers alone: what is still
 * to be measured does not decide it.
 */
export async function requirePlannable(options: UpcycleOptions): Promise<void> {
  const { recipe } = options;
  await planConversion(needsCalibration(recipe) ? { ...options, recipe: { ...recipe, scaling: "none" } } : options);
}

/**
 * The same upcycling with what has to be measured on text. What cannot be planned is refused first. Then come the
 * router rows, because calibration needs the router as it will be.
 */
async function* measured(
  options: UpcycleOptions,
  tools: MeasureTools,
): AsyncGenerator<MeasureEvent, Surgery<ConversionPlan, ConversionDetails>, undefined> {
  const { source, routerRows: given } = options;
  await requirePlannable(options);
  const measures = measuresRouter(options.recipe) && given === undefined;
  const {
    recipe,
    rows: routerRows,
    orders: unitOrders,
  } = measures
    ? yield* measuredRouter(source, options.recipe, tools)
    : { recipe: options.recipe, rows: given, orders: options.unitOrders };
  const complete = needsCalibration(recipe) ? yield* calibratedRecipe(source, recipe, routerRows, tools) : recipe;
  return upcycling({ ...options, recipe: complete, routerRows, unitOrders });
}

async function prepare(
  parents: Parents,
  planned: ConversionPlan,
  names: readonly [string, ...string[]],
  format: WeightFormat | undefined,
): Promise<PreparedWork<ConversionDetails>> {
  const { plan, dtype, routerDtype, warnings } = planned;
  const card = await cardOf(parents, planned);
  const record = recordOf(plan, names, toolVersion, warnings);
  const work = {
    name: `${recipeName(plan.recipe)} of ${plan.source.family}`,
    settings: { recipe: plan.recipe, routerDtype },
    slotDtype: planned.slotDtype,
    target: plan.target,
    outputs: plan.outputs,
    data: plan.data,
    seed: plan.recipe.seed,
    dtype,
    format,
    files: { [recordFile]: `${JSON.stringify(record, null, 2)}\n`, [cardFile]: modelCard(card) },
    lineage: lineageRecord(lineageOf(record, plan.target.layers.length)),
  };
  return { work, details: { record, card } };
}

/** Throws inputError for a plan whose router rows are missing: it can be shown, but not carried out. */
function requireComplete({ plan: { data, recipe, outputs } }: ConversionPlan): void {
  const isMissing = ({ value }: PlannedSlot): boolean =>
    value.op === "data" && !data.some(({ name }) => name === value.name);
  if (!outputs.some(isMissing)) return;
  const [from, maker] =
    recipe.split !== null
      ? ["a split by activation", "activationSplit"]
      : promptsOf(recipe) === null
        ? ["centroids", "centroidRouter"]
        : ["prompts", "promptRouter"];
  throw inputError(`the router is to be made from ${from}, and its rows were not given`, {
    where: `recipe ${recipeName(recipe)}`,
    hint: `make them with ${maker}`,
  });
}

async function cardOf(parents: Parents, { plan, dtype, weightBytes, warnings }: ConversionPlan): Promise<CardFacts> {
  const factsOf = async (parent: Checkpoint): Promise<CardFacts["experts"][number]> => {
    const { dir, config } = parent;
    return { name: modelName(dir), card: await readParentCard(dir, config), adapter: await adapterFacts(parent) };
  };
  const [first, ...others] = parents;
  const [base, ...experts] = await Promise.all([factsOf(first), ...others.map(factsOf)]);
  return {
    parentName: base.name,
    parent: base.card,
    adapter: base.adapter,
    experts,
    plan,
    dtype,
    weightBytes,
    warnings,
    preservation: null,
    damage: null,
  };
}

function planFor(
  parents: Parents,
  { recipe, routerRows, unitOrders, dtype, routerDtype = undefined, maxShardBytes, format }: UpcycleOptions,
): ConversionPlan {
  const differences = requireAgreement(
    parents.map(({ dir, spec }) => ({ name: dir, spec })),
    recipe,
  );
  const [base, ...others] = parents;
  const planned = planFormat(base.spec, recipe, { rows: routerRows, orders: unitOrders }, format);
  const { warnings: aboutPrecision, rounded, ...precisions } = precisionsOf(parents, planned, { dtype, routerDtype });
  const plan = { ...planned, expected: withRounding(planned.expected, rounded) };
  const warnings = [
    ...plan.warnings,
    ...differences,
    ...aboutPrecision,
    ...fileWarnings(base),
    ...others.flatMap((other) => fileWarnings(other).map((words) => `${sourceName(sourceOf(other))}: ${words}`)),
  ];
  return {
    plan,
    ...precisions,
    routerDtype: routerDtype ?? null,
    weightBytes: plannedWeightBytes(plan.target, precisions.slotDtype, maxShardBytes, format),
    adapters: parents.map(adapterWords),
    warnings,
  };
}

/**
 * The plan for a format. Megatron-Core knows no families: where the one that is chosen because the recipe leaves it
 * open asks for what Megatron-Core does not compute, or for a shared expert that adds nothing and costs as much as an
 * expert, the plain upcycled decoder is taken instead.
 */
function planFormat(
  source: DecoderSpec,
  recipe: UpcycleRecipe,
  { rows, orders }: { readonly rows: RouterRows | undefined; readonly orders: UnitOrders | undefined },
  format: WeightFormat | undefined,
): SurgeryPlan {
  const plan = planUpcycle(source, recipe, rows, orders);
  if (format !== "torch_dist") return plan;
  const isOpen = recipe.target === null && (megatronObstacles(plan.target).length > 0 || hasIdleExpert(plan));
  const { warnings, ...chosen } = isOpen ? planUpcycle(source, { ...recipe, target: ownFamily }, rows, orders) : plan;
  const [obstacle] = recipe.target === null ? megatronObstacles(chosen.target) : [];
  if (obstacle !== undefined)
    throw inputError(`Megatron-Core cannot hold an upcycled ${source.family} model: ${obstacle}`, {
      hint: "docs/cluster.md lists the families that it can",
    });
  // Which programs serve a folder of Hugging Face is no matter of a checkpoint of Megatron-Core.
  const family = targetFamilies.find((one) => one === chosen.target.family);
  const serving = family === undefined ? [] : servingWarnings({ ...chosen.target, family }, recipe.order);
  return { ...chosen, warnings: warnings.filter((words) => !serving.includes(words)) };
}

/** Whether the family, not the recipe, asks for a shared expert, which adds nothing then. */
function hasIdleExpert({ target, recipe: { shared, sharedParent } }: SurgeryPlan): boolean {
  const isAsked = shared !== null || sharedParent !== null;
  return !isAsked && target.layers.some(({ ffn }) => ffn.kind === "moe" && ffn.shared !== null);
}
