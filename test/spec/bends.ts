/** What families whose decoders depart far from Llama's do to a Llama-like spec. */
import fc from "fast-check";
import type { DecoderSpec, Family, MoeFfn, QkNorm, Rope, RopeScaling } from "../../src/spec/types.js";

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

const normed = (spec: DecoderSpec, span: QkNorm["span"]): DecoderSpec => ({ ...spec, attn: { ...spec.attn, qkNorm: { span, norm: spec.norm, afterRope: false } } });

/** Sliding layers get a rope of their own. */
const roped = (spec: DecoderSpec): fc.Arbitrary<DecoderSpec> =>
  fc.record({ theta: positive, factor: fc.option(positive) }).map(({ theta, factor }) => {
    const own = (rope: Rope): Rope => ({ ...rope, theta, scaling: factor === null ? { kind: "none" } : { kind: "linear", factor } });
    return { ...spec, layers: spec.layers.map((layer) => (layer.window === null ? layer : { ...layer, rope: own(layer.rope!) })) };
  });

const sandwich = (spec: DecoderSpec, caps: boolean): fc.Arbitrary<DecoderSpec> =>
  fc
    .record({ divisor: fc.integer({ min: 1, max: 5000 }), scores: caps ? fc.option(positive) : fc.constant(null), logits: fc.option(positive) })
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
  fc
    .array(fc.option(positive), { minLength: spec.layers.length, maxLength: spec.layers.length })
    .map((bases) => ({ ...spec, layers: spec.layers.map((layer, i) => ({ ...layer, rope: bases[i] === null ? null : { ...layer.rope!, theta: bases[i]! } })) }));

/** Every mixture of experts changed alike. */
const experts = (spec: DecoderSpec, change: (ffn: MoeFfn) => Partial<MoeFfn>): DecoderSpec => ({
  ...spec,
  layers: spec.layers.map((layer) => (layer.ffn.kind === "moe" ? { ...layer, ffn: { ...layer.ffn, ...change(layer.ffn) } } : layer)),
});

const phimoe = (spec: DecoderSpec): fc.Arbitrary<DecoderSpec> =>
  fc.record({ jitter: fc.oneof(fc.constant(0), positive), rope: fc.option(longrope(spec)) }).map(({ jitter, rope }) => {
    const router = { score: "sparsemixer", jitter, renormalise: null, groups: null, correctionBias: false, scaling: 1, bias: false } as const;
    const mixed = experts(spec, ({ experts: count }) => ({ topK: 2, experts: Math.max(2, count), router }));
    return rope === null ? mixed : { ...mixed, layers: mixed.layers.map((layer) => ({ ...layer, rope: { ...layer.rope!, scaling: rope } })) };
  });

/** Fits the spec's rope. */
const longrope = ({ layers: [first] }: DecoderSpec): fc.Arbitrary<RopeScaling> => {
  const factors = fc.array(positive, { minLength: first!.rope!.rotary / 2, maxLength: first!.rope!.rotary / 2 });
  return fc.record({ kind: fc.constant("longrope" as const), short: factors, long: factors, originalMaxPositions: fc.integer({ min: 1, max: 8192 }), attentionFactor: positive });
};

export const bends: Readonly<Partial<Record<Family, Bend>>> = {
  gemma: (spec) => fc.constant(gemma(spec)),
  gemma2: (spec) => sandwich(spec, true),
  gemma3_text: (spec) => sandwich(spec, false).map((bent) => normed(bent, "head")).chain(roped),
  granite,
  granitemoe: granite,
  granitemoe_swa: (spec) =>
    granite(experts({ ...spec, attn: { ...spec.attn, sinks: true } }, ({ shared }) => ({ shared: shared === null ? null : { ...shared, gated: false } }))).chain(thetas),
  phimoe,
  smollm3: (spec) =>
    fc
      .array(fc.boolean(), { minLength: spec.layers.length, maxLength: spec.layers.length })
      .map((has) => ({ ...spec, layers: spec.layers.map((layer, i) => ({ ...layer, rope: has[i] ? layer.rope : null })) })),
  olmoe: (spec) => fc.option(positive).map((clip) => normed({ ...spec, attn: { ...spec.attn, clip } }, "full")),
  flex_olmo: (spec) => fc.constant(postNormed(spec)),
  mellum: roped,
  olmo2: (spec) => fc.constant(postNormed(spec)),
  olmo3: (spec) => roped(postNormed(spec)),
  olmo: (spec) =>
    fc.option(positive).map((clip) => ({
      ...spec,
      norm: { kind: "layer", weight: "none", bias: false, eps: 1e-5 },
      attn: { ...spec.attn, clip },
    })),
};
