import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { configFromSpec, specFromConfig } from "../../../../src/model/decoder/config.js";
import type { DecoderSpec } from "../../../../src/model/decoder/types.js";
import { golden } from "../../../support/golden.js";

function read(name: string, changes: Record<string, unknown>): DecoderSpec {
  const config = JSON.parse(readFileSync(golden(name, "config.json"), "utf8")) as Record<string, unknown>;
  return specFromConfig({ ...config, ...changes }, "config.json");
}
const types = ["full_attention", "sliding_attention"];
const windowsOf = ({ layers }: DecoderSpec): (number | null)[] => layers.map(({ window }) => window);

describe("layer_types", () => {
  it("of a Mistral says which layers have the window, as transformers reads it (class ministral)", () => {
    const spec = read("dense/mistral", { sliding_window: 8, layer_types: types });
    expect(windowsOf(spec)).toEqual([null, 8]);
    expect(configFromSpec(spec, { dtype: "float32" })).toMatchObject({ sliding_window: 8, layer_types: types });
    const plain = configFromSpec(read("dense/mistral", { sliding_window: 8 }), { dtype: "float32" });
    expect(plain).toMatchObject({ sliding_window: 8 });
    expect(plain).not.toHaveProperty("layer_types");
  });

  it.each(["dense/llama", "dense/starcoder2", "dense/phi3", "dense/granite", "moe/mixtral", "moe/qwen3_moe"])(
    "that contradict what the class of %s computes are refused",
    (name) => {
      expect(() => read(name, { layer_types: ["full_attention", "full_attention"] })).not.toThrow();
      expect(() => read(name, { layer_types: types })).toThrow('expected "full_attention" for layer 1');
    },
  );
});
