import { describe, expect, it } from "vitest";
import { softmaxRouter } from "../../../../src/model/decoder/types.js";
import { goldenConfig, read, refuses, withExperts, without, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";

describe("ernie4_5_moe", () => {
  const config = goldenConfig("moe/ernie4_5_moe");
  const spec = read(config);
  const kinds = (extra: object): string =>
    read({ ...config, ...extra })
      .layers.map(({ ffn }) => ffn.kind)
      .join();

  it("reads absent keys as the class does", () => {
    const bare = without(
      config,
      "moe_k",
      "moe_num_experts",
      "moe_num_shared_experts",
      "moe_norm_min",
      "moe_intermediate_size",
      "tie_word_embeddings",
    );
    expect(read({ ...bare, rope_parameters: null })).toMatchObject({
      tiedHead: true,
      layers: [{ rope: { theta: 500_000, interleaved: true, rotary: 8 } }, {}],
    });
    expect(at(read(bare).layers, 1).ffn).toMatchObject({
      ffnDim: 1536,
      experts: 64,
      topK: 6,
      shared: { ffnDim: 3072, gated: false },
      router: { renormalise: { plus: 0, atLeast: 1e-12 }, correctionBias: true },
    });
  });

  it("reads and writes which layers have experts by start, end and interval", () => {
    const layers = { num_hidden_layers: 6 };
    expect(kinds({ moe_layer_start_index: 0 })).toBe("moe,moe");
    expect(kinds({ ...layers, moe_layer_start_index: 1, moe_layer_end_index: -1, moe_layer_interval: 2 })).toBe(
      "dense,moe,dense,moe,dense,moe",
    );
    expect(kinds({ ...layers, moe_layer_start_index: 2, moe_layer_end_index: 4 })).toBe(
      "dense,dense,moe,moe,moe,dense",
    );
    const every = read({
      ...config,
      ...layers,
      moe_layer_start_index: 1,
      moe_layer_end_index: -1,
      moe_layer_interval: 2,
    });
    expect(write(every)).toMatchObject({ moe_layer_start_index: 1, moe_layer_end_index: 5, moe_layer_interval: 2 });
    const [dense, moe] = spec.layers as [(typeof spec.layers)[0], (typeof spec.layers)[0]];
    refuses(
      () => write({ ...spec, layers: [moe, dense, moe, moe] }),
      "mixtures of experts other than at every n-th layer",
    );
    refuses(() => write({ ...spec, layers: [moe, dense, moe] }), "mixtures of experts other than at every n-th layer");
  });

  it("refuses biases, plain softmax routers and shared experts of other sizes", () => {
    refuses(
      () => read({ ...config, use_bias: true }),
      "use_bias is true, expected false (the output head would have a bias too, which cannot be said)",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, qkvBias: true, outBias: true } }),
      "query, key and value biases",
    );
    refuses(() => read({ ...config, moe_k: 9 }), "moe_k is 9, expected at most the number of experts (8)");
    refuses(
      () => read({ ...config, moe_layer_start_index: 2 }),
      "moe_layer_start_index is 2, expected a layer number that leaves one of 2 layers with experts",
    );
    refuses(
      () => write(withExperts(spec, { shared: { ffnDim: 17, gated: false } })),
      "a shared expert of 17, not a multiple of an expert's 16",
    );
    refuses(() => write(withExperts(spec, { shared: { ffnDim: 16, gated: true } })), "a shared expert behind a gate");
    refuses(
      () => write(withExperts(spec, { router: softmaxRouter("softmax-topk") })),
      "router weights that are not renormalised",
    );
    refuses(() => write(withExperts(spec, { router: softmaxRouter("topk-softmax") })), "router.correctionBias false");
    refuses(
      () => write({ ...spec, layers: spec.layers.map((layer) => ({ ...layer, window: 3 })) }),
      "a sliding attention window",
    );
  });
});
