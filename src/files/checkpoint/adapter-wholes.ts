/**
 * What an adapter brings as a whole, beside its factors: modules that were trained so (`modules_to_save`), the matrices
 * under adapted embeddings and heads (`base_layer`, which PEFT saves by default), and both again where the vocabulary
 * was resized. They take the place of the model's own tensors.
 *
 * Names as in the public repository huggingface/peft: src/peft/utils/save_and_load.py (`get_peft_model_state_dict`).
 */
import { join } from "node:path";
import { at, entryOf } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { mergeHint, type AdapterConfig } from "../../base/schemas/adapter.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { namedSlots, tensorNames } from "../../model/tensors/names.js";
import { placements } from "../../model/tensors/placement.js";
import { unwrapped } from "../../model/tensors/stored-names.js";
import type { ReadableTensor } from "./stored.js";
import { haveEqualValues } from "./tied-head.js";

/** Tensors that an adapter has in place of the model's. */
export interface AdapterWholes {
  /** By the model's names of them. */
  readonly tensors: ReadonlyMap<string, ReadableTensor>;
  /** The model with them: another vocabulary, or a head of its own. */
  readonly spec: DecoderSpec;
  readonly notes: readonly string[];
}

const wholeName =
  /^base_model\.model\.(.+?)(?:\.(base_layer|original_module|modules_to_save)(?:\.[^.]+)?)?\.(weight|bias)$/;

/**
 * What a whole tensor is, by what stands behind its module's name. Where the vocabulary was resized, PEFT saves a
 * module of `modules_to_save` three times: as it was before, and as it was trained under two names.
 */
type WholeKind = "base_layer" | "original_module" | "modules_to_save" | "plain";

/** The names of an adapter's tensors as names of the model's. */
export interface AdapterNames {
  /** The model's name of a module, which PEFT found in the classes of transformers 5 or inside a multimodal model. */
  module(path: string): string;
  /** What a tensor of the adapter's files stands for as a whole, under factors or not; null for all others. */
  whole(stored: string): Pick<NamedWhole, "name" | "kind"> | null;
}

/** How the tensors of a model's adapters are called. */
export function adapterNames(model: DecoderSpec): AdapterNames {
  const spec = { ...model, tiedHead: false };
  const files = namedSlots(spec);
  const inFiles = new Set(files.flatMap(({ names }) => names));
  const renamed = new Map<string, string>();
  for (const [i, { slot, names }] of namedSlots(spec, "modules").entries()) {
    const [name, ...others] = names;
    const ofFile = files[i]?.names[0];
    if (slot.at.expert === undefined && others.length === 0 && name !== undefined && ofFile !== undefined)
      if (name !== ofFile) renamed.set(name, ofFile);
  }
  const module = (path: string): string => {
    const text = path.replace(/^model\.language_model\./, "model.").replace(/^language_model\.(?=model\.|lm_head)/, "");
    return renamed.get(`${text}.weight`)?.replace(/\.weight$/, "") ?? text;
  };
  return {
    module,
    whole(stored) {
      const [, path, wrapper, what] = wholeName.exec(unwrapped(stored)) ?? [];
      if (path === undefined || path.includes(".lora_")) return null;
      const name = `${module(path)}.${what}`;
      return inFiles.has(name) ? { name, kind: (wrapper ?? "plain") as WholeKind } : null;
    },
  };
}

/** A tensor of an adapter that is no factor. */
interface NamedWhole {
  /** The model's name of what it is. */
  readonly name: string;
  readonly tensor: ReadableTensor;
  readonly kind: WholeKind;
}

/** One tensor for each name: the trained one where there are several. */
function trainedOnes(all: readonly NamedWhole[]): NamedWhole[] {
  const rank: Readonly<Record<WholeKind, number>> = { modules_to_save: 0, base_layer: 1, plain: 1, original_module: 2 };
  const byName = new Map<string, NamedWhole>();
  for (const one of all) {
    const other = byName.get(one.name);
    if (other === undefined || rank[one.kind] < rank[other.kind]) byName.set(one.name, one);
  }
  return [...byName.values()];
}

/**
 * The whole tensors of an adapter, held against the model's own: equal ones are nothing to say, others are used and
 * named. Throws inputError for shapes that are not the model's, for embeddings and heads of different vocabularies, and
 * where a module of `modules_to_save` is missing.
 */
export async function adapterWholes(
  stored: ReadonlyMap<string, ReadableTensor>,
  own: ReadonlyMap<string, ReadableTensor>,
  names: AdapterNames,
  { spec, config, dir }: { readonly spec: DecoderSpec; readonly config: AdapterConfig; readonly dir: string },
): Promise<AdapterWholes> {
  const wholes = trainedOnes(
    [...stored].flatMap(([name, tensor]): NamedWhole[] => {
      const known = names.whole(name);
      return known === null ? [] : [{ ...known, tensor }];
    }),
  );
  for (const module of config.modules_to_save ?? []) requireModule(module, wholes, dir);
  const embed = at(tensorNames(spec, { part: "embed" }), 0);
  const head = at(tensorNames(spec, { part: "head" }), 0);
  const isTrained = (name: string): boolean => (config.modules_to_save ?? []).some((module) => isOf(name, module));
  const vocab = vocabularyOf(wholes, { spec, embed, head, dir });
  const resized = vocab !== spec.vocab;
  const shapes = shapesOf({ ...spec, vocab, tiedHead: false });
  const changed = new Map<string, ReadableTensor>();
  const notes: string[] = [];
  for (const { name, tensor, kind } of wholes) {
    requireShape(name, tensor, entryOf(shapes, name), dir);
    const before = own.get(name === head && spec.tiedHead ? embed : name);
    const known = before !== undefined && before.weightless !== true;
    if (known && !resized && (await haveEqualValues(before, tensor))) continue;
    changed.set(name, tensor);
    if (kind === "base_layer" && known && !resized)
      notes.push(`the adapter brings a ${name} that differs from the model's, and it is used in its place`);
  }
  if (resized) notes.push(`the adapter resizes the vocabulary from ${spec.vocab} to ${vocab} words`);
  const tied = spec.tiedHead && (await staysTied(changed, { embed, head, isTrained: isTrained(embed) }));
  if (tied) changed.delete(head);
  if (spec.tiedHead && !tied)
    notes.push("the adapter gives embedding and head values of their own, which the model ties: they are untied");
  if (resized) requireBoth(changed, { embed, head, tied, dir });
  return { tensors: changed, spec: { ...spec, vocab, tiedHead: tied }, notes };
}

/** Whether a tensor is of a module that is named by the end of its path, or by all of it. */
const isOf = (name: string, module: string): boolean =>
  `.${name.replace(/\.(weight|bias)$/, "")}.`.includes(`.${module}.`);

function requireModule(module: string, wholes: readonly NamedWhole[], dir: string): void {
  if (wholes.some(({ name }) => isOf(name, module))) return;
  throw inputError(`modules_to_save names ${module}, and the adapter has no such tensor of this model`, {
    where: dir,
    hint: "the adapter is incomplete, or of another model",
  });
}

/** Where the head is: in the adapter's tensors, or the embedding's. */
async function staysTied(
  changed: ReadonlyMap<string, ReadableTensor>,
  { embed, head, isTrained }: { readonly embed: string; readonly head: string; readonly isTrained: boolean },
): Promise<boolean> {
  const [embedding, output] = [changed.get(embed), changed.get(head)];
  if (output === undefined) return embedding === undefined || !isTrained;
  return embedding !== undefined && (await haveEqualValues(embedding, output));
}

interface Vocabulary {
  readonly spec: DecoderSpec;
  readonly embed: string;
  readonly head: string;
  readonly dir: string;
}

function vocabularyOf(wholes: readonly NamedWhole[], { spec, embed, head, dir }: Vocabulary): number {
  const rows = wholes.filter(({ name }) => name === embed || name === head).map(({ tensor }) => tensor.shape[0]);
  const [first = spec.vocab, ...others] = new Set(rows);
  if (others.length > 0)
    throw inputError(`the adapter's embedding and head have ${first} and ${others[0]} rows, expected as many of both`, {
      where: dir,
    });
  return first;
}

function requireShape(name: string, { shape, file }: ReadableTensor, wanted: readonly number[], dir: string): void {
  if (shape.join() === wanted.join()) return;
  throw inputError(`tensor ${name} of the adapter has shape [${shape.join(", ")}], expected [${wanted.join(", ")}]`, {
    where: join(dir, file),
    hint: "is this adapter of another model?",
  });
}

/** Shapes of stored tensors by name. */
function shapesOf(spec: DecoderSpec): ReadonlyMap<string, readonly number[]> {
  return new Map(placements(spec).map(({ name, shape }) => [name, shape]));
}

function requireBoth(
  changed: ReadonlyMap<string, ReadableTensor>,
  {
    embed,
    head,
    tied,
    dir,
  }: { readonly embed: string; readonly head: string; readonly tied: boolean; readonly dir: string },
): void {
  const missing = [embed, ...(tied ? [] : [head])].find((name) => !changed.has(name));
  if (missing === undefined) return;
  throw inputError(`the adapter resizes the vocabulary, but has no ${missing} of the new size`, {
    where: dir,
    hint: mergeHint,
  });
}
