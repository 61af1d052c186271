import { describe, expect, it } from "vitest";
import { at } from "../../../../src/base/at.js";
import { plainRope } from "../../../../src/model/decoder/plain.js";
import type { Rope } from "../../../../src/model/decoder/types.js";
import { present } from "../../../support/present.js";
import { goldenConfig, read, without } from "./configs.js";

describe("rope of a config", () => {
  it("is read from flat and nested keys, the old spelling of its type, and class defaults", () => {
    const bare = without(goldenConfig("dense/llama"), "rope_parameters");
    const rope = (config: unknown): Rope => present(at(read(config).layers, 0).rope);
    expect(rope(bare)).toEqual(plainRope(10_000, 8));
    expect(rope(without(goldenConfig("moe/mixtral"), "rope_parameters")).theta).toBe(1_000_000);
    expect(rope({ ...bare, rope_theta: 5e5, rope_scaling: { type: "linear", factor: 2 } })).toEqual({
      ...plainRope(5e5, 8),
      scaling: { kind: "linear", factor: 2 },
    });
    expect(rope({ ...bare, rope_theta: 5e5, rope_parameters: { rope_type: "default" } }).theta).toBe(5e5);
    expect(
      rope({
        ...bare,
        rope_parameters: { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4, rope_theta: 3 },
        original_max_position_embeddings: 9,
      }),
    ).toMatchObject({ theta: 3, scaling: { originalMaxPositions: 9 } });
  });
});
