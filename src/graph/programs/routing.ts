/** What a training graph does about routing, and which numbers it is fed for it in each step. */
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { TrainingRouting } from "../nn/context.js";

/** What the shares of the load-balancing loss are taken over; see `docs/training.md`. */
type BalanceOver = "model" | "layer" | "sequence" | "global" | "running";

/** How routers work in a training graph, and what its balance loss is taken over. */
export interface RoutingSettings extends TrainingRouting {
  readonly balance: BalanceOver;
}

/**
 * Whether all MoE layers have the same number of experts, so that one load-balancing loss can be taken over them
 * together.
 */
export function sharesBalance({ layers }: DecoderSpec): boolean {
  return new Set(layers.flatMap(({ ffn }) => (ffn.kind === "moe" ? [ffn.experts] : []))).size < 2;
}

/** An input of a training graph beside tokens and parameters. */
export type RoutingFeed =
  | { readonly kind: "jitter"; readonly layer: number; readonly elements: number; readonly shape: readonly number[] }
  /** How often each expert of MoE layer number `index` was chosen in other micro-batches. */
  | { readonly kind: "elsewhere"; readonly index: number; readonly shape: readonly number[] }
  /** The number 1 / (tokens that the shares are taken over). */
  | { readonly kind: "perToken"; readonly shape: readonly number[] };
