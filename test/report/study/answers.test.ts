import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { answerFindings, answersOf, verdictWords } from "../../../src/report/study/answers.js";
import { questionResults } from "../../../src/report/study/question-pairs.js";
import type { QuestionResult } from "../../../src/model/results/result.js";
import { plainArm } from "../fixture.js";

function question(differences: readonly (number | null)[], changes: Partial<QuestionResult> = {}): QuestionResult {
  return {
    ask: "Is it better?",
    compare: "up",
    with: "dense",
    measure: "loss",
    published: null,
    pairs: differences.map((difference, index) => ({
      parent: "parent",
      seed: index,
      a: difference === null ? null : 4 + difference,
      b: 4,
    })),
    ...changes,
  };
}

const published = (difference: number, relative = false): Partial<QuestionResult> => ({
  published: { difference, relative, source: "a paper" },
});
const five = [-0.031, -0.028, -0.035, -0.02, -0.04];
const verdictOf = (one: QuestionResult): string => at(answersOf([one]), 0).verdict;

describe("the verdict", () => {
  it("is reproduced or contradicted only where the published effect is large enough to be seen", () => {
    expect(verdictOf(question(five, published(-0.02)))).toBe("reproduced");
    expect(verdictOf(question(five, published(0.02)))).toBe("contradicted");
    // Deviation 0.00753: five pairs find 0.0127.
    expect(verdictOf(question(five, published(-0.012)))).toBe("not powered");
    // 0.5 % of 4 nats are 0.02.
    expect(verdictOf(question(five, published(-0.005, true)))).toBe("reproduced");
    expect(verdictOf(question(five, published(-0.003, true)))).toBe("not powered");
  });

  it("without a published effect says lower or higher, or that arms cannot be told apart", () => {
    expect(verdictOf(question(five))).toBe("lower");
    expect(verdictOf(question(five.map((value) => -value)))).toBe("higher");
    const answer = at(answersOf([question([0.01, -0.02, 0.03, -0.01, 0.004])]), 0);
    expect(answer.verdict).toBe("not distinguishable");
    expect(answer.pairsNeeded).toBeGreaterThan(50);
    expect(verdictOf(question([-0.5]))).toBe("too few pairs");
  });

  it("is told by the published direction alone where no size is published", () => {
    const toward = (direction: "lower" | "higher"): string =>
      verdictOf(question(five, { published: { direction, relative: false, source: "a paper" } }));
    expect([toward("lower"), toward("higher")]).toEqual(["reproduced", "contradicted"]);
    const open = question([0.01, -0.02, 0.03, -0.01, 0.004], {
      published: { direction: "lower", relative: false, source: "a paper" },
    });
    expect(verdictOf(open)).toBe("not distinguishable");
  });

  it("says where the published size is outside of the interval", () => {
    const words = (differences: readonly number[], size: number): string =>
      verdictWords(at(answersOf([question(differences, published(size))]), 0));
    // The interval is −0.0401 to −0.0215.
    expect(words(five, -0.03)).toBe("reproduced");
    expect(words(five, -0.2)).toBe("reproduced in direction, not in size");
    expect(words(five, 0.2)).toBe("contradicted");
    expect(words([0.01, -0.02, 0.03, -0.01, 0.004], -0.5)).toBe("not distinguishable, and not of the published size");
  });

  it("of several questions takes account of their number", () => {
    // p = 0.0410 alone, 0.0820 among two.
    const weak = [-0.03, -0.001, -0.02, -0.04, -0.011];
    expect(verdictOf(question(weak))).toBe("lower");
    expect(answersOf([question(weak), question(weak)]).map(({ verdict }) => verdict)).toEqual([
      "not distinguishable",
      "not distinguishable",
    ]);
  });

  it("leaves out pairs of which a run diverged, and says how many", () => {
    const answer = at(answersOf([question([...five, null])]), 0);
    expect([answer.test.n, answer.missing]).toEqual([5, 1]);
  });
});

describe("the finding", () => {
  const arms = [plainArm("up", "upcycled", [[4]]), plainArm("dense", "dense", [[4]])];

  it("says first what could be detected, then the published and the measured difference", () => {
    expect(answerFindings({ questions: [question(five, published(-0.0075, true))], arms })).toEqual([
      "Is it better? Reproduced, up is better than dense: 5 pairs of runs find a difference of 0.0127 nats in 80 % of " +
        "cases (two-sided, 5.0 % over all questions); published is −0.0300 nats (−0.750 %) (a paper); up less dense: " +
        "−0.0308 nats in final held-out loss (95 % interval −0.0401 to −0.0215, p 0.00079).",
    ]);
  });

  it("says where only a direction is published, and where the published size is not the measured one", () => {
    const higher = { published: { direction: "higher" as const, relative: false, source: "a paper" } };
    const [direction, size] = answerFindings({
      questions: [question(five, higher), question(five, published(-0.2))],
      arms,
    });
    expect(direction).toMatch(
      /^Is it better\? Contradicted, up is better than dense: .*; published is higher \(a paper\);/,
    );
    expect(size).toMatch(/^Is it better\? Reproduced in direction, not in size, up is better than dense: /);
  });

  it("of a study that is too small says how many pairs would decide", () => {
    const [sentence] = answerFindings({ questions: [question(five, published(-0.001))], arms });
    expect(sentence).toMatch(
      /^Is it better\? Not powered, this study cannot see an effect of the published size: .* About 447 pairs \(/,
    );
  });
});

describe("pairs of a question", () => {
  it("have the numbers of the runs by measure", () => {
    const [a, b] = [
      plainArm("up", "upcycled", [[4, 5, 3.5]], 20),
      plainArm("dense", "dense", [[4, 3.9, 3.8, 3.7, 3.6]], 10),
    ];
    const of = (measure: QuestionResult["measure"]): unknown => {
      const common = { ask: "", compare: "up", with: "dense" };
      const [result] = questionResults([{ ...common, measure, published: undefined, spread: undefined }], [a, b]);
      return result?.pairs.map((pair) => [pair.a, pair.b]);
    };
    expect(of("loss")).toEqual([[3.5, 3.6]]);
    expect(of("start-loss")).toEqual([[4, 4]]);
    expect(of("worst-loss")).toEqual([[5, 4]]);
    // Both end at 4000 FLOPs.
    expect(of("loss-at-equal-flops")).toEqual([[3.5, 3.6]]);
    expect(of("dead-experts")).toEqual([[null, null]]);
  });
});
