/**
 * Makes a model folder out of one mixture of experts: the steps that merging (`merge.ts`) and multiplying
 * (`multiply.ts`) have in common. The surgery that comes out is carried out by `make.ts`.
 */
import type { Checkpoint } from "../../files/checkpoint/open.js";
import { plannedWeightBytes, type WriteDtype } from "../../files/checkpoint/write.js";
import type { Slot } from "../../model/tensors/slots.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { PlannedSlot } from "../planning/plan.js";
import { cardFile } from "../../files/formats/model-files.js";
import { damagedCard } from "./damage-words.js";
import { derivedCard, type DerivedCardWords } from "./derived-card.js";
import { fileWarnings } from "./execute.js";
import type { LineageRecord } from "./lineage.js";
import type { PlannedModel, PreparedWork, SourceOptions, Surgery } from "./make.js";
import { sourceName } from "./parents.js";
import { precisionsOf } from "./precision.js";
import { toolVersion } from "./version.js";

/** What every plan of a derivation says. */
interface DerivedPlan {
  readonly source: DecoderSpec;
  readonly target: DecoderSpec;
  readonly outputs: readonly PlannedSlot[];
}

/** What is written beside the weights, and what the caller gets of it. */
export interface DerivedDetails {
  /** The text of README.md. */
  readonly card: string;
}

/** What one plan writes, apart from the weights' values. */
export interface DerivedWork {
  /** The work in a few words, for whoever finds it unfinished. */
  readonly name: string;
  /** What the result depends on besides the plan's outputs, as plain data. */
  readonly settings: unknown;
  /** Seed of everything that the outputs draw. */
  readonly seed: number;
  /** How the result's experts were made; undefined for a dense result, or if nobody knows. */
  readonly lineage?: LineageRecord | undefined;
  /** Name of the JSON file that says how the model was made, and its keys after version, tool and source. */
  readonly record: { readonly file: string; readonly content: Readonly<Record<string, unknown>> };
  /** What the model card says besides facts that every derived model has. */
  readonly card: DerivedCardWords;
}

interface DerivedPlanning<Plan> {
  readonly plan: Plan;
  /** The plan's own warnings; those about the source's files are added to them. */
  readonly warnings: readonly string[];
}

/** One way of deriving a model. */
interface Derivation<Plan extends DerivedPlan> {
  /** Throws inputError for a source that no such model can be derived from. */
  readonly plan: (checkpoint: Checkpoint) => DerivedPlanning<Plan> | Promise<DerivedPlanning<Plan>>;
  /** The same plan where tensors are rounded when they are written, in words: less is kept of the function then. */
  readonly withRounding: (plan: Plan, rounded: readonly string[]) => Plan;
  /** What a plan writes. */
  readonly work: (planned: DerivedModel<Plan>, checkpoint: Checkpoint) => DerivedWork | Promise<DerivedWork>;
}

/** A derived model, before it is made. */
export interface DerivedModel<Plan> extends PlannedModel<Plan> {
  /** The precision of each slot. */
  readonly slotDtype: (slot: Slot) => WriteDtype;
}

/** A derivation as a surgery on `options.source`, for `makeModel` and the workflow. */
export function derivedSurgery<Plan extends DerivedPlan>(
  options: SourceOptions,
  derivation: Derivation<Plan>,
): Surgery<DerivedModel<Plan>, DerivedDetails> {
  return {
    sources: [options.source],
    plansByMeasuring: false,
    plan: ([checkpoint]) => planFor(checkpoint, options, derivation),
    prepare: ([checkpoint], planned) => prepare(checkpoint, planned, sourceName(options.source), derivation),
    // The card says what is expected; what was measured lies beside it.
    card: ({ card, damage }) => damagedCard(card, damage),
  };
}

async function planFor<Plan extends DerivedPlan>(
  checkpoint: Checkpoint,
  { dtype: asked, maxShardBytes }: SourceOptions,
  derivation: Derivation<Plan>,
): Promise<DerivedModel<Plan>> {
  const { plan, warnings } = await derivation.plan(checkpoint);
  const { dtype, slotDtype, rounded, warnings: aboutPrecision } = precisionsOf([checkpoint], plan, { dtype: asked });
  return {
    plan: derivation.withRounding(plan, rounded),
    dtype,
    slotDtype,
    weightBytes: plannedWeightBytes(plan.target, slotDtype, maxShardBytes),
    warnings: [...warnings, ...aboutPrecision, ...fileWarnings(checkpoint)],
  };
}

async function prepare<Plan extends DerivedPlan>(
  checkpoint: Checkpoint,
  planned: DerivedModel<Plan>,
  name: string,
  derivation: Derivation<Plan>,
): Promise<PreparedWork<DerivedDetails>> {
  const { plan, dtype, slotDtype } = planned;
  const { source, target, outputs } = plan;
  const { record, card: words, ...work } = await derivation.work(planned, checkpoint);
  const card = await derivedCard(checkpoint, { ...words, ...planned, target });
  const from = { name, family: source.family };
  const content = { version: 1, upcycle: toolVersion, from, ...record.content };
  const files = { [record.file]: `${JSON.stringify(content, null, 2)}\n`, [cardFile]: card };
  return { work: { ...work, target, outputs, dtype, slotDtype, files }, details: { card } };
}
