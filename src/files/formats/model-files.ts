/** Which files of a model folder matter, by their names. Pure. */
import { indexFileName, pickledFileName, pickledIndexFileName, singleFileName } from "./shards.js";

/** Files that go along unchanged with whatever is made of a model; they do not depend on the architecture. */
const carriedFiles: readonly string[] = [
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "tokenizer.model",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "chat_template.jinja",
  "chat_template.json",
];

/** Licences, under any of their usual names: they ask to travel with what is made of the model. */
const legalFile = /^(licen[cs]e|notice|copying|use_policy)([._-].*)?$/i;

/**
 * Whether a file of this name goes along; weights of other formats, remote code and notes of the parent stay behind.
 */
export function isCarried(name: string): boolean {
  return carriedFiles.includes(name) || legalFile.test(name);
}

/** Most bytes of a carried file, by far: the largest `tokenizer.json` of published models has some 35 MB. */
export const largestCarried = 256e6;

/**
 * Name of the model's card. Its front matter states the licence; what is made of the model has a card of its own.
 */
export const cardFile = "README.md";

/** Most bytes of a card. A card is text; what is larger is something else. */
export const largestCard = 4e6;

/**
 * The file that holds all weights, or the index of those that do (`shards` is their extension then), in the order in
 * which transformers looks for them.
 */
export const weightSources = [
  { file: singleFileName, shards: null },
  { file: indexFileName, shards: "safetensors" },
  { file: pickledFileName, shards: null },
  { file: pickledIndexFileName, shards: "bin" },
] as const;

/** The files that may hold a LoRA adapter, as PEFT writes them. */
export const adapterSources = [
  { file: "adapter_model.safetensors", shards: null },
  { file: "adapter_model.bin", shards: null },
] as const;

/** Names of our records beside the weights: how a model was made, and how much of its parent's function was kept. */
export const recordFiles: readonly string[] = ["upcycle.json", "multiply.json", "merge.json"];

/** Names of the files that a training keeps beside the weights of its checkpoint. */
const stateFiles: readonly string[] = ["training.json", "optimizer.safetensors"];

const otherModelFiles: readonly string[] = [
  cardFile,
  "config.json",
  "preservation.json",
  "preprocessor_config.json",
  "processor_config.json",
  "configuration.json",
  "quantize_config.json",
  "params.json",
  "tekken.json",
  "spiece.model",
  "sentencepiece.bpe.model",
  "training_args.bin",
  // The files of a save of Megatron-Core beside its weights.
  ".metadata",
  "metadata.json",
  "common.pt",
  // The first is in every repository of the Hub; macOS puts the second into every folder that somebody has looked at.
  ".gitattributes",
  ".DS_Store",
];

const modelFile = [
  /^(model|consolidated)([.-][\w.-]+)?\.safetensors(\.index\.json)?$/,
  /^(pytorch_model|consolidated)([.-][\w.-]+)?\.(bin|pth)(\.index\.json)?$/,
  /^__\d+_\d+\.distcp$/,
  // Remote code by the names that transformers gives it.
  /^(modeling|modular|configuration|tokenization|processing|image_processing|feature_extraction)_\w+\.py$/,
];

/**
 * Whether a model folder holds files of this name: weights and their index, configs, tokenizer, licence, card, our
 * records, remote code. A folder that holds anything else is never replaced by a model, and nothing else is ever
 * removed from one: no images, scripts, notes, no folders.
 */
export function isModelFile(name: string): boolean {
  // A file that was being written when its writer was killed counts as that file.
  const [, finalName = name] = /^\.(.+)\.partial-\d+(?:@[\da-f]{8})?(?:-\d+)?$/.exec(name) ?? [];
  const isListed = [...recordFiles, ...otherModelFiles].includes(finalName);
  return isCarried(finalName) || isListed || modelFile.some((pattern) => pattern.test(finalName));
}

/** Whether a checkpoint of a training holds files of this name: those of a model, and the training's state. */
export function isCheckpointFile(name: string): boolean {
  return isModelFile(name) || stateFiles.includes(name);
}
