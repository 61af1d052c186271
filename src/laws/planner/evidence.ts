/**
 * How much lower an upcycled model's loss is where no law can say: an interval from what others have measured.
 *
 * A published loss difference counts the less the further its N, D1 and D2 are from those of the plan: a factor of
 * ten in one of them leaves 61 % (`reach`). The law's own difference at the nearest place inside of its range is the
 * prior; its weight falls with the distance to that place. The scatter between studies starts from the law's scatter
 * inside of its range, with the weight of four comparisons. What comes out is Student's interval for one more
 * comparison (normal data with a normal-inverse-gamma prior, evidence discounted by powers; our choice throughout).
 */
import { studentQuantile } from "../fitting/distributions.js";
import { lawErrors } from "./law-draws.js";
import { publishedComparisons, type ComparedWith, type PublishedComparison } from "./published-comparisons.js";

/** Where two models are compared. */
export interface Place {
  /** N. */
  readonly size: number;
  /** D1. */
  readonly seen: number;
  /** D2. */
  readonly tokens: number;
}

/** Differences as shares of the other model's loss: below 0 the upcycled model is better. */
export interface PublishedDifference {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
  /** The comparisons that it rests on, those with a loss, by their weight. */
  readonly rows: readonly { readonly id: string; readonly weight: number; readonly difference: number }[];
  /** The law's difference at the nearest place inside of its range, and its weight. */
  readonly law: { readonly weight: number; readonly difference: number };
  /** How many comparisons say that the upcycled model is better, worse, or that both are alike, losses and orders. */
  readonly orders: { readonly better: number; readonly alike: number; readonly worse: number };
}

/** Scatter of the relative difference, and how many comparisons it counts for: 2.4 % is the law's own inside. */
const scatter = { deviation: 0.025, weight: 4 } as const;
/** ln of the factor at which a comparison has lost 39 % of its weight: a factor of ten in one of N, D1, D2. */
const reach = Math.log(10);

/** How much a comparison counts at a place: 1 at its own. */
function weightAt({ size, seen, tokens }: Place, row: Place): number {
  const squared = Math.log(size / row.size) ** 2 + Math.log(seen / row.seen) ** 2 + Math.log(tokens / row.tokens) ** 2;
  return Math.exp(-squared / (2 * reach * reach));
}

/** Comparisons of an upcycled model with this one, without those of one group (to leave them out of a test). */
function rowsAgainst(against: ComparedWith, without: string | null): readonly PublishedComparison[] {
  return publishedComparisons.filter((row) => row.against === against && row.group !== without);
}

interface PublishedQuestion {
  readonly against: "dense" | "scratch";
  readonly place: Place;
  /** The law at the nearest place inside of its range, as a share, and how far (ln) that is. */
  readonly law: { readonly difference: number; readonly distance: number };
  /** Confidence. */
  readonly level: number;
  /** A group of comparisons to leave out. */
  readonly without?: string;
}

/** The interval of one more comparison like the published ones. */
export function publishedDifference({ against, place, law, level, without }: PublishedQuestion): PublishedDifference {
  const all = rowsAgainst(against, without ?? null);
  const rows = all.flatMap((row) => {
    if (row.measured.kind !== "loss") return [];
    // Rows of one group share a dense model: together they count as one comparison.
    const sharing = all.filter(({ group, measured }) => group === row.group && measured.kind === "loss").length;
    return [{ id: row.id, weight: weightAt(place, row) / sharing, difference: row.measured.difference }];
  });
  const variance = scatter.deviation ** 2;
  const growth = 2 * (lawErrors.growth * law.distance) ** 2;
  const lawWeight = variance / (variance + growth);
  const weight = rows.reduce((sum, row) => sum + row.weight, 0);
  const mean =
    (lawWeight * law.difference + rows.reduce((sum, row) => sum + row.weight * row.difference, 0)) /
    (lawWeight + weight);
  const squares =
    lawWeight * (law.difference - mean) ** 2 +
    rows.reduce((sum, row) => sum + row.weight * (row.difference - mean) ** 2, 0);
  const freedom = scatter.weight + weight;
  const deviation = Math.sqrt(((scatter.weight * variance + squares) / freedom) * (1 + 1 / (lawWeight + weight)));
  const half = studentQuantile((1 + level) / 2, freedom) * deviation;
  const count = (order: number): number => all.filter((row) => orderOf(row) === order).length;
  return {
    mean,
    low: mean - half,
    high: mean + half,
    rows,
    law: { weight: lawWeight, difference: law.difference },
    orders: { better: count(-1), alike: count(0), worse: count(1) },
  };
}

/** -1 where the upcycled model was better, 1 where it was worse. */
export function orderOf({ measured }: PublishedComparison): -1 | 0 | 1 {
  if (measured.kind === "order") return measured.order;
  return measured.difference < 0 ? -1 : 1;
}

/**
 * What a measurement of one's own would leave of an interval: the upcycled and the other model trained for fewer tokens
 * than planned. One pair of runs is off by half a per cent, and the difference drifts by about one per cent for each
 * e-fold of tokens that it is carried on (inside of the published law it moves by two, of which half is foreseen); the
 * four figures are ours.
 */
const ownRuns = { run: 0.005, drift: 0.01, share: 0.1 } as const;

/** A measurement that would narrow an interval. */
export interface Narrowing {
  /** Further tokens to train both models for. */
  readonly tokens: number;
  /** Half of the interval's width before and after, as shares of the loss. */
  readonly before: number;
  readonly after: number;
}

/** A tenth of the further tokens for both models, and what it would leave of this interval. */
export function narrowing({ low, high }: { low: number; high: number }, tokens: number, level: number): Narrowing {
  const before = (high - low) / 2;
  const own = Math.hypot(ownRuns.run, ownRuns.drift * -Math.log(ownRuns.share)) * studentQuantile((1 + level) / 2, 1e6);
  return { tokens: ownRuns.share * tokens, before, after: 1 / Math.hypot(1 / before, 1 / own) };
}
