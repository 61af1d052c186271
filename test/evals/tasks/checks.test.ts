/** What is said on top of a result that is worthless without looking so. */
import { describe, expect, it } from "vitest";
import { warningsOf, type CheckedSample } from "../../../src/evals/tasks/checks.js";
import type { Response } from "../../../src/evals/tasks/sample-results.js";

const choices = ["A", "B", "C", "D"];
const task = { config: { outputType: "multiple_choice" }, choices: () => choices } as never;
const texts = { config: { outputType: "generate_until" } } as never;

const likely = (...values: number[]): readonly Response[] =>
  values.map((logLikelihood) => ({ kind: "loglikelihood", logLikelihood, greedy: false }));
const text = (words: string): readonly Response[] => [{ kind: "generate", text: words }];

/** Samples whose right choice goes through all places in turn. */
const samples = (
  count: number,
  answer: (index: number) => readonly Response[],
  truncated = 0,
): readonly CheckedSample[] =>
  Array.from({ length: count }, (_, index) => ({
    sample: { doc: { index } } as never,
    responses: answer(index),
    truncated,
  }));

/** Judges by the place of the largest number. */
const judge = {
  chosen: ({ doc }: { doc: { index: number } }, responses: readonly Response[]) => {
    const numbers = responses.map((one) => (one.kind === "generate" ? 0 : one.logLikelihood));
    return { chosen: numbers.indexOf(Math.max(...numbers)), gold: doc.index % choices.length };
  },
} as never;

const said = (checked: readonly CheckedSample[], of = task): readonly string[] => warningsOf(of, judge, checked);
/** Likes the right choice best. */
const knowing = (index: number): readonly Response[] =>
  likely(...choices.map((_, i) => (i === index % choices.length ? -1 : -2)));

describe("on top of a result", () => {
  it("nothing is said of a model that knows the answers", () => {
    expect(said(samples(40, knowing))).toEqual([]);
  });

  it.each([NaN, -Infinity])("log-likelihoods of %s are", (broken) => {
    const some = samples(40, (index) => (index < 3 ? likely(broken, -1, -2, -3) : knowing(index)));
    expect(said(some)).toContain("3 of 40 samples have log-likelihoods that are NaN or infinite: the model is broken");
  });

  it("samples are whose choices are all equally likely, with few samples too", () => {
    expect(said(samples(2, () => likely(-3, -3, -3, -3)))).toEqual([
      "2 of 2 samples have the same log-likelihood for all choices: none was preferred",
    ]);
  });

  it("right answers are that are none of the choices, with few samples too", () => {
    const lost = { chosen: () => ({ chosen: 0, gold: -100 }) } as never;
    expect(warningsOf(task, lost, samples(3, knowing))).toEqual([
      "3 of 3 samples have a right answer that is none of their choices: see doc_to_target",
    ]);
  });

  it("one choice is that is taken whatever is asked, where others are right", () => {
    expect(said(samples(40, () => likely(-2, -1, -2, -2)))).toContain(
      "choice 2 was taken in 40 of 40 samples, whatever was asked",
    );
    const often = samples(40, (index) => (index < 2 ? likely(-1, -2, -2, -2) : likely(-2, -1, -2, -2)));
    expect(said(often).join()).not.toContain("whatever was asked");
    expect(said(samples(9, () => likely(-2, -1, -2, -2)))).toEqual([]);
  });

  it("an accuracy is that guessing gives too", () => {
    const halfKnowing = samples(40, (index) => (index % 8 < 2 ? knowing(index) : knowing(index + 1)));
    expect(said(halfKnowing)).toEqual([
      "acc 0.2500 is not distinguishable from guessing (0.2500 ± 0.1342, 95 % of guesses of 40 samples)",
    ]);
  });

  it("prompts are that were cut off in front", () => {
    expect(said([...samples(39, knowing), ...samples(1, knowing, 2)])).toEqual([
      "1 of 40 prompts were cut off in front, because the model has too few positions: give fewer examples (--num-fewshot)",
    ]);
  });

  it("answers are that are empty, or all the same text", () => {
    expect(
      said(
        samples(40, (index) => text(index < 5 ? " " : String(index))),
        texts,
      ),
    ).toEqual(["5 of 40 answers are empty"]);
    expect(
      said(
        samples(40, () => text("the the")),
        texts,
      ),
    ).toEqual(["every answer is the same text"]);
    expect(
      said(
        samples(40, (index) => text(String(index))),
        texts,
      ),
    ).toEqual([]);
  });
});
