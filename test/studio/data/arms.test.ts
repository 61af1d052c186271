import { describe, expect, it } from "vitest";
import { judgeArms, seedBand, type ArmCurve } from "../../../src/studio/data/arms.js";
import type { ArmResult } from "../../../src/model/results/result.js";
import { comparisonsAmong } from "../../../src/report/study/comparisons.js";
import { findings } from "../../../src/report/study/findings.js";
import { plainArm, study } from "../../report/fixture.js";
import { row } from "./row.js";

const run = (arm: string, seed: number, loss: readonly number[], study = "s"): ArmCurve => ({
  row: row({ name: `${study}/arms/${arm}/seed-${seed}`, arm, seed, study, kind: arm === "dense" ? "dense" : "moe" }),
  tokens: loss.map((_, i) => 100 * i),
  loss,
});
const words = (curves: readonly ArmCurve[]): string => judgeArms(curves).words;
/** The runs of an arm of a result, as the studio reads them from its logs. */
const logsOf = ({ id, runs }: ArmResult): ArmCurve[] =>
  runs.map(({ seed, points }) => ({
    ...run(id, seed, []),
    tokens: points.map(({ tokens }) => tokens),
    loss: points.map(({ loss }) => loss),
  }));

describe("arms compared", () => {
  const dense = [3.5, 3.51, 3.52, 3.505].map((loss, seed) => run("dense", seed, [4, loss]));
  const ahead = [3.4, 3.41, 3.425, 3.4].map((loss, seed) => run("moe", seed, [4, loss]));

  it("says that a difference that all seeds agree on is more than chance explains", () => {
    // scipy.stats.ttest_rel([3.4, 3.41, 3.425, 3.4], [3.5, 3.51, 3.52, 3.505]): t = -49, p = 1.86e-5.
    expect(words([...dense, ...ahead])).toBe(
      "moe leads dense by 0.100 nats after 100 tokens: more than chance explains (paired t-test over 4 seeds, p = 1.9e-5).",
    );
  });

  it("says that a difference on which seeds do not agree may be chance", () => {
    const mixed = [3.3, 3.7, 3.5, 3.49].map((loss, seed) => run("moe", seed, [4, loss]));
    expect(words([...dense, ...mixed])).toMatch(
      /^moe leads dense by 0\.011 nats.*: it may be chance \(paired t-test over 4 seeds, p = 0\.\d+\)\.$/,
    );
  });

  it("says which of two to take that cannot be told apart: the one that is cheaper to run", () => {
    const sized = (curve: ArmCurve, activeParams: number, params: number): ArmCurve => ({
      ...curve,
      row: { ...curve.row, activeParams, params },
    });
    const tied = (cost: readonly [number, number], ofMoe: readonly [number, number]): string =>
      words([
        ...dense.map((curve) => sized(curve, ...cost)),
        ...[3.3, 3.7, 3.5, 3.49].map((loss, seed) => sized(run("moe", seed, [4, loss]), ...ofMoe)),
      ]);
    expect(tied([1000, 1000], [1500, 8000])).toContain(
      "Until more seeds tell them apart, take dense: it has 1.00K parameters that a token uses, moe 1.50K.",
    );
    expect(tied([1000, 9000], [1000, 8000])).toContain("take moe: it has 8.00K parameters, dense 9.00K.");
    expect(words([...dense.map((curve) => sized(curve, 1, 1)), ...ahead])).not.toContain("take");
    // One seed does not say that they are alike.
    expect(words([sized(run("dense", 0, [4, 3.5]), 1, 1), run("moe", 0, [4, 3.4])])).not.toContain("take");
  });

  it("corrects for all pairs of arms, since the leading one was not named beforehand", () => {
    const third = ahead.map(({ loss }, seed) => run("fine", seed, [4, loss[1]! + 0.05]));
    const { pairs } = judgeArms([...dense, ...ahead, ...third]);
    expect(pairs.map(({ first, second }) => [first, second])).toEqual([
      ["moe", "fine"],
      ["moe", "dense"],
    ]);
    // The second smallest p of three tests counts twice; there are two tests of the leading arm alone.
    expect(pairs[1]!.adjusted! / pairs[1]!.p!).toBeCloseTo(2, 6);
    expect(words([...dense, ...ahead, ...third])).toContain("corrected for all 3 pairs of arms");
  });

  it.each([
    ["clearly apart", [3.4, 3.41], "did better than", "more than chance explains"],
    ["apart in both seeds, but unevenly", [3.49, 3.45], "came out below", "it may be chance"],
    ["ahead in one seed and behind in the other", [3.3, 3.68], "came out below", "it may be chance"],
    ["one seed", [3.4], "came out below", "nothing says whether this is more than chance"],
  ])("says of arms the same as the report of their study: %s", (_, ofMoe, inReport, here) => {
    const [denseLosses, seeds] = [[3.5, 3.51].slice(0, ofMoe.length), ofMoe.map((__, seed) => seed)];
    const [sentence = ""] = findings({
      ...study(),
      arms: [
        plainArm(
          "dense",
          "dense",
          denseLosses.map((loss) => [4, loss]),
        ),
        plainArm(
          "moe",
          "upcycled",
          ofMoe.map((loss) => [4, loss]),
        ),
      ],
    });
    const said = words(
      seeds.flatMap((seed) => [run("dense", seed, [4, denseLosses[seed]!]), run("moe", seed, [4, ofMoe[seed]!])]),
    );
    expect(sentence).toContain(`moe (E8G1T2) ${inReport} dense`);
    expect(said).toContain(here);
    // The test and its numbers are the same words.
    const test = /paired t-test[^)]*/;
    expect(test.exec(sentence)?.[0]).toBe(test.exec(said)?.[0]);
  });

  it("says that one seed says nothing, and that arms without a common seed do not either", () => {
    expect(words([run("dense", 0, [4, 3.5]), run("moe", 0, [4, 3.4])])).toContain(
      "there is one seed of each, so nothing says",
    );
    expect(words([run("dense", 0, [4, 3.5]), run("moe", 1, [4, 3.4])])).toContain("no seed in common");
  });

  it("compares two arms at the most tokens that both have reached, between measurements too", () => {
    const long = run("moe", 0, [4, 3.6, 3.2]);
    const short: ArmCurve = { ...run("dense", 0, [4, 3.5]), tokens: [0, 150] };
    const { arms, pairs, tokens } = judgeArms([long, short]);
    expect([tokens, pairs[0]?.tokens]).toEqual([150, 150]);
    expect(arms.map(({ name, mean }) => [name, mean])).toEqual([
      ["moe", 3.4000000000000004],
      ["dense", 3.5],
    ]);
  });

  describe("that end at three different tokens", () => {
    // The losses of two seeds by hundreds of tokens.
    const short = plainArm("short", "upcycled", [
      [4, 3.6],
      [4, 3.62],
    ]);
    const middle = plainArm("middle", "dense", [
      [4, 3.5, 3.45],
      [4, 3.55, 3.44],
    ]);
    const long = plainArm("long", "upcycled", [
      [4, 3.7, 3.4, 3.1],
      [4, 3.66, 3.42, 3.12],
    ]);
    const arms = [short, middle, long];
    const judged = judgeArms(arms.flatMap(logsOf));

    it("are judged with the numbers of the report of their study", () => {
      const compare = comparisonsAmong(arms);
      expect(judged.pairs).toHaveLength(2);
      for (const { first, second, tokens, n, difference, low, high, p, adjusted } of judged.pairs) {
        const [a, b] = [first, second].map((id) => arms.find((arm) => arm.id === id)!);
        const same = compare(a!, b!, "tokens")!;
        expect({ tokens, n, difference, low, high, p, adjusted }).toEqual({
          tokens: same.at,
          n: same.judgement.n,
          difference: same.difference,
          low: same.judgement.low,
          high: same.judgement.high,
          p: same.judgement.p,
          adjusted: same.judgement.adjusted,
        });
      }
    });

    it("are read pair by pair, so that a third arm that ends early changes no difference", () => {
      const alone = judgeArms([middle, long].flatMap(logsOf)).pairs[0]!;
      const among = judged.pairs.find(({ second }) => second === "long")!;
      // Long is ahead of middle after 200 tokens, not after 100, where short ends.
      expect([alone.first, alone.second, alone.tokens]).toEqual(["long", "middle", 200]);
      expect([among.first, among.tokens, among.difference, among.p]).toEqual([
        "middle",
        200,
        -alone.difference,
        alone.p,
      ]);
    });

    it("are said to have no leader where each is behind another", () => {
      expect(judged.words).toBe(
        "No arm is ahead of all others: even middle is 0.035 nats behind long after 200 tokens.",
      );
    });

    it("show their losses after the most tokens that all have reached", () => {
      expect(judged.tokens).toBe(100);
      expect(judged.arms.map(({ name, mean }) => [name, mean?.toFixed(3)])).toEqual([
        ["middle", "3.525"],
        ["short", "3.610"],
        ["long", "3.680"],
      ]);
    });
  });

  it("compares the others where an arm has only begun, and says so", () => {
    const begun = run("late", 0, [4]);
    expect(words([...dense, ...ahead, begun])).toMatch(
      /^moe leads dense by 0\.100 nats after 100 tokens: more than chance .*\. 1 arm without a loss there/,
    );
    expect(words([begun, run("moe", 0, [4, 3.6, 3.2])])).toMatch(
      /^moe has a held-out loss of 3\.200 nats after 200 tokens; there is no other arm to compare\. 1 arm without/,
    );
    expect(words([begun])).toBe(
      "Nothing can be compared yet: no run has a held-out loss behind its start. 1 arm without a loss there " +
        "(not measured yet, or diverged).",
    );
  });

  it("leaves an arm out in which a run has diverged, and says so", () => {
    expect(words([...ahead, ...dense.slice(1), run("dense", 0, [4, NaN])])).toBe(
      "moe has a held-out loss of 3.409 nats after 100 tokens; there is no other arm to compare. 1 arm without a loss there (not measured yet, or diverged).",
    );
  });

  it("tells arms of one name in two studies apart", () => {
    expect(judgeArms([run("moe", 0, [4, 3]), run("moe", 0, [4, 3.1], "other")]).arms).toHaveLength(2);
  });

  it("draws a band only where all seeds were measured", () => {
    const band = seedBand([
      { tokens: [0, 100, 200], loss: [4, 3, 2] },
      { tokens: [100, 200], loss: [3.2, NaN] },
    ]);
    expect(band).toEqual({ x: [100, 200], mean: [3.1, null], low: [3, null], high: [3.2, null] });
  });
});
