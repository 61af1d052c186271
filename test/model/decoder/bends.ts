/** What families whose decoders depart far from Llama's do to a Llama-like spec. */
import fc from "fast-check";
import { routedBends } from "./bends-routed.js";
import { falconAlibi, mptAlibi } from "../../../src/model/decoder/families/alibi.js";
import type { DecoderSpec, Family, MoeFfn, QkNorm, Rope, RopeScaling } from "../../../src/model/decoder/types.js";
import { at } from "../../../src/base/at.js";
import { present } from "../../support/present.js";

type Bend = (spec: DecoderSpec) => fc.Arbitrary<DecoderSpec>;

const positive = fc.double({ min: 1e-12, max: 1e12, noNaN: true, noDefaultInfinity: true });

/** Rounded to bfloat16, the type that the property tests write. */
function bfloat16(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  const bits = view.getUint32(0);
  view.setUint32(0, ((bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000) >>> 0);
  return view.getFloat32(0);
}

function gemma(spec: DecoderSpec): DecoderSpec {
  const multipliers = { ...spec.multipliers, embedding: bfloat16(Math.sqrt(spec.hidden)) };
  return { ...spec, norm: { ...spec.norm, weight: "one-plus" }, multipliers };
}

const normed = (spec: DecoderSpec, span: QkNorm["span"], norm = spec.norm): DecoderSpec => ({
  ...spec,
  attn: { ...spec.attn, qkNorm: { span, norm, afterRope: false } },
});

/** Sliding layers get a rope of their own. */
const roped = (spec: DecoderSpec): fc.Arbitrary<DecoderSpec> =>
  fc.record({ theta: positive, factor: fc.option(positive) }).map(({ theta, factor }) => {
    const own = (rope: Rope): Rope => ({
      ...rope,
      theta,
      scaling: factor === null ? { kind: "none" } : { kind: "linear", factor },
    });
    return {
      ...spec,
      layers: spec.layers.map((layer) =>
        layer.window === null ? layer : { ...layer, rope: own(present(layer.rope)) },
      ),
    };
  });

const sandwich = (spec: DecoderSpec, caps: boolean): fc.Arbitrary<DecoderSpec> =>
  fc
    .record({
      divisor: fc.integer({ min: 1, max: 5000 }),
      scores: caps ? fc.option(positive) : fc.constant(null),
      logits: fc.option(positive),
    })
    .map(({ divisor, scores, logits }) => ({
      ...gemma(spec),
      block: "sandwich",
      attn: { ...spec.attn, scale: divisor ** -0.5, softcap: scores },
      logitSoftcap: logits,
    }));

const postNormed = (spec: DecoderSpec): DecoderSpec => normed({ ...spec, block: "post" }, "full");

const granite = (spec: DecoderSpec): fc.Arbitrary<DecoderSpec> =>
  fc
    .record({ embedding: positive, residual: positive, divisor: fc.integer({ min: 1, max: 64 }), scale: positive })
    .map(({ embedding, residual, divisor, scale }) => ({
      ...spec,
      multipliers: { embedding, residual, logits: 1 / divisor },
      attn: { ...spec.attn, scale },
    }));

/** Each layer with a rope base of its own, or without rope. */
const thetas = (spec: DecoderSpec): fc.Arbitrary<DecoderSpec> =>
  fc.array(fc.option(positive), { minLength: spec.layers.length, maxLength: spec.layers.length }).map((bases) => ({
    ...spec,
    layers: spec.layers.map((layer, i) => {
      const theta = at(bases, i);
      return { ...layer, rope: theta === null ? null : { ...present(layer.rope), theta } };
    }),
  }));

/** Every mixture of experts changed alike. */
const experts = (spec: DecoderSpec, change: (ffn: MoeFfn) => Partial<MoeFfn>): DecoderSpec => ({
  ...spec,
  layers: spec.layers.map((layer) =>
    layer.ffn.kind === "moe" ? { ...layer, ffn: { ...layer.ffn, ...change(layer.ffn) } } : layer,
  ),
});

const phimoe = (spec: DecoderSpec): fc.Arbitrary<DecoderSpec> =>
  fc
    .record({ jitter: fc.oneof(fc.constant(0), positive), rope: fc.option(longrope(spec)), headBias: fc.boolean() })
    .map(({ jitter, rope, headBias }) => {
      const router = {
        score: "sparsemixer",
        jitter,
        renormalise: null,
        groups: null,
        correctionBias: false,
        scaling: 1,
        bias: false,
      } as const;
      const mixed = {
        ...experts(spec, ({ experts: count }) => ({ topK: 2, experts: Math.max(2, count), router })),
        headBias,
      };
      return rope === null
        ? mixed
        : {
            ...mixed,
            layers: mixed.layers.map((layer) => ({ ...layer, rope: { ...present(layer.rope), scaling: rope } })),
          };
    });

/** The chosen layers become dense. */
const denseAt = (
  spec: DecoderSpec,
  ffnDim: number,
  bias: boolean,
  isDense: (layer: number) => boolean,
): DecoderSpec => {
  const dense = { kind: "dense", ffnDim, bias, activation: "silu", gated: true } as const;
  return { ...spec, layers: spec.layers.map((layer, i) => (isDense(i) ? { ...layer, ffn: dense } : layer)) };
};

const ernie = (spec: DecoderSpec): fc.Arbitrary<DecoderSpec> => {
  const last = spec.layers.length - 1;
  const size = fc.integer({ min: 1, max: 40 });
  return fc
    .record({
      start: fc.nat(last),
      interval: fc.integer({ min: 1, max: 3 }),
      end: fc.nat(last),
      atLeast: fc.constantFrom(0, 1, 1e-12),
      ffnDim: size,
      shared: fc.nat(3),
    })
    .map(({ start, interval, end, atLeast, ffnDim, shared }) => {
      const router = {
        score: "softmax",
        jitter: 0,
        renormalise: { plus: 0, atLeast },
        groups: null,
        correctionBias: true,
        scaling: 1,
        bias: false,
      } as const;
      const mixed = experts(spec, (ffn) => ({
        router,
        shared: shared === 0 ? null : { ffnDim: ffn.ffnDim * shared, gated: false },
      }));
      const sparse = (layer: number): boolean => (layer + 1) % interval === 0 && layer >= start && layer <= end;
      // At least one layer keeps its experts.
      return denseAt(
        mixed,
        ffnDim,
        false,
        spec.layers.some((_, i) => sparse(i)) ? (i) => !sparse(i) : (i) => i !== start,
      );
    });
};

const lfm2 = (spec: DecoderSpec): fc.Arbitrary<DecoderSpec> =>
  fc
    .record({
      leading: fc.nat(spec.layers.length - 1),
      ffnDim: fc.integer({ min: 1, max: 40 }),
      renormalised: fc.boolean(),
      correctionBias: fc.boolean(),
      scaling: positive,
    })
    .map(({ leading, ffnDim, renormalised, correctionBias, scaling }) => {
      const renormalise = renormalised ? { plus: 1e-6, atLeast: 0 } : null;
      const router = {
        score: "sigmoid",
        jitter: 0,
        renormalise,
        groups: null,
        correctionBias,
        scaling,
        bias: false,
      } as const;
      return denseAt(
        experts(spec, () => ({ router })),
        ffnDim,
        false,
        (layer) => layer < leading,
      );
    });

const gptOss = (spec: DecoderSpec): fc.Arbitrary<DecoderSpec> => {
  const sunk = { ...spec, attn: { ...spec.attn, sinks: true } };
  const withBiases = experts(sunk, ({ router }) => ({
    router: { ...router, bias: true },
    bias: true,
    clampedGlu: { alpha: 1.702, limit: 7 },
  }));
  const yarn = fc.record({
    kind: fc.constant("yarn" as const),
    factor: positive,
    betaFast: positive,
    betaSlow: positive,
    originalMaxPositions: fc.integer({ min: 1, max: 8192 }),
    truncate: fc.boolean(),
    attentionFactor: positive,
  });
  return fc.option(yarn).map((scaling) =>
    scaling === null
      ? withBiases
      : {
          ...withBiases,
          layers: withBiases.layers.map((layer) => ({ ...layer, rope: { ...present(layer.rope), scaling } })),
        },
  );
};

/** Fits the spec's rope. */
const longrope = ({ layers: [first] }: DecoderSpec): fc.Arbitrary<RopeScaling> => {
  const factors = fc.array(positive, {
    minLength: present(present(first).rope).rotary / 2,
    maxLength: present(present(first).rope).rotary / 2,
  });
  return fc.record({
    kind: fc.constant("longrope" as const),
    short: factors,
    long: factors,
    originalMaxPositions: fc.integer({ min: 1, max: 8192 }),
    attentionFactor: positive,
  });
};

const withoutRope = (spec: DecoderSpec): DecoderSpec => ({
  ...spec,
  layers: spec.layers.map((layer) => ({ ...layer, rope: null })),
});

/** Positions are parameters here: not as many as elsewhere. */
const learnt = (spec: DecoderSpec): DecoderSpec => ({
  ...withoutRope(spec),
  learnedPositions: true,
  maxPositions: 64 + (spec.maxPositions % 64),
});

/** Layers have rope where they have a window, or have it everywhere. */
const ropeWhereSliding = (spec: DecoderSpec): DecoderSpec => ({
  ...spec,
  layers: spec.layers.map((layer) => ({ ...layer, rope: layer.window === null ? null : layer.rope })),
});

export const bends: Readonly<Partial<Record<Family, Bend>>> = {
  gemma: (spec) => fc.constant(gemma(spec)),
  gemma2: (spec) => sandwich(spec, true),
  gemma3_text: (spec) =>
    sandwich(spec, false)
      .map((changed) => normed(changed, "head"))
      .chain(roped),
  granite,
  granitemoe: granite,
  granitemoe_swa: (spec) =>
    granite(
      experts({ ...spec, attn: { ...spec.attn, sinks: true } }, ({ shared }) => ({
        shared: shared === null ? null : { ...shared, gated: false },
      })),
    ).chain(thetas),
  phimoe,
  phi3: (spec) =>
    fc.option(longrope(spec)).map((rope) =>
      rope === null
        ? spec
        : {
            ...spec,
            hidden: spec.attn.heads * spec.attn.headDim,
            layers: spec.layers.map((layer) => ({ ...layer, rope: { ...present(layer.rope), scaling: rope } })),
          },
    ),
  ernie4_5_moe: ernie,
  lfm2_moe: lfm2,
  gpt_oss: gptOss,
  dbrx: (spec) =>
    fc
      .option(positive)
      .map((clip) => ({ ...spec, tiedHead: false, norm: { ...spec.norm, eps: 1e-5 }, attn: { ...spec.attn, clip } })),
  gpt2: (spec) => fc.constant(learnt(spec)),
  smollm3: (spec) =>
    fc.array(fc.boolean(), { minLength: spec.layers.length, maxLength: spec.layers.length }).map((has) => ({
      ...spec,
      layers: spec.layers.map((layer, i) => ({ ...layer, rope: has[i] ? layer.rope : null })),
    })),
  olmoe: (spec) => fc.option(positive).map((clip) => normed({ ...spec, attn: { ...spec.attn, clip } }, "full")),
  flex_olmo: (spec) => fc.constant(postNormed(spec)),
  mellum: roped,
  ...routedBends,
  stablelm: (spec) =>
    fc.boolean().map((norms) => (norms ? normed(spec, "own-head", { ...spec.norm, bias: false }) : spec)),
  cohere: (spec) => fc.boolean().map((norms) => (norms ? normed(spec, "own-head") : spec)),
  seed_oss: (spec) => fc.boolean().map((outBias) => ({ ...spec, attn: { ...spec.attn, outBias } })),
  exaone4: (spec) =>
    fc
      .boolean()
      .map((everywhere) =>
        everywhere
          ? { ...spec, layers: spec.layers.map((layer) => ({ ...layer, window: null })) }
          : ropeWhereSliding(spec),
      ),
  cohere2: (spec) => fc.constant(ropeWhereSliding(spec)),
  hunyuan_v1_dense: (spec) =>
    fc.constant({ ...spec, attn: { ...spec.attn, qkNorm: { ...present(spec.attn.qkNorm), afterRope: true } } }),
  ministral3: (spec) =>
    fc
      .option(fc.record({ beta: positive, originalMaxPositions: fc.integer({ min: 1, max: 9000 }) }))
      .map((lengthScale) => {
        const original = present(at(spec.layers, 0).rope).scaling;
        const same = "originalMaxPositions" in original ? { originalMaxPositions: original.originalMaxPositions } : {};
        return {
          ...spec,
          attn: { ...spec.attn, lengthScale: lengthScale === null ? null : { ...lengthScale, ...same } },
        };
      }),
  hyperclovax: (spec) =>
    fc.record({ embedding: positive, residual: positive, scale: positive }).map(({ embedding, residual, scale }) => ({
      ...spec,
      multipliers: { ...spec.multipliers, embedding, residual },
      attn: { ...spec.attn, scale },
    })),
  vaultgemma: (spec) => sandwich(spec, true).map((capped) => ({ ...capped, block: "pre" })),
  falcon: (spec) =>
    fc.boolean().map((alibi) => {
      const { heads, kvHeads } = spec.attn;
      // Blocks in sequence have one key head or as many as heads, and so has attention with linear biases.
      const fits = kvHeads === 1 || kvHeads === heads;
      const block = fits ? spec.block : "parallel";
      if (!alibi || kvHeads !== heads) return { ...spec, block };
      return { ...withoutRope(spec), block, attn: { ...spec.attn, alibi: falconAlibi(heads) } };
    }),
  opt: (spec) =>
    fc.boolean().map((affine) => ({
      ...learnt(spec),
      positionsOffset: 2,
      norm: { ...spec.norm, eps: 1e-5, ...(affine ? {} : ({ weight: "none", bias: false } as const)) },
    })),
  mpt: (spec) =>
    fc.record({ clip: fc.option(positive), scale: fc.option(positive) }).map(({ clip, scale }) => ({
      ...withoutRope(spec),
      attn: { ...spec.attn, alibi: mptAlibi(spec.attn.heads), clip, scale: scale ?? spec.attn.scale },
      layers: withoutRope(spec).layers.map((layer) => ({
        ...layer,
        ffn: { ...layer.ffn, ffnDim: 4 * spec.hidden, activation: "gelu" as const },
      })),
    })),
  gptj: (spec) =>
    fc.constant({
      ...spec,
      headBias: true,
      layers: spec.layers.map((layer) => ({ ...layer, rope: { ...present(layer.rope), theta: 10_000 } })),
    }),
  codegen: (spec) =>
    fc.constant({
      ...spec,
      headBias: true,
      hidden: 4 * spec.attn.headDim,
      attn: { ...spec.attn, heads: 4, kvHeads: 4 },
      layers: spec.layers.map((layer) => ({ ...layer, rope: { ...present(layer.rope), theta: 10_000 } })),
    }),
  phi: (spec) => fc.constant({ ...spec, headBias: true }),
  gpt_neo: (spec) => fc.constant({ ...learnt(spec), attn: { ...spec.attn, scale: 1, outBias: true } }),
  gpt_bigcode: (spec) =>
    fc.boolean().map((one) => ({ ...learnt(spec), attn: { ...spec.attn, kvHeads: one ? 1 : spec.attn.heads } })),
  olmo2: (spec) => fc.constant(postNormed(spec)),
  olmo3: (spec) => roped(postNormed(spec)),
  olmo: (spec) =>
    fc.option(positive).map((clip) => ({
      ...spec,
      norm: { kind: "layer", weight: "none", bias: false, eps: 1e-5 },
      attn: { ...spec.attn, clip },
    })),
};
