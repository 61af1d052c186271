/**
 * What a run is, by content: a hash of everything that its numbers depend on. A run folder has it in its name, so the
 * same settings find the run that is there, and others never take it for theirs.
 *
 * Not part of it: names, where files lie, how often checkpoints are saved, what the backward pass makes again.
 */
import { createHash } from "node:crypto";
import type { MegatronConfig, StudyParent, TextConfig, TrainingBlock } from "../base/schemas/index.js";
import { fileFingerprint } from "../files/io/fingerprint.js";
import type { ModelSource } from "../files/checkpoint/model-source.js";
import { builtinFile, corpusFiles } from "../text/documents/corpus.js";
import { sourcesOf } from "../train/sources.js";
import type { MultiplyRecipe } from "../surgery/planning/multiply.js";
import type { UpcycleRecipe } from "../surgery/planning/recipe.js";
import type { StudyOptions } from "./types.js";

/** Characters of a key: 2^20 runs of one study share a key by chance once in 2^20 studies. */
const length = 15;

/** Hash of plain data; the order of keys in a block does not count. */
export function contentKey(data: unknown): string {
  return createHash("sha256").update(canonical(data)).digest("hex").slice(0, length);
}

/** JSON with the keys of every block sorted; a key without a value is left out. */
function canonical(data: unknown): string {
  if (Array.isArray(data)) return `[${data.map(canonical).join(",")}]`;
  if (typeof data !== "object" || data === null) return JSON.stringify(data ?? null);
  const entries = Object.entries(data)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, value]) => `${JSON.stringify(key)}:${canonical(value)}`).join(",")}}`;
}

/** What all runs of a study have in common. */
export interface Surroundings {
  /** Key of the text and of its split. */
  readonly text: string;
  /** What computes (`Backend.numerics`). */
  readonly backend: string;
  readonly threads: number;
  readonly evaluationTokens: number;
}

/** Reads what all runs have in common. Throws inputError for text that is not there. */
export async function surroundingsOf({ config, backends, threads, signal }: StudyOptions): Promise<Surroundings> {
  return {
    text: await textKey(config.text, signal),
    backend: backends[0].numerics,
    threads,
    evaluationTokens: config.evaluation.tokens,
  };
}

/** Key of what a text contains: a file that was moved keeps it. */
async function textKey(text: TextConfig, signal: AbortSignal | undefined): Promise<string> {
  const { builtin = [], files = [], field, heldOut } = text;
  const contents: string[] = [];
  for (const name of builtin) contents.push(await fileFingerprint(builtinFile(name)));
  for (const path of files) {
    for (const file of await corpusFiles(path)) {
      signal?.throwIfAborted();
      contents.push(await fileFingerprint(file));
    }
  }
  return contentKey({ contents, field: files.length === 0 ? null : field, heldOut });
}

/** Key of a parent: of its training, or of a given model's weights and tokenizer. */
export async function parentKey(
  parent: StudyParent<ModelSource>,
  surroundings: Surroundings,
  signal?: AbortSignal,
): Promise<string> {
  if (parent.kind === "given") {
    const sources = await sourcesOf({ model: parent.source, text: { field: "text", heldOut: 0.5 }, signal });
    return contentKey({ given: Object.values(sources) });
  }
  const { model, tokenizer, pretrain, seed } = parent;
  return contentKey({ ...surroundings, model, tokenizer, seed, training: countedTraining(pretrain) });
}

/** Key of the model that an upcycled arm starts from; some recipes measure the parent on the text. */
export const startKey = (beginning: Beginning, { text, backend, threads }: Surroundings): string =>
  contentKey({ ...beginning, text, backend, threads });

/** What an arm's run begins with. */
export type Beginning =
  /** The parent, or the model that a recipe makes of it, measured on so many tokens where it measures. */
  | { readonly parent: string; readonly recipe: UpcycleRecipe | null; readonly calibration?: number | undefined }
  /** The end of another run, by its key, with more experts. */
  | { readonly run: string; readonly multiply: MultiplyRecipe; readonly calibration?: number | undefined }
  /** Fresh weights: of a shape, and of the tokenizer that goes with it. */
  | { readonly fresh: unknown };

/** Key of an arm's run; `megatron` is what Megatron-LM trains with, where it does. */
export function runKey(
  beginning: Beginning,
  training: TrainingBlock,
  { seed, megatron }: { readonly seed: number; readonly megatron: MegatronConfig | null },
  surroundings: Surroundings,
): string {
  const counted = { ...surroundings, beginning, seed, training: countedTraining(training) };
  return contentKey(megatron === null ? counted : { ...counted, megatron: countedMegatron(megatron) });
}

/** What of Megatron-LM changes numbers: not where it lies, nor who starts it. */
function countedMegatron({ transformerEngine, precision, layout, hardware, arguments: given }: MegatronConfig): object {
  return { transformerEngine, precision, layout, gpus: hardware.gpus, arguments: given };
}

/** Key of everything but the length of a run and its learning rates: runs that may have their first steps in common. */
export function prefixKey(
  beginning: Beginning,
  training: TrainingBlock,
  seed: number,
  surroundings: Surroundings,
): string {
  const shared = { ...countedTraining(training), steps: undefined, lr: undefined };
  return contentKey({ ...surroundings, beginning, seed, training: shared });
}

/** The settings of a training that change its numbers. */
function countedTraining(block: TrainingBlock): object {
  return { ...block, saveEvery: undefined, recompute: undefined };
}
