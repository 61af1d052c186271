/** A plan request that tests vary. */
import { publishedCoefficients } from "../../../src/laws/planner/coefficients.js";
import type { Gpu } from "../../../src/laws/planner/hardware.js";
import type { PlanRequest } from "../../../src/laws/planner/plan-types.js";
import { presets, shapeSpec } from "../../../src/laws/planner/shape.js";
import { defaultSpeed } from "../../../src/laws/planner/speed.js";
import type { DecoderSpec } from "../../../src/model/decoder/types.js";
import { present } from "../../support/present.js";

export const h100: Gpu = {
  name: "h100-sxm",
  title: "H100",
  peak: 989.4e12,
  fp8Peak: 1978.9e12,
  memory: 80e9,
  hbm: 3.35e12,
  intra: 450e9,
  inter: 50e9,
  perNode: 8,
  price: 2.5,
  sources: {},
};

export const presetSpec = (id: string): DecoderSpec =>
  shapeSpec(present(presets.find((preset) => preset.id === id)).shape);

export function requestFor(changes: Partial<PlanRequest> = {}): PlanRequest {
  return {
    name: "llama-2-7b",
    spec: presetSpec("llama-2-7b"),
    size: null,
    seen: 1e11,
    recipes: [{ expansion: 8, granularity: 1, topK: 2 }],
    budget: { tokens: 5e10, gpuHours: null, money: null, days: null },
    gpu: h100,
    currency: "USD",
    gpus: 64,
    sequence: 4096,
    batchTokens: null,
    speed: defaultSpeed,
    mfu: { dense: null, moe: null },
    coefficients: publishedCoefficients(),
    parentPeak: null,
    draws: 100,
    seed: 0,
    level: 0.9,
    ...changes,
  };
}
