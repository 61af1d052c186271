/**
 * Upcycles a dense model folder into an MoE model folder, chunk by chunk.
 *
 *   open -> plan -> (per chunk: read, evaluate, write to each of its places) -> config, tokenizer, upcycle.json -> rename into place
 *
 * Memory: a few chunks, whatever the model's size. A conversion that was interrupted goes on when it is asked for again.
 */
import { openCheckpoint, type Checkpoint } from "../checkpoint/open.js";
import { plannedWeightBytes, type WriteDtype } from "../checkpoint/write.js";
import { modelName } from "../hub/reference.js";
import { planUpcycle, type SurgeryPlan } from "../surgery/plan.js";
import { recipeName, type UpcycleRecipe } from "../surgery/recipe.js";
import { cardFile, modelCard, type CardFacts } from "./card.js";
import { executeWork, fileWarnings, ownDtype, requireApart, type ExecuteEvent, type ExecuteOptions } from "./execute.js";
import { readParentCard } from "./parent-card.js";
import { recordFile, recordOf, type UpcycleRecord } from "./record.js";
import { toolVersion } from "./version.js";

export interface ConvertOptions extends ExecuteOptions {
  /** Dense model folder. */
  readonly source: string;
  readonly recipe: UpcycleRecipe;
  /** Precision to write; the source's own if left out (float32 for a float64 source). */
  readonly dtype?: WriteDtype | undefined;
  readonly onEvent?: ((event: ConvertEvent) => void) | undefined;
}

export type ConvertEvent = ({ readonly type: "planned" } & ConversionPlan) | ExecuteEvent;

export interface ConversionPlan {
  readonly plan: SurgeryPlan;
  readonly dtype: WriteDtype;
  /** Size of the weight files that will be written, headers included. */
  readonly weightBytes: number;
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
}

type PlanOptions = Pick<ConvertOptions, "source" | "recipe" | "dtype" | "maxShardBytes">;

/** What `convertCheckpoint` would do, from config and file headers alone; writes nothing. Throws like it. */
export async function planConversion(options: PlanOptions): Promise<ConversionPlan> {
  const checkpoint = await openCheckpoint(options.source);
  try {
    return planFor(checkpoint, options);
  } finally {
    await checkpoint.close();
  }
}

/**
 * Makes the MoE model folder; `out` appears only when it is complete.
 * Throws `input` for a source, recipe, target or folder that cannot be used, `stopped` for a full disk, `interrupted`
 * when `signal` fires.
 */
export async function convertCheckpoint(options: ConvertOptions): Promise<Conversion> {
  const { source, out, onEvent } = options;
  await requireApart(source, out);
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  const checkpoint = await openCheckpoint(source);
  try {
    const planned = planFor(checkpoint, options);
    onEvent?.({ type: "planned", ...planned });
    const card = await cardOf(checkpoint, planned);
    const record = recordOf(planned.plan, modelName(source), toolVersion, planned.warnings);
    const files = { [recordFile]: `${JSON.stringify(record, null, 2)}\n`, [cardFile]: modelCard(card) };
    const { plan, dtype } = planned;
    const work = {
      name: `${recipeName(plan.recipe)} of ${plan.source.family}`, settings: plan.recipe, target: plan.target, outputs: plan.outputs, seed: plan.recipe.seed, dtype, files,
    };
    const written = await executeWork(checkpoint, work, options, onEvent);
    return { ...planned, dir: out, weightFiles: written.weightFiles, record, card, seconds: seconds() };
  } finally {
    await checkpoint.close();
  }
}

async function cardOf({ dir, config }: Checkpoint, { plan, dtype, weightBytes, warnings }: ConversionPlan): Promise<CardFacts> {
  const parent = await readParentCard(dir, config);
  return { parentName: modelName(dir), parent, plan, dtype, weightBytes, warnings, preservation: null };
}

function planFor(checkpoint: Checkpoint, { recipe, dtype, maxShardBytes }: PlanOptions): ConversionPlan {
  const plan = planUpcycle(checkpoint.spec, recipe);
  const written = dtype ?? ownDtype(checkpoint);
  return { plan, dtype: written, weightBytes: plannedWeightBytes(plan.target, written, maxShardBytes), warnings: [...plan.warnings, ...fileWarnings(checkpoint)] };
}
