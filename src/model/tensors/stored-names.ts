/**
 * The names of a folder's tensors under other prefixes than the family's own. What wraps a model when it is saved
 * leaves its mark in every name: `torch.compile` (`_orig_mod.`), DataParallel and DeepSpeed (`module.`), FSDP, PEFT
 * (`base_model.model.`), Lightning (`model.`), a multimodal class that holds the decoder as a part
 * (`language_model.model.`); a base class saves without its own prefix (`layers.0.`). Pure.
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import type { DecoderSpec } from "../decoder/types.js";
import { namedSlots, tensorNames } from "./names.js";

/** Parts of a name that wrappers add anywhere in it. */
const wrappers: ReadonlySet<string> = new Set([
  "_orig_mod",
  "_fsdp_wrapped_module",
  "_checkpoint_wrapped_module",
  "_forward_module",
  "_fpw_module",
  "_ddp_module",
]);

/** A name without what wrappers add to it; `module` is one only where it comes first. */
export function unwrapped(name: string): string {
  if (!/(^|\.)(_|module\.)/.test(name)) return name;
  const parts = name.split(".").filter((part) => !wrappers.has(part));
  const first = parts.findIndex((part) => part !== "module");
  return parts.slice(Math.max(0, first)).join(".");
}

/** The family's own prefix of everything but the head, such as `model.`. */
export function ownPrefix(spec: DecoderSpec): string {
  return `${at(at(tensorNames(spec, { part: "embed" }), 0).split("."), 0)}.`;
}

/** What a head may be called in files and in modules. */
export function headNames(spec: DecoderSpec): string[] {
  return [...new Set([tensorNames(spec, { part: "head" }), tensorNames(spec, { part: "head" }, "modules")].flat())];
}

/**
 * Names of the family (in either form) for the names of a folder, where they differ; null: none does, or none of the
 * folder's names look like those of this decoder. Throws inputError where several parts of the folder could be the
 * decoder.
 */
export function familyNames(
  spec: DecoderSpec,
  stored: ReadonlyMap<string, unknown>,
  where: string,
): ReadonlyMap<string, string> | null {
  const own = ownPrefix(spec);
  const heads = headNames(spec);
  const marks = landmarks(spec).map((name) => name.slice(own.length));
  const embed = at(tensorNames(spec, { part: "embed" }), 0).slice(own.length);
  const complete = (prefix: string, names: { has(name: string): boolean }): boolean =>
    marks.every((mark) => names.has(prefix + mark)) &&
    (names.has(prefix + embed) || headsUnder(prefix, heads).some((head) => names.has(head)));
  if (complete(own, stored)) return null;
  const plain = new Map<string, string[]>();
  for (const name of stored.keys()) {
    const short = unwrapped(name);
    plain.set(short, [...(plain.get(short) ?? []), name]);
  }
  const first = at(marks, 0);
  const prefixes = [...plain.keys()]
    .filter((name) => name === first || name.endsWith(`.${first}`))
    .map((name) => name.slice(0, name.length - first.length))
    .filter((prefix) => complete(prefix, plain));
  // A tower for sound may name its layers as the decoder does; an embedding of tokens it has not.
  const embedding = prefixes.filter((one) => plain.has(one + embed));
  const candidates = embedding.length === 0 ? prefixes : embedding;
  const prefix = candidates.includes(own) ? own : candidates[0];
  if (prefix === undefined) return null;
  if (prefix !== own && candidates.length > 1)
    throw ambiguous(
      candidates.map((one) => `${one}${first}`),
      where,
    );
  return renamedUnder(prefix, { own, heads, plain, spec, where });
}

interface Renaming {
  readonly own: string;
  readonly heads: readonly string[];
  /** Names without wrappers, and the stored names that each of them stands for. */
  readonly plain: ReadonlyMap<string, readonly string[]>;
  readonly spec: DecoderSpec;
  readonly where: string;
}

function renamedUnder(prefix: string, { own, heads, plain, spec, where }: Renaming): Map<string, string> {
  const renamed = new Map<string, string>();
  const take = (short: string, name: string): void => {
    const [stored, ...others] = plain.get(short) ?? [];
    if (stored === undefined) return;
    if (others.length > 0) throw ambiguous([stored, ...others], where);
    renamed.set(stored, name);
  };
  const foundHeads = headsUnder(prefix, heads).filter((head) => plain.has(head));
  if (foundHeads.length > 1) throw ambiguous(foundHeads, where);
  const [head] = foundHeads;
  if (head !== undefined)
    take(
      head,
      at(
        heads.filter((name) => head.endsWith(name)),
        0,
      ),
    );
  const parts = new Set(decoderParts(spec).map((name) => at(name.slice(own.length).split("."), 0)));
  for (const short of plain.keys()) {
    if (short === head || !short.startsWith(prefix)) continue;
    const rest = short.slice(prefix.length);
    if (parts.has(at(rest.split("."), 0))) take(short, own + rest);
  }
  return renamed;
}

/** A tensor of each layer that every decoder has. */
function landmarks(spec: DecoderSpec): string[] {
  const part = (spec.attn.latent?.queryRank ?? null) === null ? "q" : "qDown";
  return spec.layers.map((_, layer) => at(tensorNames(spec, { part, layer }), 0));
}

/** Names of the first layer's tensors and of those outside the layers, the head's left out. */
function decoderParts(spec: DecoderSpec): string[] {
  const [first] = spec.layers;
  const short = { ...spec, tiedHead: true, layers: first === undefined ? [] : [first] };
  return namedSlots(short).flatMap(({ names }) => names);
}

/** A head stands beside what `prefix` begins, or beside anything around it. */
function headsUnder(prefix: string, heads: readonly string[]): string[] {
  const parts = prefix.split(".").slice(0, -1);
  const outer = Array.from({ length: parts.length + 1 }, (_, count) =>
    parts
      .slice(0, count)
      .map((part) => `${part}.`)
      .join(""),
  );
  return outer.flatMap((start) => heads.map((head) => start + head));
}

function ambiguous(names: readonly string[], where: string): Error {
  const listed = names.slice(0, 3).join(", ");
  return inputError(`${names.length} tensors could be the same part of the decoder (${listed})`, {
    where,
    hint: "remove the ones that are not meant, or name them as transformers does",
  });
}
