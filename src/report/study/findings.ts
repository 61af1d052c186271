/**
 * What a study found, in words, most important first. Every sentence is computed from the numbers and says so when the
 * result is not what one hoped for: a difference that may be chance is called that, a worse arm is called worse, and
 * nothing is extrapolated beyond the measured tokens and FLOPs.
 */
import { at } from "../../base/at.js";
import { compact, fixed, percent, significant } from "../../base/format.js";
import { answerFindings } from "./answers.js";
import { bothComparisons, comparisonSentence } from "./comparison-sentence.js";
import { comparisonsAmong, type Compare } from "./comparisons.js";
import { healthFindings } from "./health-findings.js";
import type { ArmResult, ParentResult } from "../../model/results/result.js";
import { meanOf } from "../../base/mean.js";
import { significance } from "./paired.js";
import { firstReach, parentOf, reached, recipeShape, spread } from "./statistics.js";
import { lossName, type ShownStudy } from "./shown.js";
import { MOST_TOLD, ofEachArm } from "./told-arms.js";
import { armName, joinedByAnd, lossWithRange, nats, plural } from "./wording.js";

/** What a study has measured, before it is put into words. */
type Measurements = Omit<ShownStudy, "findings">;

/** The findings of a study, a sentence each or a few that belong together. */
export function findings(result: Measurements): string[] {
  const all = [
    ...answerFindings(result),
    ...(isGrid(result) ? gridFindings(result) : parentFindings(result)),
    ...finalLosses(result),
    ...againstParents(result),
    ...healthFindings(result.arms),
    ...(isGrid(result) ? [] : result.parents.flatMap(({ id }) => cost(armsOf(result, id)))),
    ...seedMeaning(result),
    ...scale(result),
  ];
  // What holds with every parent is said once.
  return [...new Set(all)];
}

const armsOf = ({ arms }: Measurements, id: string): readonly ArmResult[] => arms.filter(({ parent }) => parent === id);

/** Whether there are too many parents and arms to tell of each: what was asked of them says more. */
const isGrid = ({ parents, arms }: Measurements): boolean => parents.length > 1 && arms.length > MOST_TOLD;

/** The arms of each parent beside each other. */
function parentFindings(result: Measurements): string[] {
  const compare = comparisonsAmong(result.arms);
  return [
    ...result.parents.flatMap((parent) => armFindings(armsOf(result, parent.id), parent, compare)),
    ...result.parents.flatMap(({ id }) => tieAdvice(armsOf(result, id), compare)),
  ];
}

/** Until when parents are worth something: upcycled arms beside ones from random weights with as many tokens. */
function gridFindings(result: Measurements): string[] {
  const lossOf = (arm: ArmResult): number => spread(arm.runs.map(({ finalLoss }) => finalLoss))?.mean ?? NaN;
  const tokensOf = (arm: ArmResult): number => reached(arm, "tokens") ?? NaN;
  const beside = result.arms
    .filter(({ kind }) => kind === "upcycled")
    .flatMap((arm) => {
      const scratch = armsOf(result, arm.parent).find(
        (other) => other.kind === "scratch" && tokensOf(other) === tokensOf(arm),
      );
      const difference = scratch === undefined ? NaN : lossOf(arm) - lossOf(scratch);
      return Number.isFinite(difference) ? [{ arm, difference }] : [];
    });
  const [first, ...others] = beside;
  if (first === undefined) return [];
  const below = beside.filter(({ difference }) => difference < 0).length;
  const { arm, difference } = others.reduce((most, one) => (one.difference > most.difference ? one : most), first);
  return [
    `${below} of ${beside.length} upcycled arms ended below the same model from random weights after as many further ` +
      `tokens; ${arm.label}, which gained least by its parent, ended ${nats(Math.abs(difference))} ` +
      `${difference < 0 ? "below" : "above"} it.`,
  ];
}

/** How the arms of one parent did beside each other. */
function armFindings(own: readonly ArmResult[], { tokens }: ParentResult, compare: Compare): string[] {
  const dense = own.find((arm) => arm.kind === "dense") ?? null;
  const scratch = own.find((arm) => arm.kind === "scratch") ?? null;
  const upcycled = byFinalLoss(own.filter((arm) => arm.kind === "upcycled"));
  return [
    ...againstDense(upcycled, dense, compare),
    ...againstScratch(upcycled, scratch, tokens, compare),
    ...coarseAgainstFine(upcycled, compare),
  ];
}

/** The arms by their final loss, the best first; arms without a finite one come last. */
export function byFinalLoss(arms: readonly ArmResult[]): readonly ArmResult[] {
  const finalLoss = (arm: ArmResult): number => spread(arm.runs.map((run) => run.finalLoss))?.mean ?? Infinity;
  return [...arms].sort((a, b) => {
    const [lossA, lossB] = [finalLoss(a), finalLoss(b)];
    return lossA === lossB ? 0 : lossA - lossB;
  });
}

function againstDense(upcycled: readonly ArmResult[], dense: ArmResult | null, compare: Compare): string[] {
  if (upcycled.length === 0) return ["No upcycled model is part of this study, so it says nothing about upcycling."];
  if (dense === null)
    return ["No continued dense training is part of this study, so it cannot say whether upcycling paid off."];
  const sentences = upcycled.flatMap((arm, index) => {
    const name = index === 0 ? armName(arm) : arm.label;
    const [tokens, flops] = (["tokens", "flops"] as const).map((axis) => compare(arm, dense, axis));
    if (tokens == null)
      return [`${name} and ${dense.label} cannot be compared: one of them has a run without a finite loss.`];
    return [
      flops == null ? comparisonSentence(name, dense.label, tokens) : bothComparisons(name, dense.label, tokens, flops),
    ];
  });
  return [...sentences, ...scheduleCaveat(upcycled, dense)];
}

/**
 * At equal FLOPs the arm that is dearer per token is read before its end, where its learning rate may not have come
 * down.
 */
function scheduleCaveat(upcycled: readonly ArmResult[], dense: ArmResult): string[] {
  const ratios = upcycled.map((arm) => ({ label: arm.label, ratio: arm.flopsPerToken / dense.flopsPerToken }));
  const apart = ratios.filter(({ ratio }) => Math.max(ratio, 1 / ratio) > 1.05);
  if (apart.length === 0) return [];
  const parts = apart.map(({ label, ratio }) => `${label} ${significant(ratio, 2)} times ${dense.label}`);
  return [
    `At equal FLOPs an arm that needs more FLOPs per token (${joinedByAnd(parts)}) is read before the end of its ` +
      "run; if its learning rate was still to come down there, that counts against it.",
  ];
}

function againstScratch(
  upcycled: readonly ArmResult[],
  scratch: ArmResult | null,
  parentTokens: number | null,
  compare: Compare,
): string[] {
  const best = upcycled[0];
  if (scratch === null || best === undefined) return [];
  const comparison = compare(best, scratch, "tokens");
  if (comparison === null) return [];
  const parentCost =
    parentTokens === null
      ? "the parent's own training"
      : `the ${compact(parentTokens)} tokens that the parent was trained on`;
  const sentence = `${comparisonSentence(best.label, scratch.label, comparison)} This does not count ${parentCost}.`;
  const tokens = best.runs.map((run) => firstReach(run.points, "tokens", comparison.b.mean));
  const catchUp = tokens.some((count) => count === null) ? Number.NaN : meanOf(tokens as number[]);
  // At 0 the upcycled arm began where scratch ended; that scratch ended above the parent is said elsewhere.
  if (!(catchUp > 0)) return [sentence];
  return [
    sentence,
    `${scratch.label} needed ${compact(comparison.at)} tokens to come to ${fixed(comparison.b.mean)}; ` +
      `${best.label} was there after ${compact(Math.round(catchUp))} tokens (${percent(catchUp / comparison.at)}).`,
  ];
}

/** Compares the best upcycled arm of several experts for each copy with the best of one. */
function coarseAgainstFine(upcycled: readonly ArmResult[], compare: Compare): string[] {
  const granularity = (arm: ArmResult): number => recipeShape(arm.recipe)?.granularity ?? Number.NaN;
  const coarse = upcycled.find((arm) => granularity(arm) === 1);
  const fine = upcycled.find((arm) => granularity(arm) > 1);
  if (coarse === undefined || fine === undefined) return [];
  const comparisons = (["tokens", "flops"] as const).map((axis) => compare(fine, coarse, axis));
  return comparisons.flatMap((comparison) =>
    comparison === null ? [] : [comparisonSentence(fine.label, coarse.label, comparison)],
  );
}

/**
 * Which of the two best arms to take where they cannot be told apart: the one that is cheaper per token, for serving
 * and for further training alike.
 */
function tieAdvice(arms: readonly ArmResult[], compare: Compare): string[] {
  const [best, second] = byFinalLoss(arms);
  if (best === undefined || second === undefined) return [];
  if (compare(best, second, "tokens")?.judgement.verdict !== "chance") return [];
  const cost = ({ flopsPerToken, params }: ArmResult): number => flopsPerToken + params.total * 1e-9;
  const [take, other] = cost(second) < cost(best) ? [second, best] : [best, second];
  const saved =
    cost(take) === cost(other)
      ? ""
      : `: it needs ${compact(take.flopsPerToken)} FLOP per token and ${compact(take.params.total)} parameters, ` +
        `${other.label} ${compact(other.flopsPerToken)} and ${compact(other.params.total)}`;
  return [
    `The two best arms cannot be told apart at equal tokens, ${best.label} and ${second.label}. Until more seeds ` +
      `tell them apart, take ${take.label}${saved}.`,
  ];
}

function finalLosses(result: Measurements): string[] {
  const sentences: string[] = [];
  const ends = byFinalLoss(result.arms).flatMap((arm) => {
    const losses = spread(arm.runs.map((run) => run.finalLoss));
    const missing = arm.runs.length - (losses?.n ?? 0);
    if (missing > 0)
      sentences.push(`${plural(missing, "run")} of ${arm.runs.length} of ${arm.label} did not end with a finite loss.`);
    return losses === null ? [] : [`${armName(arm)} ${lossWithRange(losses)}`];
  });
  if (ends.length === 0) return ["No arm of this study ended with a finite loss.", ...sentences];
  if (ends.length > MOST_TOLD) {
    const [first, last] = [at(ends, 0), at(ends, ends.length - 1)];
    return [
      `${lossName(result)}, of ${ends.length} arms from the lowest to the highest: ${first} to ${last}.`,
      ...sentences,
    ];
  }
  const spreadWords = result.arms.some((arm) => arm.runs.length > 1)
    ? `mean over the seeds, lowest to highest seed in brackets, ${seedCounts(result.arms)}`
    : "one seed per arm, so the spread is unknown";
  return [`${lossName(result)}: ${joinedByAnd(ends)} (${spreadWords}).`, ...sentences];
}

function seedCounts(arms: readonly ArmResult[]): string {
  const counts = [...new Set(arms.map((arm) => arm.runs.length))].sort((a, b) => a - b);
  return counts.length === 1
    ? `${plural(at(counts, 0), "seed")} per arm`
    : `${counts[0]} to ${counts.at(-1)} seeds per arm`;
}

/**
 * A sentence for each arm that ended above the parent: further training did not help, or scratch did not get so far.
 */
function againstParents(result: Measurements): string[] {
  const aboveParent = (arm: ArmResult): number => {
    const loss = spread(arm.runs.map((run) => run.finalLoss));
    return loss === null ? NaN : loss.mean - parentOf(result, arm).loss;
  };
  const sentences = (arm: ArmResult): string[] => {
    const difference = aboveParent(arm);
    if (!(difference > 0)) return [];
    const above = `${nats(difference)} above the parent's ${fixed(parentOf(result, arm).loss)}`;
    if (result.progress !== undefined) return [`${arm.label} is ${above}.`];
    if (arm.kind === "scratch")
      return [`${arm.label} did not come down to the parent within its tokens: it ended ${above}.`];
    return [`Further training did not help ${arm.label}: it ended ${above}.`];
  };
  return ofEachArm(result.arms, sentences, {
    by: aboveParent,
    all: `${result.progress === undefined ? "ended" : "are"} above their parent`,
    most: "the one furthest above",
  });
}

function cost(arms: readonly ArmResult[]): string[] {
  const dense = arms.find((arm) => arm.kind === "dense");
  if (dense === undefined || dense.runs.length === 0) return [];
  const tokensPerSecond = (arm: ArmResult): number => meanOf(arm.runs.map((run) => run.tokensPerSecond));
  const memory = (arm: ArmResult): number => Math.max(...arm.runs.map((run) => run.peakRssBytes ?? 0));
  const parts = arms
    .filter((arm) => arm.kind !== "dense" && arm.runs.length > 0)
    .map((arm) => {
      const params = significant(arm.params.total / dense.params.total, 2);
      const speedRatio = significant(tokensPerSecond(arm) / tokensPerSecond(dense), 2);
      const ratio = memory(arm) / memory(dense);
      // Megatron-LM's log may not say it.
      const memoryRatio =
        Number.isFinite(ratio) && ratio > 0 ? `${significant(ratio, 2)} times the peak memory` : "peak memory unknown";
      const sizes = `${params} times the parameters, ${speedRatio} times the tokens per second`;
      return `${arm.label} ${sizes} and ${memoryRatio}`;
    });
  return parts.length === 0 ? [] : [`The price, measured against ${dense.label}: ${parts.join("; ")}.`];
}

function seedMeaning(result: Measurements): string[] {
  const drawn = "the order of the data, the router and freshly drawn weights";
  const isOne = result.parents.length === 1;
  const varies = isOne ? `${drawn}; the parent is one and the same` : drawn;
  const count = Math.min(...result.arms.map((arm) => arm.runs.length));
  if (result.arms.length === 0 || count < 1) return [];
  if (count < 2) {
    return [
      `A seed sets ${varies}. With a single seed this study cannot tell a difference between arms ` +
        `${isOne ? "" : "of one parent "}from chance.`,
    ];
  }
  return [
    `The ${count} seeds vary ${varies}, so the spread ${isOne ? "" : "over them "}does not show what another parent ` +
      'would change. Arms are compared seed by seed, and "better" and "worse" mean that chance alone would make such ' +
      `a difference of any two arms in fewer than ${percent(significance)} of studies like this one; ` +
      "what may be chance may still be there.",
  ];
}

/**
 * The smallest published upcycling study: such studies used 2B to 15B parameters and 0.1T to 1T further tokens (He et
 * al. 2024, arXiv 2410.07524).
 */
const smallestPublished = { params: 2e9, tokens: 1e11 };

function scale(result: Measurements): string[] {
  const { text } = result;
  if (text === undefined) return [];
  const tokens = Math.max(0, ...result.arms.map((arm) => reached(arm, "tokens") ?? 0));
  const largest = result.parents.reduce((a, b) => (b.params.total > a.params.total ? b : a));
  const params = largest.params.total;
  const passes = (tokens + (largest.tokens ?? 0)) / text.trainTokens;
  const sentences = [
    `Scale: a parent of ${compact(params)} parameters and ${compact(tokens)} further tokens per arm ` +
      (`(${significant(tokens / params, 2)} per parameter), judged on ${compact(text.judgedTokens)} ` +
        "held-out tokens."),
  ];
  const smaller = smallestPublished.params / params;
  const fewer = smallestPublished.tokens / tokens;
  if (smaller > 2 || fewer > 2) {
    sentences.push(
      `The smallest published comparison that we stand beside (${compact(smallestPublished.params, 1)} parameters, ` +
        `${compact(smallestPublished.tokens)} tokens) used ${gap(smaller, fewer)}; the order of the arms may change ` +
        "with scale.",
    );
  }
  if (passes > 1.05) {
    const parentPart = largest.tokens === null ? "" : ", the parent's training included";
    sentences.push(
      `The training text was read about ${significant(passes, 2)} times${parentPart}, so part of what was ` +
        "learnt may be this text by heart.",
    );
  }
  return sentences;
}

/** By how much the smallest published study is larger, in words. */
function gap(smaller: number, fewer: number): string {
  const parts = [
    ...(smaller > 2 ? [`${compact(smaller, 2)} times the parameters`] : []),
    ...(fewer > 2 ? [`${compact(fewer, 2)} times the tokens`] : []),
  ];
  return joinedByAnd(parts);
}
