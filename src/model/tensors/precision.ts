/** Which tensors stay in float32 whatever the precision of the rest. */
import type { DecoderSpec, Family } from "../decoder/types.js";
import type { Slot } from "./slots.js";

/**
 * True for slots that transformers keeps in float32 in a model of any precision: correction biases
 * (`_keep_in_fp32_modules_strict` of modeling_deepseek_v3.py and its kin), whose steps are smaller than what bfloat16
 * resolves, and the routers of HunYuan (`HunYuanMoEV1Gate`) and ERNIE 4.5 (`_keep_in_fp32_modules_strict` of
 * modeling_ernie4_5_moe.py).
 */
export function keepsFloat32({ family }: DecoderSpec, { at: { part } }: Slot): boolean {
  return part === "routerCorrection" || (part === "router" && float32Routers.has(family));
}

/** True for the matrix and bias that give router logits. */
export function isRouter({ at: { part } }: Slot): boolean {
  return part === "router" || part === "routerBias";
}

const float32Routers: ReadonlySet<Family> = new Set(["hunyuan_v1_moe", "ernie4_5_moe"]);
