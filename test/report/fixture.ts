/**
 * A made-up study with plausible curves: four arms, two seeds each, of a small parent. Numbers are drawn, not measured.
 */
import { at } from "../../src/base/at.js";
import { randomStream } from "../../src/base/random.js";
import { findings } from "../../src/report/study/findings.js";
import type { ArmResult, ArmRun, LossPoint, StudyResult } from "../../src/model/results/result.js";

const steps = 600;
const everySteps = 25;
const tokensPerStep = 8192;
const moeLayers = 4;
const parentLoss = 4.1183;

/** What the curves of one arm are drawn from. */
interface ArmSketch {
  readonly id: string;
  readonly label: string;
  readonly kind: ArmResult["kind"];
  readonly recipe: string | null;
  readonly experts: number;
  readonly params: ArmResult["params"];
  readonly flopsPerToken: number;
  readonly start: number;
  readonly end: number;
  readonly tokensPerSecond: number;
  readonly peakRssBytes: number;
}

/** The arms of `study`. */
const armSketches: readonly ArmSketch[] = [
  {
    id: "dense",
    label: "Continued dense",
    kind: "dense",
    recipe: null,
    experts: 0,
    params: { total: 4_328_704, active: 4_328_704 },
    flopsPerToken: 25.9e6,
    start: parentLoss,
    end: 3.951,
    tokensPerSecond: 9412,
    peakRssBytes: 1.21e9,
  },
  {
    id: "coarse",
    label: "Coarse upcycled",
    kind: "upcycled",
    recipe: "E8G1T2",
    experts: 8,
    params: { total: 15_341_568, active: 5_903_616 },
    flopsPerToken: 35.4e6,
    start: parentLoss,
    end: 3.872,
    tokensPerSecond: 3724,
    peakRssBytes: 2.46e9,
  },
  {
    id: "fine",
    label: "Fine upcycled",
    kind: "upcycled",
    recipe: "E8G8T8",
    experts: 64,
    params: { total: 15_399_936, active: 4_390_144 },
    flopsPerToken: 26.3e6,
    start: parentLoss,
    end: 3.903,
    tokensPerSecond: 2896,
    peakRssBytes: 2.71e9,
  },
  {
    id: "scratch",
    label: "MoE from scratch",
    kind: "scratch",
    recipe: "E8G1T2",
    experts: 8,
    params: { total: 15_341_568, active: 5_903_616 },
    flopsPerToken: 35.4e6,
    start: 8.3341,
    end: 4.417,
    tokensPerSecond: 3718,
    peakRssBytes: 2.46e9,
  },
];

function lossCurve(sketch: ArmSketch, seed: number): LossPoint[] {
  const noise = new Float64Array(steps / everySteps + 2);
  randomStream(seed, `fixture/${sketch.id}`).normals(noise, 0, 0, 0.007);
  const points: LossPoint[] = [];
  for (let step = 0; step <= steps; step += everySteps) {
    const part = step / steps;
    const fall = sketch.kind === "scratch" ? 1 - (1 + part * 60) ** -0.9 : part ** 0.55;
    // Re-warming the learning rate lifts the loss of a trained parent for a short while.
    const rewarm =
      sketch.kind === "scratch" ? 0 : 0.06 * Math.sin(Math.PI * Math.min(1, part * 4)) * Math.exp(-6 * part);
    const wiggle = step === 0 ? 0 : at(noise, 0) + 0.6 * at(noise, 1 + step / everySteps);
    const tokens = step * tokensPerStep;
    points.push({
      step,
      tokens,
      flops: tokens * sketch.flopsPerToken,
      loss: sketch.start + (sketch.end - sketch.start) * fall + rewarm + wiggle,
    });
  }
  return points;
}

function expertLoad(sketch: ArmSketch, seed: number): ArmRun["load"] {
  if (sketch.experts === 0) return [];
  const lean = new Float64Array(moeLayers * sketch.experts);
  randomStream(seed, `fixture/load/${sketch.id}`).normals(lean, 0);
  return checkpoints().map((step) => ({
    step,
    layers: Array.from({ length: moeLayers }, (_, layer) => {
      const strength = 0.25 + 0.75 * Math.exp(-step / 120) * (1 + layer / moeLayers);
      const weights = Array.from({ length: sketch.experts }, (_, expert) => {
        const drift = Math.sin(step / 90 + expert * 2.4 + layer) * 0.12;
        return Math.exp(strength * at(lean, layer * sketch.experts + expert) + drift);
      });
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      return weights.map((weight) => weight / total);
    }),
  }));
}

function similarity(sketch: ArmSketch): ArmRun["similarity"] {
  if (sketch.kind !== "upcycled") return [];
  const distance = sketch.id === "fine" ? 0.14 : 0.09;
  return checkpoints().map((step) => ({
    step,
    layers: Array.from(
      { length: moeLayers },
      (_, layer) => 1 - distance * (1 + layer * 0.35) * (1 - Math.exp(-step / 260)),
    ),
  }));
}

function checkpoints(): number[] {
  return Array.from({ length: steps / 50 + 1 }, (_, i) => i * 50);
}

function armRun(sketch: ArmSketch, seed: number): ArmRun {
  const points = lossCurve(sketch, seed);
  const tiny = sketch.id === "fine" ? 4.1e-5 : 1.3e-5;
  return {
    seed,
    path: `runs/${sketch.id}-seed${seed}`,
    preservation:
      sketch.kind === "upcycled"
        ? {
            tokens: 16_384,
            parentLoss,
            childLoss: parentLoss + tiny / 100,
            maxAbsLogitDiff: tiny * seed,
            meanAbsLogitDiff: tiny / 11,
            maxAbsLogit: 17.42,
          }
        : null,
    points,
    finalLoss: at(points, points.length - 1).loss,
    tokensPerSecond: sketch.tokensPerSecond * (1 + 0.01 * seed),
    peakRssBytes: sketch.peakRssBytes,
    load: expertLoad(sketch, seed),
    similarity: similarity(sketch),
  };
}

function arm(sketch: ArmSketch): ArmResult {
  return {
    id: sketch.id,
    arm: sketch.id,
    parent: "parent",
    label: sketch.label,
    kind: sketch.kind,
    recipe: sketch.recipe,
    router: sketch.recipe === null ? null : "softmax, then top k; calibrated scale; router std 0.02",
    params: sketch.params,
    flopsPerToken: sketch.flopsPerToken,
    runs: [1, 2].map((seed) => armRun(sketch, seed)),
  };
}

function parentPoints(): LossPoint[] {
  return Array.from({ length: 25 }, (_, i) => {
    const tokens = i * 50 * tokensPerStep;
    const loss = parentLoss + (8.3299 - parentLoss) * ((1 + i * 1.6) ** -1.15 - (1 + 24 * 1.6) ** -1.15 * (i / 24));
    return { step: i * 50, tokens, flops: tokens * 25.9e6, loss };
  });
}

/** The study with `changes` on top; findings are computed anew from the changed numbers. */
export function study(changes: Partial<Omit<StudyResult, "findings">> = {}): StudyResult {
  const measurements: Omit<StudyResult, "findings"> = {
    version: 2,
    name: "Does upcycling a small Llama pay off?",
    startedAt: "2026-03-14T09:26:53.000Z",
    seconds: 9412,
    environment: {
      upcycle: "0.1.0",
      node: "v20.19.4",
      onnxruntime: "1.30.0",
      platform: "linux x64",
      cpu: "AMD EPYC 7B13 64-Core Processor",
      threads: 2,
    },
    text: {
      sources: [
        { name: "Moby Dick", documents: 136, bytes: 1_215_236 },
        { name: "State of the Union addresses", documents: 230, bytes: 10_361_482 },
      ],
      trainDocuments: 347,
      heldOutDocuments: 19,
      trainTokens: 2_713_402,
      heldOutTokens: 148_231,
      judgedTokens: 20_000,
      vocab: 4096,
      bytesPerToken: 4.05,
    },
    parents: [
      {
        id: "parent",
        label: "Small Llama, 4 layers of width 256",
        path: "parent",
        tokens: 1200 * tokensPerStep,
        params: { total: 4_328_704, active: 4_328_704 },
        loss: parentLoss,
        points: parentPoints(),
      },
    ],
    questions: [],
    arms: armSketches.map(arm),
    commands: [
      "npm ci",
      "npx upcycle study recipes/quickstart.yaml --seeds 1,2 --out runs/quickstart",
      "npx upcycle report runs/quickstart",
    ],
    seeds: [1, 2],
    ...changes,
  };
  return { ...measurements, findings: findings(measurements) };
}

/** An arm whose loss falls in a straight line, for tests that want round numbers: one run per list of losses. */
export function plainArm(
  id: string,
  kind: ArmResult["kind"],
  losses: readonly (readonly number[])[],
  flopsPerToken = 10,
): ArmResult {
  return {
    id,
    arm: id,
    parent: "parent",
    label: id,
    kind,
    recipe: kind === "dense" ? null : "E8G1T2",
    router: null,
    params: { total: 1000, active: 500 },
    flopsPerToken,
    runs: losses.map((values, index) => ({
      seed: index + 1,
      path: `${id}-${index + 1}`,
      preservation: null,
      points: values.map((loss, step) => ({ step, tokens: step * 100, flops: step * 100 * flopsPerToken, loss })),
      finalLoss: values.at(-1) ?? NaN,
      tokensPerSecond: 1000,
      peakRssBytes: 1e9,
      load: [],
      similarity: [],
    })),
  };
}
