import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import { argumentsIn, settingsOfArguments, shellWords } from "../../../src/model/decoder/megatron-arguments.js";
import { megatronFamilies } from "../../../src/model/decoder/megatron-families.js";
import { listOf } from "../../../src/model/decoder/megatron-settings.js";
import { megatronObstacles, megatronSettings, specFromMegatron } from "../../../src/model/decoder/megatron.js";
import { families, ownFamily, type DecoderSpec } from "../../../src/model/decoder/types.js";
import { golden, goldenModels } from "../../support/golden.js";

const specOf = (name: string): DecoderSpec =>
  specFromConfig(JSON.parse(readFileSync(golden(name, "config.json"), "utf8")), name);
/** The model that shows what a family is; variants of it may have obstacles of their own. */
const shown = goldenModels.map((name) => [name, specOf(name)] as const);

describe("decoders as settings of Megatron-Core", () => {
  const held = shown.filter(([, spec]) => megatronObstacles(spec).length === 0);

  it.each(held)("%s comes back from its settings", (name, spec) => {
    const back = specFromMegatron(megatronSettings(spec), name);
    const { tokens, family } = spec;
    const layers = spec.layers.map(({ ffn, ...layer }, i) => ({ ...layer, ffn: sameRouter(ffn, back.layers[i]!.ffn) }));
    expect({ ...back, tokens, family }).toEqual({ ...spec, layers });
  });

  /** A floor under the divisor that never counts is lost. */
  function sameRouter<T extends DecoderSpec["layers"][number]["ffn"]>(
    ffn: T,
    back: DecoderSpec["layers"][number]["ffn"],
  ): T {
    if (ffn.kind === "dense" || back.kind === "dense") return ffn;
    return { ...ffn, router: { ...ffn.router, renormalise: back.router.renormalise } };
  }

  it("the table of families says of each what its golden model shows", () => {
    const found = Object.fromEntries(
      families.flatMap((family) => {
        if (family === ownFamily) return [];
        const specs = shown.filter(([, spec]) => spec.family === family).map(([, spec]) => megatronObstacles(spec));
        const best = specs.sort((a, b) => a.length - b.length)[0];
        return [[family, best?.[0] ?? null]];
      }),
    );
    const said = Object.fromEntries(
      Object.entries(megatronFamilies).map(([family, { obstacle }]) => [family, obstacle]),
    );
    expect(found).toEqual(said);
  });

  it("docs/cluster.md has the same table", () => {
    const page = readFileSync(new URL("../../../docs/cluster.md", import.meta.url), "utf8").replace(/ +/g, " ");
    for (const [family, { obstacle, note }] of Object.entries(megatronFamilies))
      expect(page).toContain(`| \`${family}\` | ${obstacle === null ? "yes" : "no"} | ${obstacle ?? note} |`);
  });

  it("refuses what it cannot say, naming the model's family and the reason", () => {
    expect(() => megatronSettings(specOf("dense/gemma2"))).toThrow(
      "Megatron-Core cannot hold this gemma2 model: it has norms before and behind",
    );
  });
});

describe("rope of Megatron-Core", () => {
  const yarn = {
    kind: "yarn",
    factor: 4,
    betaFast: 32,
    betaSlow: 1,
    originalMaxPositions: 32,
    truncate: true,
  } as const;
  const withRope = (name: string, scaling: object, more: object = {}): DecoderSpec => {
    const spec = specOf(name);
    const layers = spec.layers.map((layer) => ({ ...layer, rope: { ...layer.rope!, scaling, ...more } }));
    return { ...spec, layers: layers as DecoderSpec["layers"] };
  };

  it.each([
    ["cos and sin as YaRN has them", { ...yarn, attentionFactor: 0.1 * Math.log(4) + 1 }],
    ["another factor on cos and sin", { ...yarn, attentionFactor: 1.25 }],
    ["none on cos and sin, ends that are not rounded", { ...yarn, attentionFactor: 1, truncate: false }],
  ])("is YaRN with %s", (_, scaling) => {
    const spec = withRope("dense/llama", scaling);
    const settings = megatronSettings(spec);
    expect(settings).toMatchObject({ position_embedding_type: "yarn", rotary_scaling_factor: 4, mscale_all_dim: 0 });
    const { rope } = specFromMegatron(settings, "s").layers[0]!;
    const { attentionFactor, ...others } = rope!.scaling as typeof scaling;
    expect(attentionFactor).toBeCloseTo(scaling.attentionFactor, 12);
    expect({ ...others, attentionFactor: scaling.attentionFactor }).toEqual(scaling);
  });

  it("scales the scores of latent attention by YaRN's factor, squared", () => {
    const [one, all] = [0.1 * Math.log(40) + 1, 0.1 * 0.707 * Math.log(40) + 1];
    const scaling = { ...yarn, factor: 40, originalMaxPositions: 4096, attentionFactor: one / all };
    const spec = withRope("moe/deepseek_v3", scaling);
    const scaled = { ...spec, attn: { ...spec.attn, scale: spec.attn.headDim ** -0.5 * all ** 2 } };
    const settings = megatronSettings(scaled);
    expect(settings).toMatchObject({ rope_type: "yarn", mscale: 1, mscale_all_dim: 0.707, rotary_scaling_factor: 40 });
    const back = specFromMegatron(settings, "s");
    expect(back.attn.scale).toBeCloseTo(scaled.attn.scale, 12);
    expect((back.layers[0]!.rope!.scaling as typeof scaling).attentionFactor).toBeCloseTo(one / all, 12);
  });

  it.each<[string, DecoderSpec, string]>([
    [
      "YaRN over neighbouring pairs",
      withRope("dense/llama", { ...yarn, attentionFactor: 1 }, { interleaved: true }),
      "turns neighbouring pairs",
    ],
    [
      "YaRN of a part of each head",
      withRope("dense/llama", { ...yarn, attentionFactor: 1 }, { rotary: 4 }),
      "turns a part of each head",
    ],
    [
      "YaRN of latents over other positions",
      withRope("moe/deepseek_v3", { ...yarn, attentionFactor: 1 }),
      "no argument says them",
    ],
    [
      "halves of latents",
      withRope("moe/deepseek_v3", { kind: "none" }, { interleaved: false }),
      "its latent attention turns halves",
    ],
    ["a factor that is no whole number", withRope("dense/llama", { kind: "linear", factor: 2.5 }), "divided by 2.5"],
    [
      "a base that is no whole number",
      withRope("dense/llama", { kind: "none" }, { theta: 10000.5 }),
      "base is 10000.5",
    ],
  ])("is refused for %s", (_, spec, words) => {
    expect(() => megatronSettings(spec)).toThrow(words);
  });

  it("groups of experts are those that Megatron-Core ranks by two experts", () => {
    const spec = specOf("moe/deepseek_v3");
    const grouped = (topK: number): DecoderSpec => ({
      ...spec,
      layers: spec.layers.map((layer) =>
        layer.ffn.kind === "moe" ? { ...layer, ffn: { ...layer.ffn, topK } } : layer,
      ),
    });
    expect(megatronObstacles(grouped(2))).toEqual([]);
    expect(megatronObstacles(grouped(4))[0]).toContain("Megatron-Core's by their best 4");
    const settings = { ...megatronSettings(spec), moe_router_topk: 4 };
    expect(() => specFromMegatron(settings, "s")).toThrow("setting moe_router_group_topk is 1, expected half of");
  });
});

describe("settings of Megatron-Core as a decoder", () => {
  const sizes = {
    num_layers: 2,
    hidden_size: 32,
    num_attention_heads: 4,
    max_position_embeddings: 64,
    padded_vocab_size: 128,
  };

  it("takes its defaults from pretrain_gpt.py", () => {
    const spec = specFromMegatron(sizes, "s");
    expect(spec).toMatchObject({ learnedPositions: true, norm: { kind: "layer", bias: true }, tiedHead: true });
    expect(spec.layers[0]!.ffn).toMatchObject({ kind: "dense", ffnDim: 128, bias: true, activation: "geluTanh" });
  });

  it("names a setting that is missing or asks for what no description says", () => {
    expect(() => specFromMegatron({ ...sizes, num_layers: null }, "s")).toThrow(
      "setting num_layers is null, expected a whole number",
    );
    expect(() => specFromMegatron({ ...sizes, multi_latent_attention: true }, "s")).toThrow(
      "setting qk_layernorm is null, expected true, since latents without norms are unknown here",
    );
    expect(() => specFromMegatron({ ...sizes, softmax_type: "off-by-one" }, "s")).toThrow(
      'setting softmax_type is "off-by-one"',
    );
    expect(() => specFromMegatron({ ...sizes, quick_geglu: true }, "s")).toThrow("setting quick_geglu is true");
    expect(() => specFromMegatron({ ...sizes, attention_output_gate: true }, "s")).toThrow(
      "setting attention_output_gate is true",
    );
  });

  it("reads patterns of layers as numbers and as lists", () => {
    expect(listOf("([0]*1+[1]*2)")).toEqual([0, 1, 1]);
    expect(listOf("[1]*3")).toEqual([1, 1, 1]);
    expect(listOf("2")).toBe(2);
    expect(listOf("__import__('os')")).toBeNull();
    const moe = { ...sizes, num_layers: 4, num_experts: 4, moe_layer_freq: 2 };
    expect(specFromMegatron(moe, "s").layers.map(({ ffn }) => ffn.kind)).toEqual(["moe", "dense", "moe", "dense"]);
  });

  it("routes as the score function and its order say", () => {
    const routerOf = (more: object): unknown => {
      const { ffn } = specFromMegatron({ ...sizes, num_experts: 8, ...more }, "s").layers[0]!;
      return ffn.kind === "moe" && ffn.router.renormalise;
    };
    expect(routerOf({})).toEqual({ plus: 0, atLeast: 0 });
    expect(routerOf({ moe_router_pre_softmax: true })).toBeNull();
    expect(routerOf({ moe_router_score_function: "sigmoid" })).toEqual({ plus: 1e-20, atLeast: 0 });
    expect(routerOf({ moe_router_score_function: "sigmoid", moe_router_topk: 1 })).toBeNull();
  });
});

describe("arguments of pretrain_gpt.py", () => {
  it("are found in a script, with quotes, continued lines and comments", () => {
    const script =
      "torchrun --nproc-per-node 8 pretrain_gpt.py \\\n  --num-layers 4 --moe-layer-freq '([0]*1+[1]*3)' # a note --not\n --lr=3e-4";
    expect(argumentsIn(script)).toEqual([
      { flag: "--nproc-per-node", values: ["8", "pretrain_gpt.py"] },
      { flag: "--num-layers", values: ["4"] },
      { flag: "--moe-layer-freq", values: ["([0]*1+[1]*3)"] },
      { flag: "--lr", values: ["3e-4"] },
    ]);
    expect(shellWords('ARGS=(\n --a "b c"\n)')).toEqual(["ARGS=(", "--a", "b c"]);
  });

  it("become settings under the names that checkpoints use", () => {
    const settings = settingsOfArguments(
      argumentsIn(
        "--hidden-size 32 --swiglu --disable-bias-linear --norm-epsilon 1e-6 --window-size 127,0 --moe-layer-freq 2",
      ),
    );
    expect(settings).toMatchObject({
      hidden_size: 32,
      swiglu: true,
      add_bias_linear: false,
      layernorm_epsilon: 1e-6,
      window_size: [127, 0],
      moe_layer_freq: 2,
      ffn_hidden_size: 64,
    });
  });
});
