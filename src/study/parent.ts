/**
 * The parent of a study, a model of the user's or a dense model that is trained here, and the study's text as tokens.
 */
import { inputError } from "../base/errors.js";
import type { TrainingBlock } from "../base/schemas/index.js";
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
import type { StudyOptions } from "./types.js";

/**
 * The parent's shape before any text is read; a new model's may get a few words less, as many as its text holds. Throws
 * inputError for a parent that cannot be opened, is a mixture of experts, or has fewer positions than a sequence.
 */
export async function parentShape(config: StudyOptions["config"]): Promise<DecoderSpec> {
  const { parent, model, tokenizer } = config;
  if (parent === undefined) {
    if (model === undefined || tokenizer === undefined) throw withoutModel();
    return newModelSpec(model, tokenizer.vocab, 0);
  }
  const checkpoint = await openCheckpoint(parent);
  await checkpoint.close();
  const { dir, spec } = checkpoint;
  requireDense(spec, parent);
  for (const block of blocksOf(config)) requirePositions({ spec, carry: dir }, block.sequence);
  return spec;
}

/** A defect: the schema asks for one or the other. */
const withoutModel = (): Error =>
  new Error("a study without a parent needs a model and a tokenizer, which its schema asks for");

const blocksOf = (config: StudyOptions["config"]): TrainingBlock[] =>
  [config.pretrain, config.continue].filter((block) => block !== undefined);

function requireDense({ layers, family }: DecoderSpec, source: ModelSource): void {
  if (!isMoe({ layers })) return;
  throw inputError(`this ${family} model is already a mixture of experts, a parent must be dense`, {
    where: modelFolderOf(source),
  });
}

/** Opens the user's parent, or makes the tokenizer and shape of a new one under `dir`, which holds this very study. */
export async function prepareParentData(options: StudyOptions, corpus: Corpus): Promise<TrainingData> {
  const { config, signal } = options;
  const base = config.parent === undefined ? await newParent(options, corpus) : await openBase(config.parent, signal);
  return prepareTrainingData(base, corpus, blocksOf(config), signal).finally(() => base.tokenizer.close());
}

async function newParent({ config, dir, signal }: StudyOptions, corpus: Corpus): Promise<ModelBase> {
  const { model, tokenizer } = config;
  if (model === undefined || tokenizer === undefined) throw withoutModel();
  return newBase({ model, tokenizer, corpus, dir, reuse: true, signal });
}
