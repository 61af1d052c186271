/**
 * What the experts of an MoE do, as it was measured on texts: `upcycle experts --json` prints it.
 *
 * Letters: E experts of a layer, C texts, L classes of tokens.
 */

/** How the choices of a layer's router fall on its experts. */
export interface ExpertLoad {
  /** How many tokens chose each expert [E]. */
  readonly counts: readonly number[];
  /** Each expert's share of all choices as a multiple of an equal share [E]. */
  readonly shares: readonly number[];
  readonly largest: number;
  readonly smallest: number;
  /** Standard deviation of the counts over their mean. */
  readonly variation: number;
  /** Experts with less than 1 % of an equal share. */
  readonly dead: readonly number[];
  /** Experts that no token chose; they are dead too. */
  readonly unchosen: readonly number[];
  /**
   * The largest probability of being chosen by a token at which an expert is still missed by all tokens in 5 of 100
   * samples, tokens taken as independent: what that of an unchosen expert lies below.
   */
  readonly unchosenBelow: number;
}

/** Mutual information of an expert and a label, in bits per choice. */
export interface Specialisation {
  /** As counted, which chance makes larger than 0. */
  readonly bits: number;
  /** Mean of the same with labels that were dealt out anew. */
  readonly byChance: number;
  /** `bits` less `byChance`. */
  readonly excess: number;
  /** Share of deals with at least as many bits, this sample counted as one of them. */
  readonly p: number;
  /** Entropy of the labels in bits: no more can be known. */
  readonly most: number;
}

/** How sure a router is, as means over tokens. */
export interface RouterCertainty {
  /** Entropy of the softmax over all experts, in nats. */
  readonly entropy: number;
  /** The same as a share of its largest value, ln E. */
  readonly relativeEntropy: number;
  /** Share of all scores that the chosen experts have. */
  readonly mass: number;
  /** How far the last chosen expert is in front of the first that is not chosen, in the router's own scores. */
  readonly margin: number;
  /** Deciles 1, 5 and 9 of that margin. */
  readonly margins: readonly [number, number, number];
}

/** Which experts serve the same tokens. */
export interface Coactivation {
  /** How many tokens chose both [E, E]; an expert with itself: how many chose it. */
  readonly counts: readonly (readonly number[])[];
  /**
   * Counts over what independent choices with these loads would give [E, E]; null on the diagonal and where nothing is
   * expected.
   */
  readonly ratios: readonly (readonly (number | null)[])[];
}

/** How alike the experts of a layer are. */
export interface ExpertSimilarity {
  /** Cosine of all weights of two experts, gate, up and down in one vector, units by their place [E, E]. */
  readonly weights: readonly (readonly number[])[];
  /** The same of each matrix [E, E]. */
  readonly matrices: Readonly<Record<string, readonly (readonly number[])[]>>;
  /** Cosine of what two experts make of the same inputs of the layer, all inputs in one vector [E, E]. */
  readonly outputs: readonly (readonly number[])[];
  /** How many inputs those are. */
  readonly inputs: number;
  /** Null without a dense parent. */
  readonly parent: ParentSimilarity | null;
}

/** How alike the experts of a layer are to the FFN of the dense model that they were made from. */
export interface ParentSimilarity {
  /** Cosine of each expert's weights with the part of the FFN that it was made of, the mean over its matrices [E]. */
  readonly weights: readonly number[];
  /** Cosine of each expert's outputs with the whole FFN's [E]; null where experts are parts of it. */
  readonly outputs: readonly number[] | null;
}

/** What is known of one layer of experts. */
export interface ExpertLayer {
  readonly layer: number;
  readonly experts: number;
  readonly topK: number;
  readonly load: ExpertLoad;
  /** Each expert's share of a text's choices as a multiple of an equal share [C, E]. */
  readonly byText: readonly (readonly number[])[];
  /** The same of the tokens of a class [L, E]; null for a class without tokens. */
  readonly byClass: readonly (readonly number[] | null)[];
  readonly specialisation: {
    /** Null for a single text. */
    readonly text: Specialisation | null;
    readonly tokenClass: Specialisation;
  };
  readonly router: RouterCertainty;
  /** Null where a token has one expert. */
  readonly coactivation: Coactivation | null;
  readonly similarity: ExpertSimilarity;
  /** Each expert's part of what the routed experts add: mean weight times size of its output, as a share of all [E]. */
  readonly contribution: readonly number[];
}

/** A change of a model's experts. */
export interface ExpertsChange {
  readonly kind: "without" | "merged";
  /**
   * Layers with the experts that are left out or share the mean of their weights; a layer may stand for many groups.
   */
  readonly groups: readonly { readonly layer: number; readonly experts: readonly number[] }[];
}

/**
 * What a change costs on held-out text: differences of losses in nats per token, the changed model's less the model's.
 */
export interface ChangeCost extends ExpertsChange {
  /** Whether the user asked for it; else it is a candidate that was found. */
  readonly asked: boolean;
  /** What it was chosen by: the share of the layer's routed output that it is expected to move; null if asked for. */
  readonly expected: number | null;
  readonly loss: number;
  readonly difference: number;
  /** Standard error of the difference over sequences, each compared with itself; null for a single one. */
  readonly error: number | null;
  /** 95 % interval by Student's t; null for a single sequence. */
  readonly interval: readonly [number, number] | null;
  /** The difference on each text [C]. */
  readonly byText: readonly number[];
}

/** A text that was measured on. */
export interface MeasuredText {
  readonly name: string;
  /** Sequences that were looked at, and those on which costs were measured. */
  readonly observed: number;
  readonly heldOut: number;
}

/** Everything that `upcycle experts` found. */
export interface ExpertsReport {
  readonly version: 1;
  readonly model: string;
  readonly family: string;
  readonly parent: string | null;
  readonly texts: readonly MeasuredText[];
  /** Tokens of one sequence. */
  readonly sequence: number;
  /** Tokens that were looked at. */
  readonly tokens: number;
  readonly heldOutTokens: number;
  /** Names of the classes of tokens, and how many tokens each has. */
  readonly classes: readonly { readonly name: string; readonly tokens: number }[];
  readonly seed: number;
  readonly layers: readonly ExpertLayer[];
  /** The model's own loss on the held-out text, in nats per token; null where nothing was measured there. */
  readonly loss: number | null;
  /** Cheapest first. */
  readonly costs: readonly ChangeCost[];
}
