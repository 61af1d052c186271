import { expect, it } from "vitest";
import { terminalTable } from "../../../src/report/study/terminal.js";
import { study } from "../fixture.js";

it("shows every arm in 80 columns", () => {
  const text = terminalTable(study());
  expect(text.split("\n\n").slice(0, 3).join("\n\n")).toMatchInlineSnapshot(`
    "Does upcycling a small Llama pay off? (2 h 37 min; parent's loss 4.118)

    arm      params           logit  start         final           peak  train
              total  active   error   loss          loss  tok/s  memory   FLOP
    -------  ------  ------  ------  -----  ------------  -----  ------  -----
    dense     4.33M   4.33M       -  4.118  3.951 ±0.000  9,553  1.2 GB  127 T
    coarse    15.3M   5.90M  1.5e-6  4.118  3.862 ±0.005  3,780  2.5 GB  174 T
    fine      15.4M   4.39M  4.7e-6  4.118  3.899 ±0.008  2,939  2.7 GB  129 T
    scratch   15.3M   5.90M       -  8.334  4.503 ±0.008  3,774  2.5 GB  174 T

    logit error: largest difference from the parent's logits before training,
    relative to the largest logit; losses are held-out, in nats per token; final
    loss: mean over 2 seeds ± the seed furthest from it; train FLOP: forward and
    backward, per run (G 10^9, T 10^12, P 10^15)."
  `);
  expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
});

it("stays within 80 columns with long names and large models", () => {
  const base = study();
  const arms = base.arms.map((arm) => ({
    ...arm,
    id: `${arm.id}-with-a-very-long-identifier-of-its-own`,
    label: "L".repeat(100),
    params: { total: 123.4e9, active: 45.6e9 },
    runs: arm.runs.map((run) => ({ ...run, tokensPerSecond: 123_456_789, peakRssBytes: 987e9 })),
  }));
  const text = terminalTable(study({ name: "n".repeat(200), arms }));
  expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
});

it("shows one seed without a spread and a missing arm without a crash", () => {
  const one = study()
    .arms.slice(0, 1)
    .map((arm) => ({ ...arm, runs: arm.runs.slice(0, 1) }));
  expect(terminalTable(study({ arms: one }))).not.toContain("±");
  expect(terminalTable(study({ arms: [] }))).toContain("No upcycled model");
});

it("calls memory unknown that no run's log tells of, in results of earlier versions too", () => {
  const base = study();
  const untold = (peakRssBytes: number | null) =>
    base.arms.map((arm) =>
      arm.id === "fine" ? { ...arm, runs: arm.runs.map((run) => ({ ...run, peakRssBytes })) } : arm,
    );
  for (const peak of [null, 0]) {
    const text = terminalTable(study({ arms: untold(peak) }));
    expect(text).toMatch(/^fine .* unknown /m);
    expect(text.replace(/\s+/g, " ")).toMatch(/Fine upcycled [^;]* and peak memory unknown/);
    expect(text).not.toMatch(/ 0 B/);
  }
});
