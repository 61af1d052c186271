/**
 * This project's own format: the whole `DecoderSpec` lies in config.json under `decoder`, so that any decoder that runs
 * here can be stored, also those that no released architecture can say (experts with biases, LayerNorm, soft caps,
 * sandwich norms). Only this project loads it.
 */
import { z } from "zod";
import { at } from "../../../base/at.js";
import { inputError } from "../../../base/errors.js";
import { issueText } from "../../../base/schemas/issue.js";
import { decoderRecord, recordedFfn, type FfnRecord } from "../record.js";
import type { DecoderSpec } from "../types.js";
import type { Dialect } from "./common.js";
import type { ConfigReader } from "./reader.js";

const formatVersion = 1;

const size = z
  .int()
  .min(1)
  .max(2 ** 31 - 1);
const positive = z.number().positive();
const token = z
  .int()
  .min(0)
  .max(2 ** 31 - 1);

const norm = z.strictObject({
  kind: z.enum(["rms", "layer"]),
  weight: z.enum(["scale", "one-plus", "none"]),
  bias: z.boolean(),
  eps: positive,
});

const scaling = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("none") }),
  z.strictObject({ kind: z.literal("linear"), factor: positive }),
  z.strictObject({
    kind: z.literal("llama3"),
    factor: positive,
    lowFreqFactor: positive,
    highFreqFactor: positive,
    originalMaxPositions: size,
  }),
  z.strictObject({
    kind: z.literal("yarn"),
    factor: positive,
    betaFast: positive,
    betaSlow: positive,
    originalMaxPositions: size,
    truncate: z.boolean(),
    attentionFactor: positive,
  }),
  z.strictObject({
    kind: z.literal("longrope"),
    short: z.array(positive),
    long: z.array(positive),
    originalMaxPositions: size,
    attentionFactor: positive,
  }),
]);

const rope = z.strictObject({ theta: positive, scaling, rotary: size.multipleOf(2), interleaved: z.boolean() });

const activation = z.enum(["silu", "gelu", "geluTanh", "relu", "relu2", "xielu"]);

const router = z.strictObject({
  score: z.enum(["softmax", "sigmoid", "sparsemixer"]),
  jitter: z.number().min(0),
  renormalise: z.strictObject({ plus: z.number().min(0), atLeast: z.number().min(0) }).nullable(),
  groups: z.strictObject({ count: size, kept: size }).nullable(),
  correctionBias: z.boolean(),
  scaling: positive,
  bias: z.boolean(),
});

const ffnRecord = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("dense"), inner: size, bias: z.boolean(), activation, gated: z.boolean() }),
  z.strictObject({
    kind: z.literal("moe"),
    inner: size,
    activation,
    gated: z.boolean(),
    bias: z.boolean(),
    clampedGlu: z.strictObject({ alpha: positive, limit: positive }).nullable(),
    experts: z.int().min(1).max(65_536),
    topK: size,
    router,
    shared: z.strictObject({ inner: size, gated: z.boolean() }).nullable(),
  }),
]) satisfies z.ZodType<FfnRecord>;

const ffn = ffnRecord.transform(recordedFfn);

const attention = z.strictObject({
  heads: size,
  kvHeads: size,
  headDim: size,
  qkNorm: z.strictObject({ span: z.enum(["head", "own-head", "full"]), norm, afterRope: z.boolean() }).nullable(),
  qkvBias: z.boolean(),
  outBias: z.boolean(),
  scale: positive,
  softcap: positive.nullable(),
  clip: positive.nullable(),
  sinks: z.boolean(),
  latent: z
    .strictObject({ queryRank: size.nullable(), kvRank: size, ropeDim: size.multipleOf(2), valueDim: size, norm })
    .nullable(),
  // Absent in folders of earlier versions.
  alibi: z
    .strictObject({ slopes: z.array(z.number()).min(1), rounded: z.boolean(), scaled: z.boolean() })
    .nullable()
    .default(null),
  lengthScale: z.strictObject({ beta: positive, originalMaxPositions: size }).nullable().default(null),
});

const decoder = z.strictObject({
  vocab: size,
  hidden: size,
  tiedHead: z.boolean(),
  norm,
  block: z.enum(["pre", "post", "sandwich", "parallel", "parallel-shared"]),
  multipliers: z.strictObject({ embedding: positive, residual: positive, logits: positive }),
  logitSoftcap: positive.nullable(),
  maxPositions: size,
  learnedPositions: z.boolean(),
  // Absent in folders of earlier versions.
  positionsOffset: z.int().min(0).max(1024).default(0),
  headBias: z.boolean().default(false),
  attn: attention,
  layers: z
    .array(z.strictObject({ window: size.nullable(), rope: rope.nullable(), ffn }))
    .min(1)
    .max(10_000),
  tokens: z.strictObject({ bos: token.nullable(), eos: z.array(token), pad: token.nullable() }),
  initStd: z.number().min(0),
  auxLossCoef: z.number().min(0),
}) satisfies z.ZodType<Omit<DecoderSpec, "family">>;

/** The config dialect of This project's own format. */
export const upcycle: Dialect = {
  family: "upcycle",
  architecture: "UpcycleForCausalLM",
  standalone: true,
  read(config: ConfigReader): DecoderSpec {
    if (config.get("upcycle_format") !== formatVersion)
      throw config.fail(
        "upcycle_format",
        String(formatVersion),
        "this model was written by another version of upcycle",
      );
    const result = decoder.safeParse(withoutFamily(config.get("decoder")));
    if (!result.success) {
      const issue = at(result.error.issues, 0);
      throw inputError(`decoder.${issue.path.join(".")}: ${issueText(issue)}`, { where: config.where });
    }
    const spec: DecoderSpec = { family: "upcycle", ...result.data };
    const wrong = contradiction(spec);
    if (wrong !== null) throw inputError(`decoder: ${wrong}`, { where: config.where });
    return spec;
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    return {
      upcycle_format: formatVersion,
      decoder: { ...decoderRecord(spec), family: undefined },
      // For tools that look at any config.
      vocab_size: spec.vocab,
      hidden_size: spec.hidden,
      num_hidden_layers: spec.layers.length,
      max_position_embeddings: spec.maxPositions,
      tie_word_embeddings: spec.tiedHead,
      bos_token_id: spec.tokens.bos,
      eos_token_id: spec.tokens.eos.length === 1 ? spec.tokens.eos[0] : spec.tokens.eos,
      pad_token_id: spec.tokens.pad,
    };
  },
};

/** What the types cannot rule out; null if all fits together. */
function contradiction({ attn, layers }: DecoderSpec): string | null {
  const { heads, kvHeads, headDim, latent, qkvBias, qkNorm, alibi } = attn;
  if (heads % kvHeads !== 0) return `${heads} heads are no multiple of ${kvHeads} key-value heads`;
  if (latent !== null && (kvHeads !== heads || qkvBias || qkNorm !== null))
    return "latent attention has as many key heads as heads, no biases and no norms on queries and keys";
  if (alibi !== null && alibi.slopes.length !== heads) return `${alibi.slopes.length} slopes for ${heads} heads`;
  if (alibi !== null && latent !== null) return "linear biases beside latent attention";
  if (alibi?.rounded && kvHeads !== heads) return "rounded linear biases need as many key heads as heads";
  if (latent !== null && latent.ropeDim >= headDim) return `${latent.ropeDim} rotary elements of a head of ${headDim}`;
  for (const [layer, { rope: turn, ffn: own }] of layers.entries()) {
    const room = latent === null ? headDim : latent.ropeDim;
    if (turn !== null && turn.rotary > room) return `layer ${layer} turns ${turn.rotary} of ${room} elements`;
    if (
      turn?.scaling.kind === "longrope" &&
      (turn.scaling.short.length !== turn.rotary / 2 || turn.scaling.long.length !== turn.rotary / 2)
    ) {
      return `layer ${layer} needs ${turn.rotary / 2} short and long factors`;
    }
    if (own.kind === "dense") continue;
    const {
      experts,
      topK,
      router: { groups, score, correctionBias, renormalise },
    } = own;
    if (topK > experts) return `layer ${layer} selects ${topK} of ${experts} experts`;
    if (
      groups !== null &&
      (experts % groups.count !== 0 || groups.kept > groups.count || topK > (experts / groups.count) * groups.kept)
    ) {
      return `layer ${layer} selects ${topK} experts from ${groups.kept} of ${groups.count} groups of ${experts}`;
    }
    if (score === "sparsemixer" && topK !== 2) return `layer ${layer}: sparsemixer selects 2 experts, not ${topK}`;
    if (score === "sparsemixer" && (groups !== null || correctionBias || renormalise !== null)) {
      return (
        `layer ${layer}: sparsemixer selects among all experts by their logits, without groups, correction or ` +
        "renormalisation"
      );
    }
  }
  return null;
}

/** A config that was never text still has the key that its text would not have. */
function withoutFamily(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).filter(([key, entry]) => key !== "family" || entry !== undefined));
}
