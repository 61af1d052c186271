import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import type { DecoderSpec } from "../../../src/model/decoder/types.js";
import type { RouterOrder } from "../../../src/model/decoder/types.js";
import { planUpcycle } from "../../../src/surgery/planning/plan.js";
import { upcycleRecipe, type TargetFamily } from "../../../src/surgery/planning/recipe.js";
import { holders } from "../../support/holders.js";
import { denseSpec } from "./fixtures.js";
import { lineOf } from "../../support/line.js";

const llama = denseSpec("llama");
const mistral = denseSpec("mistral");
const qwen2 = denseSpec("qwen2");
const qwen3 = denseSpec("qwen3");

function withAttention(spec: DecoderSpec, attn: Partial<DecoderSpec["attn"]>): DecoderSpec {
  return { ...spec, attn: { ...spec.attn, ...attn } };
}

function withWindows(spec: DecoderSpec, windows: (number | null)[]): DecoderSpec {
  return { ...spec, layers: spec.layers.map((layer, i) => ({ ...layer, window: at(windows, i) })) };
}

const chooseTarget = (source: DecoderSpec, order: RouterOrder, target: TargetFamily | null): string =>
  planUpcycle(source, upcycleRecipe("E8G1T2", { order, target })).target.family;
const defaultTarget = (source: DecoderSpec, order: RouterOrder): string => chooseTarget(source, order, null);
const exactTargets = (source: DecoderSpec, order: RouterOrder): string[] =>
  holders(source, upcycleRecipe("E8G1T2", { order }));

describe("the choice of a target family", () => {
  it("takes the preferred family of each source and router order where the recipe names none", () => {
    const of = (spec: DecoderSpec): string[] =>
      (["topk-softmax", "softmax-topk"] as const).map((order) => defaultTarget(spec, order));
    expect(of(llama)).toEqual(["mixtral", "qwen2_moe"]);
    expect(of(mistral)).toEqual(["mixtral", "qwen2_moe"]);
    expect(of(qwen2)).toEqual(["qwen2_moe", "qwen2_moe"]);
    expect(of(qwen3)).toEqual(["qwen3_moe", "qwen3_moe"]);
  });

  it("lists all families that hold a source, our own format last", () => {
    expect(exactTargets(llama, "topk-softmax")).toEqual([
      "mixtral",
      "qwen2_moe",
      "granitemoe",
      "granitemoe_swa",
      "ernie4_5_moe",
      "glm4_moe",
      "solar_open",
      "upcycle",
    ]);
    expect(exactTargets(withWindows(llama, [8, null]), "topk-softmax")).toEqual([
      "qwen2_moe",
      "granitemoe_swa",
      "upcycle",
    ]);
    expect(exactTargets(withWindows(llama, [8, 16]), "topk-softmax")).toEqual(["upcycle"]);
    expect(exactTargets(withWindows(qwen3, [8, 8]), "topk-softmax")).toEqual([
      "qwen3_moe",
      "mellum",
      "dots1",
      "upcycle",
    ]);
  });

  it("prefers a released family to our own format, even if it keeps the function only approximately", () => {
    const source = { ...llama, norm: { kind: "layer", weight: "scale", bias: true, eps: 1e-5 } } as const;
    expect(exactTargets(source, "topk-softmax")).toEqual(["phimoe", "upcycle"]);
    const plan = planUpcycle(source, upcycleRecipe("E8G1T2", { routerStd: 0 }));
    expect([plan.target.family, plan.expected.kind]).toEqual(["phimoe", "approximate"]);
  });

  it("refuses a family that cannot hold the source, with the reason and the families that can", () => {
    const biased = {
      ...llama,
      layers: llama.layers.map((layer) => ({
        ...layer,
        ffn: { kind: "dense", ffnDim: 48, bias: true, activation: "silu", gated: true } as const,
      })),
    };
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
        "target mixtral, topk-softmax: mixtral cannot hold this qwen2 model: a mixtral model cannot have query, key and value biases; these can: qwen2_moe, granitemoe, granitemoe_swa, glm4_moe, solar_open, upcycle",
        "target mixtral, topk-softmax: mixtral cannot hold this qwen3 model: a mixtral model cannot have a norm on queries and keys; these can: qwen3_moe, mellum, glm4_moe, dots1, hy_v3, lfm2_moe, upcycle",
        "target qwen2_moe, softmax-topk: qwen2_moe cannot hold this qwen3 model: a qwen2_moe model cannot have a norm on queries and keys; these can: qwen3_moe, mellum, glm4_moe, dots1, upcycle",
        "target mixtral, softmax-topk: mixtral cannot hold this llama model: mixtral always renormalises the selected experts (topk-softmax), it has no softmax-topk router; these can: qwen2_moe, ernie4_5_moe, glm4_moe, solar_open, upcycle",
        "target qwen3_moe, topk-softmax: qwen3_moe cannot hold this llama model: a qwen3_moe model cannot have queries and keys without a norm; these can: mixtral, qwen2_moe, granitemoe, granitemoe_swa, ernie4_5_moe, glm4_moe, solar_open, upcycle",
        "no error",
        "target mixtral, topk-softmax: mixtral cannot hold this mistral model: a mixtral model cannot have different attention windows on different layers; these can: qwen2_moe, granitemoe_swa, upcycle",
        "no error",
        "no error",
      ]
    `);
  });
});
