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

  it("is that of rope_scaling alone where both objects stand, as transformers takes it", () => {
    const bare = without(goldenConfig("dense/llama"), "rope_parameters");
    const linear = { rope_type: "linear", factor: 2 };
    const both = { ...bare, rope_parameters: { ...linear, rope_theta: 333 }, rope_scaling: linear };
    const theta = (config: unknown): number => present(at(read(config).layers, 0).rope).theta;
    expect(theta(both)).toBe(10_000);
    expect(theta({ ...both, rope_scaling: {} })).toBe(333);
    expect(theta({ ...both, rope_scaling: null })).toBe(333);
    expect(theta({ ...both, rope_scaling: { ...linear, rope_theta: 333 } })).toBe(333);
    expect(theta({ ...both, rope_theta: 333 })).toBe(333);
    expect(() => read({ ...both, rope_theta: 5 })).toThrow("rope_theta is given as 5 and as 333");
    const nemotron = without(goldenConfig("dense/nemotron"), "rope_parameters", "partial_rotary_factor");
    const partly = { ...linear, partial_rotary_factor: 0.25 };
    const rotary = (config: unknown): number => present(at(read(config).layers, 0).rope).rotary;
    expect(rotary({ ...nemotron, rope_parameters: partly, rope_scaling: linear })).toBe(4);
    expect(rotary({ ...nemotron, rope_parameters: partly })).toBe(2);
  });
});
