/**
 * On-disk Hugging Face names of tensor slots. In the tables, one row per part, `{layer}` and `{expert}` are filled in,
 * `{head}` with each head in turn. These are the per-expert names that `save_pretrained` writes and that transformers 4
 * and 5, vLLM and llama.cpp read.
 */
import type { DecoderSpec, Family } from "../decoder/types.js";
import { layer, llamaParts, type NameTable, type ExpertPart } from "./name-table.js";
import {
  apertus,
  dense,
  glm,
  glm4,
  hunyuanV1Dense,
  hyperclovax,
  nemotron,
  phi3,
  postNorms,
  stablelm,
  starcoder2,
  vaultgemma,
} from "./names-dense.js";
import {
  blockSparse,
  dbrx,
  deepseekV3,
  ernie45Moe,
  flexOlmo,
  gptOss,
  graniteMoe,
  graniteMoeSwa,
  hunyuanV1Moe,
  hyV3,
  lfm2Ffn,
  lfm2Moe,
  mixtral,
  ossExperts,
  phimoe,
  qwenMoe,
  routed,
  sharedNames,
  upcycle,
} from "./names-experts.js";
import { codegen, falcon, falconTwoNorms, gpt2, gptNeo, gptNeox, gptj, mpt, opt, phi } from "./names-ungated.js";
import type { Slot, SlotAt } from "./slots.js";
import { slotsOf } from "./slots.js";

const tables: Readonly<Record<Family, NameTable>> = {
  upcycle,
  llama: dense,
  mistral: dense,
  qwen2: dense,
  qwen3: dense,
  nemotron,
  starcoder2,
  stablelm,
  cohere: dense,
  phi3,
  gpt_neox: gptNeox,
  gemma: dense,
  gemma2: postNorms,
  gemma3_text: postNorms,
  granite: dense,
  smollm3: dense,
  glm,
  glm4,
  seed_oss: dense,
  arcee: dense,
  exaone4: postNorms,
  cohere2: dense,
  ernie4_5: dense,
  hunyuan_v1_dense: hunyuanV1Dense,
  helium: dense,
  ministral: dense,
  ministral3: dense,
  apertus,
  cwm: dense,
  jais2: nemotron,
  hyperclovax,
  vaultgemma,
  falcon,
  opt,
  mpt,
  gptj,
  codegen,
  phi,
  gpt_neo: gptNeo,
  gpt_bigcode: gpt2,
  olmo2: postNorms,
  olmo3: postNorms,
  olmo: dense,
  mixtral,
  qwen2_moe: qwenMoe,
  qwen3_moe: qwenMoe,
  olmoe: qwenMoe,
  flex_olmo: flexOlmo,
  mellum: qwenMoe,
  dots1: routed,
  glm4_moe: routed,
  solar_open: routed,
  hy_v3: hyV3,
  hunyuan_v1_moe: hunyuanV1Moe,
  deepseek_v3: deepseekV3,
  granitemoe: graniteMoe,
  granitemoe_swa: graniteMoeSwa,
  phimoe,
  ernie4_5_moe: ernie45Moe,
  lfm2_moe: lfm2Moe,
  gpt_oss: gptOss,
  dbrx,
  gpt2,
};

/** Which of a family's two forms of names. */
export type NameForm =
  /** Of files: what `save_pretrained` writes. */
  | "files"
  /**
   * Of transformers 5's modules: what `state_dict()` gives, FSDP saves, and `save_original_format=False` writes.
   * Experts of a layer are two tensors.
   */
  | "modules";

const moduleExperts = (prefix: string): NameTable["experts"] => ({
  gate: `${prefix}.gate_up_proj`,
  up: `${prefix}.gate_up_proj`,
  down: `${prefix}.down_proj`,
});

/** What differs in the modules of a class whose files have a tensor for each expert (`conversion_mapping.py`, 5.18). */
const modules: Readonly<Partial<Record<Family, Partial<NameTable>>>> = {
  gpt_neox: { parts: { ...gptNeox.parts, head: llamaParts.head } },
  mixtral: { parts: { ...mixtral.parts, router: qwenMoe.parts.router }, experts: moduleExperts(ossExperts) },
  phimoe: { parts: { ...phimoe.parts, router: `${layer}.mlp.router.weight` }, experts: moduleExperts(ossExperts) },
  granitemoe: {
    parts: { ...graniteMoe.parts, router: `${blockSparse}.router.weight` },
    experts: moduleExperts(`${blockSparse}.experts`),
  },
  hy_v3: {
    parts: {
      ...hyV3.parts,
      router: qwenMoe.parts.router,
      routerCorrection: `${layer}.mlp.e_score_correction_bias`,
      ...sharedNames(`${layer}.mlp.shared_experts`),
    },
    experts: moduleExperts(ossExperts),
  },
  ernie4_5_moe: {
    parts: { ...ernie45Moe.parts, routerCorrection: `${layer}.mlp.gate.moe_statics.e_score_correction_bias` },
    experts: moduleExperts(ossExperts),
  },
  lfm2_moe: { experts: moduleExperts(`${lfm2Ffn}.experts`) },
  ...Object.fromEntries(
    (
      [
        "qwen2_moe",
        "qwen3_moe",
        "olmoe",
        "flex_olmo",
        "mellum",
        "dots1",
        "glm4_moe",
        "solar_open",
        "hunyuan_v1_moe",
        "deepseek_v3",
      ] satisfies Family[]
    ).map((family) => [family, { experts: moduleExperts(ossExperts) }]),
  ),
};

/** A slot with its names. */
export interface NamedSlot {
  readonly slot: Slot;
  /** Names of the stored tensors that hold it: one, or several one after the other. */
  readonly names: readonly string[];
}

/** DeepSeek-V3 without a query latent has queries under their usual name. */
const directQueries: NameTable = { ...deepseekV3, parts: { ...deepseekV3.parts, q: llamaParts.q } };

/** The names that a family's files use. */
function filesTable({ family, attn, block }: DecoderSpec): NameTable {
  if (family === "deepseek_v3" && attn.latent?.queryRank === null) return directQueries;
  return family === "falcon" && block === "parallel" ? falconTwoNorms : tables[family];
}

function tableOf(spec: DecoderSpec, form: NameForm): NameTable {
  const table = filesTable(spec);
  return form === "files" ? table : { ...table, ...modules[spec.family] };
}

/**
 * The Hugging Face names of the tensors that hold one slot, in the order of its rows; nearly always one. Asking for a
 * part that the family does not have is a defect of the caller.
 */
export function tensorNames(spec: DecoderSpec, at: SlotAt, form: NameForm = "files"): string[] {
  const table = tableOf(spec, form);
  const template = at.expert === undefined ? table.parts[at.part] : table.experts?.[at.part as ExpertPart];
  if (template === null || template === undefined)
    throw new Error(`${spec.family} has no name for ${JSON.stringify(at)}`);
  const name = template.replace("{layer}", String(at.layer)).replace("{expert}", String(at.expert));
  if (!name.includes("{head}")) return [name];
  const { heads, kvHeads } = spec.attn;
  return Array.from({ length: at.part === "kNorm" ? kvHeads : heads }, (_, head) =>
    name.replace("{head}", String(head)),
  );
}

/** Every slot of a decoder with its names, in write order. */
export function namedSlots(spec: DecoderSpec, form: NameForm = "files"): NamedSlot[] {
  return slotsOf(spec).map((slot) => ({ slot, names: tensorNames(spec, slot.at, form) }));
}

/** Whether transformers 5's modules hold all experts of a layer in two tensors where the family's files do not. */
export function packsInModules({ family }: DecoderSpec): boolean {
  return modules[family]?.experts != null;
}

/** Whether the family's modules have other names than its files. */
export function hasModuleNames({ family }: DecoderSpec): boolean {
  return modules[family] !== undefined;
}

/**
 * Buffers that old checkpoints store although they are computed from the config (rope's, and the causal masks of
 * GPT-NeoX and GPT-2): nobody reads them, nobody misses them.
 */
export function isComputedBuffer(name: string): boolean {
  return /\.rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.(attention|attn)\.(bias|masked_bias)$/.test(name);
}
