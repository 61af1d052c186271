/**
 * Random valid specs of every family, for property tests. The file is long because every family has ranges of its own.
 */
import fc from "fast-check";
import { bends } from "./bends.js";
import { plainAttention, plainRope } from "../../../src/model/decoder/plain.js";
import { families, plainBlocks, plainExperts, rmsNorm, softmaxRouter } from "../../../src/model/decoder/types.js";
import type {
  ActivationKind,
  Alibi,
  BlockKind,
  DecoderSpec,
  Family,
  Ffn,
  MoeFfn,
  NormSpec,
  RopeScaling,
} from "../../../src/model/decoder/types.js";
import { present } from "../../support/present.js";

const positive = fc.double({ min: 1e-12, max: 1e12, noNaN: true, noDefaultInfinity: true });
const token = fc.nat(200_000);

const scaling: fc.Arbitrary<RopeScaling> = fc.oneof(
  fc.constant({ kind: "none" } as const),
  fc.record({ kind: fc.constant("linear" as const), factor: fc.oneof(positive, fc.integer({ min: 1, max: 64 })) }),
  fc.record({
    kind: fc.constant("llama3" as const),
    factor: positive,
    lowFreqFactor: fc.constantFrom(1, 0.5),
    highFreqFactor: positive,
    originalMaxPositions: fc.integer({ min: 1, max: 8192 }),
  }),
);

/** What a family allows beyond what all share. */
interface Traits {
  readonly qkNorm: boolean;
  readonly qkvBias: boolean | "any";
  readonly outBias: "same" | "none";
  readonly window: "none" | "uniform" | "layers";
  /** `same`: the attention's. */
  readonly ffnBias: boolean | "same" | "always";
  /** Absent: RMSNorm with a plain weight. */
  readonly norm?: Omit<NormSpec, "eps">;
  readonly blocks?: readonly BlockKind[];
  /** FFNs of any activation, with a gate or without. */
  readonly ffn?: { readonly gated: boolean; readonly xielu?: true };
  readonly partialRotary?: true;
  readonly interleaved?: true;
  readonly logitScale?: true;
  /** As many key heads as query heads. */
  readonly ungrouped?: true;
  /** Rope without scaling. */
  readonly unscaled?: true;
  /** All heads together are as wide as the model. */
  readonly square?: true;
  readonly moe: null | { readonly mixed: boolean; readonly anyOrder: boolean; readonly shared: boolean };
}

const traits: Readonly<Record<Family, Traits>> = {
  llama: { qkNorm: false, qkvBias: "any", outBias: "same", window: "none", ffnBias: true, moe: null },
  mistral: { qkNorm: false, qkvBias: false, outBias: "none", window: "uniform", ffnBias: false, moe: null },
  qwen2: { qkNorm: false, qkvBias: true, outBias: "none", window: "layers", ffnBias: false, moe: null },
  qwen3: { qkNorm: true, qkvBias: "any", outBias: "same", window: "layers", ffnBias: false, moe: null },
  nemotron: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: true,
    norm: { kind: "layer", weight: "one-plus", bias: true },
    ffn: { gated: false },
    partialRotary: true,
    moe: null,
  },
  starcoder2: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "uniform",
    ffnBias: "same",
    norm: { kind: "layer", weight: "scale", bias: true },
    ffn: { gated: false },
    moe: null,
  },
  gemma: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: false,
    ffn: { gated: true },
    moe: null,
  },
  gemma2: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "layers",
    ffnBias: false,
    ffn: { gated: true },
    moe: null,
  },
  gemma3_text: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "layers",
    ffnBias: false,
    ffn: { gated: true },
    moe: null,
  },
  granite: { qkNorm: false, qkvBias: "any", outBias: "same", window: "none", ffnBias: true, moe: null },
  smollm3: { qkNorm: false, qkvBias: "any", outBias: "same", window: "layers", ffnBias: true, moe: null },
  glm: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "none",
    window: "none",
    ffnBias: false,
    ffn: { gated: true },
    partialRotary: true,
    interleaved: true,
    moe: null,
  },
  glm4: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "none",
    window: "none",
    ffnBias: false,
    blocks: ["sandwich"],
    ffn: { gated: true },
    partialRotary: true,
    interleaved: true,
    moe: null,
  },
  seed_oss: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: true,
    ffn: { gated: true },
    moe: null,
  },
  arcee: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: true,
    ffn: { gated: false },
    moe: null,
  },
  exaone4: {
    qkNorm: true,
    qkvBias: false,
    outBias: "none",
    window: "layers",
    ffnBias: false,
    blocks: ["post"],
    ffn: { gated: true },
    moe: null,
  },
  cohere2: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "layers",
    ffnBias: false,
    norm: { kind: "layer", weight: "scale", bias: false },
    blocks: ["parallel-shared"],
    ffn: { gated: true },
    interleaved: true,
    logitScale: true,
    square: true,
    moe: null,
  },
  ernie4_5: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: "same",
    ffn: { gated: true },
    interleaved: true,
    moe: null,
  },
  hunyuan_v1_dense: {
    qkNorm: true,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: false,
    ffn: { gated: true },
    moe: null,
  },
  helium: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "none",
    window: "none",
    ffnBias: true,
    ffn: { gated: true },
    interleaved: true,
    square: true,
    moe: null,
  },
  ministral: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "layers",
    ffnBias: false,
    ffn: { gated: true },
    moe: null,
  },
  ministral3: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "uniform",
    ffnBias: false,
    ffn: { gated: true },
    moe: null,
  },
  cwm: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "layers",
    ffnBias: true,
    ffn: { gated: true },
    moe: null,
  },
  jais2: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: true,
    norm: { kind: "layer", weight: "scale", bias: true },
    ffn: { gated: false },
    moe: null,
  },
  hyperclovax: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: true,
    blocks: ["pre", "sandwich"],
    ffn: { gated: true },
    logitScale: true,
    moe: null,
  },
  vaultgemma: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "layers",
    ffnBias: false,
    ffn: { gated: true },
    moe: null,
  },
  apertus: {
    qkNorm: true,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: false,
    ffn: { gated: false, xielu: true },
    moe: null,
  },
  falcon: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: "same",
    norm: { kind: "layer", weight: "scale", bias: true },
    blocks: ["pre", "parallel", "parallel-shared"],
    ffn: { gated: false },
    square: true,
    moe: null,
  },
  opt: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: "same",
    norm: { kind: "layer", weight: "scale", bias: true },
    ffn: { gated: false },
    square: true,
    ungrouped: true,
    moe: null,
  },
  mpt: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "none",
    ffnBias: false,
    norm: { kind: "layer", weight: "scale", bias: false },
    ffn: { gated: false },
    square: true,
    ungrouped: true,
    moe: null,
  },
  gptj: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "none",
    ffnBias: "always",
    norm: { kind: "layer", weight: "scale", bias: true },
    blocks: ["parallel-shared"],
    ffn: { gated: false },
    partialRotary: true,
    interleaved: true,
    unscaled: true,
    square: true,
    ungrouped: true,
    moe: null,
  },
  codegen: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "none",
    ffnBias: "always",
    norm: { kind: "layer", weight: "scale", bias: true },
    blocks: ["parallel-shared"],
    ffn: { gated: false },
    partialRotary: true,
    interleaved: true,
    unscaled: true,
    square: true,
    ungrouped: true,
    moe: null,
  },
  phi: {
    qkNorm: false,
    qkvBias: true,
    outBias: "same",
    window: "none",
    ffnBias: "always",
    norm: { kind: "layer", weight: "scale", bias: true },
    blocks: ["parallel-shared"],
    ffn: { gated: false },
    partialRotary: true,
    square: true,
    moe: null,
  },
  gpt_neo: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "layers",
    ffnBias: "always",
    norm: { kind: "layer", weight: "scale", bias: true },
    ffn: { gated: false },
    square: true,
    ungrouped: true,
    moe: null,
  },
  gpt_bigcode: {
    qkNorm: false,
    qkvBias: true,
    outBias: "same",
    window: "none",
    ffnBias: "always",
    norm: { kind: "layer", weight: "scale", bias: true },
    ffn: { gated: false },
    square: true,
    ungrouped: true,
    moe: null,
  },
  olmo2: { qkNorm: false, qkvBias: "any", outBias: "same", window: "none", ffnBias: false, moe: null },
  olmo3: { qkNorm: false, qkvBias: "any", outBias: "same", window: "layers", ffnBias: false, moe: null },
  olmo: { qkNorm: false, qkvBias: "any", outBias: "same", window: "none", ffnBias: false, moe: null },
  stablelm: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "none",
    window: "none",
    ffnBias: false,
    norm: { kind: "layer", weight: "scale", bias: true },
    blocks: ["pre", "parallel-shared"],
    ffn: { gated: true },
    partialRotary: true,
    square: true,
    moe: null,
  },
  cohere: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: false,
    norm: { kind: "layer", weight: "scale", bias: false },
    blocks: ["parallel-shared"],
    ffn: { gated: true },
    interleaved: true,
    logitScale: true,
    moe: null,
  },
  phi3: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "uniform",
    ffnBias: false,
    ffn: { gated: true },
    partialRotary: true,
    unscaled: true,
    moe: null,
  },
  gpt_neox: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: "always",
    norm: { kind: "layer", weight: "scale", bias: true },
    blocks: ["pre", "parallel"],
    ffn: { gated: false },
    partialRotary: true,
    square: true,
    ungrouped: true,
    moe: null,
  },
  mixtral: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "uniform",
    ffnBias: false,
    moe: { mixed: false, anyOrder: false, shared: false },
  },
  qwen2_moe: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "none",
    window: "layers",
    ffnBias: false,
    moe: { mixed: true, anyOrder: true, shared: true },
  },
  // Made of the others, see `anything`.
  upcycle: { qkNorm: false, qkvBias: false, outBias: "none", window: "none", ffnBias: false, moe: null },
  qwen3_moe: {
    qkNorm: true,
    qkvBias: "any",
    outBias: "same",
    window: "uniform",
    ffnBias: false,
    moe: { mixed: true, anyOrder: true, shared: false },
  },
  olmoe: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: false,
    square: true,
    moe: { mixed: false, anyOrder: true, shared: false },
  },
  flex_olmo: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: false,
    moe: { mixed: false, anyOrder: true, shared: false },
  },
  dots1: {
    qkNorm: true,
    qkvBias: "any",
    outBias: "same",
    window: "layers",
    ffnBias: false,
    moe: { mixed: true, anyOrder: false, shared: false },
  },
  glm4_moe: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "none",
    window: "none",
    ffnBias: false,
    partialRotary: true,
    moe: { mixed: true, anyOrder: false, shared: false },
  },
  solar_open: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "none",
    window: "none",
    ffnBias: false,
    moe: { mixed: false, anyOrder: false, shared: false },
  },
  hy_v3: {
    qkNorm: true,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: false,
    moe: { mixed: true, anyOrder: false, shared: false },
  },
  hunyuan_v1_moe: {
    qkNorm: true,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: false,
    moe: { mixed: false, anyOrder: false, shared: false },
  },
  deepseek_v3: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "none",
    ffnBias: false,
    ungrouped: true,
    moe: { mixed: true, anyOrder: false, shared: false },
  },
  mellum: {
    qkNorm: true,
    qkvBias: "any",
    outBias: "same",
    window: "layers",
    ffnBias: false,
    moe: { mixed: true, anyOrder: true, shared: false },
  },
  granitemoe: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "none",
    ffnBias: false,
    moe: { mixed: false, anyOrder: false, shared: false },
  },
  granitemoe_swa: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "layers",
    ffnBias: false,
    moe: { mixed: false, anyOrder: false, shared: true },
  },
  phimoe: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "uniform",
    ffnBias: false,
    norm: { kind: "layer", weight: "scale", bias: true },
    unscaled: true,
    moe: { mixed: false, anyOrder: false, shared: false },
  },
  ernie4_5_moe: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "none",
    ffnBias: false,
    interleaved: true,
    moe: { mixed: false, anyOrder: false, shared: true },
  },
  lfm2_moe: {
    qkNorm: true,
    qkvBias: false,
    outBias: "none",
    window: "none",
    ffnBias: false,
    moe: { mixed: false, anyOrder: false, shared: false },
  },
  dbrx: {
    qkNorm: false,
    qkvBias: false,
    outBias: "none",
    window: "none",
    ffnBias: false,
    norm: { kind: "layer", weight: "scale", bias: false },
    square: true,
    moe: { mixed: false, anyOrder: true, shared: false },
  },
  gpt2: {
    qkNorm: false,
    qkvBias: true,
    outBias: "same",
    window: "none",
    ffnBias: "always",
    norm: { kind: "layer", weight: "scale", bias: true },
    ffn: { gated: false },
    square: true,
    ungrouped: true,
    moe: null,
  },
  gpt_oss: {
    qkNorm: false,
    qkvBias: "any",
    outBias: "same",
    window: "layers",
    ffnBias: false,
    moe: { mixed: false, anyOrder: false, shared: false },
  },
};

function moeFfn({ anyOrder, shared }: NonNullable<Traits["moe"]>): fc.Arbitrary<MoeFfn> {
  return fc
    .record({
      ffnDim: fc.integer({ min: 1, max: 40 }),
      topK: fc.integer({ min: 1, max: 4 }),
      spare: fc.nat(5),
      order: fc.constantFrom("topk-softmax" as const, ...(anyOrder ? (["softmax-topk"] as const) : [])),
      shared: shared
        ? fc.option(fc.record({ ffnDim: fc.integer({ min: 1, max: 40 }), gated: fc.constant(true) }))
        : fc.constant(null),
    })
    .map(({ spare, topK, order, ...ffn }) => ({
      kind: "moe",
      activation: "silu",
      experts: topK + spare,
      topK,
      router: softmaxRouter(order),
      ...plainExperts,
      ...ffn,
    }));
}

const anyActivation = fc.constantFrom<ActivationKind>("silu", "gelu", "geluTanh", "relu", "relu2");

export function specOf(family: Family): fc.Arbitrary<DecoderSpec> {
  if (family === "upcycle")
    return fc
      .constantFrom(...families.filter((other) => other !== family))
      .chain(specOf)
      .chain(anything);
  return llamaLike(family).chain(bends[family] ?? ((spec) => fc.constant(spec)));
}

/** Linear biases where the spec's attention takes them. */
function alibiFor(
  { attn: { heads, kvHeads, latent } }: DecoderSpec,
  form: Pick<Alibi, "rounded" | "scaled"> | null,
): Alibi | null {
  if (form === null || latent !== null) return null;
  const slopes = Array.from({ length: heads }, (_, head) => 2 ** -head);
  return { ...form, rounded: form.rounded && kvHeads === heads, slopes };
}

/** What no released family combines. */
function anything(spec: DecoderSpec): fc.Arbitrary<DecoderSpec> {
  return fc
    .record({
      block: fc.constantFrom<BlockKind>("pre", "post", "sandwich", "parallel", "parallel-shared"),
      norm: fc.record({
        kind: fc.constantFrom("rms" as const, "layer" as const),
        weight: fc.constantFrom("scale" as const, "one-plus" as const, "none" as const),
        bias: fc.boolean(),
      }),
      gated: fc.boolean(),
      bias: fc.boolean(),
      sinks: fc.boolean(),
      routerBias: fc.boolean(),
      correctionBias: fc.boolean(),
      positions: fc.boolean(),
      offset: fc.nat(3),
      headBias: fc.boolean(),
      alibi: fc.option(fc.record({ rounded: fc.boolean(), scaled: fc.boolean() })),
      lengthScale: fc.option(fc.record({ beta: positive, originalMaxPositions: fc.integer({ min: 1, max: 9000 }) })),
    })
    .map(({ block, norm, gated, bias, sinks, routerBias, correctionBias, positions, offset, ...more }) => ({
      ...spec,
      family: "upcycle",
      block,
      norm: { ...spec.norm, ...norm },
      learnedPositions: positions,
      positionsOffset: positions ? offset : 0,
      headBias: more.headBias,
      attn: { ...spec.attn, sinks, lengthScale: more.lengthScale, alibi: alibiFor(spec, more.alibi) },
      layers: spec.layers.map((layer) => {
        const { ffn } = layer;
        if (ffn.kind === "dense") return { ...layer, ffn: { ...ffn, gated, bias } };
        // Sparsemixer selects by logits alone.
        const corrected = correctionBias && ffn.router.score !== "sparsemixer";
        return {
          ...layer,
          ffn: { ...ffn, gated, bias, router: { ...ffn.router, bias: routerBias, correctionBias: corrected } },
        };
      }),
    }));
}

function llamaLike(family: Family): fc.Arbitrary<DecoderSpec> {
  const { qkNorm, qkvBias, outBias, window, ffnBias, moe, ...other } = traits[family];
  const {
    norm = rmsNorm(0),
    blocks = ["pre"],
    ffn,
    partialRotary,
    interleaved = false,
    logitScale,
    unscaled,
    square,
    ungrouped,
  } = other;
  return fc
    .record({
      groups: fc.integer({ min: 1, max: ungrouped ? 1 : 4 }),
      kvHeads: fc.integer({ min: 1, max: 4 }),
      headDim: fc.integer({ min: 1, max: 8 }).map((half) => 2 * half),
      hiddenPerHead: fc.integer({ min: 1, max: 16 }),
      bias: qkvBias === "any" ? fc.boolean() : fc.constant(qkvBias),
      theta: fc.oneof(positive, fc.constantFrom(10_000, 500_000)),
      scaling: unscaled ? fc.constant<RopeScaling>({ kind: "none" }) : scaling,
      dense: fc.record({
        kind: fc.constant("dense" as const),
        ffnDim: fc.integer({ min: 1, max: 80 }),
        bias: ffnBias === true ? fc.boolean() : fc.constant(ffnBias === "always"),
        activation:
          ffn === undefined
            ? fc.constant<ActivationKind>("silu")
            : ffn.xielu
              ? fc.oneof(fc.constant<ActivationKind>("xielu"), anyActivation)
              : anyActivation,
        gated: fc.constant(ffn?.gated ?? true),
      }),
      moe: moe === null ? fc.constant(null) : moeFfn(moe),
      // Layer 0 is always sparse in a MoE, so that at least one is.
      layers: fc.array(fc.record({ sparse: fc.boolean(), slides: fc.boolean() }), { minLength: 1, maxLength: 5 }),
      size: window === "none" ? fc.constant(null) : fc.option(fc.integer({ min: 1, max: 9000 })),
      rest: fc.record({
        vocab: fc.integer({ min: 1, max: 300 }),
        tiedHead: fc.boolean(),
        maxPositions: fc.integer({ min: 1, max: 200_000 }),
        tokens: fc.record({ bos: fc.option(token), eos: fc.array(token, { maxLength: 3 }), pad: fc.option(token) }),
        initStd: fc.oneof(fc.constant(0), fc.constant(1), positive),
      }),
      block: fc.constantFrom(...blocks),
      // A share of the head, made an even number of its elements.
      turned: partialRotary ? fc.double({ min: 0, max: 1, noNaN: true }) : fc.constant(1),
      logits: logitScale ? positive : fc.constant(1),
      eps: positive,
      coef: fc.oneof(fc.constant(0), fc.constant(1), positive),
    })
    .map(
      ({
        groups,
        kvHeads,
        headDim,
        hiddenPerHead,
        bias,
        theta,
        scaling: ropeScaling,
        dense,
        moe: sparseFfn,
        layers,
        size,
        rest,
        block,
        turned,
        logits,
        eps,
        coef,
      }) => ({
        ...plainBlocks,
        family,
        ...rest,
        block,
        multipliers: { ...plainBlocks.multipliers, logits },
        norm: { ...norm, eps },
        hidden: (square ? headDim : hiddenPerHead) * groups * kvHeads,
        attn: {
          ...plainAttention({ heads: groups * kvHeads, kvHeads, headDim }),
          qkNorm: qkNorm ? { span: "head" as const, norm: rmsNorm(eps), afterRope: false } : null,
          qkvBias: bias,
          outBias: outBias === "same" && bias,
        },
        layers: layers.map(({ sparse, slides }, layer) => {
          const denseFfn = ffnBias === "same" ? { ...dense, bias } : dense;
          const rotary = Math.max(2, 2 * Math.floor((turned * headDim) / 2));
          return {
            window: window === "uniform" || slides ? size : null,
            rope: { ...plainRope(theta, headDim), scaling: ropeScaling, rotary, interleaved },
            ffn: (sparseFfn !== null && (sparse || layer === 0 || !present(moe).mixed)
              ? sparseFfn
              : denseFfn) satisfies Ffn,
          };
        }),
        auxLossCoef: sparseFfn === null ? 0 : coef,
      }),
    );
}

export { families } from "../../../src/model/decoder/types.js";
