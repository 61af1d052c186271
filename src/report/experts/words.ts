/** What was found of an MoE's experts, in words that the terminal and the page share. */
import { at } from "../../base/at.js";
import { compact, fixed, grouped, percent, significant } from "../../base/format.js";
import { meanOf } from "../../base/mean.js";
import type {
  ChangeCost,
  ExpertLayer,
  ExpertsChange,
  ExpertsReport,
  Specialisation,
} from "../../model/results/experts.js";

/** `3:7, 5:0` as text: an expert, or experts that are merged, with its layer. */
export function changeName({ groups }: Pick<ExpertsChange, "groups">): string {
  return groups.map(({ layer, experts }) => `${layer}:${experts.join("+")}`).join(", ");
}

/** A difference of losses with its sign. */
export const signed = (value: number, digits = 3): string =>
  value === 0 ? "0" : `${value < 0 ? "-" : "+"}${significant(Math.abs(value), digits)}`;

/** What the texts are and how much of them was used. */
export function textWords({ texts, tokens, heldOutTokens, sequence, loss }: ExpertsReport): string {
  const held = loss === null ? "" : `, costs on ${grouped(heldOutTokens)} held-out ones`;
  const names = texts.map(({ name }) => name).join(", ");
  return `${names}: ${grouped(tokens)} tokens looked at${held}, sequences of ${sequence}`;
}

/** A pair of experts of a layer and what was measured of it. */
interface FoundPair {
  readonly pair: readonly [number, number];
  readonly value: number;
}

/** The pair with the largest value of a symmetric matrix; null where no pair has one. */
export function largestPair(matrix: readonly (readonly (number | null)[])[]): FoundPair | null {
  let found: FoundPair | null = null;
  for (const [a, row] of matrix.entries())
    for (const [b, value] of row.entries())
      if (b > a && value !== null && (found === null || value > found.value)) found = { pair: [a, b], value };
  return found;
}

/** Mean over the pairs of a symmetric matrix; NaN without pairs. */
export const pairMean = (matrix: readonly (readonly number[])[]): number =>
  meanOf(matrix.flatMap((row, a) => row.filter((_, b) => b > a)));

/** `1+4 0.98` */
export const pairWords = (found: FoundPair | null, digits = 2): string =>
  found === null ? "-" : `${found.pair.join("+")} ${significant(found.value, digits)}`;

/** Mutual information beyond chance, marked where chance does as much. */
export function informationWords({ excess, p }: Specialisation): string {
  return `${fixed(Math.max(0, excess), 3)}${p > 0.05 ? "~" : ""}`;
}

/** An expert with a text or class of which it takes far more than its share. */
interface Specialist {
  readonly layer: number;
  readonly expert: number;
  readonly what: string;
  /** Its share of those tokens' choices over its share of all choices. */
  readonly times: number;
  /** Its share of those tokens' choices. */
  readonly share: number;
}

/** Fewer tokens of a class, or fewer choices of an expert than that load promises, show none: chance alone would. */
const fewest = { tokens: 50, choices: 5 };

/** The experts with the strongest preference, each with the text or class that it prefers most. */
export function specialists({ layers, texts, classes, tokens, sequence }: ExpertsReport, count: number): Specialist[] {
  const found = layers.flatMap((layer) => {
    const rows = [
      ...(texts.length === 1
        ? []
        : texts.map(({ name, observed }, i) => ({
            what: name,
            tokens: observed * sequence,
            shares: layer.byText[i] ?? null,
          }))),
      ...classes.map(({ name, tokens: own }, i) => ({ what: name, tokens: own, shares: layer.byClass[i] ?? null })),
    ].filter((row) => row.tokens >= fewest.tokens && row.tokens < tokens);
    return layer.load.shares.flatMap((all, expert): Specialist[] => {
      const preferences = rows.flatMap(({ what, tokens: ofThose, shares }) => {
        const own = shares?.[expert] ?? 0;
        const promised = (ofThose * layer.topK * all) / layer.experts;
        return promised < fewest.choices
          ? []
          : [{ layer: layer.layer, expert, what, times: own / all, share: own / layer.experts }];
      });
      return preferences.sort((a, b) => b.times - a.times).slice(0, 1);
    });
  });
  return found.sort((a, b) => b.times - a.times).slice(0, count);
}

/** The main findings, a sentence each. */
export function findings(report: ExpertsReport): string[] {
  return [loadFinding(report), specialisationFinding(report), ...costFindings(report)];
}

function loadFinding({ layers, tokens }: ExpertsReport): string {
  const unchosen = layers.reduce((sum, { load }) => sum + load.unchosen.length, 0);
  const busiest = layers.reduce(
    (best, layer) => (layer.load.largest > best.load.largest ? layer : best),
    at(layers, 0),
  );
  const share = significant(busiest.load.largest, 2);
  const most = `The busiest expert has ${share} times an equal share (layer ${busiest.layer}).`;
  if (unchosen === 0) return `Every expert was chosen. ${most}`;
  const limit = at(layers, 0).load.unchosenBelow;
  const who = unchosen === 1 ? "1 expert was" : `${unchosen} experts were`;
  return (
    `${who} never chosen by ${grouped(tokens)} tokens, which excludes (at 95 %, tokens taken as independent) that ` +
    `one is chosen by more than 1 token in ${compact(1 / limit)}. ${most}`
  );
}

function specialisationFinding({ layers, texts }: ExpertsReport): string {
  const most = (of: (layer: ExpertLayer) => Specialisation | null): string => {
    const found = layers.flatMap((layer) => {
      const value = of(layer);
      return value === null ? [] : [{ layer: layer.layer, ...value }];
    });
    const best = found.sort((a, b) => b.excess - a.excess)[0];
    if (best === undefined) return "";
    if (best.p > 0.05) return "no more than chance would in any layer";
    return `up to ${fixed(best.excess, 3)} of ${fixed(best.most, 2)} bits (layer ${best.layer})`;
  };
  const ofText = texts.length === 1 ? "" : `, and of its text ${most(({ specialisation }) => specialisation.text)}`;
  const ofClass = most(({ specialisation }) => specialisation.tokenClass);
  return `A choice of an expert says of the token's class ${ofClass}${ofText}.`;
}

function costFindings({ costs, loss }: ExpertsReport): string[] {
  if (loss === null) return [];
  return (["without", "merged"] as const).flatMap((kind) => {
    const [cheapest] = costs.filter((cost) => cost.kind === kind);
    if (cheapest === undefined) return [];
    const verb = kind === "without" ? "leave out" : "merge";
    return [
      `Cheapest to ${verb} of those measured: ${changeName(cheapest)}, ${signed(cheapest.difference)} nats per token` +
        `${spreadWords(cheapest)} on a loss of ${fixed(loss, 4)}.`,
    ];
  });
}

/** ` ± 0.002`, the standard error. */
export const spreadWords = ({ error }: Pick<ChangeCost, "error">): string =>
  error === null ? "" : ` ± ${significant(error, 2)}`;

/** Rows of the table of costs, the heading first. */
export function costRows({ costs }: ExpertsReport): string[][] {
  const rows = costs.map((cost) => [
    `${cost.kind === "without" ? "without" : "merged"} ${changeName(cost)}`,
    cost.expected === null ? "asked" : percent(cost.expected, 2),
    signed(cost.difference),
    cost.error === null ? "-" : significant(cost.error, 2),
    cost.interval === null ? "-" : `${signed(cost.interval[0], 2)} to ${signed(cost.interval[1], 2)}`,
  ]);
  return [["change", "expected\nto move", "nats per\ntoken", "standard\nerror", "95 % interval"], ...rows];
}

/** Rows of the table of routers, the heading first. */
export function routerRows({ layers, texts }: ExpertsReport): string[][] {
  const heading = ["layer", "experts", "largest\nshare", "least\nshare", "CV", "dead", "entropy", "mass", "margin"];
  const rows = layers.map(({ layer, experts, topK, load, router, specialisation: { text, tokenClass } }) => [
    String(layer),
    `${topK} of ${experts}`,
    significant(load.largest, 2),
    significant(load.smallest, 2),
    fixed(load.variation, 2),
    String(load.dead.length),
    percent(router.relativeEntropy),
    percent(router.mass),
    significant(router.margin, 2),
    informationWords(tokenClass),
    ...(text === null ? [] : [informationWords(text)]),
  ]);
  return [[...heading, "class\nbits", ...(texts.length === 1 ? [] : ["text\nbits"])], ...rows];
}

/** Rows of the table of similarities, the heading first. */
export function similarityRows({ layers, parent }: ExpertsReport): string[][] {
  const heading = ["layer", "weights\nmean", "most alike", "outputs\nmean", "most alike", "together\nx chance"];
  const rows = layers.map(({ layer, similarity: { weights, outputs, parent: ofParent }, coactivation }) => [
    String(layer),
    fixed(pairMean(weights), 3),
    pairWords(largestPair(weights), 3),
    fixed(pairMean(outputs), 3),
    pairWords(largestPair(outputs), 3),
    coactivation === null ? "-" : pairWords(largestPair(coactivation.ratios)),
    ...(ofParent === null ? [] : [fixed(meanOf(ofParent.weights), 3)]),
  ]);
  return [[...heading, ...(parent === null ? [] : ["parent's\nweights"])], ...rows];
}
