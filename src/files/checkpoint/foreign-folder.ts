/** What a folder is whose weights are in none of the files that are read: said by its name, with what to do. */
import { readdir } from "node:fs/promises";
import { inputError, type UpcycleError } from "../../base/errors.js";
import { withFsErrors } from "../io/fs-errors.js";

/** A kind of folder: the names by which it is known, what it is, and what to do. */
interface Kind {
  readonly name: RegExp;
  readonly what: (found: readonly string[]) => string;
  readonly hint: string;
}

const names = (found: readonly string[]): string => (found.length === 1 ? String(found[0]) : `${found[0]} and more`);
const weightsOnlyIn = (what: string) => (found: readonly string[]) =>
  `the only weights are ${names(found)}: ${what}, which is not read here`;

/** The likeliest first. */
const kinds: readonly Kind[] = [
  {
    name: /\.(incomplete|part|partial|aria2|crdownload)$/,
    what: (found) => `${names(found)} is a download that has not ended`,
    hint: "let it end, or download it again",
  },
  {
    name: /\.gguf$/i,
    what: weightsOnlyIn("GGUF of llama.cpp"),
    hint: "use the safetensors folder that it was made from",
  },
  {
    name: /^consolidated.*\.(safetensors|pth)$/,
    what: weightsOnlyIn("a checkpoint in the maker's own form (Meta's, Mistral's)"),
    hint:
      "use the model's files in Hugging Face form (model*.safetensors), or convert them with " +
      "convert_llama_weights_to_hf.py or convert_mistral_weights_to_hf.py of transformers",
  },
  {
    name: /^(tf_model|flax_model|rust_model|model)\.(h5|msgpack|ot|onnx)$/,
    what: weightsOnlyIn("weights of another framework"),
    hint: "load them with transformers and save_pretrained, and use that",
  },
  {
    name: /(\.distcp|^zero_to_fp32\.py|^global_step\d+|^pytorch_model_fsdp.*)$/,
    what: (found) => `${names(found)} is a checkpoint of a distributed training (DeepSpeed, FSDP), not a model`,
    hint: "merge it first: zero_to_fp32.py of DeepSpeed, or accelerate merge-weights",
  },
  {
    name: /^snapshots$/,
    what: () => "this is a model's folder in the cache of the Hub, whose versions lie in snapshots",
    hint: "name a folder inside snapshots, or the model as hf://org/name",
  },
  {
    name: /^checkpoint-\d+$/,
    what: (found) => `this is a training's folder; its models are in ${names(found)}`,
    hint: "name one of these folders",
  },
];

/** The error for a folder of another kind; null where no name in it says what it is. */
export async function foreignFolder(dir: string): Promise<UpcycleError | null> {
  const listed = await namesIn(dir);
  for (const { name, what, hint } of kinds) {
    const found = listed.filter((file) => name.test(file));
    if (found.length > 0) return inputError(what(found), { where: dir, hint });
  }
  return null;
}

/** The error for a folder whose weights have another name than those that are looked for; null without such a file. */
export async function misnamedWeights(dir: string): Promise<UpcycleError | null> {
  const isWeights = (name: string): boolean =>
    /\.(safetensors|bin|pt|pth|ckpt)$/.test(name) &&
    !/^(adapter_model|training_args|optimizer|scheduler|rng_state)/.test(name);
  const found = (await namesIn(dir)).filter(isWeights);
  if (found.length === 0) return null;
  return inputError(`weights are in ${names(found)}, a name that is not looked for`, {
    where: dir,
    hint: "name the file model.safetensors or pytorch_model.bin, or add the index of its shards",
  });
}

async function namesIn(dir: string): Promise<string[]> {
  return (await withFsErrors(dir, "list folder", () => readdir(dir))).sort();
}

/** The shards that a set of `count` lacks, as a phrase; `found` are the names that are there. */
export function missingShards(found: readonly string[]): string | null {
  const match = found.map((name) => /^(.*)-(\d+)-of-(\d+)\.(safetensors|bin)$/.exec(name)).find((one) => one !== null);
  if (match === undefined) return null;
  const [, stem, , of = "", extension] = match;
  const set = found.filter((name) => name.startsWith(`${stem}-`) && name.endsWith(`-of-${of}.${extension}`));
  const total = Number(of);
  return set.length === total ? `all ${total} shards` : `${set.length} of ${total} shards`;
}

/** Files that say how a folder's weights are quantized, without an entry in config.json. */
const quantizationFiles = ["quantize_config.json", "quant_config.json", "hf_quant_config.json"];

/** Which of them a folder has. */
export async function quantizationFileOf(dir: string): Promise<string | null> {
  const listed = await namesIn(dir);
  return quantizationFiles.find((name) => listed.includes(name)) ?? null;
}
