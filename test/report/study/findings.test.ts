import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { findings } from "../../../src/report/study/findings.js";
import type { ArmResult, StudyResult } from "../../../src/model/results/result.js";
import { plainArm, study } from "../fixture.js";

function findingsOf(arms: readonly ArmResult[], parentLoss = 4): string[] {
  const base = study();
  return findings({ ...base, parents: [{ ...at(base.parents, 0), loss: parentLoss }], arms });
}

const dense = plainArm("dense", "dense", [
  [4, 3.9, 3.8],
  [4, 3.9, 3.82],
]);

describe("layers that have collapsed", () => {
  const arm = plainArm("up", "upcycled", [
    [4, 3.8, 3.7],
    [4, 3.8, 3.71],
  ]);
  const unseenCollapse = { step: 1, layers: [0, 2], balanceLoss: 2, balanced: 2 };

  it("are a finding where their load-balancing loss did not show it, with the number of seeds", () => {
    const runs = arm.runs.map((run, i) => (i === 1 ? { ...run, unseenCollapse } : run));
    expect(findingsOf([dense, { ...arm, runs }])).toContain(
      "In up after step 1, with seed 2 (1 of 2 seeds collapsed): more than half of the experts of MoE layers 0 and 2 " +
        "get hardly any token, while the load-balancing loss over all layers together is 2.000, near 2.00, where it " +
        "is balanced: balance: model does not see layers apart; balance: layer does.",
    );
    expect(findingsOf([dense, arm]).join(" ")).not.toContain("collapsed");
  });
});

describe("upcycled against continued dense", () => {
  it("calls an arm better where the seeds agree so well that chance does not explain it", () => {
    const [first] = findingsOf([
      dense,
      plainArm("up", "upcycled", [
        [4, 3.8, 3.7],
        [4, 3.8, 3.71],
      ]),
    ]);
    // scipy.stats.ttest_rel([3.7, 3.71], [3.8, 3.82]): t = -21, p = 0.0303.
    expect(first).toBe(
      "up (E8G1T2) did better than dense at equal tokens and at equal FLOPs: held-out loss 3.705 (3.700 to " +
        "3.710) against 3.810 (3.800 to 3.820) after 200 tokens, 0.105 nats (2.8 %) lower, 95 % interval −0.169 nats " +
        "to −0.041 nats (paired t-test over 2 seeds, p = 0.030).",
    );
  });

  it("says worse when it is worse, first and in plain words", () => {
    const [first, ...rest] = findingsOf([
      dense,
      plainArm("up", "upcycled", [
        [4, 4, 3.95],
        [4, 4, 3.96],
      ]),
    ]);
    expect(first).toContain("up (E8G1T2) did worse than dense at equal tokens");
    expect(first).toContain("0.145 nats (3.8 %) higher");
    expect(rest.join(" ")).not.toContain("better than dense");
  });

  it("says that a difference may be chance although the seeds' ranges are apart, and how many seeds would decide", () => {
    const [first] = findingsOf([
      dense,
      plainArm("up", "upcycled", [
        [4, 3.9, 3.79],
        [4, 3.9, 3.78],
      ]),
    ]);
    expect(first).toMatch(
      /^up \(E8G1T2\) came out below dense at equal tokens and at equal FLOPs, which may be chance: /,
    );
    expect(first).toMatch(/, 95 % interval −[\d.]+ nats to \+[\d.]+ nats \(paired t-test over 2 seeds, p = 0\.34\); /);
    expect(first).toContain("; about 8 seeds would show a difference of this size.");
  });

  it("does not ask for more seeds than anybody trains", () => {
    const [first] = findingsOf([
      dense,
      plainArm("up", "upcycled", [
        [4, 3.9, 3.7],
        [4, 3.9, 3.9],
      ]),
    ]);
    expect(first).toContain("; a difference of this size would take more than 100 seeds.");
  });

  it("corrects for all pairs of arms, since which are looked at is decided when the losses are known", () => {
    const up = plainArm("up", "upcycled", [
      [4, 3.8, 3.7],
      [4, 3.8, 3.71],
    ]);
    const scratch = plainArm("scratch", "scratch", [
      [8, 5, 4.5],
      [8, 5, 4.9],
    ]);
    const [first] = findingsOf([dense, up, scratch]);
    expect(first).toContain("up (E8G1T2) came out below dense at equal tokens and at equal FLOPs, which may be chance");
    // The interval leaves 0 out, since it is not corrected: the sentence says so.
    expect(first).toContain(
      "95 % interval of this pair alone −0.169 nats to −0.041 nats (paired t-test over 2 seeds, p = 0.091, " +
        "corrected for all 3 pairs of arms)",
    );
  });

  it("says once that both comparisons may be chance", () => {
    const [first] = findingsOf([
      dense,
      plainArm(
        "up",
        "upcycled",
        [
          [4, 3.82, 3.7],
          [4, 3.78, 3.8],
        ],
        20,
      ),
    ]);
    expect(first).toMatch(
      /^up \(E8G1T2\) came out below dense at equal tokens \([^;]*\), and below it at equal FLOPs \([^;]*\); both may be chance: /,
    );
  });

  it("advises the cheaper of the two best arms where they cannot be told apart, and nothing where they can", () => {
    const losses = (...ends: readonly number[]) => ends.map((end) => [4, 3.9, end]);
    const scratch = plainArm("scratch", "scratch", losses(4.5, 4.9), 20);
    const advice = (ends: readonly number[]): string | undefined =>
      findingsOf([dense, plainArm("up", "upcycled", losses(...ends), 20), scratch]).find((one) =>
        one.includes(", take "),
      );
    expect(advice([3.79, 3.78])).toBe(
      "The two best arms cannot be told apart at equal tokens, up and dense. Until more seeds tell them apart, take " +
        "dense: it needs 10 FLOP per token and 1.00K parameters, up 20 and 1.00K.",
    );
    expect(advice([3.7001, 3.72])).toBeUndefined();
  });

  it("pairs the seeds that both arms have, and says that nothing can be said where they share none", () => {
    const [first] = findingsOf([
      plainArm("dense", "dense", [[4, 3.8]]),
      plainArm("up", "upcycled", [
        [4, 3.7],
        [4, 3.9],
      ]),
    ]);
    expect(first).toContain("held-out loss 3.700 against 3.800");
    expect(first).toContain("with one seed nothing says");
    const runs = plainArm("up", "upcycled", [[4, 3.7]]).runs.map((run) => ({ ...run, seed: 9 }));
    const other = { ...plainArm("up", "upcycled", []), runs };
    expect(findingsOf([dense, other])[0]).toContain("without a seed in common nothing says");
  });

  it("does not judge a difference by one seed", () => {
    const all = findingsOf([plainArm("dense", "dense", [[4, 3.8]]), plainArm("up", "upcycled", [[4, 3.7]])]);
    expect(all[0]).toContain(
      "up (E8G1T2) came out below dense at equal tokens and at equal FLOPs: held-out loss 3.700 against 3.800",
    );
    expect(all[0]).toContain("with one seed nothing says whether this is more than chance");
    expect(all.join(" ")).toContain("With a single seed this study cannot tell a difference between arms from chance.");
    expect(all.join(" ")).not.toMatch(/better|worse|may be chance/i);
  });

  it("reads both curves at the most FLOPs that both reached, and warns about the schedule", () => {
    // Twice the FLOPs per token: at dense's end the upcycled arm is halfway, at 3.8.
    const all = findingsOf([
      dense,
      plainArm(
        "up",
        "upcycled",
        [
          [4, 3.8, 3.5],
          [4, 3.8, 3.5],
        ],
        20,
      ),
    ]);
    // Both comparisons stand in the first sentence, which is the one at the top of the page.
    expect(all[0]).toMatch(
      /^up .*better .* tokens \(0\.310 nats, 8\.1 % lower\), and came out below it at equal FLOPs \(.*; may be chance\): /,
    );
    expect(all[0]).toContain("3.800 (3.800 to 3.800) against 3.810 (3.800 to 3.820) at 2.00 kFLOP");
    expect(all.join(" ")).toContain("(up 2.0 times dense) is read before the end of its run");
  });

  it("compares at the tokens that all runs reached when one stopped early", () => {
    const [first] = findingsOf([
      dense,
      plainArm("up", "upcycled", [
        [4, 3.6],
        [4, 3.6, 3.5],
      ]),
    ]);
    expect(first).toContain("after 100 tokens");
    expect(first).toContain("3.600 (3.600 to 3.600) against 3.900");
  });
});

describe("the arms of a study beside each other", () => {
  it("say that a study lacks an upcycled or a dense arm", () => {
    expect(findingsOf([dense])[0]).toContain("No upcycled model is part of this study");
    expect(findingsOf([plainArm("up", "upcycled", [[4, 3.8]])])[0]).toContain("cannot say whether upcycling paid off");
    expect(findingsOf([])[0]).toContain("No upcycled model");
  });

  it("count the tokens to the loss that scratch ended at, only where they were measured", () => {
    const up = plainArm("up", "upcycled", [
      [4, 3.6, 3.5],
      [4, 3.6, 3.5],
    ]);
    const near = findingsOf([
      dense,
      up,
      plainArm("scratch", "scratch", [
        [8, 5, 3.8],
        [8, 5, 3.8],
      ]),
    ]).join(" ");
    expect(near).toContain("scratch needed 200 tokens to come to 3.800; up was there after 50 tokens (25 %).");
    expect(near).toContain("This does not count the 9.83M tokens that the parent was trained on.");
    const ahead = findingsOf([
      dense,
      up,
      plainArm("scratch", "scratch", [
        [8, 5, 3.4],
        [8, 5, 3.4],
      ]),
    ]).join(" ");
    expect(ahead).toContain("up did worse than scratch");
    expect(ahead).not.toContain("was there after");
  });

  it("are reported where they ended above the parent", () => {
    const all = findingsOf([
      dense,
      plainArm("up", "upcycled", [[4, 4.2, 4.1]]),
      plainArm("new", "scratch", [[8, 5, 4.5]]),
    ]).join(" ");
    expect(all).toContain("Further training did not help up: it ended 0.100 nats above the parent's 4.000.");
    expect(all).toContain(
      "new did not come down to the parent within its tokens: it ended 0.500 nats above the parent's 4.000.",
    );
  });

  it("are reported where a run diverged, which the means leave out", () => {
    const diverged = plainArm("up", "upcycled", [
      [4, 3.8, 3.7],
      [4, Number.NaN, Number.NaN],
    ]);
    const all = findingsOf([dense, diverged]).join(" ");
    expect(all).toContain("1 run of 2 of up did not end with a finite loss.");
    expect(all).not.toMatch(/NaN|undefined|Infinity|null/);
  });

  it("are compared where one has fine and one has coarse experts", () => {
    const all = study().findings.filter((finding) => /^Fine upcycled .*Coarse upcycled/.test(finding));
    expect(all).toHaveLength(2);
    expect(all[0]).toContain("Fine upcycled came out above Coarse upcycled at equal tokens, which may be chance");
    expect(all[1]).toContain("at equal FLOPs");
  });
});

describe("findings about the models themselves", () => {
  const coarse = at(study().arms, 1);
  const withRuns = (run: (one: ArmResult["runs"][number]) => object): ArmResult => ({
    ...coarse,
    runs: coarse.runs.map((one) => ({ ...one, ...run(one) })),
  });

  it("say that the parent's function was kept, and how exactly", () => {
    expect(study().findings.join(" ")).toContain(
      "Coarse upcycled started at the parent's loss: 4.1183 against 4.1183 before the first step (+1.3e-7 nats); " +
        "logits differed by at most 1.5e-6 of the largest logit, the worst of 2 seeds.",
    );
  });

  it("say that the parent's function was not kept where the first loss is far from the parent's", () => {
    const changed = withRuns((run) => ({ preservation: { ...run.preservation, childLoss: 6.5, maxAbsLogitDiff: 9 } }));
    const all = findingsOf([dense, changed]).join(" ");
    expect(all).toContain(
      "did not start at the parent's loss: 6.5000 against 4.1183 before the first step (+2.382 nats)",
    );
    expect(all).toContain("at most 0.52 of the largest logit");
  });

  it("count the dead experts over all layers", () => {
    const dead = withRuns(() => ({
      load: [
        {
          step: 9,
          layers: [
            [0, 0, 0.6, 0.4],
            [0.25, 0.25, 0.25, 0.25],
          ],
        },
      ],
    }));
    expect(findingsOf([dense, dead]).join(" ")).toContain(
      "2 experts of Coarse upcycled are dead: at the end the busiest of its 8 experts took 2.4 times an equal " +
        "share, the worst of 2 seeds",
    );
  });

  it("say that the experts have hardly moved where their similarity to the parent stays near 1", () => {
    const still = withRuns(() => ({
      similarity: [
        { step: 0, layers: [1, 1] },
        { step: 9, layers: [0.999, 0.997] },
      ],
    }));
    expect(findingsOf([dense, still]).join(" ")).toContain(
      "In Coarse upcycled the experts have hardly moved from the parent's weights, so they are still near copies: " +
        "mean cosine similarity 0.998 (1.000 at the start, layers 0.997 to 0.999).",
    );
  });
});

describe("the caveats of a study", () => {
  it("compute its scale and how often the text was read", () => {
    const all = study().findings.join(" ");
    expect(all).toContain("a parent of 4.33M parameters and 4.92M further tokens per arm (1.1 per parameter)");
    expect(all).toContain("used 462 times the parameters and 20K times the tokens");
    expect(all).toContain("read about 5.4 times");
    expect(all).toContain('"better" and "worse" mean that chance alone would make such a difference');
    expect(all).toContain("the parent is one and the same");
  });

  it("say nothing about scale for a study of 2B parameters and more tokens than published ones", () => {
    const base = study();
    const large: StudyResult = {
      ...base,
      parents: [{ ...at(base.parents, 0), tokens: null, params: { total: 2e9, active: 2e9 } }],
      text: { ...base.text, trainTokens: 1e12 },
      arms: base.arms.map((arm) => ({
        ...arm,
        runs: arm.runs.map((run) => ({
          ...run,
          points: run.points.map((point) => ({ ...point, tokens: point.step * 2e8 })),
        })),
      })),
    };
    const all = findings(large).join(" ");
    expect(all).not.toContain("smallest published comparison");
    expect(all).not.toContain("by heart");
  });
});

describe("a grid of more than twelve arms", () => {
  const base = study();
  const parents = [0, 1, 2, 3, 4, 5, 6].map((i) => ({ ...at(base.parents, 0), id: `p${i}`, loss: 4 }));
  const arms = parents.flatMap(({ id }, i) =>
    [3.9, 4.1 + 0.01 * i].map((loss) => ({
      ...plainArm(`${loss < 4 ? "long" : "short"} ${id}`, "upcycled", [[4.2, 4, loss]]),
      parent: id,
    })),
  );
  const all = findings({ ...base, parents, arms });

  it("has one sentence of each kind, about the arm that stands out", () => {
    expect(all.filter((line) => line.startsWith("Further training did not help"))).toEqual([
      "Further training did not help short p6: it ended 0.160 nats above the parent's 4.000. 7 of 14 arms ended above " +
        "their parent; this is the one furthest above.",
    ]);
    expect(all.filter((line) => line.includes("of 14 arms from the lowest to the highest"))).toHaveLength(1);
    expect(all.length).toBeLessThan(10);
  });

  it("says until when a parent is worth something, beside the same model from random weights", () => {
    const scratch = parents.map(({ id }) => ({
      ...plainArm(`scratch ${id}`, "scratch", [[9, 5, 4.145]]),
      parent: id,
    }));
    expect(findings({ ...base, parents, arms: [...arms, ...scratch] })).toContain(
      "12 of 14 upcycled arms ended below the same model from random weights after as many further tokens; " +
        "short p6, which gained least by its parent, ended 0.015 nats above it.",
    );
  });

  it("says what a single seed can tell where there are several parents", () => {
    expect(all.join(" ")).toContain("cannot tell a difference between arms of one parent from chance");
    expect(all.join(" ")).not.toContain("the parent is one and the same");
  });
});
