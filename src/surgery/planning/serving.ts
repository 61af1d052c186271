/**
 * Which programs load a written model and compute the same function: facts about other projects, as read in their
 * sources. vLLM: vllm/model_executor/models/registry.py and the models it names; llama.cpp: conversion/__init__.py,
 * TEXT_MODEL_MAP, and the converters; Megatron-Bridge: its bridges at commit 067f987d (August 2026). Versions differ: a
 * statement here is a reason to test, not a promise.
 */
import { isMoe, ownFamily, type DecoderSpec, type MoeFfn, type RouterOrder } from "../../model/decoder/types.js";
import type { TargetFamily } from "./recipe.js";

/** Programs that people load models with. */
export const programs = ["transformers", "vLLM", "llama.cpp", "Megatron-Bridge"] as const;
/** One of `programs`. */
export type Program = (typeof programs)[number];

/**
 * What a program does with a model: `same` computes its function, `other` loads it and silently computes another one,
 * `no` does not load it, `unknown` was not found out.
 */
export type Support = "same" | "other" | "no" | "unknown";

/** What one program makes of one model. */
export interface Serving {
  readonly program: Program;
  readonly support: Support;
  /** What to know of it, or why the program does not load it; null: nothing. */
  readonly note: string | null;
}

type Row = Readonly<Record<Program, Support | readonly [Support, string]>>;

const none = (why: string): readonly [Support, string] => ["no", why];
const notListed = none("not in its registry as read; its Transformers backend may load it");
const noBridge = none("has no bridge");

/** What every program makes of each target family; for some families that depends on the router order. */
const rows: Readonly<Record<TargetFamily, (order: RouterOrder) => Row>> = {
  mixtral: () => ({ transformers: "same", vLLM: "same", "llama.cpp": "same", "Megatron-Bridge": noBridge }),
  qwen3_moe: (order) => ({
    transformers: "same",
    vLLM: "same",
    "llama.cpp": order === "topk-softmax" ? "same" : ["other", "always renormalises qwen3_moe"],
    "Megatron-Bridge": "same",
  }),
  qwen2_moe: (order) => ({
    transformers: "same",
    vLLM: ["same", "older versions want query, key and value biases and a head size of hidden / heads"],
    "llama.cpp":
      order === "softmax-topk" ? ["same", "wants an untied output head"] : ["other", "never renormalises qwen2_moe"],
    "Megatron-Bridge": noBridge,
  }),
  granitemoe: () => ({
    transformers: "same",
    vLLM: ["same", "older versions know no attention biases, odd head sizes or rope scaling"],
    "llama.cpp": "same",
    "Megatron-Bridge": noBridge,
  }),
  granitemoe_swa: () => ({
    transformers: "same",
    vLLM: notListed,
    "llama.cpp": none("not in its map"),
    "Megatron-Bridge": noBridge,
  }),
  phimoe: () => ({
    transformers: "same",
    vLLM: ["unknown", "registers PhiMoEForCausalLM; jitter 0 was not tried"],
    "llama.cpp": ["unknown", "registers PhiMoEForCausalLM; its router is a plain top-2 softmax"],
    "Megatron-Bridge": noBridge,
  }),
  ernie4_5_moe: (order) => ({
    transformers: "same",
    vLLM: order === "topk-softmax" ? "same" : ["other", "does not read moe_norm_min"],
    "llama.cpp": order === "topk-softmax" ? "same" : ["unknown", "moe_norm_min was not looked for"],
    "Megatron-Bridge": order === "topk-softmax" ? "same" : "unknown",
  }),
  glm4_moe: () => ({ transformers: "same", vLLM: "same", "llama.cpp": "same", "Megatron-Bridge": "same" }),
  dots1: () => ({ transformers: "same", vLLM: "same", "llama.cpp": "same", "Megatron-Bridge": noBridge }),
  solar_open: () => ({ transformers: "same", vLLM: notListed, "llama.cpp": "same", "Megatron-Bridge": noBridge }),
  hy_v3: () => ({
    transformers: "same",
    vLLM: notListed,
    "llama.cpp": none("not in its map"),
    "Megatron-Bridge": "same",
  }),
  hunyuan_v1_moe: () => ({
    transformers: "same",
    vLLM: ["unknown", "its HunYuanMoEV1ForCausalLM was not read"],
    "llama.cpp": ["unknown", "its HunYuanMoEV1ForCausalLM was not read"],
    "Megatron-Bridge": "unknown",
  }),
  dbrx: () => ({ transformers: "same", vLLM: "same", "llama.cpp": "same", "Megatron-Bridge": noBridge }),
  lfm2_moe: () => ({
    transformers: "same",
    vLLM: ["unknown", "the 1e-6 in the renormalisation was not looked for"],
    "llama.cpp": "unknown",
    "Megatron-Bridge": noBridge,
  }),
  flex_olmo: (order) => ({
    transformers: "same",
    vLLM: order === "softmax-topk" ? "same" : ["other", "never renormalises flex_olmo"],
    "llama.cpp": none("not in its map"),
    "Megatron-Bridge": noBridge,
  }),
  mellum: () => ({ transformers: "same", vLLM: notListed, "llama.cpp": "unknown", "Megatron-Bridge": noBridge }),
  upcycle: () => {
    const own = none("this is upcycle's own format");
    return { transformers: own, vLLM: own, "llama.cpp": own, "Megatron-Bridge": own };
  },
};

/** What a user must know before serving a planned model, in words. */
export function servingWarnings(spec: DecoderSpec & { readonly family: TargetFamily }, order: RouterOrder): string[] {
  if (spec.family === ownFamily)
    return [
      "no released architecture can hold this model, so it is written in upcycle's own format, " +
        "which nothing else loads",
    ];
  return servingOf(spec, order).flatMap(({ program, support, note }) =>
    support === "other" ? [`${program} ${note} and would compute another function`] : [],
  );
}

const siluOnly: ReadonlySet<Program> = new Set(["vLLM", "llama.cpp"]);

/** What each program makes of an upcycled model of a target family. */
export function servingOf(spec: DecoderSpec & { readonly family: TargetFamily }, order: RouterOrder): Serving[] {
  const moes = spec.layers.flatMap(({ ffn }) => (ffn.kind === "moe" ? [ffn] : []));
  const [first] = moes as [MoeFfn, ...MoeFfn[]];
  const row = rows[spec.family](order);
  return programs.map((program) => {
    const entry = row[program];
    const [support, note] = typeof entry === "string" ? [entry, null] : entry;
    const loads = support === "same" || support === "unknown";
    if (loads && first.activation !== "silu" && siluOnly.has(program))
      return { program, support: "other", note: "takes SiLU for granted in experts" };
    if (
      loads &&
      program === "llama.cpp" &&
      isMoe(spec) &&
      moes.length < spec.layers.length &&
      /^qwen/.test(spec.family)
    ) {
      return { program, support: "no", note: "wants experts in every layer of a Qwen MoE" };
    }
    return { program, support, note };
  });
}
