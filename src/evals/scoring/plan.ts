/**
 * What is computed together, decided before anything is: sequences as trees (`tree.ts`), and batches of them by
 * length.
 */
import { at, entryOf } from "../../base/at.js";
import { keyDim } from "../../graph/nn/attention.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { Sequence } from "./sequences.js";
import { clustersOf, commonBlock, inputLength, isWhole, longest, separateClusters, type Cluster } from "./tree.js";

/** How much is computed at once. */
export interface Sizes {
  /** Tokens computed at once in each row. */
  readonly piece: number;
  /** Most tokens of all rows together. */
  readonly tokens: number;
  /** Most bytes of the cache. */
  readonly cacheBytes: number;
  /** Lengths are rounded up to these, so that few graphs are compiled; scored tokens too, few and many. */
  readonly step: {
    readonly stem: number;
    readonly branch: number;
    readonly capacity: number;
    readonly few: number;
    readonly many: number;
  };
}

/** Where scores of attention are kept, which grow with the square of a piece, and where each token costs. */
const small: Sizes = {
  piece: 512,
  tokens: 4096,
  cacheBytes: 1 << 30,
  step: { stem: 16, branch: 8, capacity: 64, few: 16, many: 64 },
};
/**
 * Where many tokens are best read at once, and a program costs more to make than it takes to run: long pieces, and few
 * lengths.
 */
const large = (tokensAtOnce: number): Sizes => ({
  piece: 2048,
  tokens: Math.min(tokensAtOnce, 1 << 14),
  cacheBytes: 2 ** 32,
  step: { stem: 64, branch: 32, capacity: 128, few: 64, many: 256 },
});
/** Most rows side by side. */
const MOST_ROWS = 64;

/** The next multiple of `step`. */
export const roundUp = (value: number, step: number): number => Math.ceil(value / step) * step;

/** Samples that are computed together, from the same block or from none. */
export interface Phase {
  readonly block: Int32Array;
  /** The samples of each batch. */
  readonly batches: readonly (readonly number[])[];
  /** Rows of a batch that begins with the block. */
  readonly rows: number;
  /** Tokens of the longest sequence. */
  readonly longest: number;
}

/** What has to be done for the samples of one task, decided before anything is computed. */
export interface ScoringPlan {
  readonly clusters: readonly (readonly Cluster[])[];
  readonly phases: readonly Phase[];
  readonly sizes: Sizes;
}

/** What sequences are, and on what they are computed. */
export interface ScoringSettings {
  /** Sequences are windows over texts. */
  readonly rolling: boolean;
  /** Tokens of all rows that are best read at once; see `ForwardRuntime.tokensAtOnce`. */
  readonly tokensAtOnce?: number | undefined;
}

/** The samples of one task as trees. */
interface Trees {
  readonly clusters: readonly (readonly Cluster[])[];
  readonly block: Int32Array;
  /** Whether each sample begins with the block. */
  readonly withBlock: readonly boolean[];
}

function treesOf(
  samples: readonly (readonly Sequence[])[],
  spec: DecoderSpec,
  { rolling }: Pick<ScoringSettings, "rolling">,
): Trees {
  const clusters = samples.map((sequences, sample) =>
    rolling ? separateClusters(sample, sequences) : clustersOf(sample, sequences),
  );
  const all = clusters.flat();
  const block = rolling || changesWithLength(spec, all) ? new Int32Array() : commonBlock(all);
  return { clusters, block, withBlock: clusters.map((own) => block.length > 0 && own.every(isWhole)) };
}

/** Tokens that are computed for each sample, its share of blocks left out. */
export function scoringTokens(
  samples: readonly (readonly Sequence[])[],
  spec: DecoderSpec,
  settings: Pick<ScoringSettings, "rolling">,
): readonly number[] {
  const { clusters, block, withBlock } = treesOf(samples, spec, settings);
  return clusters.map((own, sample) => tokensOf(own, withBlock[sample] === true ? block.length : 0));
}

/**
 * Plans the samples of one task. Batches depend on all samples, the model and the kind of device alone, so an
 * evaluation that is resumed computes the same ones.
 */
export function planScoring(
  samples: readonly (readonly Sequence[])[],
  spec: DecoderSpec,
  { rolling, tokensAtOnce }: ScoringSettings,
): ScoringPlan {
  const sizes = tokensAtOnce === undefined ? small : large(tokensAtOnce);
  const { clusters, block, withBlock } = treesOf(samples, spec, { rolling });
  const phases = [true, false].flatMap((isBlock): Phase[] => {
    const members = clusters.flatMap((own, sample) =>
      own.length > 0 && withBlock[sample] === isBlock ? [sample] : [],
    );
    return members.length === 0
      ? []
      : [phaseOf(members, clusters, isBlock ? block : new Int32Array(), { spec, sizes })];
  });
  return { clusters, phases, sizes };
}

/** Tokens up to which LongRoPE turns by its first angles; infinite for other rope. */
const originalPositions = ({ layers }: DecoderSpec): number =>
  Math.min(
    ...layers.map(({ rope }) => (rope?.scaling.kind === "longrope" ? rope.scaling.originalMaxPositions : Infinity)),
  );

/** Whether rope's angles depend on how long a text is, and these texts lie on both sides of the change. */
function changesWithLength(spec: DecoderSpec, clusters: readonly Cluster[]): boolean {
  const original = originalPositions(spec);
  return new Set(clusters.map((cluster) => longest(cluster) <= original)).size > 1;
}

/** Length of the rope tables for texts of up to so many tokens. */
export function positionsFor(spec: DecoderSpec, needed: number, step: number): number {
  const original = originalPositions(spec);
  if (original === Infinity) return Math.min(roundUp(needed, step), spec.maxPositions);
  return needed <= original ? original : spec.maxPositions;
}

const tokensOf = (clusters: readonly Cluster[], block: number): number =>
  clusters.reduce(
    (sum, { stem, branches }) =>
      sum + stem - block + branches.reduce((own, { sequence }) => own + inputLength(sequence) - stem, 0),
    0,
  );

/** On what a phase is computed. */
interface Machine {
  readonly spec: DecoderSpec;
  readonly sizes: Sizes;
}

function phaseOf(
  members: readonly number[],
  clusters: readonly (readonly Cluster[])[],
  block: Int32Array,
  machine: Machine,
): Phase {
  const lengthOf = (sample: number): number => Math.max(...at(clusters, sample).map(longest));
  const most = Math.max(...members.map(lengthOf));
  // Rows of a batch are as wide as its longest stem, then as its largest bundle of branches.
  const order = new Map(members.map((sample) => [sample, widthsOf(at(clusters, sample), block.length, machine)]));
  const sorted = [...members].sort((a, b) => {
    const [one, other] = [entryOf(order, a), entryOf(order, b)];
    return other.stem - one.stem || other.branches - one.branches || a - b;
  });
  const batches: number[][] = [];
  let rows = Infinity;
  for (const sample of sorted) {
    const last = batches.at(-1);
    const own = at(clusters, sample).length;
    const taken = last?.reduce((sum, one) => sum + at(clusters, one).length, 0) ?? Infinity;
    if (last !== undefined && taken + own <= rows) last.push(sample);
    else {
      batches.push([sample]);
      // With a block, all batches share one cache. Without one, each is as wide as its longest text allows.
      if (block.length === 0 || batches.length === 1) rows = rowsFor(machine, lengthOf(sample), block.length);
    }
  }
  const widest = Math.max(...batches.map((batch) => batch.reduce((sum, one) => sum + at(clusters, one).length, 0)));
  return { block, batches, rows: Math.min(block.length > 0 ? rows : MOST_ROWS, widest), longest: most };
}

/** What a sample takes in a row behind a block: its longest stem, as programs round it, and most branches' tokens. */
function widthsOf(
  clusters: readonly Cluster[],
  block: number,
  { sizes }: Machine,
): { readonly stem: number; readonly branches: number } {
  const stems = clusters.map(({ stem }) => stem - block);
  const branches = clusters.map(({ stem, branches: own }) =>
    own.reduce((sum, { sequence }) => sum + inputLength(sequence) - stem, 0),
  );
  return { stem: roundUp(Math.max(...stems), sizes.step.stem), branches: Math.max(...branches) };
}

/** How many rows fit side by side, of texts of so many tokens. */
function rowsFor({ spec, sizes }: Machine, length: number, block: number): number {
  const capacity = roundUp(length, sizes.step.capacity);
  const { kvHeads, headDim, latent } = spec.attn;
  const perToken = 4 * spec.layers.length * kvHeads * (keyDim(spec.attn) + (latent?.valueDim ?? headDim));
  const byCache = Math.floor(sizes.cacheBytes / (capacity * perToken));
  // Texts that LongRoPE turns by other angles than these would stand in one batch.
  if (block === 0 && originalPositions(spec) !== Infinity) return 1;
  const byTokens = Math.floor(sizes.tokens / Math.max(1, capacity - block));
  return Math.max(1, Math.min(MOST_ROWS, byCache, byTokens));
}
