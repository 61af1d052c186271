/**
 * Sentences about the models themselves: whether the parent's function was kept, the load is balanced, and the experts
 * have moved apart.
 */
import { at } from "../../base/at.js";
import { fixed, percent, significant } from "../../base/format.js";
import type { ArmResult, Preservation } from "../../model/results/result.js";
import { meanOf } from "../../base/mean.js";
import { finalBalance } from "./statistics.js";
import { deadShare, unseenWords } from "../../model/results/collapse.js";
import { ofEachArm } from "./told-arms.js";
import { plural, signedNats } from "./wording.js";

/** The sentences of all arms, subject by subject; of the arms of a grid those about the one that stands out. */
export function healthFindings(arms: readonly ArmResult[]): string[] {
  return [
    ...ofEachArm(arms, preservationSentence, {
      by: startDistance,
      all: "were measured",
      most: "the one furthest from its parent",
    }),
    ...ofEachArm(arms, balanceSentence, { by: imbalance, all: "were measured", most: "the least balanced" }),
    ...ofEachArm(arms, collapseSentence, {
      by: ({ runs }) => runs.filter(({ unseenCollapse }) => unseenCollapse !== undefined).length,
      all: "collapsed",
      most: "the one with most such seeds",
    }),
    ...ofEachArm(arms, similaritySentence, {
      by: (arm) => 1 - (meanSimilarity(arm) ?? 1),
      all: "were measured",
      most: "the one whose experts have moved furthest",
    }),
  ];
}

/** The run whose child is furthest from its parent, because the report must not show the best case. */
function worstPreservation(arm: ArmResult): Preservation | null {
  const preservations = arm.runs.flatMap((run) => (run.preservation === null ? [] : [run.preservation]));
  if (preservations.length === 0) return null;
  const distance = ({ childLoss, parentLoss }: Preservation): number => Math.abs(childLoss - parentLoss);
  const isWorse = (a: number, b: number): boolean => !Number.isFinite(b) || b > a;
  return preservations.reduce((a, b) => (isWorse(distance(a), distance(b)) ? b : a));
}

/** Largest logit difference over all runs, relative to the parent's largest logit. */
export function relativeLogitError(arm: ArmResult): number | null {
  const ratios = arm.runs.flatMap((run) =>
    run.preservation === null ? [] : [run.preservation.maxAbsLogitDiff / run.preservation.maxAbsLogit],
  );
  return ratios.length === 0 ? null : Math.max(...ratios);
}

/** How far the worst run's child is from its parent before the first step, in nats. */
function startDistance(arm: ArmResult): number {
  const worst = worstPreservation(arm);
  const distance = worst === null ? 0 : Math.abs(worst.childLoss - worst.parentLoss);
  return Number.isFinite(distance) ? distance : Infinity;
}

/** The most dead experts of a run, and below them the largest share of a busy one. */
function imbalance({ runs }: ArmResult): number {
  const balances = runs.flatMap((run) => finalBalance(run) ?? []);
  const busiest = Math.max(0, ...balances.flatMap((one) => one.busiest));
  return Math.max(0, ...balances.map(({ dead }) => dead)) + 1 - 1 / (1 + busiest);
}

function preservationSentence(arm: ArmResult): string[] {
  const worst = worstPreservation(arm);
  const logits = relativeLogitError(arm);
  if (worst === null || logits === null) return [];
  const difference = worst.childLoss - worst.parentLoss;
  if (!Number.isFinite(difference))
    return [`${arm.label} did not keep the parent's function: its loss before the first step is not finite.`];
  const size = Math.abs(difference);
  const claim =
    size <= 0.001
      ? "started at the parent's loss"
      : size <= 0.05
        ? "started close to the parent's loss"
        : "did not start at the parent's loss";
  const change = difference === 0 ? "no difference" : signedNats(difference);
  return [
    `${arm.label} ${claim}: ${fixed(worst.childLoss, 4)} against ${fixed(worst.parentLoss, 4)} before the ` +
      `first step (${change}); ` +
      `logits differed by at most ${significant(logits, 2)} of the largest logit${worstOf(arm)}.`,
  ];
}

function worstOf(arm: ArmResult): string {
  return arm.runs.length > 1 ? `, the worst of ${arm.runs.length} seeds` : "";
}

function balanceSentence(arm: ArmResult): string[] {
  const balances = arm.runs.flatMap((run) => finalBalance(run) ?? []);
  if (balances.length === 0) return [];
  const busiest = Math.max(...balances.flatMap((one) => one.busiest));
  const dead = Math.max(...balances.map((one) => one.dead));
  const { experts } = at(balances, 0);
  const claim =
    dead === 0
      ? `No expert of ${arm.label} is dead`
      : `${plural(dead, "expert")} of ${arm.label} ${dead === 1 ? "is" : "are"} dead`;
  return [
    `${claim}: at the end the busiest of its ${experts} experts took ${significant(busiest, 2)} times an equal share` +
      `${worstOf(arm)}; dead means below ${percent(deadShare, 1)} of an equal share.`,
  ];
}

/** The first run whose layers collapsed while its load-balancing loss did not show it, and how many more did. */
function collapseSentence({ label, runs }: ArmResult): string[] {
  const found = runs.flatMap(({ seed, unseenCollapse }) =>
    unseenCollapse === undefined ? [] : [{ seed, unseenCollapse }],
  );
  if (found.length === 0) return [];
  const { seed, unseenCollapse } = at(found, 0);
  const seeds = runs.length === 1 ? "" : `, with seed ${seed} (${found.length} of ${runs.length} seeds collapsed)`;
  return [`In ${label} after step ${unseenCollapse.step}${seeds}: ${unseenWords(unseenCollapse)}.`];
}

/** Mean over layers and seeds above which experts count as still the copies that they began as. */
const hardlyMoved = 0.99;

/** Mean over layers and seeds of how alike experts and parent are at the end; null where it was not measured. */
function meanSimilarity({ runs }: ArmResult): number | null {
  const layers = runs.flatMap((run) => run.similarity.at(-1)?.layers ?? []);
  return layers.length === 0 ? null : meanOf(layers);
}

function similaritySentence(arm: ArmResult): string[] {
  const last = arm.runs.flatMap((run) => run.similarity.at(-1) ?? []).filter((one) => one.layers.length > 0);
  const first = arm.runs.flatMap((run) => run.similarity[0] ?? []).filter((one) => one.layers.length > 0);
  if (last.length === 0 || first.length === 0) return [];
  const layerCount = at(last, 0).layers.length;
  const byLayer = Array.from({ length: layerCount }, (_, layer) => meanOf(last.map((one) => at(one.layers, layer))));
  const now = meanOf(byLayer);
  const before = meanOf(first.flatMap((one) => one.layers));
  const claim =
    now >= hardlyMoved
      ? "have hardly moved from the parent's weights, so they are still near copies"
      : now >= 0.9
        ? "have begun to move apart from the parent's weights"
        : "have moved well apart from the parent's weights";
  const layers = layerCount > 1 ? `, layers ${fixed(Math.min(...byLayer))} to ${fixed(Math.max(...byLayer))}` : "";
  return [
    `In ${arm.label} the experts ${claim}: mean cosine similarity ${fixed(now)} (${fixed(before)} at the ` +
      `start${layers}).`,
  ];
}
