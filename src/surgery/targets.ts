/**
 * Which MoE families can hold a given dense decoder without changing its function. What a family's modelling code can
 * express is one row of a table; a source is compared with it by property, never by its own family.
 *
 * Rows read in transformers 5.18.0 (`modeling_mixtral.py`, `modeling_qwen2_moe.py`, `modeling_qwen3_moe.py`).
 */
import { inputError } from "../base/errors.js";
import { departures } from "../spec/plain.js";
import { softmaxRouter, type DecoderSpec, type RouterOrder, type RouterSpec } from "../spec/types.js";
import { targetFamilies, type TargetFamily } from "./recipe.js";

export interface Target {
  readonly orders: readonly RouterOrder[];
  readonly qkvBias: boolean;
  /** `always`: the family normalises queries and keys whether one likes it or not. */
  readonly qkNorm: "never" | "always";
  /** Sliding windows: on every layer alike, on chosen layers, or on none. */
  readonly window: "uniform" | "perLayer" | "none";
  readonly router: (order: RouterOrder) => RouterSpec;
  /** Has an always-on expert that cannot be left out, behind a sigmoid gate or not; the plan gives it a zero output. */
  readonly sharedExpert: "gated" | "plain" | null;
}

export const targets: Readonly<Record<TargetFamily, Target>> = {
  mixtral: { orders: ["topk-softmax"], qkvBias: false, qkNorm: "never", window: "uniform", router: softmaxRouter, sharedExpert: null },
  qwen2_moe: {
    orders: ["topk-softmax", "softmax-topk"],
    qkvBias: true,
    qkNorm: "never",
    window: "perLayer",
    router: softmaxRouter,
    sharedExpert: "gated",
  },
  qwen3_moe: {
    orders: ["topk-softmax", "softmax-topk"],
    qkvBias: false,
    qkNorm: "always",
    window: "none",
    router: softmaxRouter,
    sharedExpert: null,
  },
};

/** Why `target` cannot hold `source` with this router order; empty if it can. */
export function obstacles(source: DecoderSpec, order: RouterOrder, target: TargetFamily): string[] {
  const able = targets[target];
  const { qkvBias, qkNorm, outBias } = source.attn;
  const windows = source.layers.map((layer) => layer.window);
  const sizes = new Set(windows.filter((window) => window !== null));
  const found: string[] = [];
  if (!able.orders.includes(order)) {
    found.push(`${target} always renormalises the selected experts (${able.orders.join(", ")}), it has no ${order} router`);
  }
  for (const departure of departures(source)) found.push(`${target} cannot have ${departure}`);
  if (qkvBias && !able.qkvBias) found.push(`${target} has no query, key and value biases`);
  if (outBias) found.push(`${target} has no bias on the attention output`);
  if (source.layers.some(({ ffn }) => ffn.kind === "dense" && ffn.bias)) found.push(`${target} has no biases in its experts`);
  if (qkNorm !== null && able.qkNorm === "never") found.push(`${target} has no norm on queries and keys`);
  if (qkNorm === null && able.qkNorm === "always") found.push(`${target} always normalises queries and keys`);
  if (sizes.size > 0 && able.window === "none") found.push(`${target} has no sliding window`);
  if (sizes.size > 1) found.push(`${target} has one sliding-window size, the source has ${sizes.size}`);
  if (sizes.size === 1 && able.window === "uniform" && windows.includes(null)) {
    found.push(`${target} has the sliding window on all layers or none`);
  }
  return found;
}

/** Families that hold `source` without changing its function, simplest first. */
export function exactTargets(source: DecoderSpec, order: RouterOrder): TargetFamily[] {
  return targetFamilies.filter((target) => obstacles(source, order, target).length === 0);
}

/** The simplest family that holds `source`: no shared expert where that is possible. Throws `input` if there is none. */
export function defaultTarget(source: DecoderSpec, order: RouterOrder): TargetFamily {
  const first = exactTargets(source, order)[0];
  if (first !== undefined) return first;
  // The shortest list belongs to the family that comes nearest: its reasons are the ones worth reading.
  const nearest = targetFamilies
    .map((target) => obstacles(source, order, target))
    .reduce((best, other) => (other.length < best.length ? other : best));
  throw inputError(`no MoE family that we write can hold this ${source.family} model: ${nearest.join("; ")}`, {
    where: `${source.family}, ${order}`,
    hint: otherOrderHint(source, order) ?? `known targets: ${targetFamilies.join(", ")}`,
  });
}

/** `wanted`, or the default where it is null. Throws `input`, naming what does hold the source, if `wanted` does not. */
export function chooseTarget(source: DecoderSpec, order: RouterOrder, wanted: TargetFamily | null): TargetFamily {
  if (wanted === null) return defaultTarget(source, order);
  const reasons = obstacles(source, order, wanted);
  if (reasons.length === 0) return wanted;
  const others = exactTargets(source, order);
  throw inputError(`${wanted} cannot hold this ${source.family} model: ${reasons.join("; ")}`, {
    where: `target ${wanted}, ${order}`,
    hint:
      others.length > 0
        ? `these can: ${others.join(", ")}`
        : (otherOrderHint(source, order) ?? `none of ${targetFamilies.join(", ")} can`),
  });
}

function otherOrderHint(source: DecoderSpec, order: RouterOrder): string | undefined {
  const other: RouterOrder = order === "topk-softmax" ? "softmax-topk" : "topk-softmax";
  const held = exactTargets(source, other);
  return held.length === 0 ? undefined : `with the router order ${other}: ${held.join(", ")}`;
}
