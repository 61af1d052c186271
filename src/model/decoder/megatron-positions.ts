/**
 * Rotary positions, windows and latent attention as settings of Megatron-Core, in both directions. Source:
 * NVIDIA/Megatron-LM@d98e8a64 (core 0.20.0), `core/models/gpt/gpt_model.py`,
 * `core/models/common/embeddings/{rotary,yarn_rotary}_pos_embedding.py`, `core/transformer/multi_latent_attention.py`,
 * `training/argument_utils.py` (core_transformer_config_from_args, _apply_yarn_config_from_args). Pure.
 */
import { yarnMscale } from "./families/rope.js";
import type { MegatronSettings, SettingsReader } from "./megatron-settings.js";
import type { AttentionSpec, DecoderSpec, LatentAttention, NormSpec, Rope, RopeScaling } from "./types.js";

type Yarn = Extract<RopeScaling, { kind: "yarn" }>;

/** `words` where something does not hold. */
export const unless = (holds: boolean, words: string): string[] => (holds ? [] : [words]);

const llama3Range = { lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 };
/** What `MLATransformerConfig` takes; no argument changes them. */
const latentYarn = { betaFast: 32, betaSlow: 1, originalMaxPositions: 4096, truncate: true };

/** What stands in the way of a decoder's positions and windows, in words. */
export function positionObstacles({ layers, attn, learnedPositions, positionsOffset }: DecoderSpec): string[] {
  const ropes = [...new Set(layers.flatMap(({ rope }) => (rope === null ? [] : [JSON.stringify(rope)])))];
  const windows = new Set(layers.flatMap(({ window }) => (window === null ? [] : [window])));
  const rope = layers.find((layer) => layer.rope !== null)?.rope ?? null;
  return [
    ...unless(ropes.length <= 1, "layers have different rotary frequencies"),
    ...unless(windows.size <= 1, "layers have sliding windows of different sizes"),
    ...unless(!learnedPositions || rope === null, "it has learnt positions beside rotary ones"),
    ...unless(positionsOffset === 0, `its learnt positions begin at row ${positionsOffset}, Megatron-Core's at 0`),
    ...(rope === null ? [] : ropeObstacles(rope, attn)),
    ...(attn.latent === null ? [] : latentPositionObstacles({ layers, learnedPositions })),
  ];
}

function latentPositionObstacles({
  layers,
  learnedPositions,
}: Pick<DecoderSpec, "layers" | "learnedPositions">): string[] {
  return [
    ...unless(
      !learnedPositions && layers.every(({ rope }) => rope !== null),
      "some of its layers have latent attention without rotary positions",
    ),
    ...unless(
      layers.every(({ window }) => window === null),
      "its latent attention has sliding windows",
    ),
  ];
}

function ropeObstacles(rope: Rope, attn: AttentionSpec): string[] {
  return [
    ...unless(
      Number.isInteger(rope.theta),
      `its rotary base is ${rope.theta}, and --rotary-base takes whole numbers alone`,
    ),
    ...(attn.latent === null ? scalingObstacles(rope, attn) : latentRopeObstacles(rope)),
  ];
}

function scalingObstacles({ scaling, rotary, interleaved }: Rope, { headDim }: AttentionSpec): string[] {
  switch (scaling.kind) {
    case "none":
      return [];
    case "linear":
      return unless(
        Number.isInteger(scaling.factor),
        `positions are divided by ${scaling.factor}, and --rotary-seq-len-interpolation-factor takes whole numbers ` +
          "alone",
      );
    case "llama3": {
      const { lowFreqFactor: low, highFreqFactor: high, originalMaxPositions: positions } = scaling;
      const known = low === 1 && high === 4 && positions === llama3Range.originalMaxPositions;
      return unless(
        known,
        `Llama 3's rope scaling has factors ${low} and ${high} over ${positions} positions, Megatron-Core 1 and 4 ` +
          "over 8192",
      );
    }
    case "yarn":
      return [
        ...unless(!interleaved, "YaRN turns neighbouring pairs, Megatron-Core's turns halves alone"),
        ...unless(rotary === headDim, "YaRN turns a part of each head, Megatron-Core's turns all of it"),
        ...unless(
          scaling.factor > 1 || scaling.attentionFactor === 1,
          `YaRN's factor ${scaling.factor} extends nothing, but cos and sin are multiplied`,
        ),
      ];
    case "longrope":
      return ["its LongRoPE scaling is unknown to Megatron-Core"];
  }
}

/** The part of each head that turns has a rope of its own, always over neighbouring pairs. */
function latentRopeObstacles({ scaling, interleaved }: Rope): string[] {
  const words = unless(interleaved, "its latent attention turns halves, Megatron-Core's turns neighbouring pairs");
  if (scaling.kind === "none") return words;
  if (scaling.kind !== "yarn")
    return [...words, `its latent attention has ${scaling.kind} rope scaling, Megatron-Core's knows YaRN alone`];
  const same = (Object.keys(latentYarn) as (keyof typeof latentYarn)[]).every(
    (key) => scaling[key] === latentYarn[key],
  );
  return [
    ...words,
    ...unless(
      same,
      "YaRN of latent attention has other settings than 4096 positions with beta 32 and 1, and no argument says them",
    ),
  ];
}

/** What stands in the way of latent attention, in words; its rope is `positionObstacles`'. */
export function latentObstacles(
  { headDim, scale, qkvBias, outBias, qkNorm }: AttentionSpec,
  latent: LatentAttention,
  norm: NormSpec,
  rope: Rope | null,
): string[] {
  const root = Math.sqrt(scale * Math.sqrt(headDim));
  const factor = rope !== null && rope.scaling.kind === "yarn" ? rope.scaling.factor : 1;
  return [
    ...unless(
      (["kind", "weight", "eps", "bias"] as const).every((part) => latent.norm[part] === norm[part]),
      `the norms of its latents (epsilon ${latent.norm.eps}) are of another kind than the others (${norm.eps})`,
    ),
    ...unless(
      Math.abs(root - 1) <= 1e-12 || (factor > 1 && root > 1),
      `scores are scaled by ${scale}, no setting says so`,
    ),
    ...unless(!qkvBias && !outBias && qkNorm === null, "its latent attention has biases or norms of queries and keys"),
  ];
}

/** YaRN's `mscale` whose factor is `value`; thirteen digits, so that 1 comes back as 1. */
const weightOf = (value: number, factor: number): number =>
  factor <= 1 ? 0 : Number(((value - 1) / (0.1 * Math.log(factor))).toPrecision(13));

/** Settings of positions and windows. */
export function positionSettings({ layers, learnedPositions, attn }: DecoderSpec): MegatronSettings {
  const rope = layers.find((layer) => layer.rope !== null)?.rope ?? null;
  const window = layers.find((layer) => layer.window !== null)?.window ?? null;
  const everywhere = layers.every((layer) => layer.window !== null);
  return {
    position_embedding_type: learnedPositions ? "learned_absolute" : kindOf(rope, attn),
    add_position_embedding: true,
    ...(rope === null ? {} : ropeSettings(rope, attn)),
    no_rope_freq:
      rope !== null && layers.some((layer) => layer.rope === null)
        ? layers.map((layer) => (layer.rope === null ? 1 : 0))
        : null,
    // A query sees itself and so many tokens before it.
    window_size: window === null ? null : [window - 1, 0],
    window_attn_skip_freq:
      window === null || everywhere ? null : layers.map((layer) => (layer.window === null ? 0 : 1)),
  };
}

function kindOf(rope: Rope | null, { latent }: AttentionSpec): string {
  if (rope === null) return "none";
  // Latent attention has a rope of its own, whose kind is rope_type.
  return rope.scaling.kind === "yarn" && latent === null ? "yarn" : "rope";
}

function ropeSettings({ theta, rotary, interleaved, scaling }: Rope, attn: AttentionSpec): MegatronSettings {
  const { headDim, latent } = attn;
  return {
    rotary_base: theta,
    rotary_percent: latent === null ? rotary / headDim : 1,
    rotary_interleaved: latent === null && interleaved,
    rotary_seq_len_interpolation_factor: scaling.kind === "linear" ? scaling.factor : null,
    use_rope_scaling: scaling.kind === "llama3",
    rope_scaling_factor: scaling.kind === "llama3" ? scaling.factor : 8,
    ...(scaling.kind === "yarn" ? yarnSettings(scaling, attn) : {}),
    ...(latent === null ? {} : { rope_type: scaling.kind === "yarn" ? "yarn" : "rope", apply_rope_fusion: false }),
  };
}

function yarnSettings(scaling: Yarn, { latent, scale, headDim }: AttentionSpec): MegatronSettings {
  const { factor, attentionFactor } = scaling;
  if (latent === null)
    return {
      rotary_scaling_factor: factor,
      mscale: weightOf(attentionFactor, factor),
      mscale_all_dim: 0,
      yarn_original_max_position_embeddings: scaling.originalMaxPositions,
      yarn_beta_fast: scaling.betaFast,
      yarn_beta_slow: scaling.betaSlow,
      yarn_correction_range_round_to_int: scaling.truncate,
    };
  // The scores are scaled by the square of the factor of mscale_all_dim, cos and sin by the quotient of both.
  const root = Math.sqrt(scale * Math.sqrt(headDim));
  return {
    rotary_scaling_factor: factor,
    mscale: weightOf(attentionFactor * root, factor),
    mscale_all_dim: weightOf(root, factor),
  };
}

/** Settings of latent attention; none without it. */
export function latentSettings({ latent, headDim }: AttentionSpec): MegatronSettings {
  if (latent === null) return { multi_latent_attention: false };
  return {
    multi_latent_attention: true,
    q_lora_rank: latent.queryRank,
    kv_lora_rank: latent.kvRank,
    qk_head_dim: headDim - latent.ropeDim,
    qk_pos_emb_head_dim: latent.ropeDim,
    v_head_dim: latent.valueDim,
    // The norms of the latents.
    qk_layernorm: true,
  };
}

/** The latent attention that settings describe; null: none. Throws inputError. */
export function readLatent(read: SettingsReader, norm: NormSpec): LatentAttention | null {
  if (!read.flag("multi_latent_attention")) return null;
  if (!read.flag("qk_layernorm")) throw read.fail("qk_layernorm", "true, since latents without norms are unknown here");
  return {
    queryRank: read.get("q_lora_rank") === null ? null : read.count("q_lora_rank"),
    kvRank: read.count("kv_lora_rank", 32),
    ropeDim: read.count("qk_pos_emb_head_dim", 64),
    valueDim: read.count("v_head_dim", 128),
    norm,
  };
}

/** Factor on the scores of latent attention: YaRN's for `mscale_all_dim`, squared. */
export function latentScale(read: SettingsReader, headDim: number): number {
  const factor = read.number(["rotary_scaling_factor"], 1);
  return headDim ** -0.5 * yarnMscale(factor, read.number(["mscale_all_dim"], 0)) ** 2;
}

/** The rope that settings describe. Throws inputError. */
export function readRope(read: SettingsReader, attn: AttentionSpec): Rope {
  const { headDim, latent } = attn;
  if (latent !== null) {
    const kind = read.word("rope_type", ["rope", "yarn"], "yarn");
    return {
      theta: read.number(["rotary_base"], 10000),
      rotary: latent.ropeDim,
      interleaved: true,
      scaling: kind === "rope" ? { kind: "none" } : { ...readYarnFactors(read), ...latentYarn },
    };
  }
  return {
    theta: read.number(["rotary_base"], 10000),
    rotary: Math.floor(1e-9 + headDim * read.number(["rotary_percent"], 1)),
    interleaved: read.flag("rotary_interleaved"),
    scaling: readScaling(read),
  };
}

function readScaling(read: SettingsReader): RopeScaling {
  if (read.get("position_embedding_type") === "yarn")
    return {
      ...readYarnFactors(read),
      originalMaxPositions: read.count("yarn_original_max_position_embeddings", 4096),
      betaFast: read.number(["yarn_beta_fast"], 32),
      betaSlow: read.number(["yarn_beta_slow"], 1),
      truncate: read.get("yarn_correction_range_round_to_int") !== false,
    };
  const factor = read.get("rotary_seq_len_interpolation_factor");
  if (read.flag("use_rope_scaling"))
    return { kind: "llama3", factor: read.number(["rope_scaling_factor"], 8), ...llama3Range };
  return typeof factor === "number" ? { kind: "linear", factor } : { kind: "none" };
}

function readYarnFactors(read: SettingsReader): Pick<Yarn, "kind" | "factor" | "attentionFactor"> {
  const factor = read.number(["rotary_scaling_factor"], 1);
  const [one, all] = [read.number(["mscale"], 1), read.number(["mscale_all_dim"], 0)];
  return { kind: "yarn", factor, attentionFactor: yarnMscale(factor, one) / yarnMscale(factor, all) };
}

/** The window that settings describe; null: none. Throws inputError. */
export function readWindow(read: SettingsReader): number | null {
  const value = read.get("window_size");
  if (value === null) return null;
  const [before, after] = Array.isArray(value) ? (value as readonly unknown[]) : [];
  if (typeof before === "number" && before >= 0 && (after === 0 || after === -1)) return before + 1;
  throw read.fail("window_size", "tokens before, and 0 behind");
}
