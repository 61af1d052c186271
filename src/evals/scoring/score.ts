/**
 * Log-likelihoods of sequences from one cache of keys and values: block, stems and branches of `tree.ts`, several
 * clusters side by side, as `plan.ts` has planned them. The branches of a cluster are read together, each behind the
 * stem alone. Logits stay where they are computed; what comes back are the scores of the tokens that are asked about.
 *
 * Letters: B rows (clusters), T new tokens in each, R tokens that are scored.
 */
import { at } from "../../base/at.js";
import type { TextModel } from "../model.js";
import { positionsFor, roundUp, type Phase, type ScoringPlan, type Sizes } from "./plan.js";
import type { Sequence } from "./sequences.js";
import { inputLength, longest, scoredFrom, type Branch, type Cluster } from "./tree.js";

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
    const reader = new PhaseReader(model, phase, plan.sizes, signal);
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

/** A token that is scored: what follows it, and which sequence of which sample gains by it. */
interface Wanted {
  readonly row: number;
  /** Place among the row's new tokens. */
  readonly place: number;
  readonly target: number;
  readonly sample: number;
  /** The sequence's place in its sample. */
  readonly sequence: number;
}

/** New tokens of the rows, at the same time. */
interface Run {
  /** Tokens of each row that are in the cache before [B]. */
  readonly lengths: readonly number[];
  /** The new tokens of each row: one text, or several that go on from the row's past. */
  readonly texts: readonly (readonly Int32Array[])[];
  /** Whether the texts, one in each row, join the cache. */
  readonly joins: boolean;
  /** Whether a row may have several texts. */
  readonly branches: boolean;
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
    private readonly sizes: Sizes,
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
    const { piece: most, step } = this.sizes;
    const copies = model.repeatCache !== undefined;
    const width = copies ? 1 : rows;
    for (let first = 0; first < block.length && !this.stopped; first += most) {
      const piece = block.subarray(first, first + most);
      await this.run({
        lengths: Array.from({ length: width }, () => first),
        texts: Array.from({ length: width }, () => [piece]),
        joins: true,
        branches: false,
        wanted: [],
        step: step.stem,
      });
    }
    if (copies && rows > 1 && !this.stopped) await model.repeatCache?.(rows);
  }

  /** Adds up the scores of clusters, at most as many as the phase has rows. */
  async read(clusters: readonly Cluster[], sums: ReadonlyMap<number, Sums>): Promise<void> {
    const { block, rows: all } = this.phase;
    if (block.length === 0) this.needed = Math.max(...clusters.map(longest));
    const rows = Array.from({ length: block.length === 0 ? clusters.length : all }, (_, row) => row);
    await this.readStems(clusters, rows, sums);
    for (const round of roundsOf(clusters, this.sizes)) await this.readBranches(clusters, rows, round, sums);
  }

  private async readStems(
    clusters: readonly Cluster[],
    rows: readonly number[],
    sums: ReadonlyMap<number, Sums>,
  ): Promise<void> {
    const base = this.phase.block.length;
    const { piece, step } = this.sizes;
    const end = Math.max(...clusters.map(({ stem }) => stem));
    const isRead = clusters.some((cluster) => longest(cluster) > cluster.stem);
    for (let first = base; first < end && !this.stopped; first += piece) {
      const last = (row: number): number => Math.min(clusters[row]?.stem ?? 0, first + piece);
      await this.run(
        {
          lengths: rows.map((row) => Math.min(first, Math.max(base, clusters[row]?.stem ?? base))),
          texts: rows.map((row) => [tokensBetween(clusters[row]?.branches[0]?.sequence, first, last(row))]),
          // What nothing goes on from need not be kept.
          joins: isRead || first + piece < end,
          branches: false,
          wanted: clusters.flatMap(({ sample, branches }, row) =>
            branches.flatMap((branch) => wantedOf(branch, sample, { row, first, end: last(row), place: 0 })),
          ),
          step: step.stem,
        },
        sums,
      );
    }
  }

  /** Branches of all rows behind their stems, which the cache keeps alone; one that is long is read in pieces. */
  private async readBranches(
    clusters: readonly Cluster[],
    rows: readonly number[],
    round: readonly (readonly Branch[])[],
    sums: ReadonlyMap<number, Sums>,
  ): Promise<void> {
    const { piece, step } = this.sizes;
    const stemOf = (row: number): number => clusters[row]?.stem ?? this.phase.block.length;
    const lengthOf = (row: number, { sequence }: Branch): number => inputLength(sequence) - stemOf(row);
    const most = Math.max(...round.map((own, row) => own.reduce((sum, branch) => sum + lengthOf(row, branch), 0)));
    const together = most <= piece;
    for (let first = 0; first < most && !this.stopped; first += piece) {
      const wanted: Wanted[] = [];
      const texts = rows.map((row) => {
        let place = 0;
        return (round[row] ?? []).map((branch) => {
          const from = stemOf(row) + first;
          const text = tokensBetween(branch.sequence, from, Math.min(inputLength(branch.sequence), from + piece));
          wanted.push(
            ...wantedOf(branch, at(clusters, row).sample, { row, first: from, end: from + text.length, place }),
          );
          place += text.length;
          return text;
        });
      });
      await this.run(
        {
          lengths: rows.map((row) => {
            const [own] = round[row] ?? [];
            return stemOf(row) + (own === undefined ? 0 : Math.min(first, lengthOf(row, own)));
          }),
          texts,
          joins: first + piece < most,
          branches: together,
          wanted,
          step: step.branch,
        },
        sums,
      );
    }
  }

  /** Computes new tokens and adds up the scores of those that are wanted. */
  private async run(
    { lengths, texts, joins, branches, wanted, step }: Run,
    sums: ReadonlyMap<number, Sums> = new Map(),
  ): Promise<void> {
    const { model, needed } = this;
    const { piece, step: steps } = this.sizes;
    const capacity = roundUp(needed, steps.capacity);
    const batch = texts.length;
    const isFirst = lengths.every((length) => length === 0);
    const sizes = texts.map((own) => own.reduce((sum, { length }) => sum + length, 0));
    const width = Math.min(piece, roundUp(Math.max(1, ...sizes), step));
    const ids = new Int32Array(batch * width);
    // Tokens of no text see themselves alone.
    const starts = Int32Array.from(ids, (_, i) => i % width);
    texts.forEach((own, row) => {
      let place = 0;
      for (const text of own) {
        ids.set(text, row * width + place);
        starts.fill(place, row * width + place, row * width + place + text.length);
        place += text.length;
      }
    });
    const scored = Math.max(1, roundUp(wanted.length, wanted.length > steps.many ? steps.many : steps.few));
    const [rows, targets] = [new Int32Array(scored), new Int32Array(scored)];
    wanted.forEach(({ row, place, target }, i) => {
      rows[i] = row * width + place;
      targets[i] = target;
    });
    const { output } = await model.extend(
      {
        batch,
        tokens: width,
        capacity: isFirst ? 0 : capacity,
        positions: positionsFor(model.spec, needed, steps.capacity),
        branches,
      },
      {
        ids,
        lengths: Int32Array.from(lengths),
        counts: Int32Array.from(sizes, (size) => (joins ? size : 0)),
        ...(branches && { starts }),
        rows,
        targets,
        capacity,
      },
    );
    for (const [i, { sample, sequence }] of wanted.entries()) {
      const score = output[2 * i]!;
      sums.get(sample)!.add(sequence, score, output[2 * i + 1] === 1 && !Number.isNaN(score));
    }
  }
}

/** A run of tokens of a row's sequences, and where it stands among the row's new tokens. */
interface Place {
  readonly row: number;
  /** Tokens [first, end) of the sequence. */
  readonly first: number;
  readonly end: number;
  readonly place: number;
}

/** The scored tokens of a sequence among those of a run. */
function wantedOf(
  { sequence, place: own }: Branch,
  sample: number,
  { row, first, end, place }: Place,
): readonly Wanted[] {
  const wanted: Wanted[] = [];
  for (let token = Math.max(first, scoredFrom(sequence)); token < end; token++)
    wanted.push({ row, place: place + token - first, target: at(sequence.tokens, token + 1), sample, sequence: own });
  return wanted;
}

/**
 * Which branches of each cluster are read together: as many as fit beside those of the other clusters; where one is
 * longer than a piece, one of each. Branches that end with the stem have nothing left to read.
 */
function roundsOf(clusters: readonly Cluster[], { piece, tokens }: Sizes): readonly (readonly (readonly Branch[])[])[] {
  const left = clusters.map(({ branches, stem }) => branches.filter(({ sequence }) => inputLength(sequence) > stem));
  const rounds: Branch[][][] = [];
  while (left.some((own) => own.length > 0)) {
    const lengthOf = (row: number, { sequence }: Branch): number => inputLength(sequence) - at(clusters, row).stem;
    const isLong = left.some((own, row) => own[0] !== undefined && lengthOf(row, own[0]) > piece);
    const room = isLong ? 0 : Math.min(piece, Math.floor(tokens / clusters.length));
    rounds.push(
      left.map((own, row) => {
        let taken = 0;
        let count = 0;
        for (const branch of own) {
          taken += lengthOf(row, branch);
          if (count > 0 && taken > room) break;
          count++;
        }
        return own.splice(0, count);
      }),
    );
  }
  return rounds;
}

const tokensBetween = (sequence: Sequence | undefined, first: number, end: number): Int32Array =>
  sequence === undefined || end <= first ? new Int32Array() : sequence.tokens.subarray(first, end);
