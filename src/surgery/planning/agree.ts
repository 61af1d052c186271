/** Whether several dense models can be parents of one mixture: their specs, compared fact by fact. */
import { inputError } from "../../base/errors.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { UpcycleRecipe } from "./recipe.js";

interface NamedSpec {
  readonly name: string;
  readonly spec: DecoderSpec;
}

/** Facts that no tensor taken from a further parent depends on. */
const neverMatters = /^(family|tokens(\..*)?|initStd|auxLossCoef|maxPositions|norm\.eps|attn\.qkNorm\.norm\.eps)$/;
/**
 * Facts of attention, embedding and head, which come from the base unless they are averaged. A parent trained with
 * others may work less well.
 */
const onlyOthers = /^(vocab|tiedHead|layers\.\d+\.(rope|window)(\..*)?)$/;

/**
 * Remarks on what differs. Throws inputError naming the first difference that rules a parent out, and for a recipe that
 * asks for more parents.
 */
export function requireAgreement(
  [base, ...more]: readonly NamedSpec[],
  { parents, sharedParent, others }: Pick<UpcycleRecipe, "parents" | "sharedParent" | "others">,
): string[] {
  const needed = Math.max(0, sharedParent?.source ?? 0, ...(parents ?? []).map(({ source }) => source));
  if (base === undefined || needed > more.length)
    throw inputError(`the recipe takes experts from model ${needed}, there are models 0 to ${more.length}`, {
      hint: "name all parents",
    });
  const facts = factsOf(base.spec);
  return more.flatMap(({ name, spec }) => {
    const own = factsOf(spec);
    const different = [...new Set([...facts.keys(), ...own.keys()])].filter(
      (key) => !neverMatters.test(key) && facts.get(key) !== own.get(key),
    );
    const fatal = different.find((key) => others === "average" || !onlyOthers.test(key));
    if (fatal !== undefined) {
      throw inputError(
        `${fatal} is ${own.get(fatal) ?? "not there"}, in ${base.name} ${facts.get(fatal) ?? "not there"}`,
        {
          where: name,
          hint:
            others === "average" && onlyOthers.test(fatal)
              ? "such parents can give experts, but not be averaged: take the others from the base"
              : "parents of one mixture must be of one shape",
        },
      );
    }
    // The same fact of many layers is one remark.
    const [first] = different;
    return first === undefined
      ? []
      : [
          `${name} was trained with ${first} ${own.get(first) ?? "not there"}, the mixture has ${base.name}'s: ` +
            `${facts.get(first) ?? "not there"}`,
        ];
  });
}

/** Every leaf of a spec by its dotted path. */
function factsOf(spec: DecoderSpec): Map<string, string> {
  const facts = new Map<string, string>();
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== "object" || value === null) {
      facts.set(path, JSON.stringify(value) ?? "not there");
      return;
    }
    for (const [key, inner] of Object.entries(value)) visit(inner, path === "" ? key : `${path}.${key}`);
  };
  visit(spec, "");
  // A number of layers is clearer than a layer that is not there.
  facts.set("number of layers", String(spec.layers.length));
  return new Map([["number of layers", facts.get("number of layers")!], ...facts]);
}
