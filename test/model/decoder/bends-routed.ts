/** What families with DeepSeek-V3's experts, or with its attention, do to a Llama-like spec. */
import fc from "fast-check";
import { rmsNorm, sigmoidRouter } from "../../../src/model/decoder/types.js";
import type { DecoderSpec, Family, MoeFfn, RopeScaling } from "../../../src/model/decoder/types.js";
import { at } from "../../../src/base/at.js";
import { present } from "../../support/present.js";

type Bend = (spec: DecoderSpec) => fc.Arbitrary<DecoderSpec>;

const positive = fc.double({ min: 1e-12, max: 1e12, noNaN: true, noDefaultInfinity: true });
const small = fc.integer({ min: 1, max: 8 });

const withMoe = (spec: DecoderSpec, change: (ffn: MoeFfn) => Partial<MoeFfn>): DecoderSpec => ({
  ...spec,
  layers: spec.layers.map((layer) =>
    layer.ffn.kind === "moe" ? { ...layer, ffn: { ...layer.ffn, ...change(layer.ffn) } } : layer,
  ),
});

/** A sigmoid router and a shared expert; without options those of HY 3. */
const routed = (spec: DecoderSpec, { free }: { free: boolean }): fc.Arbitrary<DecoderSpec> =>
  fc
    .record({
      groups: free
        ? fc.option(
            fc.record({ count: fc.integer({ min: 2, max: 4 }), size: fc.integer({ min: 2, max: 4 }), kept: small }),
          )
        : fc.constant(null),
      renormalised: free ? fc.boolean() : fc.constant(true),
      scaling: fc.oneof(fc.constant(1), positive),
      shared: fc.integer({ min: free ? 0 : 1, max: 3 }),
    })
    .map(({ groups, renormalised, scaling, shared }) =>
      withMoe(spec, ({ ffnDim, experts, topK }) => {
        const keptGroups = groups === null ? 0 : Math.min(groups.kept, groups.count);
        return {
          router: sigmoidRouter({
            groups: groups === null ? null : { count: groups.count, kept: keptGroups },
            renormalised,
            scaling,
          }),
          experts: groups === null ? experts : groups.count * groups.size,
          topK: groups === null ? topK : Math.min(topK, keptGroups * groups.size),
          shared: shared === 0 ? null : { ffnDim: shared * ffnDim, gated: false },
        };
      }),
    );

/** Dense layers come first. */
const leading = (spec: DecoderSpec): DecoderSpec => {
  const of = (kind: string): DecoderSpec["layers"][number]["ffn"][] =>
    spec.layers.map(({ ffn }) => ffn).filter((ffn) => ffn.kind === kind);
  const ffns = [...of("dense"), ...of("moe")];
  return { ...spec, layers: spec.layers.map((layer, i) => ({ ...layer, ffn: at(ffns, i) })) };
};

const yarn: fc.Arbitrary<RopeScaling> = fc.record({
  kind: fc.constant("yarn" as const),
  factor: fc.double({ min: 0.5, max: 100, noNaN: true }),
  betaFast: positive,
  betaSlow: positive,
  originalMaxPositions: fc.integer({ min: 1, max: 8192 }),
  truncate: fc.boolean(),
  attentionFactor: positive,
});

/** `weight` is `mscale_all_dim`. */
const latent = (spec: DecoderSpec): fc.Arbitrary<DecoderSpec> =>
  fc
    .record({
      queryRank: fc.option(small),
      kvRank: small,
      half: small,
      plain: small,
      valueDim: small,
      interleaved: fc.boolean(),
      yarn: fc.option(yarn),
      weight: fc.option(fc.integer({ min: 1, max: 2 })),
    })
    .map(({ queryRank, kvRank, half, plain, valueDim, interleaved, yarn: scaling, weight }) => {
      const ropeDim = 2 * half;
      const headDim = plain + ropeDim;
      const factor =
        scaling?.kind === "yarn" && scaling.factor > 1 && weight !== null
          ? 0.1 * weight * Math.log(scaling.factor) + 1
          : 1;
      return {
        ...spec,
        attn: {
          ...spec.attn,
          headDim,
          scale: headDim ** -0.5 * factor ** 2,
          latent: { queryRank, kvRank, ropeDim, valueDim, norm: rmsNorm(1e-6) },
        },
        layers: spec.layers.map((layer) => ({
          ...layer,
          rope: {
            ...present(layer.rope),
            rotary: ropeDim,
            interleaved,
            scaling: scaling ?? present(layer.rope).scaling,
          },
        })),
      };
    });

export const routedBends: Readonly<Partial<Record<Family, Bend>>> = {
  dots1: (spec) => routed(leading(spec), { free: true }),
  glm4_moe: (spec) =>
    fc.boolean().chain((normed) =>
      routed(
        leading({
          ...spec,
          attn: { ...spec.attn, qkNorm: normed ? { span: "head", norm: spec.norm, afterRope: false } : null },
        }),
        { free: true },
      ),
    ),
  solar_open: (spec) => routed(spec, { free: true }),
  hy_v3: (spec) => routed(spec, { free: false }),
  hunyuan_v1_moe: (spec) =>
    fc.constant(
      withMoe(
        { ...spec, attn: { ...spec.attn, qkNorm: { span: "head", norm: spec.norm, afterRope: true } } },
        ({ ffnDim }) => ({ shared: { ffnDim, gated: false } }),
      ),
    ),
  deepseek_v3: (spec) => routed(leading(spec), { free: true }).chain(latent),
};
