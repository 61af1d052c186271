/**
 * Whether embedding and head are one, as transformers 5 decides it (`tie_weights`, modeling_utils.py): where the config
 * ties them and the files hold both, they are one only if their values are equal; where the files hold one of them, it
 * is both.
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { tensorNames } from "../../model/tensors/names.js";
import { headNames } from "../../model/tensors/stored-names.js";
import { elements } from "../../base/shapes.js";
import { toFloat32 } from "../numeric/dtype.js";
import type { ReadableTensor } from "./stored.js";

/** The description and the tensors as they are meant. */
export interface HeadDecision {
  readonly spec: DecoderSpec;
  readonly tensors: ReadonlyMap<string, ReadableTensor>;
  /** Names of tensors that are a second copy of another one. */
  readonly copies: ReadonlySet<string>;
  readonly notes: readonly string[];
}

/**
 * Decides about the head, and reads both tensors for it where both are stored. Throws inputError where the config asks
 * for a head of its own and the files have none.
 */
export async function decideHead(
  spec: DecoderSpec,
  tensors: ReadonlyMap<string, ReadableTensor>,
  dir: string,
): Promise<HeadDecision> {
  const embed = at(tensorNames(spec, { part: "embed" }), 0);
  const head = headNames(spec).find((name) => tensors.has(name));
  const asIs = { spec, tensors, copies: new Set<string>(), notes: [] };
  if (!spec.tiedHead) {
    if (head === undefined && tensors.has(embed)) throw noHead(headNames(spec), dir);
    return asIs;
  }
  const stored = head === undefined ? undefined : tensors.get(head);
  if (head === undefined || stored === undefined) return asIs;
  const embedding = tensors.get(embed);
  if (embedding === undefined) {
    const notes = [`${embed} is not stored: ${head} is embedding and head, which config.json ties`];
    const renamed = new Map([...tensors].map(([name, tensor]) => [name === head ? embed : name, tensor]));
    return { ...asIs, tensors: renamed, notes };
  }
  if (embedding.weightless === true || stored.weightless === true) {
    const notes = [
      `${head} is stored although config.json ties it to ${embed}: whether they differ shows with weights`,
    ];
    return { ...asIs, copies: new Set([head]), notes };
  }
  if (await haveEqualValues(embedding, stored)) return { ...asIs, copies: new Set([head]) };
  const notes = [
    `config.json ties ${head} to ${embed}, but their values differ: the head is kept as a matrix of its own, as ` +
      "transformers 5 does (older versions drop it)",
  ];
  return { ...asIs, spec: { ...spec, tiedHead: false }, notes };
}

function noHead([name]: readonly string[], dir: string): Error {
  return inputError(`tensor ${name} is missing, and config.json says that it is not tied to the embedding`, {
    where: dir,
    hint:
      "if the embedding is the head of this model, set tie_word_embeddings to true in config.json; if not, this is " +
      "no language model, or the download is incomplete",
  });
}

/** Elements that are compared at once. */
const run = 1 << 21;

/** Whether two tensors have one shape and equal values, whatever their precisions. */
export async function haveEqualValues(one: ReadableTensor, other: ReadableTensor): Promise<boolean> {
  if (one.shape.join() !== other.shape.join() || one.presented === null || other.presented === null) return false;
  const count = elements(one.shape);
  for (let start = 0; start < count; start += run) {
    const length = Math.min(run, count - start);
    const [a, b] = await Promise.all([one.read(start, length), other.read(start, length)]);
    if (one.presented === other.presented && Buffer.compare(a, b) === 0) continue;
    const [left, right] = [toFloat32(one.presented, a), toFloat32(other.presented, b)];
    for (let i = 0; i < length; i++) if (left[i] !== right[i]) return false;
  }
  return true;
}
