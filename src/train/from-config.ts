/**
 * A train file, run: one model, one training.
 *
 *   1 open the model's folder   2 read and split text   3 learn a new model's tokenizer   4 tokens   5 `trainRun`
 */
import { interruptedError } from "../base/errors.js";
import { compact } from "../base/format.js";
import { openCheckpoint, type Checkpoint, type ModelSource } from "../files/checkpoint/open.js";
import { lineageKey } from "../files/checkpoint/write.js";
import type { ModelConfig, TrainConfig, TrainingBlock, TrainTextConfig } from "../base/schemas/index.js";
import { trainFlopsPerToken } from "../model/cost/flops.js";
import { elements } from "../graph/ir/ir.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { withSteps } from "../engine/optimizer/budget.js";
import { planParameters } from "../engine/optimizer/groups.js";
import { checkRouting } from "../engine/routing/routing.js";
import type { Backend } from "../engine/runtime/runtime.js";
import { isBuffer, slotsOf, type Slot } from "../model/tensors/slots.js";
import {
  describeText,
  prepareTrainingData,
  newBase,
  openBase,
  requirePositions,
  type ModelBase,
} from "./training-data.js";
import { requireRunFolder } from "./fresh.js";
import { changesBetween } from "./changes.js";
import { readRunRecord } from "./claim.js";
import type { NotedCommand } from "../files/io/command-file.js";
import type { LogFormat } from "./exported-logs.js";
import { freshTensor } from "./init.js";
import {
  describeDataMix,
  heldOutParts,
  learnableTexts,
  readDataMix,
  requireEnoughOfEach,
  tokenizeDataMix,
  trainingParts,
} from "./data-mix.js";
import { trainRun } from "./run.js";
import { requireSameSources, sourcesOf } from "./sources.js";
import { endOfText, readCorpus } from "./text.js";
import type { RunResult, RunText, TrainEvent } from "./types.js";

/** A train file, whose model may have become folders: downloaded, with an adapter. */
export interface TrainRequest extends Omit<TrainConfig, "model"> {
  readonly model: ModelSource | ModelConfig;
}

/** What running a train file takes. */
export interface TrainFileOptions {
  readonly config: TrainRequest;
  /** Run folder: the file's `out`, unless the caller knows better. */
  readonly dir: string;
  readonly backend: Backend;
  readonly threads: number;
  /**
   * Texts of further files of every checkpoint, such as its card, from the model that the training starts from
   * (`trainedFiles`).
   */
  readonly describe?: ((start: Checkpoint) => Promise<Readonly<Record<string, string>>>) | undefined;
  /** Noted in the run's folder: the command that goes on with it. */
  readonly command?: NotedCommand | undefined;
  /** Further forms in which the metrics are written. */
  readonly log?: readonly LogFormat[] | undefined;
  /** Aborting finishes the step in hand, saves and throws interruptedError. */
  readonly signal?: AbortSignal | undefined;
}

/** What running a train file tells, in the order in which it happens. */
export type TrainFileEvent =
  { readonly type: "phase"; readonly label: string } | { readonly type: "note"; readonly text: string } | TrainEvent;

/**
 * Runs or resumes the training of a train file. Throws like `trainRun`, and inputError for text or model that
 * cannot be used.
 */
export async function* trainFromConfig(options: TrainFileOptions): AsyncGenerator<TrainFileEvent, RunResult> {
  try {
    return yield* prepareAndTrain(options);
  } catch (cause) {
    // Reading much text takes minutes, and until the first step there is nothing to save.
    const stopped = options.signal?.aborted === true && cause === options.signal.reason;
    throw stopped ? interruptedError("stopped before the training began", { where: options.dir }) : cause;
  }
}

async function* prepareAndTrain(options: TrainFileOptions): AsyncGenerator<TrainFileEvent, RunResult> {
  const { config, dir, backend, threads, signal } = options;
  const { model, tokenizer, seed } = config;
  // `trainRun` refuses a folder that holds another run, so a tokenizer beside a `run.json` is this run's own. The
  // folder is checked here too, because one that cannot be used should be known before minutes of reading.
  const before = await readRunRecord(dir);
  await requireRunFolder(dir);
  const sources = await sourcesOf({ model: isNewModel(model) ? null : model, text: config.text, signal });
  // Where the settings differ as well, `trainRun` names those.
  if (before !== null && sameInputs(before, config)) requireSameSources(before.sources, sources, "run");
  if (!isNewModel(model)) yield { type: "phase", label: "opening the model" };
  const opened = isNewModel(model) ? null : await openFittingBase(model, config.training, signal);
  yield { type: "phase", label: "reading text" };
  const text = await readText(config.text, signal).catch(async (cause: unknown) => {
    await opened?.tokenizer.close();
    throw cause;
  });
  let base = opened;
  if (isNewModel(model)) {
    yield { type: "phase", label: before === null ? "learning the tokenizer" : "opening the tokenizer" };
    base = await learnBase(model, options, text, before !== null);
  }
  if (base === null) throw new Error("a model that is not new was opened");
  const { spec } = base;
  const { block, tokenized } = await tokenize(base, text, options).finally(() => base.tokenizer.close());
  signal?.throwIfAborted();
  const { train, heldOut, end, notes } = tokenized;
  for (const note of [...notes, ...describeFrozen(spec, block)]) yield { type: "note", text: note };
  const source = isNewModel(model) ? null : await openCheckpoint(model);
  try {
    return yield* trainRun({
      dir,
      spec,
      seed,
      threads,
      backend,
      signal,
      block,
      initial: (slot) => source?.readFloat32(slot.key) ?? Promise.resolve(freshTensor(spec, slot, seed)),
      carry: base.carry,
      lineage: source?.config[lineageKey],
      texts: source === null ? undefined : await options.describe?.(source),
      text: { train, heldOut },
      documentEnd: end,
      evaluationTokens: config.evaluation.tokens,
      log: options.log,
      command: options.command,
      sources,
      identity: { model, tokenizer: tokenizer ?? null, text: config.text },
    });
  } finally {
    await source?.close();
  }
}

/** Whether a train file describes a new model instead of naming one. */
const isNewModel = (model: TrainRequest["model"]): model is ModelConfig =>
  typeof model === "object" && !("adapter" in model);

/** Whether a saved run was begun with this model and this text. */
const sameInputs = (saved: Readonly<Record<string, unknown>>, { model, text }: TrainRequest): boolean =>
  changesBetween({ model: saved["model"], text: saved["text"] }, { model, text }).length === 0;

/** Shape and tokenizer of a model that this training can train. Throws inputError before any text is read. */
async function openFittingBase(
  model: ModelSource,
  training: TrainRequest["training"],
  signal: AbortSignal | undefined,
): Promise<ModelBase> {
  const base = await openBase(model, signal);
  try {
    requirePositions(base, training.sequence);
    checkRouting(base.spec, withSteps(training, trainFlopsPerToken(base.spec, training.sequence)));
    return base;
  } catch (cause) {
    await base.tokenizer.close();
    throw cause;
  }
}

/** Shape of a new model, and its tokenizer. The schema proves that a file with a new model has a tokenizer block. */
async function learnBase(
  model: ModelConfig,
  { config: { tokenizer }, dir, signal }: TrainFileOptions,
  text: ReadText,
  reuse: boolean,
): Promise<ModelBase> {
  if (tokenizer === undefined) throw new Error("a new model needs a tokenizer block");
  return newBase({ model, tokenizer, learnable: () => Promise.resolve(text.learnable()), dir, reuse, signal });
}

/** The training in whole steps, and the text as tokens; what does not fit the model is refused before tokenizing. */
async function tokenize(
  base: ModelBase,
  text: ReadText,
  { config: { training }, signal }: TrainFileOptions,
): Promise<{ readonly block: TrainingBlock; readonly tokenized: TokenizedText }> {
  signal?.throwIfAborted();
  const block = withSteps(training, trainFlopsPerToken(base.spec, training.sequence));
  checkRouting(base.spec, block);
  return { block, tokenized: await text.tokenize(base, block) };
}

/** A text as tokens, and what there is to say of it. */
type TokenizedText = RunText & { readonly end: number; readonly notes: readonly string[] };

/** Text that is read but not yet tokenized: one stream, or the parts of a data mix. */
interface ReadText {
  /** What a new tokenizer may learn from. */
  readonly learnable: () => readonly { readonly text: string }[];
  readonly tokenize: (base: ModelBase, block: TrainingBlock) => Promise<TokenizedText>;
}

async function readText(config: TrainTextConfig, signal: AbortSignal | undefined): Promise<ReadText> {
  if (config.mix === undefined) {
    const corpus = await readCorpus(config, signal);
    return {
      learnable: () => corpus.split.train,
      async tokenize(base, block) {
        const data = await prepareTrainingData(base, corpus, [block], signal);
        const { train, heldOut, end } = data.tokens;
        return { train, heldOut, end, notes: [describeText(data)] };
      },
    };
  }
  const parts = await readDataMix(config, signal);
  return {
    learnable: () => learnableTexts(parts),
    async tokenize(base, block) {
      requirePositions(base, block.sequence);
      const end = endOfText(base.tokenizer, base.spec.tokens.eos[0]);
      const tokenized = await tokenizeDataMix(parts, base.tokenizer, end, signal);
      requireEnoughOfEach(tokenized, block);
      return {
        train: trainingParts(tokenized),
        heldOut: heldOutParts(tokenized),
        end,
        notes: describeDataMix(tokenized, block),
      };
    },
  };
}

/** What is frozen, in a line, or nothing. */
function describeFrozen(spec: DecoderSpec, block: TrainingBlock): string[] {
  const { frozen } = planParameters(spec, block);
  const slots = slotsOf(spec).filter(({ at }) => !isBuffer(at));
  const count = slots.filter(({ key }) => frozen.has(key)).length;
  if (count === 0) return [];
  const sum = (some: readonly Slot[]): number => some.reduce((total, { shape }) => total + elements(shape), 0);
  return [
    `training ${compact(sum(slots.filter(({ key }) => !frozen.has(key))))} of ${compact(sum(slots))} ` +
      `parameters, ${count} tensors are frozen`,
  ];
}
