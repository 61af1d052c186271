import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { openModel, type TextModel } from "../../../src/evals/model.js";
import { planScoring, scoringTokens, type ScoringSettings } from "../../../src/evals/scoring/plan.js";
import { scoreBatches, type Score } from "../../../src/evals/scoring/score.js";
import { rollingWindows, type Sequence } from "../../../src/evals/scoring/sequences.js";
import { inThread } from "../../support/backend.js";
import { golden } from "../../support/golden.js";

const sequence = (tokens: readonly number[], scored: number, truncated = false): Sequence => ({
  tokens: Int32Array.from(tokens),
  scored,
  truncated,
});

const text = (length: number, first: number): number[] =>
  Array.from({ length }, (_, i) => ((i + first) * 37 + 11) % 96);

/** The score of a sequence by a forward pass over all of it, without a cache. */
async function whole(model: TextModel, { tokens, scored }: Sequence): Promise<Score> {
  const { vocab } = model.spec;
  const length = tokens.length - 1;
  const logits = await model.logits(tokens.slice(0, length), { batch: 1, sequence: length });
  let logLikelihood = 0;
  let greedy = true;
  for (let place = length - scored; place < length; place++) {
    const row = [...logits.subarray(place * vocab, (place + 1) * vocab)];
    const largest = Math.max(...row);
    const target = at(tokens, place + 1);
    logLikelihood += at(row, target) - largest - Math.log(row.reduce((sum, one) => sum + Math.exp(one - largest), 0));
    greedy &&= row.indexOf(largest) === target;
  }
  return { logLikelihood, greedy };
}

async function expectScores(
  model: TextModel,
  samples: readonly (readonly Sequence[])[],
  settings: Partial<ScoringSettings> & { readonly isDone?: (sample: number) => boolean } = {},
): Promise<number[]> {
  const { rolling = false, tokensAtOnce, isDone = () => false } = settings;
  const found = new Map<number, readonly Score[]>();
  const plan = planScoring(samples, model.spec, { rolling, tokensAtOnce });
  for await (const batch of scoreBatches(model, plan, isDone))
    for (const { sample, scores } of batch) found.set(sample, scores);
  for (const [sample, scores] of found) {
    expect(scores).toHaveLength(samples[sample]!.length);
    for (const [i, score] of scores.entries()) {
      const expected = await whole(model, samples[sample]![i]!);
      const error = Math.abs(score.logLikelihood - expected.logLikelihood);
      // Sums over hundreds of tokens of a model with random weights have thousands of nats.
      expect(error, `sample ${sample}, ${i}`).toBeLessThan(1e-6 * Math.max(100, -expected.logLikelihood));
      expect(score.greedy).toBe(expected.greedy);
    }
  }
  return [...found.keys()].sort((a, b) => a - b);
}

/** Examples that all samples share, a question, and choices of several lengths. */
const withBlock = (block: number): Sequence[][] =>
  Array.from({ length: 9 }, (_, sample) => {
    const stem = [...text(block, 0), ...text(5 + 3 * sample, 100 * (sample + 1))];
    return [1, 4, 2, 9].map((length, choice) => sequence([...stem, ...text(length, 7 * choice + sample)], length));
  });

describe("log-likelihoods from one cache", () => {
  it.each(["dense/llama", "dense/gpt2", "dense/gemma2", "moe/mixtral"])(
    "%s: a shared block, stems and choices give what whole forward passes give",
    async (name) => {
      const model = await openModel(golden(name), inThread, 1);
      const all = [0, 1, 2, 3, 4, 5, 6, 7, 8];
      expect(await expectScores(model, withBlock(40))).toEqual(all);
      expect(await expectScores(model, withBlock(0))).toEqual(all);
      await model.close();
    },
  );

  it("repeats the block by computing it where the runtime cannot copy rows", async () => {
    const model = await openModel(golden("dense/llama"), inThread, 1);
    await expectScores({ ...model, repeatCache: undefined }, withBlock(40));
    await model.close();
  });

  it("scores one-token choices, choices that begin alike, contexts that differ, and lone continuations", async () => {
    const model = await openModel(golden("dense/llama"), inThread, 1);
    const stem = text(20, 3);
    await expectScores(model, [
      [5, 6, 7].map((token) => sequence([...stem, token], 1)),
      [sequence([...stem, 1, 2, 3], 3), sequence([...stem, 1, 2, 4, 5], 4)],
      // Contexts that share nothing, as in WinoGrande with a model without BOS.
      [sequence([9, ...stem, 1, 2], 2), sequence([8, ...stem, 1, 2], 2)],
      [sequence([...stem, 50, 51], 1)],
      // One context is the whole of another.
      [sequence([...stem, 1], 1), sequence([...stem, 1, 2, 3], 1)],
      [sequence(text(100, 9), 2, true), sequence(text(90, 9), 2)],
    ]);
    await model.close();
  });

  it("reads choices that are longer than a piece in pieces, and many choices in rounds", async () => {
    const model = await openModel(golden("dense/llama"), inThread, 1);
    const long = { ...model, spec: { ...model.spec, maxPositions: 2048 } };
    const stem = text(20, 3);
    const choice = (length: number, first: number): Sequence => sequence([...stem, ...text(length, first)], length);
    await expectScores(long, [
      [choice(530, 1), choice(7, 2), choice(520, 3)],
      [choice(40, 4), choice(3, 5)],
      Array.from({ length: 30 }, (_, i) => choice(20 + i, 6 + i)),
    ]);
    await model.close();
  });

  it("gives the same with the long pieces and few lengths of a GPU, in fewer batches", async () => {
    const model = await openModel(golden("dense/llama"), inThread, 1);
    const long = { ...model, spec: { ...model.spec, maxPositions: 2048 } };
    const choices = [text(530, 1), text(7, 2)].map((choice) => sequence([...text(20, 3), ...choice], choice.length));
    for (const samples of [withBlock(40).slice(0, 3), [choices, ...withBlock(0).slice(0, 2)]])
      expect(await expectScores(long, samples, { tokensAtOnce: 1 << 16 })).toEqual([...samples.keys()]);
    const many = Array.from({ length: 40 }, (_, first) => [sequence(text(300, first), 2)]);
    const batchesWith = (tokensAtOnce?: number): number =>
      planScoring(many, long.spec, { rolling: false, tokensAtOnce }).phases[0]!.batches.length;
    expect(batchesWith(1 << 16)).toBeLessThan(batchesWith());
    await model.close();
  });

  it("counts the tokens that are computed: block and question once, each choice but its last token", () => {
    const { spec } = { spec: { layers: [] } } as unknown as Pick<TextModel, "spec">;
    const lengths = [1, 4, 2, 9].map((length) => length - 1).reduce((sum, own) => sum + own, 0);
    const question = Array.from({ length: 9 }, (_, sample) => 5 + 3 * sample);
    const counts = (block: number): readonly number[] => scoringTokens(withBlock(block), spec, { rolling: false });
    expect(counts(0)).toEqual(question.map((own) => own + lengths));
    expect(counts(40)).toEqual(question.map((own) => own + lengths));
  });

  it("scores each token of a text once, in windows as full as they can be", async () => {
    const model = await openModel(golden("dense/llama"), inThread, 1);
    const texts = [text(100, 1), text(17, 2), text(16, 3), text(1, 4)];
    const windows = texts.map((tokens) => rollingWindows(Int32Array.from(tokens), 95, 16));
    expect(windows.map((own) => own.reduce((sum, { scored }) => sum + scored, 0))).toEqual([100, 17, 16, 1]);
    await expectScores(model, windows, { rolling: true });
    await model.close();
  });

  it("computes the same batches when some samples are known, and those to the last bit", async () => {
    const model = await openModel(golden("dense/llama"), inThread, 1);
    const plan = planScoring(withBlock(40), model.spec, { rolling: false });
    const scoresOf = async (isDone: (sample: number) => boolean): Promise<Map<number, string>> => {
      const found = new Map<number, string>();
      for await (const batch of scoreBatches(model, plan, isDone))
        for (const { sample, scores } of batch) found.set(sample, JSON.stringify(scores));
      return found;
    };
    const all = await scoresOf(() => false);
    const [first] = plan.phases[0]!.batches;
    const rest = await scoresOf((sample) => first!.includes(sample));
    for (const [sample, scores] of rest) expect(scores).toBe(all.get(sample));
    expect(await scoresOf(() => true)).toEqual(new Map());
    await model.close();
  });

  it("stops at the next piece once it is asked to", async () => {
    const model = await openModel(golden("dense/llama"), inThread, 1);
    const controller = new AbortController();
    controller.abort();
    const plan = planScoring(withBlock(40), model.spec, { rolling: false });
    const { done } = await scoreBatches(model, plan, () => false, controller.signal).next();
    expect(done).toBe(true);
    await model.close();
  });
});
