/**
 * A draft is a decoder on its way from source to target: a spec, and what each of its tensors is made of. Surgery
 * starts from the source as it is, puts experts in the place of FFNs (`experts.ts`), then rewrites spec and tensors
 * together until a released architecture can say it (`adapt.ts`).
 */
import type { DecoderSpec } from "../../model/decoder/types.js";
import { slotsOf, type Slot } from "../../model/tensors/slots.js";
import { meanExpr, read, type Expr } from "./expr.js";
import type { UpcycleRecipe } from "./recipe.js";

/** A decoder between source and target, with an expression for each of its tensors. */
export interface Draft {
  readonly spec: DecoderSpec;
  /** By slot key. Every slot of `spec` has a value; in a sample those of `slotsOfDraft` have one. */
  readonly values: ReadonlyMap<string, Expr>;
  /**
   * Set where the first experts of each layer stand for all: enough to find out which families hold the decoder,
   * however many experts it has.
   */
  readonly sample?: true;
}

/** Experts of a layer whose tensors a sample has. */
const sampled = 2;

/** The slots that the draft has values for. */
export function slotsOfDraft({ spec, sample }: Pick<Draft, "spec" | "sample">): Slot[] {
  if (sample === undefined) return slotsOf(spec);
  const layers = spec.layers.map(({ ffn, ...layer }) => ({
    ...layer,
    ffn: ffn.kind === "moe" ? { ...ffn, experts: Math.min(sampled, ffn.experts) } : ffn,
  }));
  return slotsOf({ ...spec, layers });
}

/** The draft that surgery starts from: the source unchanged, or the mean of all parents that give experts. */
export function draftOf(
  source: DecoderSpec,
  { parents, others }: Pick<UpcycleRecipe, "parents" | "others"> = { parents: null, others: "base" },
): Draft {
  const sources =
    parents === null || others === "base"
      ? [0]
      : [...new Set(parents.map((parent) => parent.source))].sort((a, b) => a - b);
  const weights = sources.map(() => 1);
  const values = slotsOf(source).map(({ key }): [string, Expr] => [
    key,
    meanExpr(
      sources.map((index) => read(key, index)),
      weights,
    ),
  ]);
  return { spec: source, values: new Map(values) };
}
