/** The parent of a study: a folder the user brought, or a dense model trained here; and its text as tokens. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { openCheckpoint } from "../checkpoint/open.js";
import type { StudyConfig } from "../config/index.js";
import { exists, writeFileAtomic } from "../io/atomic.js";
import { isMoe, type DecoderSpec } from "../spec/types.js";
import { openTokenizer, type TextTokenizer } from "../tokenizer/load.js";
import { tokenizerConfig } from "../tokenizer/config.js";
import { trainByteLevelBpe } from "../tokenizer/train.js";
import { newModelSpec } from "../train/init.js";
import { requireEnoughText, tokenizeCorpus, type Corpus, type TokenizedCorpus } from "../train/text.js";

export interface Ground {
  readonly corpus: Corpus;
  readonly tokens: TokenizedCorpus;
  readonly tokenizer: TextTokenizer;
  /** Folder whose tokenizer files every checkpoint carries. */
  readonly carry: string;
  /** Shape of the parent. */
  readonly spec: DecoderSpec;
}

/** Opens the user's parent, or makes the tokenizer and shape of a new one under `dir`. */
export async function prepareGround(config: StudyConfig, corpus: Corpus, dir: string): Promise<Ground> {
  const ground = config.parent === undefined ? await newGround(config, corpus, dir) : await givenGround(config.parent, corpus);
  for (const block of [config.pretrain, config.continue]) if (block !== undefined) requireEnoughText(ground.tokens, block);
  return ground;
}

async function givenGround(parent: string, corpus: Corpus): Promise<Ground> {
  const checkpoint = await openCheckpoint(parent);
  await checkpoint.close();
  const { spec } = checkpoint;
  if (isMoe(spec)) throw inputError(`this ${spec.family} model is already a mixture of experts, a parent must be dense`, { where: parent });
  const tokenizer = await openTokenizer(parent);
  if (tokenizer.vocab > spec.vocab) {
    throw inputError(`the tokenizer has ${tokenizer.vocab} tokens, the model's embedding ${spec.vocab} rows`, { where: parent });
  }
  return { corpus, tokenizer, spec, carry: parent, tokens: await tokenizeCorpus(corpus, tokenizer, spec.tokens.eos[0]) };
}

async function newGround(config: StudyConfig, corpus: Corpus, dir: string): Promise<Ground> {
  const carry = join(dir, "tokenizer");
  const model = config.model!;
  if (!(await exists(join(carry, "tokenizer_config.json")))) {
    const json = await trainByteLevelBpe(corpus.split.train.map(({ text }) => text), { vocab: config.tokenizer!.vocab });
    await mkdir(carry, { recursive: true });
    await writeFileAtomic(join(carry, "tokenizer.json"), json);
    await writeFileAtomic(join(carry, "tokenizer_config.json"), tokenizerConfig({ maxLength: model.maxPositions }));
  }
  const tokenizer = await openTokenizer(carry);
  const spec = newModelSpec(model, tokenizer.vocab, tokenizer.eosId ?? null);
  return { corpus, tokenizer, spec, carry, tokens: await tokenizeCorpus(corpus, tokenizer, undefined) };
}
