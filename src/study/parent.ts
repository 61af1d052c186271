/**
 * The parents of a study, models of the user's or dense models that are trained here, and the study's text as tokens.
 */
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { expandStudy } from "../base/schemas/study.js";
import type { StudyParent } from "../base/schemas/study-grid.js";
import type { TrainingBlock } from "../base/schemas/training.js";
import { modelFolderOf } from "../files/checkpoint/model-source.js";
import { openCheckpoint, type ModelSource } from "../files/checkpoint/open.js";
import { isMoe, type DecoderSpec } from "../model/decoder/types.js";
import { newModelSpec } from "../train/init.js";
import {
  hasTokenizer,
  prepareTrainingData,
  newBase,
  openBase,
  requirePositions,
  type TrainingData,
  type ModelBase,
} from "../train/training-data.js";
import { requireEnoughText, type Corpus } from "../train/text.js";
import { keepTokens, readTokens, tokensFolder } from "./kept-tokens.js";
import { contentKey } from "./keys.js";
import type { StudyOptions, StudyRequest } from "./types.js";

/**
 * A parent's shape before any text is read; a new model's may get a few words less, as many as its text holds. Throws
 * inputError for a parent that cannot be opened, is a mixture of experts, or has fewer positions than a sequence.
 */
export async function parentShape(config: StudyRequest, parent: StudyParent<ModelSource>): Promise<DecoderSpec> {
  const blocks = blocksOf(config, parent);
  if (parent.kind === "trained") {
    const spec = newModelSpec(parent.model, parent.tokenizer.vocab, 0);
    for (const { sequence } of blocks) requirePositions({ spec, carry: `parent ${parent.id}` }, sequence);
    return spec;
  }
  const checkpoint = await openCheckpoint(parent.source);
  await checkpoint.close();
  const { dir, spec } = checkpoint;
  requireDense(spec, parent.source);
  for (const { sequence } of blocks) requirePositions({ spec, carry: dir }, sequence);
  return spec;
}

/** The trainings of a parent and of all arms that start from it. */
function blocksOf(config: StudyRequest, parent: StudyParent<ModelSource>): TrainingBlock[] {
  const arms = expandStudy(config).arms.filter(({ parents }) => parents.includes(parent.id));
  return [...(parent.kind === "trained" ? [parent.pretrain] : []), ...arms.map(({ training }) => training)];
}

function requireDense({ layers, family }: DecoderSpec, source: ModelSource): void {
  if (!isMoe({ layers })) return;
  throw inputError(`this ${family} model is already a mixture of experts, a parent must be dense`, {
    where: modelFolderOf(source),
  });
}

/** The text of a study, which is read once it is asked for, and the key of what it contains. */
export interface StudyText {
  readonly key: string;
  readonly read: () => Promise<Corpus>;
}

/**
 * Tokens and tokenizer of every parent, by its id; parents with the same tokenizer share them. The text is read only
 * where the store does not hold its tokens.
 */
export async function prepareData(
  options: StudyOptions,
  parents: readonly StudyParent<ModelSource>[],
  text: StudyText,
): Promise<ReadonlyMap<string, TrainingData>> {
  const { config, signal } = options;
  const prepared = new Map<string, TrainingData>();
  const shared = new Map<string, TrainingData>();
  for (const parent of parents) {
    signal?.throwIfAborted();
    const blocks = blocksOf(config, parent);
    const name = parent.kind === "trained" ? tokenizerName(parent, text) : null;
    const same = name === null ? undefined : shared.get(name);
    const base =
      parent.kind === "given"
        ? await openBase(parent.source, signal)
        : await newParent(options, parent, text, name ?? "");
    // The tokens are in memory once for all parents that share them.
    const data = await (
      same === undefined ? tokensOfText(options, base, text, blocks) : Promise.resolve({ ...same, spec: base.spec })
    ).finally(() => base.tokenizer.close());
    prepared.set(parent.id, data);
    if (name !== null) shared.set(name, data);
  }
  return prepared;
}

/** Whether the store holds the tokenizers of all parents that are trained, so that none is learnt from the text. */
export async function haveTokenizers(
  { dir, store = dir }: Pick<StudyOptions, "dir" | "store">,
  parents: readonly StudyParent<ModelSource>[],
  text: Pick<StudyText, "key">,
): Promise<boolean> {
  for (const parent of parents)
    if (parent.kind === "trained" && !(await hasTokenizer(newFolder(store, parent, tokenizerName(parent, text)))))
      return false;
  return true;
}

/** The tokens that the store holds of the text, else those that are made of it and kept there. */
async function tokensOfText(
  { dir, store = dir, signal }: StudyOptions,
  base: ModelBase,
  text: StudyText,
  blocks: readonly TrainingBlock[],
): Promise<TrainingData> {
  const folder = await tokensFolder(store, base, text.key);
  const kept = await readTokens(folder);
  if (kept !== null) {
    for (const block of blocks) requireEnoughText(kept.tokens, block);
    return { ...base, ...kept };
  }
  const data = await prepareTrainingData(base, await text.read(), blocks, signal);
  await keepTokens(folder, data);
  return data;
}

type TrainedParent = Extract<StudyParent<ModelSource>, { readonly kind: "trained" }>;

/** What parents with the same tokenizer have in common. */
const tokenizerName = ({ tokenizer, model }: TrainedParent, { key: text }: Pick<StudyText, "key">): string =>
  contentKey({ text, tokenizer, positions: model.maxPositions });

/** The folder of a new parent's tokenizer. */
const newFolder = (store: string, { tokenizer }: TrainedParent, name: string): string =>
  join(store, "tokenizers", `vocab-${tokenizer.vocab}-${name}`);

function newParent(
  { dir, store = dir, signal }: StudyOptions,
  parent: TrainedParent,
  text: StudyText,
  name: string,
): Promise<ModelBase> {
  const { model, tokenizer } = parent;
  const learnable = async (): Promise<Corpus["split"]["train"]> => (await text.read()).split.train;
  return newBase({ model, tokenizer, learnable, dir: newFolder(store, parent, name), reuse: true, signal });
}
