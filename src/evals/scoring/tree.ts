/**
 * Sequences as trees: what sequences begin with in common is computed once. A block is common to a whole task (examples
 * that do not change), a stem to the sequences of one sample (its question), and branches are the rest (its choices).
 */
import type { Sequence } from "./sequences.js";

/** Sequences of one sample that begin alike. Lengths count what the model sees: all tokens but the last. */
export interface Cluster {
  /** Place of the sample. */
  readonly sample: number;
  readonly branches: readonly Branch[];
  /** Tokens that all branches begin with, at least one. */
  readonly stem: number;
  /** First token whose answer is scored. */
  readonly scoredFrom: number;
}

/** One sequence of a cluster. */
export interface Branch {
  readonly sequence: Sequence;
  /** Place among the sample's sequences. */
  readonly place: number;
}

/** Tokens that the model sees. */
export const inputLength = ({ tokens }: Sequence): number => tokens.length - 1;

/** Place of the first input whose answer is scored. */
export const scoredFrom = (sequence: Sequence): number => inputLength(sequence) - sequence.scored;

/** How many tokens two sequences begin with in common, of those that the model sees. */
function commonLength(a: Sequence, b: Sequence, most: number): number {
  const end = Math.min(most, inputLength(a), inputLength(b));
  let length = 0;
  while (length < end && a.tokens[length] === b.tokens[length]) length++;
  return length;
}

/** The clusters of one sample: sequences that share their first token. Longest branches come first. */
export function clustersOf(sample: number, sequences: readonly Sequence[]): readonly Cluster[] {
  const byFirst = new Map<number, Branch[]>();
  for (const [place, sequence] of sequences.entries()) {
    const branches = byFirst.get(sequence.tokens[0]!) ?? [];
    branches.push({ sequence, place });
    byFirst.set(sequence.tokens[0]!, branches);
  }
  return [...byFirst.values()].map((branches) => clusterOf(sample, branches));
}

/** A cluster of its own for each sequence, for windows over a text. */
export const separateClusters = (sample: number, sequences: readonly Sequence[]): readonly Cluster[] =>
  sequences.map((sequence, place) => clusterOf(sample, [{ sequence, place }]));

function clusterOf(sample: number, branches: readonly Branch[]): Cluster {
  const [{ sequence: first }] = branches as readonly [Branch];
  return {
    sample,
    branches: [...branches].sort((a, b) => inputLength(b.sequence) - inputLength(a.sequence) || a.place - b.place),
    stem: branches.reduce((most, { sequence }) => commonLength(first, sequence, most), inputLength(first)),
    scoredFrom: Math.min(...branches.map(({ sequence }) => scoredFrom(sequence))),
  };
}

/** A common beginning shorter than this is not worth a place of its own. */
const SHORTEST_BLOCK = 16;

/**
 * The tokens that all clusters begin with, none of them scored and none the last of a stem; empty where they are too
 * few, or there is one cluster only. Truncated sequences begin elsewhere and are left out.
 */
export function commonBlock(clusters: readonly Cluster[]): Int32Array {
  const whole = clusters.filter(isWhole);
  const [first] = whole;
  if (first === undefined || whole.length < 2) return new Int32Array();
  const [{ sequence }] = first.branches as readonly [Branch];
  const length = whole.reduce(
    (most, { branches, stem, scoredFrom: from }) =>
      commonLength(sequence, branches[0]!.sequence, Math.min(most, stem - 1, from)),
    Infinity,
  );
  return length < SHORTEST_BLOCK ? new Int32Array() : sequence.tokens.slice(0, length);
}

/** Whether no sequence of the cluster was truncated. */
export const isWhole = ({ branches }: Cluster): boolean => branches.every(({ sequence }) => !sequence.truncated);

/** Tokens of a cluster's longest sequence. */
export const longest = ({ branches }: Cluster): number => inputLength(branches[0]!.sequence);
