/** Whether several dense models can be parents of one MoE: their specs are compared fact by fact. */
import { inputError } from "../../base/errors.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { UpcycleRecipe } from "./recipe.js";

interface NamedSpec {
  readonly name: string;
  readonly spec: DecoderSpec;
}

/** Facts on which no tensor of a further parent depends. */
const neverMatters = /^(family|tokens(\..*)?|initStd|auxLossCoef|maxPositions|norm\.eps|attn\.qkNorm\.norm\.eps)$/;
/**
 * Facts of attention, embedding and head, which come from the base unless they are averaged. If they differ in a
 * parent, its FFN may work less well in the base.
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
  const baseFacts = { name: base.name, facts: factsOf(base.spec) };
  return more.flatMap(({ name, spec }) => [
    ...differenceFrom(baseFacts, { name, facts: factsOf(spec) }, others === "average"),
    ...(hasXielu(spec)
      ? [`experts of ${name} get the learnt numbers of ${base.name}'s xIELU: a layer has one set`]
      : []),
  ]);
}

function hasXielu({ layers }: DecoderSpec): boolean {
  return layers.some(({ ffn }) => ffn.activation === "xielu");
}

interface NamedFacts {
  readonly name: string;
  readonly facts: ReadonlyMap<string, string>;
}

/** A remark on the first difference, if there is one. Throws inputError for one that rules the parent out. */
function differenceFrom(base: NamedFacts, { name, facts }: NamedFacts, averaged: boolean): string[] {
  const sayOf = (from: ReadonlyMap<string, string>, key: string): string => from.get(key) ?? "not there";
  const different = [...new Set([...base.facts.keys(), ...facts.keys()])].filter(
    (key) => !neverMatters.test(key) && base.facts.get(key) !== facts.get(key),
  );
  const fatal = different.find((key) => averaged || !onlyOthers.test(key));
  if (fatal !== undefined) {
    throw inputError(`${fatal} is ${sayOf(facts, fatal)}, in ${base.name} ${sayOf(base.facts, fatal)}`, {
      where: name,
      hint:
        averaged && onlyOthers.test(fatal)
          ? "such parents can give experts, but not be averaged: take the others from the base"
          : "parents of one mixture must be of one shape",
    });
  }
  // The same fact of many layers is one remark.
  const [first] = different;
  if (first === undefined) return [];
  return [
    `${name} was trained with ${first} ${sayOf(facts, first)}, the mixture has ${base.name}'s: ` +
      sayOf(base.facts, first),
  ];
}

/** Every leaf of a spec by its dotted path. */
function factsOf(spec: DecoderSpec): Map<string, string> {
  // The number of layers comes first: it is a clearer difference than a layer that is not there.
  const facts = new Map([["number of layers", String(spec.layers.length)]]);
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== "object" || value === null) {
      facts.set(path, JSON.stringify(value) ?? "not there");
      return;
    }
    for (const [key, inner] of Object.entries(value)) visit(inner, path === "" ? key : `${path}.${key}`);
  };
  visit(spec, "");
  return facts;
}
