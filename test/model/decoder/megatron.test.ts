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
      "setting multi_latent_attention is true",
    );
    expect(() => specFromMegatron({ ...sizes, softmax_type: "learnable" }, "s")).toThrow(
      'setting softmax_type is "learnable"',
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
