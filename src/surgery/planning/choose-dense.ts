/**
 * Which dense family says a merged decoder, found by trying: the family's config dialect, which refuses whatever it
 * cannot say, is the judge.
 */
import { UpcycleError } from "../../base/errors.js";
import { configFromSpec } from "../../model/decoder/config.js";
import { ownFamily, type DecoderSpec, type Family } from "../../model/decoder/types.js";

/** Dense families in the order in which they are tried. Our own format holds everything and comes last. */
const denseFamilies = [
  "llama",
  "mistral",
  "qwen2",
  "qwen3",
  "smollm3",
  "phi3",
  "granite",
  "olmo2",
  "olmo3",
  "olmo",
  "stablelm",
  "cohere",
  "nemotron",
  "starcoder2",
  "gemma",
  "gemma2",
  "gemma3_text",
  "gpt_neox",
  "gpt2",
  "ministral",
  "seed_oss",
  "arcee",
  "helium",
  "ernie4_5",
  "hunyuan_v1_dense",
  "exaone4",
  "glm",
  "glm4",
  "cohere2",
  "ministral3",
  "apertus",
  "cwm",
  "jais2",
  "hyperclovax",
  "vaultgemma",
  "falcon",
  "opt",
  "mpt",
  "gptj",
  "codegen",
  "phi",
  "gpt_neo",
  "gpt_bigcode",
  ownFamily,
] as const satisfies readonly Family[];

/** The dense sibling of an MoE family. */
const siblings: Readonly<Partial<Record<string, Family>>> = {
  mixtral: "mistral",
  qwen2_moe: "qwen2",
  qwen3_moe: "qwen3",
  granitemoe: "granite",
  flex_olmo: "olmo2",
  ernie4_5_moe: "ernie4_5",
  hunyuan_v1_moe: "hunyuan_v1_dense",
};

/**
 * The spec as a model of the first family that can say it. `suggested` families are tried first: dense ones themselves,
 * and the dense siblings of MoE ones.
 */
export function denseTarget(spec: DecoderSpec, suggested: readonly (string | undefined)[]): DecoderSpec {
  const first = suggested.flatMap((name) =>
    denseFamilies.filter((family) => family === name || family === siblings[name ?? ""]),
  );
  const candidates = [...first, ...denseFamilies].map((family): DecoderSpec => ({ ...spec, family }));
  return candidates.find((candidate) => canSay(candidate)) ?? { ...spec, family: ownFamily };
}

/** Whether the spec's own family can say it. */
export function canSay(spec: DecoderSpec): boolean {
  try {
    configFromSpec(spec, { dtype: "float32" });
    return true;
  } catch (error) {
    if (error instanceof UpcycleError && error.kind === "input") return false;
    throw error;
  }
}
