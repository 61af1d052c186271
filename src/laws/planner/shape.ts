/**
 * Dense decoders to plan for that are no checkpoint: presets of public models, and shapes from a few numbers or from a
 * size alone.
 */
import { inputError } from "../../base/errors.js";
import { countParams } from "../../model/cost/params.js";
import {
  plainBlocks,
  rmsNorm,
  softmaxRouter,
  type ActivationKind,
  type DecoderSpec,
  type Ffn,
} from "../../model/decoder/types.js";
import type { RecipeShape } from "../../surgery/planning/recipe.js";
import { checkSource } from "../../surgery/planning/recipe-source.js";

interface ShapeNumbers {
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** FFN hidden size. */
  readonly ffnDim: number;
  readonly vocab: number;
  readonly tied: boolean;
  /** Gated FFN (SwiGLU); else up and down only. */
  readonly gated: boolean;
  readonly qkvBias: boolean;
  /** Norm on queries and keys: per head, over all heads, or none. */
  readonly qkNorm: "head" | "full" | "none";
  readonly norm: "rms" | "layer";
}

/** What a shape has where nothing else is said: Llama's blocks. */
export const shapeDefaults = {
  tied: false,
  gated: true,
  qkvBias: false,
  qkNorm: "none",
  norm: "rms",
} as const satisfies Partial<ShapeNumbers>;

/** A decoder with this shape. Its family is only a label: nothing is read or written by it. */
export function shapeSpec(shape: ShapeNumbers): DecoderSpec {
  const norm = { ...rmsNorm(1e-5), kind: shape.norm, bias: shape.norm === "layer" };
  const activation: ActivationKind = shape.gated ? "silu" : "relu2";
  const ffn: Ffn = { kind: "dense", ffnDim: shape.ffnDim, bias: false, activation, gated: shape.gated };
  return {
    ...plainBlocks,
    family: shape.gated ? "llama" : "nemotron",
    vocab: shape.vocab,
    hidden: shape.hidden,
    tiedHead: shape.tied,
    norm,
    maxPositions: 131072,
    attn: {
      heads: shape.heads,
      kvHeads: shape.kvHeads,
      headDim: shape.headDim,
      qkNorm: shape.qkNorm === "none" ? null : { span: shape.qkNorm, norm: rmsNorm(1e-6), afterRope: false },
      qkvBias: shape.qkvBias,
      outBias: false,
      scale: shape.headDim ** -0.5,
      softcap: null,
      clip: null,
      sinks: false,
      latent: null,
      alibi: null,
      lengthScale: null,
    },
    layers: Array.from({ length: shape.layers }, () => ({
      window: null,
      rope: { theta: 5e5, scaling: { kind: "none" as const }, rotary: shape.headDim, interleaved: false },
      ffn,
    })),
    tokens: { bos: null, eos: [], pad: null },
    initStd: 0.02,
    auxLossCoef: 0,
  };
}

interface Preset {
  readonly id: string;
  readonly shape: ShapeNumbers;
  /** Pre-training tokens as its makers state them; null: not stated. */
  readonly seen: number | null;
  readonly source: string;
}

const shape = (
  hidden: number,
  layers: number,
  heads: number,
  kvHeads: number,
  ffnDim: number,
  vocab: number,
  more: Partial<ShapeNumbers> = {},
): ShapeNumbers => ({
  ...shapeDefaults,
  hidden,
  layers,
  heads,
  kvHeads,
  headDim: hidden / heads,
  ffnDim,
  vocab,
  ...more,
});

/** Shapes from the models' public configurations; tokens from their papers or model cards. */
export const presets: readonly Preset[] = [
  { id: "tinyllama-1.1b", shape: shape(2048, 22, 32, 4, 5632, 32000), seen: 3e12, source: "arXiv 2401.02385" },
  {
    id: "llama-3.2-1b",
    shape: shape(2048, 16, 32, 8, 8192, 128256, { tied: true }),
    seen: 9e12,
    source: "model card (up to 9T tokens; pruned and distilled from larger models)",
  },
  {
    id: "llama-3.2-3b",
    shape: shape(3072, 28, 24, 8, 8192, 128256, { tied: true }),
    seen: 9e12,
    source: "model card (up to 9T tokens; pruned and distilled from larger models)",
  },
  {
    id: "qwen2.5-0.5b",
    shape: shape(896, 24, 14, 2, 4864, 151936, { tied: true, qkvBias: true }),
    seen: 18e12,
    source: "arXiv 2412.15115",
  },
  {
    id: "qwen2.5-7b",
    shape: shape(3584, 28, 28, 4, 18944, 152064, { qkvBias: true }),
    seen: 18e12,
    source: "arXiv 2412.15115",
  },
  {
    id: "qwen3-8b",
    shape: shape(4096, 36, 32, 8, 12288, 151936, { qkNorm: "head" }),
    seen: 36e12,
    source: "arXiv 2505.09388",
  },
  { id: "llama-2-7b", shape: shape(4096, 32, 32, 32, 11008, 32000), seen: 2e12, source: "arXiv 2307.09288" },
  {
    id: "mistral-7b",
    shape: shape(4096, 32, 32, 8, 14336, 32000),
    seen: null,
    source: "arXiv 2310.06825; its tokens are not stated",
  },
  {
    id: "olmo-2-7b",
    shape: shape(4096, 32, 32, 32, 11008, 100352, { qkNorm: "full" }),
    seen: 4.05e12,
    source: "arXiv 2501.00656",
  },
  { id: "llama-3.1-8b", shape: shape(4096, 32, 32, 8, 14336, 128256), seen: 15e12, source: "model card (15T+ tokens)" },
  {
    id: "nemotron-4-15b",
    shape: shape(6144, 32, 48, 8, 24576, 256000, { gated: false, norm: "layer" }),
    seen: 8e12,
    source: "arXiv 2402.16819",
  },
  {
    id: "llama-3.1-70b",
    shape: shape(8192, 80, 64, 8, 28672, 128256),
    seen: 15e12,
    source: "model card (15T+ tokens)",
  },
];

/** Shapes of models whose trainings are published (`published-runs.ts`) and that are no presets. */
const shapesOfRuns: Readonly<Record<string, () => DecoderSpec>> = {
  "llama-2-13b": () => shapeSpec(shape(5120, 40, 40, 40, 13824, 32000)),
  "llama-2-70b": () => shapeSpec(shape(8192, 80, 64, 8, 28672, 32000)),
  "llama-3-8b": () => presetSpec("llama-3.1-8b"),
  "llama-3-70b": () => presetSpec("llama-3.1-70b"),
  "olmoe-1b-7b": () => {
    const dense = shapeSpec(shape(2048, 16, 16, 16, 8192, 50304, { qkNorm: "full" }));
    return mixtureOf(dense, { expansion: 8, granularity: 8, topK: 8 });
  },
  "deepseek-v3": deepseekV3,
};

/** As in the config.json of DeepSeek-V3, of which this counts parameters and FLOPs. */
function deepseekV3(): DecoderSpec {
  const dense = shapeSpec(shape(7168, 61, 128, 128, 18432, 129280, { headDim: 192 }));
  const latent = { queryRank: 1536, kvRank: 512, ropeDim: 64, valueDim: 128, norm: rmsNorm(1e-6) };
  const moe: Ffn = {
    kind: "moe",
    ffnDim: 2048,
    activation: "silu",
    gated: true,
    bias: false,
    clampedGlu: null,
    experts: 256,
    topK: 8,
    router: { ...softmaxRouter("topk-softmax"), correctionBias: true },
    shared: { ffnDim: 2048, gated: false },
  };
  return {
    ...dense,
    attn: { ...dense.attn, latent },
    layers: dense.layers.map((layer, i) => (i < 3 ? layer : { ...layer, ffn: moe })),
  };
}

/** The decoder of a published training. Throws Error for an id that is neither a preset nor listed. */
export function publishedShape(id: string): DecoderSpec {
  return shapesOfRuns[id]?.() ?? presetSpec(id);
}

function presetSpec(id: string): DecoderSpec {
  const preset = presets.find((one) => one.id === id);
  if (preset === undefined) throw new Error(`no preset ${id}`);
  return shapeSpec(preset.shape);
}

/**
 * A usual shape of about `size` parameters: heads of 128 (64 below 500M), four queries per key head, SwiGLU of about
 * 8/3 of the width (multiples of 256), width about 100 times the depth, an even depth, vocabulary 128,256 (32,000 below
 * 1B). Our rule of thumb, close to Llama's.
 */
export function shapeOfSize(size: number): ShapeNumbers {
  const vocab = size < 1e9 ? 32000 : 128256;
  const headDim = size < 5e8 ? 64 : 128;
  const tied = size < 4e9;
  const candidate = (hidden: number): ShapeNumbers => {
    const heads = hidden / headDim;
    const ffnDim = 256 * Math.max(1, Math.round((hidden * 8) / 3 / 256));
    const perLayer = 2.5 * hidden * hidden + 3 * hidden * ffnDim;
    const layers = 2 * Math.max(1, Math.round((size - vocab * hidden * (tied ? 1 : 2)) / perLayer / 2));
    return shape(hidden, layers, heads, heads / 4, ffnDim, vocab, { tied, headDim });
  };
  const ratioError = ({ hidden, layers }: ShapeNumbers): number => Math.abs(Math.log(hidden / layers / 100));
  const sizeError = (numbers: ShapeNumbers): number => Math.abs(countParams(shapeSpec(numbers)).total / size - 1);
  const all = Array.from({ length: 80 }, (_, i) => candidate(4 * headDim * (i + 1)));
  const best = Math.min(...all.map(sizeError));
  // Among shapes of about the right size, the one of usual proportions.
  return all
    .filter((numbers) => sizeError(numbers) <= Math.max(0.05, 1.5 * best))
    .reduce((a, b) => (ratioError(b) < ratioError(a) ? b : a));
}

/**
 * The MoE that a recipe makes of a dense decoder, for counting: not bound to a family that can be written. Throws
 * inputError like `checkSource`.
 */
export function mixtureOf(source: DecoderSpec, recipe: RecipeShape): DecoderSpec {
  checkSource(recipe, source);
  const { expansion, granularity, topK } = recipe;
  return {
    ...source,
    layers: source.layers.map((layer) => {
      if (layer.ffn.kind !== "dense") return layer;
      const { ffnDim, activation, gated, bias } = layer.ffn;
      const ffn: Ffn = {
        kind: "moe",
        ffnDim: ffnDim / granularity,
        activation,
        gated,
        bias,
        clampedGlu: null,
        experts: expansion * granularity,
        topK,
        router: softmaxRouter("topk-softmax"),
        shared: null,
      };
      return { ...layer, ffn };
    }),
  };
}

/** An MoE with `times` as many routed experts and the same number of them per token (arXiv 2604.19835). */
export function multipliedExperts(source: DecoderSpec, times: number): DecoderSpec {
  return {
    ...source,
    layers: source.layers.map((layer) =>
      layer.ffn.kind === "moe" ? { ...layer, ffn: { ...layer.ffn, experts: times * layer.ffn.experts } } : layer,
    ),
  };
}

/** Names of `parseShape`. */
const shapeNames = ["hidden", "layers", "heads", "kv", "headDim", "inner", "vocab", "tied", "gated", "bias"];

/**
 * A shape from text: `hidden=4096,layers=32,heads=32,inner=11008,vocab=32000` and optionally kv, headDim, tied, gated,
 * bias. `where` says where the text is from, for errors. Throws inputError.
 */
export function parseShape(text: string, where: string): ShapeNumbers {
  const settings = parseSettings(text, where);
  const count = (name: string, otherwise?: number): number => {
    const value = settings.get(name);
    if (value === undefined && otherwise !== undefined) return otherwise;
    if (value === undefined)
      throw inputError(`${name} is missing`, { where, hint: "needed: hidden, layers, heads, inner, vocab" });
    if (!/^[1-9]\d{0,8}$/.test(value))
      throw inputError(`${name} is "${value}", expected a whole number of at least 1`, { where });
    return Number(value);
  };
  const flag = (name: string, otherwise: boolean): boolean => {
    const value = settings.get(name) ?? String(otherwise);
    if (value !== "true" && value !== "false")
      throw inputError(`${name} is "${value}", expected true or false`, { where });
    return value === "true";
  };
  const required = {
    hidden: count("hidden"),
    layers: count("layers"),
    heads: count("heads"),
    ffnDim: count("inner"),
    vocab: count("vocab"),
  };
  const { hidden, heads } = required;
  const headDim = count("headDim", hidden / heads);
  const kvHeads = count("kv", heads);
  if (!Number.isInteger(headDim))
    throw inputError(`heads ${heads} does not divide hidden ${hidden}`, { where, hint: "give headDim" });
  if (heads % kvHeads !== 0) throw inputError(`kv ${kvHeads} does not divide heads ${heads}`, { where });
  return {
    ...shapeDefaults,
    ...required,
    kvHeads,
    headDim,
    tied: flag("tied", false),
    gated: flag("gated", true),
    qkvBias: flag("bias", false),
  };
}

/** `NAME=VALUE,NAME=VALUE` as pairs. Throws inputError for a name that no shape has, or that stands there twice. */
function parseSettings(text: string, where: string): ReadonlyMap<string, string> {
  const settings = new Map<string, string>();
  for (const part of text.split(",")) {
    const [name = "", value = ""] = part.split("=").map((side) => side.trim());
    if (!shapeNames.includes(name))
      throw inputError(`"${part.trim()}" is not NAME=VALUE with a known name`, {
        where,
        hint: `names: ${shapeNames.join(", ")}`,
      });
    if (settings.has(name)) throw inputError(`${name} is given twice`, { where });
    settings.set(name, value);
  }
  return settings;
}
