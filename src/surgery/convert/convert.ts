/**
 * Upcycles a dense model folder into an MoE model folder, chunk by chunk.
 *
 *   open -> plan -> (per chunk: read, evaluate, write to each of its places) -> config, tokenizer, upcycle.json ->
 *   rename into place
 *
 * Memory: a few chunks, whatever the model's size. A conversion that was interrupted goes on when it is asked for
 * again.
 */
import { inputError } from "../../base/errors.js";
import { foldersOf } from "../../files/checkpoint/model-source.js";
import type { Checkpoint, ModelSource } from "../../files/checkpoint/open.js";
import { plannedWeightBytes, type WriteDtype } from "../../files/checkpoint/write.js";
import { modelName } from "../../files/hub/reference.js";
import { breathe } from "../../files/io/breath.js";
import { requireAgreement } from "../planning/agree.js";
import { planUpcycle, type SurgeryPlan } from "../planning/plan.js";
import { recipeName, type UpcycleRecipe } from "../planning/recipe.js";
import type { RouterRows } from "../planning/router-rows.js";
import { isRouter, keepsFloat32 } from "../../model/tensors/precision.js";
import type { Slot } from "../../model/tensors/slots.js";
import { cardFile, modelCard, type CardFacts } from "./card.js";
import { finishedFiles } from "./finished.js";
import { executeWork, fileWarnings, ownDtype, type ExecuteEvent, type ExecuteOptions } from "./execute.js";
import { lineageOf, lineageRecord } from "./lineage.js";
import { readParentCard } from "./parent-card.js";
import { requireOut } from "./place.js";
import { adapterFacts, adapterWords, closeParents, openParents, sourceName, sourceOf } from "./parents.js";
import { recordFile, recordOf, type UpcycleRecord } from "./record.js";
import { toolVersion } from "./version.js";

export interface ConvertOptions extends ExecuteOptions {
  /** Dense model folder; with a LoRA adapter, the model with the adapter merged in is the parent. */
  readonly source: ModelSource;
  /** Further dense models, 1 and up in the recipe's `parents`; `source` is the base. */
  readonly parents?: readonly ModelSource[] | undefined;
  readonly recipe: UpcycleRecipe;
  /**
   * Of a recipe whose router is made from prompts: its rows (`surgery/calibration/prompt-router.ts`). A plan can be
   * made without them.
   */
  readonly routerRows?: RouterRows | undefined;
  /** Precision to write; the source's own if left out (float32 for a float64 source). */
  readonly dtype?: WriteDtype | undefined;
  /** Precision of the routers; like the rest if left out (some families keep theirs in float32 anyway). */
  readonly routerDtype?: WriteDtype | undefined;
  /** Take `out` as it is, instead of refusing it, where it is this conversion's result and has not been measured. */
  readonly acceptFinished?: boolean | undefined;
  readonly onEvent?: ((event: ConvertEvent) => void) | undefined;
}

export type ConvertEvent = ({ readonly type: "planned" } & ConversionPlan) | ExecuteEvent;

export interface ConversionPlan {
  readonly plan: SurgeryPlan;
  readonly dtype: WriteDtype;
  readonly routerDtype: WriteDtype | null;
  /** Size of the weight files that will be written, headers included. */
  readonly weightBytes: number;
  /** Of each parent, the base first: the adapter that is merged into it, in words, or null. */
  readonly adapters: readonly (string | null)[];
  /** The plan's warnings and those about the source's files. */
  readonly warnings: readonly string[];
}

export interface Conversion extends ConversionPlan {
  readonly dir: string;
  readonly weightFiles: readonly string[];
  readonly record: UpcycleRecord;
  /** What README.md in the folder says; nothing has been measured yet. */
  readonly card: CardFacts;
  readonly seconds: number;
  /** It was there already (`acceptFinished`). */
  readonly found: boolean;
}

type PlanOptions = Pick<
  ConvertOptions,
  "source" | "parents" | "recipe" | "routerRows" | "dtype" | "routerDtype" | "maxShardBytes"
>;

/** What `convertCheckpoint` would do, from config and file headers alone; writes nothing. Throws like it. */
export async function planConversion(options: PlanOptions): Promise<ConversionPlan> {
  const parents = await openParents([options.source, ...(options.parents ?? [])]);
  try {
    return planFor(parents, options);
  } finally {
    await closeParents(parents);
  }
}

/**
 * Makes the MoE model folder; `out` appears only when it is complete.
 * Throws `input` for a source, recipe, target or folder that cannot be used, `stopped` for a full disk, `interrupted`
 * when `signal` fires.
 */
export async function convertCheckpoint(options: ConvertOptions): Promise<Conversion> {
  const { source, out, overwrite, acceptFinished, onEvent } = options;
  const sources = [source, ...(options.parents ?? [])];
  await requireOut({ out, overwrite, acceptFinished, folders: sources.flatMap(foldersOf) });
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  const parents = await openParents(sources);
  try {
    await breathe(options.signal);
    const planned = planFor(parents, options);
    await breathe(options.signal);
    requireData(planned.plan);
    onEvent?.({ type: "planned", ...planned });
    const card = await cardOf(parents, planned);
    const record = recordOf(planned.plan, sources.map(sourceName), toolVersion, planned.warnings);
    const files = { [recordFile]: `${JSON.stringify(record, null, 2)}\n`, [cardFile]: modelCard(card) };
    const { plan, dtype, routerDtype } = planned;
    const slotDtype = slotDtypeOf(planned);
    // Router rows that were given are in none of the files that are compared.
    if (acceptFinished === true && overwrite !== true && plan.data.length === 0) {
      const weightFiles = await finishedFiles(
        out,
        { plan, dtype: slotDtype, maxShardBytes: options.maxShardBytes, files },
        parents,
      );
      if (weightFiles !== null)
        return { ...planned, dir: out, weightFiles, record, card, seconds: seconds(), found: true };
    }
    const work = {
      name: `${recipeName(plan.recipe)} of ${plan.source.family}`,
      settings: { recipe: plan.recipe, routerDtype },
      slotDtype,
      target: plan.target,
      outputs: plan.outputs,
      data: plan.data,
      seed: plan.recipe.seed,
      dtype,
      files,
      lineage: lineageRecord(lineageOf(record, plan.target.layers.length)),
    };
    const written = await executeWork(parents, work, options, onEvent);
    return { ...planned, dir: out, weightFiles: written.weightFiles, record, card, seconds: seconds(), found: false };
  } finally {
    await closeParents(parents);
  }
}

/** A plan without its router rows can be shown, not carried out. */
function requireData({ data, recipe, outputs }: SurgeryPlan): void {
  if (!outputs.some(({ value }) => value.op === "data" && !data.some(({ name }) => name === value.name))) return;
  throw inputError("the router is to be made from prompts, and its rows were not given", {
    where: `recipe ${recipeName(recipe)}`,
    hint: "make them with promptRouter",
  });
}

async function cardOf(
  parents: readonly Checkpoint[],
  { plan, dtype, weightBytes, warnings }: ConversionPlan,
): Promise<CardFacts> {
  const [base, ...experts] = await Promise.all(
    parents.map(async (parent) => {
      const { dir, config } = parent;
      return { name: modelName(dir), card: await readParentCard(dir, config), adapter: await adapterFacts(parent) };
    }),
  );
  return {
    parentName: base!.name,
    parent: base!.card,
    adapter: base!.adapter,
    experts,
    plan,
    dtype,
    weightBytes,
    warnings,
    preservation: null,
  };
}

/** Of each slot. */
function slotDtypeOf({
  plan: { target },
  dtype,
  routerDtype,
}: Pick<ConversionPlan, "plan" | "dtype" | "routerDtype">): (slot: Slot) => WriteDtype {
  return (slot) => (routerDtype !== null && isRouter(slot) ? routerDtype : keepsFloat32(target, slot) ? "F32" : dtype);
}

function planFor(
  parents: readonly Checkpoint[],
  { recipe, routerRows, dtype, routerDtype = undefined, maxShardBytes }: PlanOptions,
): ConversionPlan {
  const differences = requireAgreement(
    parents.map(({ dir, spec }) => ({ name: dir, spec })),
    recipe,
  );
  const [base, ...others] = parents as [Checkpoint, ...Checkpoint[]];
  const plan = planUpcycle(base.spec, recipe, routerRows);
  const written = dtype ?? ownDtype(base);
  const warnings = [
    ...plan.warnings,
    ...differences,
    ...fileWarnings(base),
    ...others.flatMap((other) => fileWarnings(other).map((words) => `${sourceName(sourceOf(other))}: ${words}`)),
  ];
  const precision = { plan, dtype: written, routerDtype: routerDtype ?? null };
  return {
    ...precision,
    weightBytes: plannedWeightBytes(plan.target, slotDtypeOf(precision), maxShardBytes),
    adapters: parents.map(adapterWords),
    warnings,
  };
}
