import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../src/base/errors.js";
import type { DecoderSpec } from "../../src/spec/types.js";
import { chooseTarget, defaultTarget, exactTargets } from "../../src/surgery/targets.js";
import { denseSpec } from "./fixtures.js";

const llama = denseSpec("llama");
const mistral = denseSpec("mistral");
const qwen2 = denseSpec("qwen2");
const qwen3 = denseSpec("qwen3");

function withAttention(spec: DecoderSpec, attn: Partial<DecoderSpec["attn"]>): DecoderSpec {
  return { ...spec, attn: { ...spec.attn, ...attn } };
}

function withWindows(spec: DecoderSpec, windows: (number | null)[]): DecoderSpec {
  return { ...spec, layers: spec.layers.map((layer, i) => ({ ...layer, window: windows[i]! })) };
}

function lineOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof UpcycleError) return error.line;
    throw error;
  }
  return "no error";
}

describe("targets", () => {
  it("defaults", () => {
    const of = (spec: DecoderSpec): string[] => (["topk-softmax", "softmax-topk"] as const).map((order) => defaultTarget(spec, order));
    expect(of(llama)).toEqual(["mixtral", "qwen2_moe"]);
    expect(of(mistral)).toEqual(["mixtral", "qwen2_moe"]);
    expect(of(qwen2)).toEqual(["qwen2_moe", "qwen2_moe"]);
    expect(of(qwen3)).toEqual(["qwen3_moe", "qwen3_moe"]);
  });

  it("all that hold a source", () => {
    expect(exactTargets(llama, "topk-softmax")).toEqual(["mixtral", "qwen2_moe"]);
    expect(exactTargets(withWindows(llama, [8, null]), "topk-softmax")).toEqual(["qwen2_moe"]);
    expect(exactTargets(withWindows(llama, [8, 16]), "topk-softmax")).toEqual([]);
    expect(exactTargets(withWindows(qwen3, [8, 8]), "topk-softmax")).toEqual([]);
  });

  it("refusals name the reason and what would work", () => {
    const biased = { ...llama, layers: llama.layers.map((layer) => ({ ...layer, ffn: { kind: "dense", inner: 48, bias: true, activation: "silu", gated: true } as const })) };
    const lines = [
      () => chooseTarget(qwen2, "topk-softmax", "mixtral"),
      () => chooseTarget(qwen3, "topk-softmax", "mixtral"),
      () => chooseTarget(qwen3, "softmax-topk", "qwen2_moe"),
      () => chooseTarget(llama, "softmax-topk", "mixtral"),
      () => chooseTarget(llama, "topk-softmax", "qwen3_moe"),
      () => chooseTarget(withWindows(qwen3, [8, 8]), "topk-softmax", "qwen3_moe"),
      () => chooseTarget(withWindows(mistral, [8, null]), "topk-softmax", "mixtral"),
      () => chooseTarget(withAttention(llama, { qkvBias: true, outBias: true }), "topk-softmax", null),
      () => chooseTarget(biased, "topk-softmax", null),
    ].map(lineOf);
    expect(lines).toMatchInlineSnapshot(`
      [
        "target mixtral, topk-softmax: mixtral cannot hold this qwen2 model: mixtral has no query, key and value biases; these can: qwen2_moe",
        "target mixtral, topk-softmax: mixtral cannot hold this qwen3 model: mixtral has no norm on queries and keys; these can: qwen3_moe",
        "target qwen2_moe, softmax-topk: qwen2_moe cannot hold this qwen3 model: qwen2_moe has no norm on queries and keys; these can: qwen3_moe",
        "target mixtral, softmax-topk: mixtral cannot hold this llama model: mixtral always renormalises the selected experts (topk-softmax), it has no softmax-topk router; these can: qwen2_moe",
        "target qwen3_moe, topk-softmax: qwen3_moe cannot hold this llama model: qwen3_moe always normalises queries and keys; these can: mixtral, qwen2_moe",
        "target qwen3_moe, topk-softmax: qwen3_moe cannot hold this qwen3 model: qwen3_moe has no sliding window; none of mixtral, qwen2_moe, qwen3_moe can",
        "target mixtral, topk-softmax: mixtral cannot hold this mistral model: mixtral has the sliding window on all layers or none; these can: qwen2_moe",
        "llama, topk-softmax: no MoE family that we write can hold this llama model: qwen2_moe has no bias on the attention output; known targets: mixtral, qwen2_moe, qwen3_moe",
        "llama, topk-softmax: no MoE family that we write can hold this llama model: mixtral has no biases in its experts; known targets: mixtral, qwen2_moe, qwen3_moe",
      ]
    `);
  });
});
