import { describe, expect, it } from "vitest";
import { goldenConfig, read, refuses, without, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";
import { present } from "../../../support/present.js";

describe("phi3 with LongRoPE", () => {
  const plain = without(goldenConfig("dense/phi3"), "rope_parameters");
  const factors = { short_factor: [1, 1, 1, 2], long_factor: [1, 2, 3, 4] };
  // As the released files have it.
  const config = {
    ...plain,
    rope_scaling: { type: "longrope", ...factors },
    rope_theta: 10_000,
    max_position_embeddings: 131_072,
    original_max_position_embeddings: 4096,
  };
  const scaling = {
    kind: "longrope",
    short: [1, 1, 1, 2],
    long: [1, 2, 3, 4],
    originalMaxPositions: 4096,
    attentionFactor: Math.sqrt(1 + Math.log(32) / Math.log(4096)),
  };

  it("reads the types longrope and su, with the factor from the lengths", () => {
    expect(present(at(read(config).layers, 0).rope).scaling).toEqual(scaling);
    expect(present(at(read({ ...config, rope_scaling: { type: "su", ...factors } }).layers, 0).rope).scaling).toEqual(
      scaling,
    );
    // The class has a default of its own for the length, which goes before the nested one.
    const nested = { rope_type: "longrope", ...factors, rope_theta: 10_000, original_max_position_embeddings: 7 };
    expect(
      present(
        at(
          read({ ...without(config, "rope_scaling", "original_max_position_embeddings"), rope_parameters: nested })
            .layers,
          0,
        ).rope,
      ).scaling,
    ).toEqual(scaling);
    // Phi-4 mini: three quarters of each head.
    const part = {
      ...config,
      partial_rotary_factor: 0.75,
      rope_scaling: { type: "longrope", short_factor: [1, 1, 1], long_factor: [1, 2, 3] },
    };
    expect(at(read(part).layers, 0).rope).toMatchObject({ rotary: 6, scaling: { short: [1, 1, 1] } });
  });

  it("is written with the length at the top", () => {
    const output = write(read(config));
    expect(output).toMatchObject({
      original_max_position_embeddings: 4096,
      head_dim: 8,
      rope_scaling: { rope_type: "longrope", ...factors },
    });
    expect(read(output)).toEqual(read(config));
    expect(write(read(plain))).not.toHaveProperty("original_max_position_embeddings");
  });

  it("refuses factors of the wrong number, other scalings and other head sizes", () => {
    refuses(
      () => read({ ...config, rope_scaling: { type: "longrope", ...factors, long_factor: [1] } }),
      "rope_scaling.long_factor is [1], expected 4 numbers, one for each rotated pair",
    );
    refuses(
      () => read({ ...config, rope_scaling: { type: "yarn", factor: 2 } }),
      'rope_scaling.type is "yarn", expected "default" or "longrope"',
    );
    refuses(
      () => write({ ...read(config), hidden: 48 }),
      "a phi3 model cannot have LongRoPE with heads of 8, other than hidden_size / num_attention_heads",
    );
    const spec = read(plain);
    const linear = { kind: "linear", factor: 2 } as const;
    refuses(
      () =>
        write({
          ...spec,
          layers: spec.layers.map((layer) => ({ ...layer, rope: { ...present(layer.rope), scaling: linear } })),
        }),
      "a phi3 model cannot have linear rope scaling",
    );
  });
});
