/** What the server says of experts, as plain data. */

/** Shares by layer and expert at one step of a training, as multiples of an equal share [moments][layers][experts]. */
export interface ExpertHistory {
  readonly run: string;
  readonly steps: readonly number[];
  readonly tokens: readonly number[];
  readonly load: readonly (readonly (readonly number[])[])[];
  /** Entropy of each router in nats [moments][layers]; empty where the log has none. */
  readonly entropy: readonly (readonly number[])[];
  /** Largest load over the mean, less 1 [moments][layers]. */
  readonly violation: readonly (readonly number[])[];
  /** Mean cosine of experts and the part of the parent's FFN they came from [moments][layers]; empty without parent. */
  readonly similarity: readonly (readonly number[])[];
  /** The same of each expert [moments][layers][experts]; empty where the log has none. */
  readonly expertSimilarity: readonly (readonly (readonly number[])[])[];
  /** Dead experts at each moment [moments][layers][]. */
  readonly dead: readonly (readonly (readonly number[])[])[];
  /** Experts of one copy of the dense FFN; the number of experts where they are not in copies. */
  readonly group: number;
}

/**
 * Which experts of one layer serve the same tokens, over time. A pair's ratio is its share over what choices would give
 * that are independent but for the loads, and never take an expert twice.
 */
export interface CoactivationHistory {
  readonly run: string;
  /** Number of the layer among the MoE layers, and how many there are. */
  readonly layer: number;
  readonly layers: number;
  readonly experts: number;
  readonly topK: number;
  readonly steps: readonly number[];
  readonly tokens: readonly number[];
  /** Whether all pairs are there, or only those that are taken together most often. */
  readonly complete: boolean;
  /** Pairs at each moment, the strongest first. */
  readonly moments: readonly (readonly {
    readonly a: number;
    readonly b: number;
    readonly share: number;
    readonly ratio: number | null;
  }[])[];
}

/** What `upcycle experts --json` found of one layer, as far as it is shown. */
export interface ExpertFileLayer {
  readonly layer: number;
  readonly shares: readonly number[];
  readonly dead: readonly number[];
  readonly entropy: number;
  readonly relativeEntropy: number;
  /** Cosine of all weights of two experts [experts][experts]. */
  readonly weights: readonly (readonly number[])[];
  /** Counts over what independent choices would give [experts][experts]; null on the diagonal. */
  readonly coactivation: readonly (readonly (number | null)[])[] | null;
  /** Cosine of each expert with its part of the parent's FFN; null without a parent. */
  readonly parent: readonly number[] | null;
}

/** A file of `upcycle experts --json`. */
export interface ExpertFile {
  readonly name: string;
  readonly model: string;
  readonly tokens: number;
  readonly texts: readonly string[];
  readonly layers: readonly ExpertFileLayer[];
}
