/**
 * Megatron-Core's names for the tensors of a decoder, and where each slot lies in them: another naming table beside
 * those of Hugging Face families. Source: NVIDIA/Megatron-LM@d98e8a64 (core 0.20.0), sharded_state_dict of
 * `core/transformer/{attention,multi_latent_attention,dot_product_attention,mlp}.py`,
 * `core/transformer/moe/{experts,router,shared_experts}.py` and `core/models/gpt/gpt_layer_specs.py`. Pure.
 */
import type { DecoderSpec, Ffn, LatentAttention } from "../decoder/types.js";
import { expertRows, stacked, type Placement, type RowRuns, type Share } from "./placement.js";
import { slotsOf, type Slot, type SlotPart } from "./slots.js";

/** How a checkpoint spells its keys. */
export interface MegatronKeys {
  /** All layers in one tensor with a first axis for the layer, or a key for each layer. */
  readonly layers: "stacked" | "separate";
  /** Gate and up rows in one tensor, or in two, whose keys end in `_w` and `_v` (`singleton_local_shards`). */
  readonly halves: "joined" | "separate";
  /** All experts in one tensor, or a key for each. */
  readonly experts: "stacked" | "separate";
  /** Whose modules named the norms: Megatron-Core's own or Transformer Engine's. */
  readonly modules: "local" | "engine";
}

/** The keys that we write: stacked, or one for each layer where layers differ. */
export function writtenKeys(spec: DecoderSpec): MegatronKeys {
  const layers = new Set(spec.layers.map(({ ffn }) => ffn.kind)).size > 1 ? "separate" : "stacked";
  return { layers, halves: "joined", experts: "stacked", modules: "local" };
}

/** The spelling that a checkpoint's keys follow. */
export function keysFound(keys: Iterable<string>): MegatronKeys {
  const found = [...keys];
  const some = (pattern: RegExp): boolean => found.some((key) => pattern.test(key));
  return {
    layers: some(/^decoder\.layers\.\d+\./) ? "separate" : "stacked",
    halves: some(/linear_fc1\.weight_w$/) ? "separate" : "joined",
    experts: some(/\.experts\.experts\.\d+\./) ? "separate" : "stacked",
    modules: isOfEngine(new Set(found)) ? "engine" : "local",
  };
}

/** Whether norms have the names of Transformer Engine and not those of the local modules, which are preferred. */
function isOfEngine(keys: ReadonlySet<string>): boolean {
  for (const key of keys) {
    // Latent attention: the norm of a latent is the projection's own.
    if (/\.self_attention\.kv_layernorm\.weight$/.test(key)) return false;
    if (/\.self_attention\.linear_kv_up_proj\.layer_norm_weight$/.test(key) && !keys.has(localLatentNorm(key)))
      return true;
    const layer = /^(decoder\.layers\.(?:\d+\.)?)mlp\.router\.weight$/.exec(key)?.[1];
    // A dense layer among MoE layers has the local name whatever the modules.
    if (layer !== undefined && !keys.has(`${layer}self_attention.linear_kv_down_proj.weight`))
      if (keys.has(`${layer}mlp.linear_fc1.layer_norm_weight`)) return false;
  }
  return [...keys].some(
    (key) => /^decoder\.layers\.(\d+\.)?pre_mlp_layernorm\.weight$/.test(key) && !isLatentLayer(keys, key),
  );
}

const localLatentNorm = (key: string): string =>
  key.replace("linear_kv_up_proj.layer_norm_weight", "kv_layernorm.weight");

const isLatentLayer = (keys: ReadonlySet<string>, norm: string): boolean =>
  keys.has(norm.replace("pre_mlp_layernorm.weight", "self_attention.linear_kv_down_proj.weight"));

/** A stored tensor of a Megatron checkpoint. */
export interface MegatronTensor {
  readonly key: string;
  /** With the axes of layers and experts in front. */
  readonly shape: readonly number[];
  /** How many axes in front are cut one by one: layers, experts. */
  readonly leading: number;
  /** Gate rows and up rows are cut apart. */
  readonly halves: 1 | 2;
  /** Along which axis ranks of tensor parallelism share it; null: each has all of it. */
  readonly parallel: "rows" | "columns" | null;
  readonly slots: readonly Placement[];
}

const outside: Readonly<Partial<Record<SlotPart, string>>> = {
  embed: "embedding.word_embeddings.weight",
  positions: "embedding.position_embeddings.weight",
  finalNorm: "decoder.final_layernorm.weight",
  finalNormBias: "decoder.final_layernorm.bias",
  head: "output_layer.weight",
};

const inLayer: Readonly<Partial<Record<SlotPart, string>>> = {
  inputNorm: "self_attention.linear_qkv.layer_norm_weight",
  inputNormBias: "self_attention.linear_qkv.layer_norm_bias",
  q: "self_attention.linear_qkv.weight",
  k: "self_attention.linear_qkv.weight",
  v: "self_attention.linear_qkv.weight",
  qBias: "self_attention.linear_qkv.bias",
  kBias: "self_attention.linear_qkv.bias",
  vBias: "self_attention.linear_qkv.bias",
  qNorm: "self_attention.q_layernorm.weight",
  kNorm: "self_attention.k_layernorm.weight",
  sinks: "self_attention.core_attention.softmax_offset",
  o: "self_attention.linear_proj.weight",
  oBias: "self_attention.linear_proj.bias",
  router: "mlp.router.weight",
  routerBias: "mlp.router.bias",
  routerCorrection: "mlp.router.expert_bias",
  sharedGate: "mlp.shared_experts.linear_fc1.weight",
  sharedUp: "mlp.shared_experts.linear_fc1.weight",
  sharedDown: "mlp.shared_experts.linear_fc2.weight",
  sharedRouter: "mlp.shared_experts.gate_weight",
};

/** Multi-head latent attention. */
const inLatentLayer: Readonly<Partial<Record<SlotPart, string>>> = {
  inputNorm: "input_layernorm.weight",
  qDown: "self_attention.linear_q_down_proj.weight",
  kvDown: "self_attention.linear_kv_down_proj.weight",
  kRope: "self_attention.linear_kv_down_proj.weight",
  k: "self_attention.linear_kv_up_proj.weight",
  v: "self_attention.linear_kv_up_proj.weight",
  o: "self_attention.linear_proj.weight",
};

/** Norms of latents, by the modules that name them. */
const latentNorms: Readonly<Record<MegatronKeys["modules"], Readonly<Partial<Record<SlotPart, string>>>>> = {
  local: { qLatentNorm: "self_attention.q_layernorm.weight", kvLatentNorm: "self_attention.kv_layernorm.weight" },
  engine: {
    qLatentNorm: "self_attention.linear_q_up_proj.layer_norm_weight",
    kvLatentNorm: "self_attention.linear_kv_up_proj.layer_norm_weight",
  },
};

const ownNorm = "pre_mlp_layernorm.";
const fusedNorm = "mlp.linear_fc1.layer_norm_";

/**
 * The name of the norm before an FFN. Local modules have a norm of their own, which usual attention saves under the
 * fused name and latent attention under its own; Transformer Engine fuses the norm of dense layers alone.
 */
function ffnNormName(ffn: Ffn, isLatent: boolean, modules: MegatronKeys["modules"]): string {
  if (modules === "engine") return ffn.kind === "moe" ? ownNorm : fusedNorm;
  return isLatent ? ownNorm : fusedNorm;
}

const inFfn: Readonly<Partial<Record<SlotPart, string>>> = {
  gate: "linear_fc1.weight",
  up: "linear_fc1.weight",
  down: "linear_fc2.weight",
  gateBias: "linear_fc1.bias",
  upBias: "linear_fc1.bias",
  downBias: "linear_fc2.bias",
};

const columnParallel: ReadonlySet<SlotPart> = new Set(["o", "down", "sharedDown"]);
const notParallel: ReadonlySet<SlotPart> = new Set([
  ...(["qNorm", "kNorm", "router", "routerBias", "routerCorrection", "sharedRouter", "oBias", "downBias"] as const),
  ...(["qDown", "kvDown", "kRope", "qLatentNorm", "kvLatentNorm"] as const),
  ...(["inputNorm", "inputNormBias", "ffnNorm", "ffnNormBias", "finalNorm", "finalNormBias", "positions"] as const),
]);

function parallelOf({ at: { part } }: Slot): MegatronTensor["parallel"] {
  if (columnParallel.has(part)) return "columns";
  return notParallel.has(part) ? null : "rows";
}

/** A slot's place before the axes of the layers come in front of it. */
interface InLayer extends Share {
  readonly name: string;
  readonly leading: number;
  readonly halves: 1 | 2;
}

function nameInLayer({ attn }: DecoderSpec, { at }: Slot, ffn: Ffn, keys: MegatronKeys): string | undefined {
  const known = attn.latent === null ? inLayer[at.part] : latentName(attn.latent, at.part, keys);
  if (known !== undefined) return known;
  if (at.part === "ffnNorm" || at.part === "ffnNormBias")
    return ffnNormName(ffn, attn.latent !== null, keys.modules) + (at.part === "ffnNorm" ? "weight" : "bias");
  const name = inFfn[at.part];
  if (name === undefined || at.expert === undefined) return name && `mlp.${name}`;
  return keys.experts === "stacked" ? `mlp.experts.experts.${name}` : `mlp.experts.experts.${at.expert}.${name}`;
}

function latentName({ queryRank }: LatentAttention, part: SlotPart, { modules }: MegatronKeys): string | undefined {
  if (part === "q") return `self_attention.${queryRank === null ? "linear_q_proj" : "linear_q_up_proj"}.weight`;
  return inLatentLayer[part] ?? latentNorms[modules][part] ?? inLayer[part];
}

/** For each group of queries with common keys and values: its queries, its key, its value. */
function attentionRows({ heads, kvHeads, headDim }: DecoderSpec["attn"], part: SlotPart): readonly [number, RowRuns] {
  const group = (heads / kvHeads) * headDim;
  const period = group + 2 * headDim;
  const [start, run] = part[0] === "q" ? [0, group] : part[0] === "k" ? [group, headDim] : [group + headDim, headDim];
  return [kvHeads * period, { start, run, period }];
}

/** Each head's query; the latent and the key's rotary part; for each head the rest of its key, then its value. */
function latentRows(
  { heads, headDim, latent }: DecoderSpec["attn"],
  part: SlotPart,
): readonly [number, RowRuns] | null {
  if (latent === null) return null;
  const { kvRank, ropeDim, valueDim } = latent;
  const key = headDim - ropeDim;
  switch (part) {
    case "q":
      return [heads * headDim, { start: 0, run: headDim, period: headDim }];
    case "kvDown":
      return stacked([kvRank, ropeDim], 0);
    case "kRope":
      return stacked([kvRank, ropeDim], 1);
    case "k":
      return [heads * (key + valueDim), { start: 0, run: key, period: key + valueDim }];
    case "v":
      return [heads * (key + valueDim), { start: key, run: valueDim, period: key + valueDim }];
    default:
      return null;
  }
}

const gates: ReadonlySet<SlotPart> = new Set(["gate", "gateBias", "sharedGate"]);
const gatedParts: ReadonlySet<SlotPart> = new Set([...gates, "up", "upBias", "sharedUp"]);

/** Rows of a slot among those of the matrix that holds it. */
function rowsOf(spec: DecoderSpec, slot: Slot, ffn: Ffn, keys: MegatronKeys): readonly [number, RowRuns, 1 | 2] {
  const { part } = slot.at;
  const [own = 1] = slot.shape;
  const latent = latentRows(spec.attn, part);
  if (latent !== null) return [...latent, 1];
  if (/^[qkv](Bias)?$/.test(part)) return [...attentionRows(spec.attn, part), 1];
  if (gatedParts.has(part) && ffn.gated && keys.halves === "joined")
    return [...stacked([own, own], gates.has(part) ? 0 : 1), 2];
  return [...stacked([own], 0), 1];
}

function placeInLayer(spec: DecoderSpec, slot: Slot, keys: MegatronKeys): InLayer | null {
  const { ffn } = spec.layers[slot.at.layer!]!;
  const name = nameInLayer(spec, slot, ffn, keys);
  if (name === undefined) return null;
  const [of, rows, halves] = rowsOf(spec, slot, ffn, keys);
  const isSplit = halves === 1 && keys.halves === "separate" && gatedParts.has(slot.at.part) && ffn.gated;
  const ending = isSplit ? (gates.has(slot.at.part) ? "_w" : "_v") : "";
  if (slot.at.expert !== undefined && keys.experts === "stacked" && ffn.kind === "moe")
    return { name: name + ending, leading: 1, halves, ...expertRows(slot, ffn.experts, of, rows) };
  const columns = slot.shape.slice(1).reduce((a, b) => a * b, 1);
  const layout = { base: 0, rows, rowStride: columns, columnStride: 1 };
  return { name: name + ending, leading: 0, halves, shape: [of, ...slot.shape.slice(1)], layout };
}

interface Named extends Omit<MegatronTensor, "slots"> {
  readonly place: Placement;
}

function named(spec: DecoderSpec, slot: Slot, keys: MegatronKeys): Named {
  const [count = 1] = slot.shape;
  const whole = outside[slot.at.part];
  if (whole !== undefined) {
    const place = { slot, name: whole, shape: slot.shape, first: 0, count, layout: null };
    return { key: whole, shape: slot.shape, leading: 0, halves: 1, parallel: parallelOf(slot), place };
  }
  const found = placeInLayer(spec, slot, keys);
  // A description is checked before its tensors are named (`decoder/megatron.ts`).
  if (found === null) throw new Error(`Megatron-Core has no name for ${slot.key}`);
  const { name, leading, halves } = found;
  const isStacked = keys.layers === "stacked";
  const key = `decoder.layers.${isStacked ? "" : `${slot.at.layer}.`}${name}`;
  const shape = isStacked ? [spec.layers.length, ...found.shape] : found.shape;
  const before = isStacked ? slot.at.layer! * found.shape.reduce((a, b) => a * b, 1) : 0;
  const layout = { ...found.layout!, base: found.layout!.base + before };
  const place = { slot, name: key, shape, first: 0, count, layout };
  return { key, shape, leading: leading + (isStacked ? 1 : 0), halves, parallel: parallelOf(slot), place };
}

/**
 * The tensors that hold a decoder, by key, in the order of its slots. Throws a plain error (a defect of the caller) for
 * a decoder that Megatron-Core has no names for.
 */
export function megatronTensors(spec: DecoderSpec, keys: MegatronKeys): Map<string, MegatronTensor> {
  const tensors = new Map<string, MegatronTensor & { readonly slots: Placement[] }>();
  for (const slot of slotsOf(spec)) {
    const { place, ...tensor } = named(spec, slot, keys);
    const known = tensors.get(tensor.key);
    if (known === undefined) tensors.set(tensor.key, { ...tensor, slots: [place] });
    else known.slots.push(place);
  }
  return tensors;
}

/** Every slot with its place, in the order of the slots. */
export function megatronPlacements(spec: DecoderSpec, keys: MegatronKeys): Placement[] {
  return slotsOf(spec).map((slot) => named(spec, slot, keys).place);
}

/**
 * Names of the byte objects that local modules and Transformer Engine ask for (`_extra_state`), with keys as we write
 * them.
 */
export function extraStates(spec: DecoderSpec, { layers: spelled }: MegatronKeys): string[] {
  const count = spec.layers.length;
  const names = ["decoder.final_layernorm._extra_state/shard_0_1"];
  spec.layers.forEach(({ ffn }, layer) => {
    const isStacked = spelled === "stacked";
    const prefix = `decoder.layers.${isStacked ? "" : `${layer}.`}`;
    const shard = isStacked ? `shard_${layer}_${count}` : "shard_0_1";
    const modules = spec.attn.latent === null ? extraModules : latentModules;
    for (const module of modules) names.push(`${prefix}${module}._extra_state/${shard}`);
    if (ffn.kind === "dense") return;
    for (let expert = 0; expert < ffn.experts; expert++) {
      const own = isStacked ? `shard_${layer}.${expert}_${count}.${ffn.experts}` : `shard_${expert}_${ffn.experts}`;
      for (const matrix of ["linear_fc1", "linear_fc2"])
        names.push(`${prefix}mlp.experts.experts.${matrix}._extra_state/${own}`);
    }
  });
  return names;
}

const sharedModules = [
  "self_attention.linear_proj",
  "self_attention.core_attention",
  "mlp.linear_fc1",
  "mlp.linear_fc2",
  "self_attention.q_layernorm",
  "pre_mlp_layernorm",
  "input_layernorm",
  "mlp.shared_experts.linear_fc1",
  "mlp.shared_experts.linear_fc2",
];
const extraModules = ["self_attention.linear_qkv", "self_attention.k_layernorm", ...sharedModules];
const latentModules = [
  ...["q_proj", "q_down_proj", "q_up_proj", "kv_down_proj", "kv_up_proj"].map(
    (name) => `self_attention.linear_${name}`,
  ),
  "self_attention.kv_layernorm",
  ...sharedModules,
];

/** Further names under which Transformer Engine asks for a tensor of ours, which has those of the local modules. */
export function otherNames({ attn }: DecoderSpec, key: string): string[] {
  const { local, engine } = latentNorms;
  const pairs: readonly (readonly [string, string])[] =
    attn.latent === null
      ? [[`.${fusedNorm}`, `.${ownNorm}`]]
      : [
          [`.${ownNorm}`, `.${fusedNorm}`],
          [local.qLatentNorm!, engine.qLatentNorm!],
          [local.kvLatentNorm!, engine.kvLatentNorm!],
        ];
  return pairs.flatMap(([own, other]) => (key.includes(own) ? [key.replace(own, other)] : []));
}
