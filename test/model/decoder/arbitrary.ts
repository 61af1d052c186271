/** Random valid specs of every family, for property tests. */
import fc from "fast-check";
import { bends } from "./bends.js";
import { traits, type Traits } from "./family-traits.js";
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
