/**
 * The same model in another form: a folder of Hugging Face as a checkpoint of Megatron-Core, and the way back. Weights
 * are copied byte for byte; only names, grouping of rows and files change.
 */
import { inputError } from "../../base/errors.js";
import { openMegatron, type Checkpoint } from "../../files/checkpoint/open.js";
import type { MegatronReading } from "../../files/checkpoint/open-megatron.js";
import { lineageKey, plannedWeightBytes, type WriteDtype } from "../../files/checkpoint/write.js";
import type { WeightFormat } from "../../files/checkpoint/weight-format.js";
import { configFromSpec } from "../../model/decoder/config.js";
import { isMoe, ownFamily, type DecoderSpec, type Family } from "../../model/decoder/types.js";
import { slotsOf, type Slot } from "../../model/tensors/slots.js";
import { canSay, denseTarget } from "../planning/choose-dense.js";
import { read } from "../planning/expr.js";
import type { PlannedSlot } from "../planning/plan.js";
import { targetFamilies } from "../planning/recipe.js";
import { cardFile } from "../../files/formats/model-files.js";
import { damagedCard } from "./damage-words.js";
import { derivedCard } from "./derived-card.js";
import { fileWarnings, ownDtype } from "./execute.js";
import type { LineageRecord } from "./lineage.js";
import type { PlannedModel, PreparedWork, SourceOptions, Surgery } from "./make.js";

/** A model in another form, as data. */
interface Reform {
  readonly source: DecoderSpec;
  readonly target: DecoderSpec;
  readonly format: WeightFormat;
  readonly outputs: readonly PlannedSlot[];
}

/** What would be written. */
export type ReformPlan = PlannedModel<Reform>;

interface ReformDetails {
  /** The text of README.md. */
  readonly card: string;
}

/** A model as it is, written as a checkpoint of Megatron-Core. */
export function exporting(options: SourceOptions): Surgery<ReformPlan, ReformDetails> {
  return {
    sources: [options.source],
    plansByMeasuring: false,
    plan: ([checkpoint]) => planFor(checkpoint, checkpoint.spec, "torch_dist", options),
    prepare: ([checkpoint], planned) => prepare(checkpoint, planned, options),
    card: ({ card, damage }) => damagedCard(card, damage),
  };
}

/** What is imported, and what the user says of it. */
interface ImportOptions extends Omit<SourceOptions, "source"> {
  readonly source: string;
  readonly reading?: MegatronReading | undefined;
  /** A model folder whose tokenizer goes along. */
  readonly carry?: string | undefined;
  /** The family to write; the one that holds the model best if left out. */
  readonly family?: Family | undefined;
}

/** A checkpoint of Megatron-Core, written as a model folder of Hugging Face. */
export function importing(options: ImportOptions): Surgery<ReformPlan, ReformDetails> {
  const { source, reading, family } = options;
  return {
    sources: [source],
    ...(reading === undefined ? {} : { open: async () => [await openMegatron(source, reading)] as const }),
    plansByMeasuring: false,
    plan: ([checkpoint]) => planFor(checkpoint, familyOf(checkpoint.spec, family), "safetensors", options),
    prepare: ([checkpoint], planned) => prepare(checkpoint, planned, options),
    card: ({ card, damage }) => damagedCard(card, damage),
  };
}

/** The spec as one of a family that can say it. Throws inputError if the wanted one cannot. */
function familyOf(spec: DecoderSpec, wanted: Family | undefined): DecoderSpec {
  if (wanted !== undefined) return asWanted({ ...spec, family: wanted });
  if (spec.family !== ownFamily) return spec;
  if (!isMoe(spec)) return denseTarget(spec, []);
  const family = targetFamilies.find((one) => canSay({ ...spec, family: one })) ?? ownFamily;
  return { ...spec, family };
}

function asWanted(spec: DecoderSpec): DecoderSpec {
  try {
    configFromSpec(spec, { dtype: "float32" });
    return spec;
  } catch (cause) {
    throw inputError(`${spec.family} cannot hold this model: ${(cause as Error).message}`, {
      where: "--target",
      hint: "leave it out: a family that can hold it is chosen",
      cause,
    });
  }
}

function planFor(
  checkpoint: Checkpoint,
  target: DecoderSpec,
  format: WeightFormat,
  { dtype, maxShardBytes }: Omit<SourceOptions, "source">,
): ReformPlan {
  const outputs = slotsOf(target).map((slot) => ({ slot, value: read(slot.key) }));
  const weightBytes = plannedWeightBytes(target, slotDtypeOf(checkpoint, dtype), maxShardBytes, format);
  return {
    plan: { source: checkpoint.spec, target, format, outputs },
    dtype: dtype ?? ownDtype(checkpoint),
    weightBytes,
    warnings: fileWarnings(checkpoint),
  };
}

/** Each slot as it is stored, or in the precision that was asked for. */
function slotDtypeOf(checkpoint: Checkpoint, dtype: WriteDtype | undefined): (slot: Slot) => WriteDtype {
  return ({ key }) => {
    const stored = checkpoint.dtypeOf(key);
    return dtype ?? (stored === "F64" ? "F32" : stored);
  };
}

async function prepare(
  checkpoint: Checkpoint,
  planned: ReformPlan,
  { dtype: asked, carry }: { readonly dtype?: WriteDtype | undefined; readonly carry?: string | undefined },
): Promise<PreparedWork<ReformDetails>> {
  const { plan, dtype, weightBytes, warnings } = planned;
  const isExport = plan.format === "torch_dist";
  const card = await derivedCard(checkpoint, {
    title: isExport ? "for Megatron-Core" : "from Megatron-Core",
    what: isExport ? "A checkpoint of Megatron-Core, with the weights of" : "A model folder, with the weights of",
    tags: isExport ? ["megatron"] : [],
    target: plan.target,
    dtype,
    weightBytes,
    warnings,
    summary: [["function", "the weights are copied as they are"]],
  });
  const lineage = checkpoint.config[lineageKey] as LineageRecord | undefined;
  const work = {
    name: isExport ? "export for Megatron-Core" : "import from Megatron-Core",
    settings: { format: plan.format, dtype: asked ?? null },
    slotDtype: slotDtypeOf(checkpoint, asked),
    target: plan.target,
    outputs: plan.outputs,
    seed: 0,
    dtype,
    format: plan.format,
    carry,
    lineage,
    files: { [cardFile]: card },
  };
  return { work, details: { card } };
}
