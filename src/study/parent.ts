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
  prepareTrainingData,
  newBase,
  openBase,
  requirePositions,
  type TrainingData,
  type ModelBase,
} from "../train/training-data.js";
import type { Corpus } from "../train/text.js";
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

/** Tokens and tokenizer of every parent, by its id; parents with the same tokenizer share them. */
export async function prepareData(
  options: StudyOptions,
  parents: readonly StudyParent<ModelSource>[],
  corpus: Corpus,
  text: string,
): Promise<ReadonlyMap<string, TrainingData>> {
  const { config, signal } = options;
  const prepared = new Map<string, TrainingData>();
  const shared = new Map<string, TrainingData>();
  for (const parent of parents) {
    signal?.throwIfAborted();
    const blocks = blocksOf(config, parent);
    const name =
      parent.kind === "trained"
        ? contentKey({ text, tokenizer: parent.tokenizer, positions: parent.model.maxPositions })
        : null;
    const same = name === null ? undefined : shared.get(name);
    const base =
      parent.kind === "given"
        ? await openBase(parent.source, signal)
        : await newParent(options, parent, corpus, name ?? "");
    // The tokens are in memory once for all parents that share them.
    const data =
      same === undefined
        ? await prepareTrainingData(base, corpus, blocks, signal).finally(() => base.tokenizer.close())
        : await base.tokenizer.close().then(() => ({ ...same, spec: base.spec }));
    prepared.set(parent.id, data);
    if (name !== null) shared.set(name, data);
  }
  return prepared;
}

function newParent(
  { dir, store = dir, signal }: StudyOptions,
  { model, tokenizer }: Extract<StudyParent<ModelSource>, { readonly kind: "trained" }>,
  corpus: Corpus,
  name: string,
): Promise<ModelBase> {
  const folder = join(store, "tokenizers", `vocab-${tokenizer.vocab}-${name}`);
  return newBase({ model, tokenizer, corpus, dir: folder, reuse: true, signal });
}
