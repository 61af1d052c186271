/**
 * What others have measured about upcycling, as far as it compares two models after equal tokens. A plan is tested
 * against these rows and, where its laws do not reach, answers from them.
 *
 * A loss stands here only where it was read in the paper's text. Accuracies, curves in figures and rules give the
 * order of the two models and no size of the difference.
 */

/** What stands beside the upcycled model: the dense model trained on, an MoE from scratch, or the parent as it is. */
export type ComparedWith = "dense" | "scratch" | "parent";

/** One comparison of an upcycled model with another after equal further tokens. */
export interface PublishedComparison {
  readonly id: string;
  /** Rows that share a model and a run: leaving one out leaves all of them out. */
  readonly group: string;
  readonly title: string;
  readonly source: string;
  /** `text`: read in the paper itself; `abstract`: in its abstract alone; `notes`: in notes about the paper. */
  readonly read: "text" | "abstract" | "notes";
  /** N, D1 and D2: parameters of the dense parent, its tokens, further tokens. */
  readonly size: number;
  readonly seen: number;
  readonly tokens: number;
  /** Which of N, D1 and D2 are ours because the paper's could not be read; null: none. */
  readonly assumed: string | null;
  /** Recipe of the MoE; null: not stated where the numbers were read. */
  readonly recipe: string | null;
  readonly against: ComparedWith;
  /**
   * `loss`: loss of the upcycled model less that of the other, as a share of the other's, and half a unit of the last
   * printed digit. `order`: -1 where the upcycled model is better, 1 where it is worse, 0 where both are alike.
   */
  readonly measured:
    | { readonly kind: "loss"; readonly difference: number; readonly rounding: number }
    | { readonly kind: "order"; readonly order: -1 | 0 | 1 };
  /** What was measured, in words. */
  readonly words: string;
}

const he = "He et al. 2024 (arXiv 2410.07524)";
const skywork = "Wei et al. 2024 (arXiv 2406.06563), sections 3.2 and 3.3, figure 1";

/** All rows, in the order in which they are shown. */
export const publishedComparisons: readonly PublishedComparison[] = [
  {
    id: "he-2b",
    group: "he-2b",
    title: "Nemotron 2B",
    source: `${he}, section 3.1, figure 4a`,
    read: "text",
    size: 2e9,
    seen: 1.1e12,
    tokens: 1.1e11,
    assumed: null,
    recipe: null,
    against: "dense",
    measured: { kind: "loss", difference: -0.011, rounding: 0.0005 },
    words: "loss 1.1 % below continued dense",
  },
  {
    id: "he-15b-e8g8t8",
    group: "he-15b",
    title: "Nemotron-4 15B",
    source: `${he}, table 1`,
    read: "text",
    size: 15e9,
    seen: 8e12,
    tokens: 1e12,
    assumed: null,
    recipe: "E8G8T8",
    against: "dense",
    measured: { kind: "loss", difference: 1.32 / 1.377 - 1, rounding: 0.0005 },
    words: "loss 1.320, continued dense 1.377; as many FLOPs",
  },
  {
    id: "he-15b-e8g1t2",
    group: "he-15b",
    title: "Nemotron-4 15B",
    source: `${he}, table 1`,
    read: "text",
    size: 15e9,
    seen: 8e12,
    tokens: 1e12,
    assumed: null,
    recipe: "E8G1T2",
    against: "dense",
    measured: { kind: "loss", difference: 1.306 / 1.377 - 1, rounding: 0.0005 },
    words: "loss 1.306, continued dense 1.377; more FLOPs",
  },
  {
    id: "doubov",
    group: "doubov",
    title: "1.4B (and 436M)",
    source: "Doubov, Sardana, Chiley 2024 (PMLR 262; arXiv 2411.08968)",
    read: "notes",
    size: 1.4e9,
    seen: 2.8e10,
    tokens: 1.4e10,
    assumed: "D1 (20 tokens a parameter) and D2 (half of D1)",
    recipe: null,
    against: "dense",
    measured: { kind: "order", order: -1 },
    words: "lower loss than continued pre-training",
  },
  {
    id: "liew-1b",
    group: "liew-1b",
    title: "1B",
    source: "Liew, Kato, Takase 2025 (arXiv 2502.03009), table 7",
    read: "notes",
    size: 1e9,
    seen: 7.4e10,
    tokens: 3.7e10,
    assumed: null,
    recipe: "E8G1T2",
    against: "parent",
    measured: { kind: "order", order: -1 },
    words: "mean accuracy of 7 tasks 52.94, parent 49.98",
  },
  {
    id: "he-2b-scratch",
    group: "he-2b",
    title: "Nemotron 2B",
    source: `${he}, section 3.1, figure 4b`,
    read: "text",
    size: 2e9,
    seen: 1.1e12,
    tokens: 1.1e11,
    assumed: null,
    recipe: null,
    against: "scratch",
    measured: { kind: "order", order: -1 },
    words: "lower loss than from scratch at equal compute",
  },
  {
    id: "skywork-100b",
    group: "skywork-100b",
    title: "0.3B, parent of 100B tokens",
    source: skywork,
    read: "text",
    size: 3e8,
    seen: 1e11,
    tokens: 1e11,
    assumed: null,
    recipe: "E8G1T2",
    against: "scratch",
    measured: { kind: "order", order: 0 },
    words: "after 100B tokens alike",
  },
  {
    id: "skywork-300b",
    group: "skywork-300b",
    title: "0.3B, parent of 300B tokens",
    source: `${skywork}; the rule: from scratch if the MoE's budget is at least twice the dense model's cost`,
    read: "text",
    size: 3e8,
    seen: 3e11,
    tokens: 3e11,
    assumed: null,
    recipe: "E8G1T2",
    against: "scratch",
    measured: { kind: "order", order: 1 },
    words: "at twice the dense cost worse than from scratch",
  },
  {
    id: "drop-upcycling",
    group: "drop-upcycling",
    title: "1.5B (and 152M, 3.7B)",
    source: "Nakamura et al. 2025 (arXiv 2502.19261), abstract; sizes and tokens from notes about the paper",
    read: "abstract",
    size: 1.5e9,
    seen: 1e12,
    tokens: 5e11,
    assumed: null,
    recipe: "E8G1T2",
    against: "scratch",
    measured: { kind: "order", order: 1 },
    words: "ahead at first, behind from scratch in the long term",
  },
];
