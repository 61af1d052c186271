/**
 * Multiplication of experts: an MoE model of E experts becomes one of m E, by copies (expert upcycling, arXiv
 * 2604.19835). Copy c of expert e is expert c E + e. Router rows, biases and correction biases are repeated in the same
 * order, and so are groups of experts, so that the groups of a copy rank like those they come from.
 *
 * Let k be the source's top k, T that of the result. With T = m k, equal logits make the best T all the copies of the
 * best k. Each copy of an expert then gets
 *
 * - with softmax: 1/m of its probability, renormalised or not, since the sum over the chosen stays what it was. A
 *   correction bias is added to scores that are now 1/m of what they were, so it is divided by m as well;
 * - with sigmoid, renormalised: 1/m of its weight (what is added to the divisor counts 1/m as much);
 * - with sigmoid, not renormalised: its whole weight, so down is divided by m.
 *
 * Where experts are copied by their utility (`ExpertUtility`), each layer has m E experts all the same: the E it had,
 * and behind them (m - 1) E copies, most of those experts that are worth most. T is k then, as in the paper, so a
 * token's best expert may be chosen together with its own copy, and the function changes until training parts them.
 *
 * Any other T changes the function, unless one expert was chosen and one is (k = T = 1). The factor on down is the one
 * that keeps the output of a constant router: k w / (T w') with the weights of equal logits before and after
 * (`selectedWeight`).
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { allExpertTensors, mostExperts, mostTensors } from "../../model/decoder/bounds.js";
import { ownFamily, type DecoderSpec, type LayerSpec, type MoeFfn } from "../../model/decoder/types.js";
import { slotKey, slotsOf, type Slot, type SlotPart } from "../../model/tensors/slots.js";
import { canSay } from "./choose-dense.js";
import type { ExpectedPreservation } from "./expectation.js";
import { concat, read, rowsOf, scale, type Expr } from "./expr.js";
import { firstMoeFfn, isFfnPart, isOutputPart, moeFfnOf } from "./ffn-tensors.js";
import { checkOutputs, sourceShapes, type PlannedSlot } from "./plan.js";
import type { MeasuredText } from "./recipe.js";
import { formatFactor, selectedWeight } from "./scaling.js";

/** By what experts may be copied more or less often. */
export const utilities = ["load", "gradient"] as const;

/**
 * What each expert is worth, measured on text (`surgery/calibration/expert-utility.ts`), and what follows from it.
 * `load`: how many tokens it serves. `gradient`: the squared norm of the loss's gradient on its weights, the measure
 * that the authors' code (amazon-science/expert-upcycling) calls gradient_squared.
 */
export interface ExpertUtility {
  readonly by: (typeof utilities)[number];
  /** Of every layer, in the order of its experts; null where the layer is dense. Null: not measured yet. */
  readonly values: readonly (readonly number[] | null)[] | null;
  readonly text: MeasuredText | null;
  /** Standard deviation of what is added to a copy's router row, in units of the row's own. */
  readonly noise: number;
}

/** Most copies beside itself that an expert gets while others have fewer, as in the authors' code. */
export const mostDuplicates = 3;

/** How the experts of a model are multiplied. */
export interface MultiplyRecipe {
  /** m: copies of each expert, the expert itself among them. */
  readonly copies: number;
  /** Experts per token; null: m times the source's, and the source's own where experts are copied by utility. */
  readonly topK: number | null;
  /**
   * Standard deviation of what is added to the router rows of all copies but the first, so that they part in training.
   */
  readonly routerStd: number;
  /** Seed of that noise. */
  readonly seed: number;
  /** Left out: every expert has equally many copies. */
  readonly utility?: ExpertUtility | undefined;
}

/** Noise on the router rows of experts copied by utility, in units of each row's own std; as in the authors' code. */
const usualNoise = 0.01;

/** What files and options say of a multiplication; what is left out takes its usual value. */
interface MultiplySettings {
  readonly copies: number;
  readonly topK?: number | undefined;
  readonly routerStd?: number | undefined;
  readonly seed?: number | undefined;
  readonly by?: ExpertUtility["by"] | undefined;
}

/** The recipe of a multiplication; what it is measured on is still to be measured. */
export function multiplyRecipe({ copies, topK, routerStd, seed, by }: MultiplySettings): MultiplyRecipe {
  return {
    copies,
    topK: topK ?? null,
    routerStd: routerStd ?? 0,
    seed: seed ?? 0,
    ...(by === undefined
      ? {}
      : { utility: { by, values: null, text: null, noise: routerStd === undefined ? usualNoise : 0 } }),
  };
}

/** The shape of the larger model, which what its experts are worth does not decide. Throws like `planMultiply`. */
export function multipliedSpec(source: DecoderSpec, recipe: MultiplyRecipe): DecoderSpec {
  const { utility } = recipe;
  if (utility === undefined) return planMultiply(source, recipe).target;
  return planMultiply(source, { ...recipe, utility: { ...utility, values: equalValues(source) } }).target;
}

/** Experts that are all worth the same, for a plan before anything is measured. */
export const equalValues = ({ layers }: Pick<DecoderSpec, "layers">): readonly (readonly number[] | null)[] =>
  layers.map(({ ffn }) => (ffn.kind === "moe" ? new Array<number>(ffn.experts).fill(1) : null));

/** How a model with multiplied experts is made, before any weight is read. */
export interface MultiplyPlan {
  readonly recipe: MultiplyRecipe;
  readonly source: DecoderSpec;
  readonly target: DecoderSpec;
  readonly outputs: readonly PlannedSlot[];
  readonly warnings: readonly string[];
  readonly expected: ExpectedPreservation;
  /** Which of the source's experts each expert of a layer is, the source's own ones first; null where it is dense. */
  readonly origins: Origins;
  /** What down and its bias are multiplied by, in each layer; null where it is dense. */
  readonly down: readonly (number | null)[];
  /** What changes, in words. */
  readonly how: string;
}

/**
 * Plans the larger model. Throws inputError for a dense source, numbers that make no sense, or a router with fixed
 * top k.
 */
export function planMultiply(source: DecoderSpec, recipe: MultiplyRecipe): MultiplyPlan {
  checkNumbers(recipe);
  const before = firstMoeFfn(source);
  if (before === undefined)
    throw inputError("the model is dense: it has no experts to multiply", {
      hint: "upcycle it with a recipe such as E8G1T2",
    });
  const target = targetOf(source, recipe);
  const origins = originsOf(source, recipe);
  const outputs = slotsOf(target).map((slot) => ({ slot, value: valueOf(slot, source, target, recipe, origins) }));
  checkOutputs(outputs, sourceShapes(source));
  const after = moeFfnOf(
    target,
    source.layers.findIndex(({ ffn }) => ffn === before),
  );
  return {
    recipe,
    source,
    target,
    outputs,
    down: source.layers.map(({ ffn }, layer) => (ffn.kind === "moe" ? downFactor(ffn, moeFfnOf(target, layer)) : null)),
    expected: expectation(before, after, recipe, origins),
    origins,
    warnings: warningsOf(source, target, after, recipe),
    how:
      `${source.family} to ${target.family}: ${before.experts} experts to ${after.experts}, ${before.topK} per ` +
      `token to ${after.topK}${utilityWords(recipe, origins)}`,
  };
}

/** Of every layer, for each expert the source's expert that it is; null where the layer is dense. */
export type Origins = readonly (readonly number[] | null)[];

/** The origins of all experts. Throws inputError for a utility that is missing or does not fit the model. */
function originsOf(source: DecoderSpec, { copies, utility }: MultiplyRecipe): Origins {
  return source.layers.map(({ ffn }, layer) => {
    if (ffn.kind === "dense") return null;
    const own = Array.from({ length: ffn.experts }, (_, expert) => expert);
    const added = (copies - 1) * ffn.experts;
    if (utility === undefined) return [...own, ...Array.from({ length: added }, (_, i) => i % ffn.experts)];
    return [...own, ...duplicatesOf(utilityOf(utility, layer, ffn.experts), added)];
  });
}

function utilityOf({ values, by }: ExpertUtility, layer: number, experts: number): readonly number[] {
  const own = values?.[layer];
  if (own?.length === experts && own.every((value) => value >= 0 && value < Infinity)) return own;
  throw inputError(
    values === null
      ? `what the experts are worth (${by}) has not been measured`
      : `the ${by} of layer ${layer} does not fit its ${experts} experts`,
    { hint: "measure it with this model: expertUtility" },
  );
}

/**
 * Which experts get the `count` additional places of a layer, one after the other: always the one of most utility that
 * has fewer than `mostDuplicates` of them, of equal ones the first. When all have as many, counting begins anew. This
 * is the greedy selection of the authors' code.
 */
export function duplicatesOf(utility: readonly number[], count: number): readonly number[] {
  const order = [...utility.keys()].sort((a, b) => at(utility, b) - at(utility, a) || a - b);
  const round = order.flatMap((expert) => new Array<number>(mostDuplicates).fill(expert));
  return Array.from({ length: count }, (_, i) => at(round, i % round.length));
}

/** How unevenly experts are copied, in words for the line that says what changes. */
function utilityWords({ utility }: MultiplyRecipe, origins: Origins): string {
  if (utility === undefined) return "";
  const [fewest, most] = copyRange(origins);
  const text = utility.text === null ? "" : ` on ${utility.text.tokens} tokens of ${utility.text.source}`;
  return `, each ${fewest === most ? fewest : `${fewest} to ${most}`} times by its ${utility.by}${text}`;
}

/** How often the expert with the fewest copies and the one with the most are there, itself among them. */
function copyRange(origins: Origins): readonly [fewest: number, most: number] {
  const counts = origins.flatMap((layer) => {
    if (layer === null) return [];
    const times = new Map<number, number>();
    for (const origin of layer) times.set(origin, (times.get(origin) ?? 0) + 1);
    return [...times.values()];
  });
  return [Math.min(...counts), Math.max(...counts)];
}

function checkNumbers({ copies, topK, routerStd, seed, utility }: MultiplyRecipe): void {
  if (utility !== undefined && !(utility.noise >= 0 && utility.noise < Infinity))
    throw inputError(`the noise on copies' router rows is ${utility.noise}, expected a number of at least 0`);
  requireWhole(copies, 2, "the number of copies");
  requireWhole(seed, 0, "seed");
  if (topK !== null) requireWhole(topK, 1, "top k");
  if (!(routerStd >= 0 && routerStd < Infinity))
    throw inputError(`router std is ${routerStd}, expected a number of at least 0`);
}

function requireWhole(value: number, least: number, name: string): void {
  if (!Number.isSafeInteger(value) || value < least)
    throw inputError(`${name} is ${value}, expected a whole number of at least ${least}`);
}

/** The larger model: of the source's family if that can say it, else in our own format. */
function targetOf(source: DecoderSpec, recipe: MultiplyRecipe): DecoderSpec {
  const layers = source.layers.map((layer, index) =>
    layer.ffn.kind === "moe" ? { ...layer, ffn: multipliedFfn(layer.ffn, index, recipe) } : layer,
  );
  checkSize(recipe.copies, layers);
  const larger: DecoderSpec = { ...source, layers };
  return canSay(larger) ? larger : { ...larger, family: ownFamily };
}

function warningsOf(
  source: DecoderSpec,
  target: DecoderSpec,
  { experts, topK }: MoeFfn,
  { routerStd, utility }: MultiplyRecipe,
): string[] {
  return [
    ...(target.family === source.family
      ? []
      : [
          `${source.family} cannot say a model of ${experts} experts, ${topK} per token: written ` +
            "in our own format, which only upcycle loads",
        ]),
    ...(routerStd === 0 && (utility?.noise ?? 0) === 0
      ? [
          "copies have equal router rows, so they get equal gradients until something parts them: noise " +
            "(--router-std), or dropped tokens",
        ]
      : []),
  ];
}

/**
 * Each tensor is planned, named and listed in a header: so many that this alone would take minutes are refused
 * beforehand.
 */
function checkSize(copies: number, layers: readonly LayerSpec[]): void {
  const experts = layers.reduce((most, { ffn }) => (ffn.kind === "moe" ? Math.max(most, ffn.experts) : most), 0);
  const tensors = allExpertTensors({ layers });
  const refuse = (amount: string, limit: number): Error =>
    inputError(`${copies} copies of each expert are ${amount}, the limit is ${limit}`, { hint: "make fewer copies" });
  if (experts > mostExperts) throw refuse(`${experts} experts in a layer`, mostExperts);
  if (tensors > mostTensors) throw refuse(`${tensors} tensors`, mostTensors);
}

function multipliedFfn(ffn: MoeFfn, layer: number, { copies, topK, utility }: MultiplyRecipe): MoeFfn {
  const { router, experts } = ffn;
  if (utility !== undefined && router.groups !== null)
    throw inputError(
      `the router of layer ${layer} chooses among ${router.groups.count} groups of equally many experts, which some ` +
        "copied more often would not be",
      { hint: "copy all equally often: leave --multiply-by out" },
    );
  if (router.score === "sparsemixer")
    throw inputError(
      `the router of layer ${layer} (sparsemixer) gives a weight to two experts, one after the other, and ` +
        "copies would tie",
    );
  const chosen = topK ?? (utility === undefined ? copies * ffn.topK : ffn.topK);
  const groups =
    router.groups === null ? null : { count: copies * router.groups.count, kept: copies * router.groups.kept };
  const reach = groups === null ? copies * experts : (copies * experts * groups.kept) / groups.count;
  if (chosen > reach)
    throw inputError(`top ${chosen} is more than the ${reach} experts that a token of layer ${layer} can choose from`);
  return { ...ffn, experts: copies * experts, topK: chosen, router: { ...router, groups } };
}

/** The factor on down and its bias that keeps the output of a constant router. */
function downFactor(before: MoeFfn, after: MoeFfn): number {
  const sum = ({ router, experts, topK }: MoeFfn): number => topK * selectedWeight(router, experts, topK);
  if (before.router.renormalise !== null) return 1;
  return sum(before) / sum(after);
}

function valueOf(
  { key, at: { part, layer, expert } }: Slot,
  source: DecoderSpec,
  target: DecoderSpec,
  recipe: MultiplyRecipe,
  origins: Origins,
): Expr {
  const before = layer === undefined ? null : at(source.layers, layer).ffn;
  if (layer === undefined || before === null || before.kind === "dense") return read(key);
  const from = at(origins, layer) ?? [];
  if (expert === undefined) return routerValue(part, key, before, recipe, from);
  const own = read(slotKey({ part, layer, expert: at(from, expert) }));
  return isFfnPart(part) && isOutputPart(part) ? scale(own, downFactor(before, moeFfnOf(target, layer))) : own;
}

/** A tensor of the router, repeated for every copy of the experts; what is no part of it stays as it is. */
function routerValue(
  part: SlotPart,
  key: string,
  before: MoeFfn,
  recipe: MultiplyRecipe,
  origins: readonly number[],
): Expr {
  const { copies, utility } = recipe;
  const all = read(key);
  // The rows of all experts once for each copy; or once, and behind them those of single experts.
  const pieces =
    utility === undefined
      ? new Array<Expr>(copies).fill(all)
      : [all, ...origins.slice(before.experts).map((origin) => rowsOf(all, origin, 1))];
  const repeated = (change: (rows: Expr, copy: number) => Expr): Expr => concat(pieces.map(change), "rows");
  switch (part) {
    case "router":
      return repeated((rows, copy) => (copy === 0 ? rows : noisyRows(rows, `${key}.copy${copy}`, recipe)));
    case "routerBias":
      return repeated((rows) => rows);
    case "routerCorrection":
      return repeated((rows) => scale(rows, before.router.score === "softmax" ? 1 / copies : 1));
    default:
      return all;
  }
}

/** Router rows of copies, with the noise that the recipe asks for. */
function noisyRows(rows: Expr, stream: string, { routerStd, utility }: MultiplyRecipe): Expr {
  const noise = (of: Expr, std: number, relative: boolean, name: string): Expr =>
    std === 0 ? of : { op: "noise", of, std, relative, fraction: 1, stream: name };
  return noise(noise(rows, utility?.noise ?? 0, true, `${stream}.own`), routerStd, false, stream);
}

function expectation(
  before: MoeFfn,
  after: MoeFfn,
  { copies, routerStd, utility }: MultiplyRecipe,
  origins: Origins,
): ExpectedPreservation {
  const approximate = (why: string): ExpectedPreservation => ({ kind: "approximate", exactAtStart: false, why });
  const exact = (why: string): ExpectedPreservation => ({ kind: "exact", exactAtStart: true, why });
  if (routerStd > 0)
    return approximate(`noise of std ${formatFactor(routerStd)} on the copies' router rows parts them`);
  if ((utility?.noise ?? 0) > 0)
    return approximate(
      `noise of ${formatFactor(100 * (utility?.noise ?? 0))} % of their own std on the copies' router rows parts them`,
    );
  const { renormalise } = before.router;
  // What the divisor has beyond the sum must not matter.
  const plain =
    renormalise === null ||
    before.router.score === "softmax" ||
    (renormalise.plus <= 1e-12 && renormalise.atLeast === 0);
  const [fewest, most] = copyRange(origins);
  if (fewest !== most && !(after.topK === 1 && before.topK === 1 && plain))
    return approximate(
      `experts are there ${fewest} to ${most} times, so the ${after.topK} that a token chooses hold some twice in ` +
        "the place of others",
    );
  if (after.topK === copies * before.topK) {
    if (!plain)
      return approximate(
        `${renormalise.plus} is added to the divisor of the weights, whose sum is now ${copies} times as large`,
      );
    return exact(
      `the ${copies} copies of each of the best ${before.topK} are chosen, and their weights add up to its weight`,
    );
  }
  if (after.topK === 1 && before.topK === 1 && plain)
    return exact("one copy of the one chosen expert is chosen, with its weight");
  return approximate(
    `top ${after.topK} of ${after.experts} holds copies of the best ${formatFactor(after.topK / copies)} ` +
      `experts, not of ${before.topK}; ${copies * before.topK} would keep the function`,
  );
}
