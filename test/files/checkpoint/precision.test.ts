import { describe, expect, it } from "vitest";
import { plannedWeightBytes } from "../../../src/files/checkpoint/write.js";
import { golden } from "../../support/golden.js";
import { fresh, rewrite, variant, withCheckpoint } from "./folders.js";

describe("what stays in float32", () => {
  it.each([
    ["moe/deepseek_v3", "mlp.gate.e_score_correction_bias"],
    ["moe/glm4_moe", "mlp.gate.e_score_correction_bias"],
    ["moe/hy_v3", "mlp.expert_bias"],
    ["moe/hunyuan_v1_moe", "mlp.gate.wg.weight"],
  ])("%s in bfloat16: %s, and nothing else", async (model, keptName) => {
    const dir = fresh();
    await withCheckpoint(golden(model), async (source) => {
      const { weightBytes } = await rewrite(source, dir, { dtype: "BF16" });
      expect(weightBytes).toBe(plannedWeightBytes(source.spec, "BF16"));
      await withCheckpoint(dir, async (copy) => {
        expect(copy.dtype).toBe("BF16");
        const floats = [...copy.tensors].filter(([, { dtype }]) => dtype === "F32").map(([name]) => name);
        expect(floats).toContain(`model.layers.1.${keptName}`);
        expect(floats.every((name) => name.endsWith(keptName))).toBe(true);
        const key = keptName.endsWith("wg.weight") ? "layers.1.router" : "layers.1.routerCorrection";
        expect(await copy.readFloat32(key)).toEqual(await source.readFloat32(key));
      });
    });
  });
});

it("layers for multi-token prediction behind the last one are named as unused", async () => {
  const dir = variant("moe/deepseek_v3", (tensors) => [
    ...tensors,
    ...tensors
      .filter(({ name }) => name.includes("layers.1.self_attn"))
      .map((tensor) => ({ ...tensor, name: tensor.name.replace("layers.1", "layers.2") })),
    { name: "model.layers.2.eh_proj.weight", dtype: "F32", shape: [1], bytes: new Uint8Array(4) },
  ]);
  await withCheckpoint(dir, async ({ unused }) => {
    expect(unused).toContain("model.layers.2.eh_proj.weight");
    expect(unused).toContain("model.layers.2.self_attn.kv_b_proj.weight");
    expect(unused.every((name) => name.startsWith("model.layers.2."))).toBe(true);
  });
});
