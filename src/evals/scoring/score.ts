/**
 * Log-likelihoods of sequences from one cache of keys and values: block, stems and branches of `tree.ts`, several
 * clusters side by side.
 *
 * Letters: B rows (clusters), T new tokens in each, R tokens whose logits are needed, V vocabulary.
 */
import { at } from "../../base/at.js";
import { keyDim } from "../../graph/nn/attention.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { TextModel } from "../model.js";
import type { Sequence } from "./sequences.js";
import {
  clustersOf,
  commonBlock,
  inputLength,
  isWhole,
  longest,
  scoredFrom,
  separateClusters,
  type Cluster,
} from "./tree.js";

/** What a sequence is worth. */
export interface Score {
  /** Sum over the scored tokens, in nats. */
  readonly logLikelihood: number;
  /** Whether each scored token is the likeliest. */
  readonly greedy: boolean;
}

/** The scores of one sample's sequences. */
export interface SampleScores {
  readonly sample: number;
  readonly scores: readonly Score[];
}

/** Tokens computed at once in each row: scores of attention grow with their square. */
const PIECE = 512;
/** Lengths are rounded up to these, so that few graphs are compiled. */
const STEP = { stem: 32, branch: 8, capacity: 64, rows: 16 } as const;
/** Most rows side by side, and most tokens of theirs together. */
const MOST_ROWS = 16;
const MOST_TOKENS = 4096;
/** Most bytes of the cache, and most logits at once. */
const CACHE_BYTES = 1 << 30;
const MOST_LOGITS = 1 << 25;

const roundUp = (value: number, step: number): number => Math.ceil(value / step) * step;

/** Samples that are computed together, from the same block or from none. */
interface Phase {
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
  /** Tokens that are computed for each sample, its share of blocks left out. */
  readonly tokens: readonly number[];
}

/**
 * Plans the samples of one task. Batches depend on all samples and the model alone, so an evaluation that is resumed
 * computes the same ones. `rolling`: sequences are windows over texts.
 */
export function planScoring(
  samples: readonly (readonly Sequence[])[],
  spec: DecoderSpec,
  { rolling }: { readonly rolling: boolean },
): ScoringPlan {
  const clusters = samples.map((sequences, sample) =>
    rolling ? separateClusters(sample, sequences) : clustersOf(sample, sequences),
  );
  const all = clusters.flat();
  const block = rolling || changesWithLength(spec, all) ? new Int32Array() : commonBlock(all);
  const withBlock = clusters.map((own) => block.length > 0 && own.every(isWhole));
  const phases = [true, false].flatMap((isBlock): Phase[] => {
    const members = clusters.flatMap((own, sample) =>
      own.length > 0 && withBlock[sample] === isBlock ? [sample] : [],
    );
    return members.length === 0 ? [] : [phaseOf(members, clusters, isBlock ? block : new Int32Array(), spec)];
  });
  return {
    clusters,
    phases,
    tokens: clusters.map((own, sample) => tokensOf(own, withBlock[sample] === true ? block.length : 0)),
  };
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
function positionsFor(spec: DecoderSpec, needed: number): number {
  const original = originalPositions(spec);
  if (original === Infinity) return Math.min(roundUp(needed, STEP.capacity), spec.maxPositions);
  return needed <= original ? original : spec.maxPositions;
}

const tokensOf = (clusters: readonly Cluster[], block: number): number =>
  clusters.reduce(
    (sum, { stem, branches }) =>
      sum + stem - block + branches.reduce((own, { sequence }) => own + inputLength(sequence) - stem, 0),
    0,
  );

function phaseOf(
  members: readonly number[],
  clusters: readonly (readonly Cluster[])[],
  block: Int32Array,
  spec: DecoderSpec,
): Phase {
  const lengthOf = (sample: number): number => Math.max(...at(clusters, sample).map(longest));
  const sorted = [...members].sort((a, b) => lengthOf(b) - lengthOf(a) || a - b);
  const most = lengthOf(sorted[0]!);
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
      if (block.length === 0 || batches.length === 1) rows = rowsFor(spec, lengthOf(sample), block.length);
    }
  }
  const widest = Math.max(...batches.map((batch) => batch.reduce((sum, one) => sum + at(clusters, one).length, 0)));
  return { block, batches, rows: Math.min(block.length > 0 ? rows : MOST_ROWS, widest), longest: most };
}

/** How many rows fit side by side, of texts of so many tokens. */
function rowsFor(spec: DecoderSpec, length: number, block: number): number {
  const capacity = roundUp(length, STEP.capacity);
  const { kvHeads, headDim, latent } = spec.attn;
  const perToken = 4 * spec.layers.length * kvHeads * (keyDim(spec.attn) + (latent?.valueDim ?? headDim));
  const byCache = Math.floor(CACHE_BYTES / (capacity * perToken));
  // Texts that LongRoPE turns by other angles than these would stand in one batch.
  if (block === 0 && originalPositions(spec) !== Infinity) return 1;
  const byTokens = Math.floor(MOST_TOKENS / Math.max(1, capacity - block));
  return Math.max(1, Math.min(MOST_ROWS, byCache, byTokens));
}

/**
 * Computes the batches of a plan, and yields the scores of each. `isDone` says which batches are left out: those whose
 * samples are all known. Once the signal is aborted, it returns at the next piece.
 */
export async function* scoreBatches(
  model: TextModel,
  plan: ScoringPlan,
  isDone: (sample: number) => boolean,
  signal?: AbortSignal,
): AsyncGenerator<readonly SampleScores[]> {
  for (const phase of plan.phases) {
    const pending = phase.batches.filter((batch) => !batch.every(isDone));
    if (pending.length === 0) continue;
    const reader = new PhaseReader(model, phase, signal);
    await reader.readBlock();
    for (const batch of pending) {
      const sums = new Map(batch.map((sample) => [sample, new Sums()]));
      const clusters = batch.flatMap((sample) => plan.clusters[sample]!);
      for (let first = 0; first < clusters.length; first += phase.rows)
        await reader.read(clusters.slice(first, first + phase.rows), sums);
      if (signal?.aborted === true) return;
      yield batch.map((sample) => ({ sample, scores: sums.get(sample)!.scores() }));
    }
  }
}

/** Sums over the scored tokens of one sample's sequences. */
class Sums {
  private readonly all = new Map<number, { logLikelihood: number; greedy: boolean }>();

  add(place: number, logProbability: number, isLikeliest: boolean): void {
    const sum = this.all.get(place) ?? { logLikelihood: 0, greedy: true };
    sum.logLikelihood += logProbability;
    sum.greedy &&= isLikeliest;
    this.all.set(place, sum);
  }

  /** In the order of the sample's sequences. */
  scores(): readonly Score[] {
    return [...this.all].sort(([a], [b]) => a - b).map(([, score]) => score);
  }
}

/** A token whose logits are needed: the row, and its place among the row's tokens. */
interface Wanted {
  readonly row: number;
  readonly place: number;
}

/** New tokens of the rows, at the same time. */
interface Run {
  /** Tokens of each row that are in the cache before [B]. */
  readonly lengths: readonly number[];
  /** The new tokens of each row. */
  readonly tokens: readonly Int32Array[];
  /** Whether they join the cache. */
  readonly joins: boolean;
  readonly wanted: readonly Wanted[];
  readonly step: number;
}

/** Reads clusters behind one block. */
class PhaseReader {
  /** Tokens of the longest sequence that is read now. */
  private needed: number;

  constructor(
    private readonly model: TextModel,
    private readonly phase: Phase,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.needed = phase.longest;
  }

  private get stopped(): boolean {
    return this.signal?.aborted === true;
  }

  /** Puts the block into every row of the cache. */
  async readBlock(): Promise<void> {
    const { block, rows } = this.phase;
    if (block.length === 0) return;
    const { model } = this;
    const copies = model.repeatCache !== undefined;
    const width = copies ? 1 : rows;
    for (let first = 0; first < block.length && !this.stopped; first += PIECE) {
      const piece = block.subarray(first, first + PIECE);
      await this.run({
        lengths: Array.from({ length: width }, () => first),
        tokens: Array.from({ length: width }, () => piece),
        joins: true,
        wanted: [],
        step: STEP.stem,
      });
    }
    if (copies && rows > 1 && !this.stopped) await model.repeatCache?.(rows);
  }

  /** Adds up the scores of clusters, at most as many as the phase has rows. */
  async read(clusters: readonly Cluster[], sums: ReadonlyMap<number, Sums>): Promise<void> {
    const { block, rows } = this.phase;
    if (block.length === 0) this.needed = Math.max(...clusters.map(longest));
    await this.readStems(clusters, block.length === 0 ? clusters.length : rows, sums);
    await this.readBranches(clusters, block.length === 0 ? clusters.length : rows, sums);
  }

  private async readStems(clusters: readonly Cluster[], rows: number, sums: ReadonlyMap<number, Sums>): Promise<void> {
    const base = this.phase.block.length;
    const end = Math.max(...clusters.map(({ stem }) => stem));
    const scoring = clusters.filter(({ scoredFrom: from, stem }) => from < stem).length;
    const size = this.pieceSize(scoring, clusters);
    for (let first = base; first < end && !this.stopped; first += size) {
      const last = (row: number): number => Math.min(clusters[row]?.stem ?? 0, first + size);
      const rowList = Array.from({ length: rows }, (_, row) => row);
      const wanted = rowList.flatMap((row): Wanted[] =>
        placesFrom(Math.max(first, clusters[row]?.scoredFrom ?? Infinity), last(row)).map((place) => ({
          row,
          place: place - first,
        })),
      );
      const logits = await this.run({
        lengths: rowList.map((row) => Math.min(first, Math.max(base, clusters[row]?.stem ?? base))),
        tokens: rowList.map((row) => tokensBetween(clusters[row]?.branches[0]?.sequence, first, last(row))),
        joins: true,
        wanted,
        step: STEP.stem,
      });
      for (const [i, { row, place }] of wanted.entries()) {
        const { sample, branches } = at(clusters, row);
        const answer = answerAt(logits, i, this.model.spec.vocab);
        for (const { sequence, place: branch } of branches)
          if (first + place >= scoredFrom(sequence))
            addScore(sums.get(sample)!, branch, sequence, first + place, answer);
      }
    }
  }

  /** Pieces are short where the logits of all their tokens are needed. */
  private pieceSize(scoring: number, clusters: readonly Cluster[]): number {
    const most = Math.max(...clusters.map(({ stem, scoredFrom: from }) => stem - from));
    if (scoring * most * this.model.spec.vocab <= MOST_LOGITS) return PIECE;
    const fitting = Math.floor(MOST_LOGITS / (scoring * this.model.spec.vocab));
    return Math.max(STEP.stem, Math.min(PIECE, Math.floor(fitting / STEP.stem) * STEP.stem));
  }

  /** The first branch of every row at once, then the second, and so on; the cache keeps the stems alone. */
  private async readBranches(
    clusters: readonly Cluster[],
    rows: number,
    sums: ReadonlyMap<number, Sums>,
  ): Promise<void> {
    const most = Math.max(...clusters.map(({ branches }) => branches.length));
    for (let nth = 0; nth < most && !this.stopped; nth++) {
      const branchOf = (row: number) => clusters[row]?.branches[nth];
      const endOf = (row: number): number => {
        const branch = branchOf(row);
        return branch === undefined ? 0 : inputLength(branch.sequence);
      };
      const stemOf = (row: number): number => clusters[row]?.stem ?? this.phase.block.length;
      const rowList = Array.from({ length: rows }, (_, row) => row);
      const length = Math.max(...rowList.map((row) => endOf(row) - stemOf(row)));
      for (let first = 0; first < length && !this.stopped; first += PIECE) {
        const start = (row: number): number => stemOf(row) + first;
        const end = (row: number): number => Math.min(endOf(row), start(row) + PIECE);
        const wanted = rowList.flatMap((row): Wanted[] => {
          const branch = branchOf(row);
          if (branch === undefined) return [];
          return placesFrom(Math.max(start(row), scoredFrom(branch.sequence)), end(row)).map((place) => ({
            row,
            place: place - start(row),
          }));
        });
        const logits = await this.run({
          lengths: rowList.map((row) => Math.min(start(row), Math.max(stemOf(row), endOf(row)))),
          tokens: rowList.map((row) => tokensBetween(branchOf(row)?.sequence, start(row), end(row))),
          joins: first + PIECE < length,
          wanted,
          step: STEP.branch,
        });
        for (const [i, { row, place }] of wanted.entries()) {
          const { sequence, place: branch } = branchOf(row)!;
          const answer = answerAt(logits, i, this.model.spec.vocab);
          addScore(sums.get(at(clusters, row).sample)!, branch, sequence, start(row) + place, answer);
        }
      }
    }
  }

  /** Logits [R, V] of the wanted tokens, in their order. */
  private async run({ lengths, tokens, joins, wanted, step }: Run): Promise<Float32Array> {
    const { model, needed } = this;
    const capacity = roundUp(needed, STEP.capacity);
    const batch = tokens.length;
    const isFirst = lengths.every((length) => length === 0) && joins;
    const width = Math.min(PIECE, roundUp(Math.max(1, ...tokens.map(({ length }) => length)), step));
    const ids = new Int32Array(batch * width);
    tokens.forEach((own, row) => ids.set(own, row * width));
    const rows = new Int32Array(Math.max(1, roundUp(wanted.length, wanted.length > 1 ? STEP.rows : 1)));
    wanted.forEach(({ row, place }, i) => (rows[i] = row * width + place));
    const { logits } = await model.extend(
      {
        batch,
        tokens: width,
        capacity: isFirst ? 0 : capacity,
        positions: positionsFor(model.spec, needed),
      },
      {
        ids,
        lengths: Int32Array.from(lengths),
        counts: Int32Array.from(tokens, ({ length }) => (joins ? length : 0)),
        rows,
        capacity,
      },
    );
    return logits;
  }
}

/** Places from the first to before the last. */
const placesFrom = (first: number, end: number): number[] =>
  first >= end ? [] : Array.from({ length: end - first }, (_, i) => first + i);

const tokensBetween = (sequence: Sequence | undefined, first: number, end: number): Int32Array =>
  sequence === undefined || end <= first ? new Int32Array() : sequence.tokens.subarray(first, end);

/** What the model says behind a token: the log of a probability is a logit minus `logSum`. */
interface Answer {
  readonly logits: Float32Array;
  readonly logSum: number;
  readonly likeliest: number;
}

function answerAt(logits: Float32Array, row: number, vocab: number): Answer {
  const own = logits.subarray(row * vocab, (row + 1) * vocab);
  let likeliest = 0;
  for (let i = 1; i < vocab; i++) if (own[i]! > own[likeliest]!) likeliest = i;
  const largest = own[likeliest]!;
  let sum = 0;
  for (let i = 0; i < vocab; i++) sum += Math.exp(own[i]! - largest);
  return { logits: own, logSum: largest + Math.log(sum), likeliest };
}

function addScore(sums: Sums, branch: number, { tokens }: Sequence, place: number, answer: Answer): void {
  const target = at(tokens, place + 1);
  sums.add(branch, answer.logits[target]! - answer.logSum, answer.likeliest === target);
}
