/**
 * The parent of a study, a model of the user's or a dense model that is trained here, and the study's text as tokens.
 */
import { inputError } from "../base/errors.js";
import { modelFolderOf, type ModelSource } from "../files/checkpoint/model-source.js";
import { isMoe } from "../model/decoder/types.js";
import { prepareTrainingData, newBase, openBase, type TrainingData, type ModelBase } from "../train/training-data.js";
import type { Corpus } from "../train/text.js";
import type { StudyOptions } from "./types.js";

/** Opens the user's parent, or makes the tokenizer and shape of a new one under `dir`, which holds this very study. */
export async function prepareParentData(options: StudyOptions, corpus: Corpus): Promise<TrainingData> {
  const { config, signal } = options;
  const base = config.parent === undefined ? await newParent(options, corpus) : await openParent(config.parent, signal);
  const blocks = [config.pretrain, config.continue].filter((block) => block !== undefined);
  return prepareTrainingData(base, corpus, blocks, signal).finally(() => base.tokenizer.close());
}

async function newParent({ config, dir, signal }: StudyOptions, corpus: Corpus): Promise<ModelBase> {
  const { model, tokenizer } = config;
  if (model === undefined || tokenizer === undefined)
    throw new Error("a study without a parent needs a model and a tokenizer, which its schema asks for");
  return newBase({ model, tokenizer, corpus, dir, reuse: true, signal });
}

/** Throws inputError for a parent that is a mixture of experts. */
async function openParent(source: ModelSource, signal: AbortSignal | undefined): Promise<ModelBase> {
  const base = await openBase(source, signal);
  if (isMoe(base.spec)) {
    await base.tokenizer.close();
    throw inputError(`this ${base.spec.family} model is already a mixture of experts, a parent must be dense`, {
      where: modelFolderOf(source),
    });
  }
  return base;
}
