/**
 * Every attribute that transformers reads of a family's config has an entry in our table, and the entry is true.
 * `attributes.json` was recorded by `test/external/record_attributes.py`.
 */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import {
  attributeUse,
  ownAttributes,
  sharedAttributes,
  type AttributeUse,
} from "../../../src/model/decoder/attributes.js";
import { specFromConfig, unreadKeys } from "../../../src/model/decoder/config.js";
import { families, ownFamily, type Family } from "../../../src/model/decoder/types.js";
import { goldenConfig, read, write, type Config } from "./families/configs.js";

/** A family's tiny config; what transformers reads of it, and where; other values that attributes may have. */
interface Recorded {
  readonly config: Config;
  readonly attributes: Readonly<Record<string, string>>;
  readonly others: Readonly<Record<string, readonly unknown[]>>;
}

const file = JSON.parse(readFileSync(new URL("../../golden/attributes.json", import.meta.url), "utf8")) as unknown;
const recorded = file as Readonly<Partial<Record<Family, Recorded>>>;
/** Values that most families share. */
const { others: usual } = file as Pick<Recorded, "others">;
const known = families.filter((family) => family !== ownFamily);

function factsOf(family: Family): Recorded {
  const facts = recorded[family];
  if (facts === undefined)
    throw new Error(`record it: python test/external/record_attributes.py test/golden/attributes.json ${family}`);
  return facts;
}

/** The description of a config, or its refusal. */
function reading(config: Config): string {
  try {
    return JSON.stringify(specFromConfig(config, "config.json"));
  } catch (error) {
    if (error instanceof UpcycleError) return `refused: ${error.line}`;
    throw error;
  }
}

/** The config with a value at `OBJECT.NAME`. */
function changed(config: Config, path: string, value: unknown): Config {
  const [name = "", ...inside] = path.split(".");
  if (inside.length === 0) return { ...config, [name]: value };
  return { ...config, [name]: changed((config[name] ?? {}) as Config, inside.join("."), value) };
}

const yarn = { rope_type: "yarn", rope_theta: 10_000, factor: 4, original_max_position_embeddings: 16 };
const llama3 = { ...yarn, rope_type: "llama3", low_freq_factor: 1, high_freq_factor: 4 };
const longrope = { ...yarn, rope_type: "longrope", short_factor: [1, 1, 1, 1], long_factor: [1, 2, 3, 4] };
const mscaled = { ...yarn, mscale: 1, mscale_all_dim: 1 };
/** LongRoPE's factors for heads of which only so many pairs turn. */
const half = (pairs: number): Config => ({
  short_factor: Array<number>(pairs).fill(1),
  long_factor: Array<number>(pairs).fill(2),
});
const slidingFirst = ["sliding_attention", "full_attention"];
const byType = (rope: Config): Config => ({ full_attention: rope, sliding_attention: rope });

/** Configs in which attributes may say something that they do not say in the family's own. */
const contexts: readonly Config[] = [
  ...[
    yarn,
    llama3,
    longrope,
    { ...longrope, ...half(2) },
    { ...longrope, ...half(1) },
    mscaled,
    { rope_type: "linear", rope_theta: 10_000, factor: 2 },
  ].flatMap((rope) => [{ rope_parameters: rope }, { rope_parameters: byType(rope) }]),
  { rope_parameters: { ...longrope, short_mscale: 1.1, long_mscale: 1.1 }, original_max_position_embeddings: 16 },
  { rope_parameters: { ...longrope, short_mscale: 1.1, long_mscale: 1.1 } },
  { rope_parameters: { rope_theta: 10_000 } },
  { rope_parameters: { rope_type: "dynamic", rope_theta: 10_000, alpha: 3 } },
  { rope_parameters: { rope_type: "default", rope_theta: 10_000 } },
  { rope_parameters: byType({ rope_type: "default", rope_theta: 10_000 }), layer_types: slidingFirst },
  { use_sliding_window: true, max_window_layers: 0 },
  { use_sliding_window: true, layer_types: slidingFirst },
  { use_sliding_window: true, sliding_window: 8, layer_types: slidingFirst },
  { mlp_only_layers: [0] },
  { new_decoder_architecture: true },
  { mlp_layer_types: ["dense", "sparse"] },
  { moe_layer_start_index: 0 },
];
/** Values beyond the recorded ones. */
const values: Readonly<Record<string, readonly unknown[]>> = {
  bos_token_id: [7],
  eos_token_id: [7],
  pad_token_id: [7],
  layer_types: [["chunked_attention", "full_attention"]],
  partial_rotary_factor: [1],
  use_sliding_window: [false],
  moe_layer_end_index: [0],
  attn_config: [{ kv_n_heads: 1 }, { clip_qkv: 6 }],
  attention_layers: [["local", "local"]],
  norm_type: ["rmsnorm"],
  n_embed: [64],
  ffn_config: [{ moe_num_experts: 4 }],
  original_max_position_embeddings: [32],
  "rope_parameters.type": ["linear"],
  "rope_parameters.short_mscale": [1.3],
  "rope_parameters.long_mscale": [1.3],
  "rope_parameters.factor": [3],
  "rope_parameters.alpha": [2],
  "rope_parameters.attention_factor": [1.5],
  "rope_parameters.beta_fast": [4],
  "rope_parameters.beta_slow": [0.5],
  "rope_parameters.low_freq_factor": [2],
  "rope_parameters.high_freq_factor": [8],
  "rope_parameters.mscale": [0.5],
  "rope_parameters.mscale_all_dim": [0.5],
  "rope_parameters.original_max_position_embeddings": [32],
  "rope_parameters.partial_rotary_factor": [1],
  "rope_parameters.truncate": [false],
};

/** Readings of a family in a context: unchanged, then with each value that the attribute may have instead. */
function readings(family: Family, name: string, context: Config): { base: string; others: string[] } {
  const { config, others } = factsOf(family);
  const base = { ...config, ...context };
  const all = [...(others[name] ?? usual[name] ?? []), ...(values[name] ?? [])];
  return { base: reading(base), others: all.map((value) => reading(changed(base, name, value))) };
}

/** Whether the reader notices the attribute: another description, or a refusal. */
const isNoticed = (family: Family, name: string): boolean =>
  [{}, ...contexts].some((context) => {
    const { base, others } = readings(family, name, context);
    return !base.startsWith("refused") && others.some((other) => other !== base);
  });

const namesOf = (family: Family, kind: AttributeUse["kind"]): string[] =>
  Object.keys(factsOf(family).attributes).filter((name) => attributeUse(family, name)?.kind === kind);

describe("attributes that transformers reads", () => {
  it.each(known)("%s: each has an entry", (family) => {
    const missing = Object.entries(factsOf(family).attributes).filter(
      ([name]) => attributeUse(family, name) === undefined,
    );
    expect(
      missing.map(([name, where]) => `${name} (${where})`),
      `say in src/model/decoder/attributes.ts what each of these is to the reader of ${family}`,
    ).toEqual([]);
  });

  it.each(known)("%s: a used one changes the description or is refused", (family) => {
    expect(namesOf(family, "used").filter((name) => !isNoticed(family, name))).toEqual([]);
  });

  it.each(known)("%s: an irrelevant one changes nothing", (family) => {
    const noticed = namesOf(family, "irrelevant").filter((name) => {
      const { base, others } = readings(family, name, {});
      return others.some((other) => other !== base);
    });
    expect(noticed).toEqual([]);
  });

  it.each(known)("%s: a refused one is refused for all values but its neutral ones", (family) => {
    const accepted = namesOf(family, "refused").flatMap((name) => {
      const use = attributeUse(family, name);
      if (use?.kind !== "refused") return [];
      const { config, others } = factsOf(family);
      const departing = [...(others[name] ?? usual[name] ?? []), { departure: 1 }].filter(
        (value) => value !== null && !use.allows(value),
      );
      return departing
        .filter((value) => !reading(changed(config, name, value)).startsWith(`refused: config.json: ${name} is `))
        .map((value) => `${name} ${JSON.stringify(value)}`);
    });
    expect(accepted).toEqual([]);
  });

  it("has no entry that transformers does not read", () => {
    const all = new Set(known.flatMap((family) => Object.keys(factsOf(family).attributes)));
    expect(sharedAttributes.filter((name) => !all.has(name))).toEqual([]);
    const stale = known.flatMap((family) =>
      ownAttributes(family).flatMap((name) => (name in factsOf(family).attributes ? [] : [`${family}: ${name}`])),
    );
    expect(stale).toEqual([]);
  });

  it("accepts the tiny config of every family", () => {
    expect(known.filter((family) => reading(factsOf(family).config).startsWith("refused"))).toEqual([]);
  });
});

describe("unreadKeys", () => {
  it("names keys that say something and that nobody reads", () => {
    const config = { ...goldenConfig("dense/llama"), my_window: 8, nothing: null, temperature: 0.6 };
    expect(unreadKeys(config)).toEqual(["my_window"]);
  });

  const golden = ["dense", "moe"].flatMap((kind) =>
    readdirSync(new URL(`../../golden/${kind}`, import.meta.url)).map((name) => `${kind}/${name}`),
  );

  it.each(golden)("%s: names nothing in what transformers wrote, nor in what we write", (name) => {
    const config = goldenConfig(name);
    expect(unreadKeys(config)).toEqual([]);
    expect(unreadKeys(write(read(config)))).toEqual([]);
  });
});
