/** Which files of a model folder matter, by their names. Pure. */
import { indexFileName, pickledFileName, pickledIndexFileName, singleFileName } from "./shards.js";

/** Files that go along unchanged with whatever is made of a model; they do not depend on the architecture. */
export const carriedFiles: readonly string[] = [
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

/** Licences ask to travel with what is made of the model, under any of their usual names. */
const legalFile = /^(licen[cs]e|notice|copying|use_policy)([._-].*)?$/i;

/** Whether a file of this name goes along; weights of other formats, remote code and notes of the parent stay behind. */
export function isCarried(name: string): boolean {
  return carriedFiles.includes(name) || legalFile.test(name);
}

/** Bytes of one of them, by far: the largest `tokenizer.json` of published models has some 35 MB. */
export const largestCarried = 256e6;

/** The model's card. Its front matter states the licence; what is made of the model has a card of its own. */
export const cardFile = "README.md";

/** A card is text: what is larger is something else. */
export const largestCard = 4e6;

/** The file that holds all weights, or the index of those that do; in the order in which transformers looks for them. */
export const weightSources = [
  { file: singleFileName, shards: null },
  { file: indexFileName, shards: "safetensors" },
  { file: pickledFileName, shards: null },
  { file: pickledIndexFileName, shards: "bin" },
] as const;

/** The same of a LoRA adapter's folder, as PEFT writes it. */
export const adapterSources = [
  { file: "adapter_model.safetensors", shards: null },
  { file: "adapter_model.bin", shards: null },
] as const;
