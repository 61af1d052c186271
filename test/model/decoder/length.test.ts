import { describe, expect, it } from "vitest";
import { readFileSync } from "node:fs";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import { partsBeyond } from "../../../src/model/decoder/length.js";
import type { DecoderSpec } from "../../../src/model/decoder/types.js";
import { golden } from "../../support/golden.js";

function spec(name: string, changes: Record<string, unknown> = {}): DecoderSpec {
  const config = JSON.parse(readFileSync(golden(name, "config.json"), "utf8")) as Record<string, unknown>;
  return specFromConfig({ ...config, ...changes }, "config.json");
}

describe("partsBeyond", () => {
  it("names windows that no query of a sequence leaves", () => {
    const windowed = spec("dense/mistral", { sliding_window: 8 });
    expect(partsBeyond(windowed, 8)).toEqual(["windows of 8 tokens (2 layers)"]);
    expect(partsBeyond(windowed, 9)).toEqual([]);
    const mixed = spec("dense/mistral", { sliding_window: 8, layer_types: ["full_attention", "sliding_attention"] });
    expect(partsBeyond(mixed, 4)).toEqual(["windows of 8 tokens (1 layer)"]);
  });

  it("names rope that is scaled for longer texts", () => {
    const scaled = spec("dense/llama3_rope");
    const scaling = scaled.layers[0]?.rope?.scaling;
    const length = scaling?.kind === "llama3" ? scaling.originalMaxPositions : NaN;
    expect(partsBeyond(scaled, length)).toEqual([`rope beyond the ${length} positions that llama3 scaling extends`]);
    expect(partsBeyond(scaled, length + 1)).toEqual([]);
  });

  it("names queries that are scaled in longer texts", () => {
    const { attn, ...rest } = spec("found/report/ministral3_length");
    const length = attn.lengthScale?.originalMaxPositions ?? NaN;
    const plain = { ...rest, attn, layers: rest.layers.map((layer) => ({ ...layer, rope: null })) };
    expect(partsBeyond(plain, length)).toEqual([`the factor on queries beyond ${length} positions`]);
    expect(partsBeyond(plain, length + 1)).toEqual([]);
  });

  it("names learnt positions, and nothing of a model without any of these", () => {
    const { maxPositions } = spec("dense/gpt2");
    expect(partsBeyond(spec("dense/gpt2"), 4)).toEqual([`learnt positions from 4 to ${maxPositions - 1}`]);
    expect(partsBeyond(spec("dense/gpt2"), maxPositions)).toEqual([]);
    expect(partsBeyond(spec("dense/llama"), 1)).toEqual([]);
  });
});
