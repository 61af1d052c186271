import { describe, expect, it } from "vitest";
import { goldenConfig, read, without } from "./configs.js";

const windowsOf = (config: unknown): (number | null)[] => read(config).layers.map(({ window }) => window);

describe("windows of a config", () => {
  it("are 4096 without a key and none for null in mistral", () => {
    const config = goldenConfig("dense/mistral");
    expect(windowsOf(config)).toEqual([null, null]);
    expect(windowsOf({ ...config, sliding_window: 7 })).toEqual([7, 7]);
    expect(windowsOf(without(config, "sliding_window"))).toEqual([4096, 4096]);
  });

  it("come from layer_types or else max_window_layers in qwen2 and qwen3, only if switched on", () => {
    for (const family of ["qwen2", "qwen3"]) {
      const config = { ...goldenConfig(`dense/${family}`), sliding_window: 16, max_window_layers: 1 };
      expect(windowsOf(without(config, "layer_types"))).toEqual([null, null]);
      expect(windowsOf({ ...without(config, "layer_types"), use_sliding_window: true })).toEqual([null, 16]);
      expect(
        windowsOf({ ...config, use_sliding_window: true, layer_types: ["sliding_attention", "full_attention"] }),
      ).toEqual([16, null]);
      expect(() => read({ ...config, layer_types: ["sliding_attention", "full_attention"] })).toThrow(
        "sliding windows are switched off",
      );
    }
  });

  it("are on even layers below max_window_layers in qwen2_moe, on all layers in qwen3_moe", () => {
    const on = { use_sliding_window: true, sliding_window: 5 };
    expect(windowsOf({ ...without(goldenConfig("moe/qwen2_moe"), "layer_types"), ...on })).toEqual([5, null]);
    expect(windowsOf({ ...goldenConfig("moe/qwen3_moe"), ...on })).toEqual([5, 5]);
  });
});
