/**
 * A decoder on its way: a spec, and what each of its tensors is made of. Surgery starts from the source as it is, puts
 * experts in the place of FFNs (`experts.ts`), then rewrites spec and tensors together until a released architecture
 * can say it (`adapt.ts`).
 */
import type { DecoderSpec } from "../../model/decoder/types.js";
import { slotsOf, type Slot } from "../../model/tensors/slots.js";
import { meanOf, read, type Expr } from "./expr.js";
import type { UpcycleRecipe } from "./recipe.js";

export interface Draft {
  readonly spec: DecoderSpec;
  /** By slot key; every slot of `spec` has one, of a sample those of `slotsOfDraft`. */
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

/** The source, unchanged; of several parents the first, or the mean of those that give experts. */
export function draftOf(
  source: DecoderSpec,
  { parents, others }: Pick<UpcycleRecipe, "parents" | "others"> = { parents: null, others: "base" },
): Draft {
  const from =
    parents === null || others === "base"
      ? [0]
      : [...new Set(parents.map((parent) => parent.source))].sort((a, b) => a - b);
  return {
    spec: source,
    values: new Map(
      slotsOf(source).map(({ key }) => [
        key,
        meanOf(
          from.map((one) => read(key, one)),
          from.map(() => 1),
        ),
      ]),
    ),
  };
}
