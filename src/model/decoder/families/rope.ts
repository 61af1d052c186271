/**
 * Rotary settings. transformers 4 writes flat `rope_theta` and `rope_scaling`, transformers 5 nested
 * `rope_parameters`; both forms are read, and both are written because vLLM and transformers 4 read only the flat one.
 */
import { inputError } from "../../../base/errors.js";
import type { DecoderSpec, Rope, RopeScaling } from "../types.js";
import type { ConfigReader } from "./reader.js";

/** What a family's rope is when its keys are absent. */
interface RopeDefaults {
  /** Null: the key must be there. */
  readonly ropeTheta: number | null;
  /** Left out: the family turns whole heads. */
  readonly partialRotary?: number;
  readonly interleavedRope?: boolean;
  /** The class's default of a top-level `original_max_position_embeddings` (Phi-3). */
  readonly originalMaxPositions?: number;
}

/** Throws inputError if a form asks for another kind of rope than a spec can say, or if the forms disagree. */
export function readRope(config: ConfigReader, headDim: number, defaults: RopeDefaults): Rope {
  const { dicts } = ropeObjects(config);
  const rotary = readRotary(config, headDim, defaults.partialRotary);
  for (const type of ["full_attention", "sliding_attention"]) {
    const nested = config.object("rope_parameters");
    if (nested?.has(type)) throw nested.fail(type, "one rope for all layers");
  }
  const scalings = dicts.map((keys) => readScaling(keys, config, rotary, defaults));
  if (new Set(scalings.map((scaling) => JSON.stringify(scaling))).size > 1) {
    throw inputError("rope_scaling and rope_parameters disagree", {
      where: config.where,
      hint: "remove the wrong one",
    });
  }
  const theta = readOneOf(config, "rope_theta") ?? defaults.ropeTheta;
  if (theta === null)
    throw config.fail("rope_theta", "a number above 0 (versions of transformers assume different ones)");
  return { theta, scaling: scalings[0] ?? { kind: "none" }, rotary, interleaved: defaults.interleavedRope ?? false };
}

/** The objects that say a rope, of which one may be passed over. */
interface RopeObjects {
  readonly dicts: readonly ConfigReader[];
  /** Where both say something, transformers takes `rope_scaling` alone (`convert_rope_params_to_dict`). */
  readonly passedOver: ConfigReader | null;
}

/** The objects `rope_parameters` and `rope_scaling`, those that are there. */
export function ropeObjects(config: ConfigReader): RopeObjects {
  // An empty object says nothing.
  const said = (key: string): ConfigReader | null => {
    const keys = config.object(key);
    return keys === null || keys.keys().length === 0 ? null : keys;
  };
  const [nested, flat] = [said("rope_parameters"), said("rope_scaling")];
  return { dicts: [nested, flat].filter((keys) => keys !== null), passedOver: flat === null ? null : nested };
}

/**
 * A number above 0 that stands in the config or in one of its rope objects; undefined where it stands nowhere, or only
 * in an object that is passed over. Throws inputError if it is given as two numbers.
 */
export function readOneOf(config: ConfigReader, key: string): number | undefined {
  const { dicts, passedOver } = ropeObjects(config);
  const found = [config, ...dicts]
    .filter((keys) => keys.has(key))
    .map((keys) => ({ value: keys.positive(key), counts: keys !== passedOver }));
  const values = found.map(({ value }) => value);
  if (new Set(values).size > 1)
    throw inputError(`${key} is given as ${values.join(" and as ")}`, {
      where: config.where,
      hint: "keep the right one",
    });
  return found.find(({ counts }) => counts)?.value;
}

/** Throws inputError if a rope is scaled other than by LongRoPE, for classes that know no other. */
export function requireLongrope(config: ConfigReader, { scaling: { kind } }: Rope): void {
  if (kind === "none" || kind === "longrope") return;
  const keys = config.object("rope_parameters") ?? config.object("rope_scaling") ?? config;
  throw keys.fail(keys.has("rope_type") ? "rope_type" : "type", '"default" or "longrope"');
}

const partialKey = "partial_rotary_factor";

/** How many elements of a head turn; transformers cuts the product off (`int(head_dim * factor)`). */
function readRotary(config: ConfigReader, headDim: number, fallback: number | undefined): number {
  const places = [config, ...ropeObjects(config).dicts].filter((keys) => keys.has(partialKey));
  if (fallback === undefined) {
    requireWholeHeads(places);
    return headDim;
  }
  const rotary = Math.trunc(headDim * (readOneOf(config, partialKey) ?? fallback));
  if (rotary < 2 || rotary > headDim || rotary % 2 !== 0) {
    throw (places[0] ?? config).fail(
      partialKey,
      `a factor that turns an even number of each head's ${headDim} elements (found ${rotary})`,
    );
  }
  return rotary;
}

/** Throws inputError where one of the objects asks for rope over a part of the head. */
function requireWholeHeads(places: readonly ConfigReader[]): void {
  for (const keys of places)
    if (keys.has(partialKey) && keys.get(partialKey) !== 1)
      throw keys.fail(partialKey, "1 (rotary embedding over the whole head)");
}

/** `keys` is `rope_scaling` or `rope_parameters`; older files say `type` for `rope_type`. */
function readScaling(keys: ConfigReader, config: ConfigReader, rotary: number, defaults?: RopeDefaults): RopeScaling {
  const key = keys.has("rope_type") || !keys.has("type") ? "rope_type" : "type";
  const kind = keys.get(key) ?? "default";
  switch (kind) {
    case "default":
      return { kind: "none" };
    case "linear":
      return { kind: "linear", factor: keys.positive("factor") };
    case "llama3":
      return readLlama3(keys, config);
    case "yarn":
      return readYarn(keys, config, defaults);
    // Phi-3's first files call it "su".
    case "su":
    case "longrope":
      return readLongrope(keys, config, rotary, defaults);
    default:
      throw keys.fail(key, 'one of "default", "linear", "llama3", "yarn", "longrope"');
  }
}

function readLlama3(keys: ConfigReader, config: ConfigReader): RopeScaling {
  // transformers 5 also accepts the original length beside the nested object, and prefers it there; 4 does not see it.
  const key = "original_max_position_embeddings";
  if (keys.has(key) && config.has(key) && keys.get(key) !== config.get(key))
    throw config.fail(key, `${String(keys.get(key))}, as beside rope_type`, "keep the right one");
  const owner = keys.has(key) ? keys : config;
  return {
    kind: "llama3",
    factor: keys.positive("factor"),
    lowFreqFactor: keys.positive("low_freq_factor"),
    highFreqFactor: keys.positive("high_freq_factor"),
    originalMaxPositions: owner.int(key),
  };
}

function readYarn(keys: ConfigReader, config: ConfigReader, defaults: RopeDefaults | undefined): RopeScaling {
  const originalMaxPositions = readOriginalMax(keys, config, defaults);
  const factor = keys.has("factor")
    ? keys.positive("factor")
    : config.int("max_position_embeddings") / originalMaxPositions;
  return {
    kind: "yarn",
    factor,
    betaFast: keys.has("beta_fast") ? keys.positive("beta_fast") : 32,
    betaSlow: keys.has("beta_slow") ? keys.positive("beta_slow") : 1,
    originalMaxPositions,
    truncate: keys.bool("truncate", true),
    attentionFactor: keys.has("attention_factor")
      ? keys.positive("attention_factor")
      : yarnAttentionFactor(keys, factor),
  };
}

function readLongrope(
  keys: ConfigReader,
  config: ConfigReader,
  rotary: number,
  defaults: RopeDefaults | undefined,
): RopeScaling {
  const originalMaxPositions = readOriginalMax(keys, config, defaults);
  const factor = keys.has("factor")
    ? keys.positive("factor")
    : config.int("max_position_embeddings", originalMaxPositions) / originalMaxPositions;
  return {
    kind: "longrope",
    short: readFactors(keys, "short_factor", rotary),
    long: readFactors(keys, "long_factor", rotary),
    originalMaxPositions,
    attentionFactor: keys.has("attention_factor")
      ? keys.positive("attention_factor")
      : longropeAttentionFactor(factor, originalMaxPositions),
  };
}

function longropeAttentionFactor(factor: number, originalMaxPositions: number): number {
  return factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalMaxPositions));
}

/** transformers gives the top-level key the last word (modeling_rope_utils.py, standardize_rope_params). */
function readOriginalMax(keys: ConfigReader, config: ConfigReader, defaults: RopeDefaults | undefined): number {
  const key = "original_max_position_embeddings";
  if (config.has(key)) return config.int(key);
  if (defaults?.originalMaxPositions !== undefined) return defaults.originalMaxPositions;
  return keys.has(key) ? keys.int(key) : config.int("max_position_embeddings");
}

/** YaRN's `mscale` for a factor: 0.1 * weight * ln(factor) + 1. */
export function yarnMscale(factor: number, weight: number): number {
  return factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1;
}

function yarnAttentionFactor(keys: ConfigReader, factor: number): number {
  const weight = (key: string): number => (keys.has(key) ? keys.positive(key, undefined, { zero: true }) : 0);
  const [one, all] = [weight("mscale"), weight("mscale_all_dim")];
  return one !== 0 && all !== 0 ? yarnMscale(factor, one) / yarnMscale(factor, all) : yarnMscale(factor, 1);
}

function readFactors(keys: ConfigReader, key: string, rotary: number): readonly number[] {
  const isFactor = (value: unknown): value is number =>
    typeof value === "number" && Number.isFinite(value) && value > 0;
  const factors = keys.list(key, isFactor, "a list of numbers above 0");
  if (factors?.length !== rotary / 2) throw keys.fail(key, `${rotary / 2} numbers, one for each rotated pair`);
  return factors;
}

/**
 * Flat and nested keys with the same values; `partialOf` is the head size in families that turn a part of each head.
 */
export function writeRope(rope: Rope, partialOf: number | null): Record<string, unknown> {
  const scaling = writeScaling(rope.scaling);
  const partial = partialOf === null ? {} : { [partialKey]: rotaryFactor(rope.rotary, partialOf) };
  return {
    rope_theta: rope.theta,
    rope_scaling: scaling,
    rope_parameters: { rope_type: "default", ...scaling, ...partial, rope_theta: rope.theta },
    ...partial,
  };
}

/** A factor whose product with the head size, cut off, is `rotary`, whatever rounding does. */
function rotaryFactor(rotary: number, headDim: number): number {
  const factor = rotary / headDim;
  return Math.trunc(headDim * factor) === rotary ? factor : (rotary + 0.25) / headDim;
}

function writeScaling(scaling: RopeScaling): Record<string, unknown> | null {
  switch (scaling.kind) {
    case "none":
      return null;
    case "linear":
      return { rope_type: "linear", factor: scaling.factor };
    case "llama3":
      return {
        rope_type: "llama3",
        factor: scaling.factor,
        low_freq_factor: scaling.lowFreqFactor,
        high_freq_factor: scaling.highFreqFactor,
        original_max_position_embeddings: scaling.originalMaxPositions,
      };
    case "yarn":
      return {
        rope_type: "yarn",
        factor: scaling.factor,
        beta_fast: scaling.betaFast,
        beta_slow: scaling.betaSlow,
        original_max_position_embeddings: scaling.originalMaxPositions,
        truncate: scaling.truncate,
        attention_factor: scaling.attentionFactor,
      };
    case "longrope":
      return {
        rope_type: "longrope",
        short_factor: scaling.short,
        long_factor: scaling.long,
        original_max_position_embeddings: scaling.originalMaxPositions,
        attention_factor: scaling.attentionFactor,
      };
  }
}

/** The ropes of layers with full attention and of layers with a sliding window. */
interface RopesByType {
  readonly full: Rope;
  readonly sliding: Rope;
}

/**
 * What a family with a rope per attention type assumes, and its flat key for the sliding layers' theta; null: its class
 * reads no flat keys at all.
 */
interface RopesByTypeDefaults {
  readonly full: number;
  readonly sliding: number;
  readonly slidingKey: string | null;
}

/**
 * `rope_parameters` with an entry per attention type (transformers 5), or the flat keys of transformers 4, whose
 * `rope_scaling` is for full attention only. Throws inputError if both are given and disagree.
 */
export function readRopesByType(config: ConfigReader, headDim: number, defaults: RopesByTypeDefaults): RopesByType {
  const nested = config.object("rope_parameters");
  if (nested !== null && !nested.has("full_attention") && !nested.has("sliding_attention")) {
    throw config.fail("rope_parameters", "an entry for full_attention and one for sliding_attention");
  }
  const one = (type: keyof RopesByType, flatTheta: string | null, flatScaling: ConfigReader | null): Rope => {
    const own = nested?.object(`${type}_attention`) ?? null;
    const thetas = [
      ...(flatTheta !== null && config.has(flatTheta) ? [config.positive(flatTheta)] : []),
      ...(own?.has("rope_theta") ? [own.positive("rope_theta")] : []),
    ];
    const dicts = [own, flatScaling].filter((keys) => keys !== null);
    requireWholeHeads([config, ...dicts]);
    const scalings = dicts.map((keys) => readScaling(keys, config, headDim));
    if (thetas[0] !== thetas.at(-1) || JSON.stringify(scalings[0]) !== JSON.stringify(scalings.at(-1))) {
      throw inputError(`rope_parameters.${type}_attention and the flat rope keys disagree`, {
        where: config.where,
        hint: "remove the wrong one",
      });
    }
    return {
      theta: thetas[0] ?? defaults[type],
      scaling: scalings[0] ?? { kind: "none" },
      rotary: headDim,
      interleaved: false,
    };
  };
  const { slidingKey } = defaults;
  if (slidingKey === "rope_theta" && !nested?.object("sliding_attention")?.has("rope_theta"))
    requireUsualTheta(config, defaults.sliding);
  const full = slidingKey === null ? one("full", null, null) : one("full", "rope_theta", config.object("rope_scaling"));
  return { full, sliding: one("sliding", slidingKey, null) };
}

/**
 * A flat `rope_theta` is for every layer in transformers 4, and for those with full attention only in transformers 5,
 * whose other layers take the class's own (configuration_olmo3.py, convert_rope_params_to_dict).
 */
function requireUsualTheta(config: ConfigReader, usual: number): void {
  if (!config.has("rope_theta") || config.positive("rope_theta") === usual) return;
  throw config.fail(
    "rope_theta",
    `${usual}, or an entry for each kind of layer in rope_parameters`,
    "versions of transformers read another one differently: 4 for every layer, 5 for full attention only",
  );
}

/** Nested keys, and flat ones if those can say the same. */
export function writeRopesByType(
  { full, sliding }: RopesByType,
  { slidingKey }: RopesByTypeDefaults,
): Record<string, unknown> {
  const entry = (rope: Rope): Record<string, unknown> => ({
    rope_type: "default",
    ...writeScaling(rope.scaling),
    rope_theta: rope.theta,
  });
  const nested = { rope_parameters: { full_attention: entry(full), sliding_attention: entry(sliding) } };
  // Undefined takes back the flat keys that all families write.
  if (slidingKey === null) return { rope_theta: undefined, rope_scaling: undefined, ...nested };
  const flat = sliding.scaling.kind === "none" && (slidingKey !== "rope_theta" || sliding.theta === full.theta);
  return {
    [slidingKey]: flat ? sliding.theta : undefined,
    rope_theta: flat ? full.theta : undefined,
    rope_scaling: flat ? writeScaling(full.scaling) : undefined,
    ...nested,
  };
}

/**
 * The ropes of a spec by attention type; a type that no layer has gets the family's default. Null if a layer has none.
 */
export function ropesByTypeOf(spec: DecoderSpec, defaults: RopesByTypeDefaults): RopesByType | null {
  if (spec.layers.some(({ rope }) => rope === null)) return null;
  const plain = (theta: number): Rope => ({
    theta,
    scaling: { kind: "none" },
    rotary: spec.attn.headDim,
    interleaved: false,
  });
  return {
    full: spec.layers.find(({ window }) => window === null)?.rope ?? plain(defaults.full),
    sliding: spec.layers.find(({ window }) => window !== null)?.rope ?? plain(defaults.sliding),
  };
}
