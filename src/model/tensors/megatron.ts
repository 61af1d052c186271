/**
 * Megatron-Core's names for the tensors of a decoder, and where each slot lies in them: another naming table beside
 * those of Hugging Face families. Source: NVIDIA/Megatron-LM@d98e8a64 (core 0.20.0), sharded_state_dict of
 * `core/transformer/{attention,mlp}.py`, `core/transformer/moe/{experts,router,shared_experts}.py` and
 * `core/models/gpt/gpt_layer_specs.py`. Pure.
 */
import type { DecoderSpec, Ffn } from "../decoder/types.js";
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
  /** Name of the norm before an MoE layer's FFN: the local modules' or Transformer Engine's. */
  readonly moeNorm: "mlp.linear_fc1.layer_norm_" | "pre_mlp_layernorm.";
}

/** The keys that we write: stacked, or one for each layer where layers differ. */
export function writtenKeys(spec: DecoderSpec): MegatronKeys {
  const layers = new Set(spec.layers.map(({ ffn }) => ffn.kind)).size > 1 ? "separate" : "stacked";
  return { layers, halves: "joined", experts: "stacked", moeNorm: "mlp.linear_fc1.layer_norm_" };
}

/** The spelling that a checkpoint's keys follow. */
export function keysFound(keys: Iterable<string>): MegatronKeys {
  const found = [...keys];
  const some = (pattern: RegExp): boolean => found.some((key) => pattern.test(key));
  const layerNorm = some(/^decoder\.layers\.(\d+\.)?mlp\.linear_fc1\.layer_norm_weight$/);
  const teNorm = some(/^decoder\.layers\.(\d+\.)?pre_mlp_layernorm\.weight$/);
  return {
    layers: some(/^decoder\.layers\.\d+\./) ? "separate" : "stacked",
    halves: some(/linear_fc1\.weight_w$/) ? "separate" : "joined",
    experts: some(/\.experts\.experts\.\d+\./) ? "separate" : "stacked",
    // A dense layer among MoE layers has the first name whatever the modules.
    moeNorm: teNorm && (!layerNorm || !holdsMoeNorm(found)) ? "pre_mlp_layernorm." : "mlp.linear_fc1.layer_norm_",
  };
}

/** Whether the norm of some MoE layer has the local modules' name. */
function holdsMoeNorm(keys: readonly string[]): boolean {
  const all = new Set(keys);
  return keys.some((key) => {
    const layer = /^(decoder\.layers\.(?:\d+\.)?)mlp\.router\.weight$/.exec(key)?.[1];
    return layer !== undefined && all.has(`${layer}mlp.linear_fc1.layer_norm_weight`);
  });
}

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

function nameInLayer({ at }: Slot, ffn: Ffn, keys: MegatronKeys): string | undefined {
  const known = inLayer[at.part];
  if (known !== undefined) return known;
  if (at.part === "ffnNorm" || at.part === "ffnNormBias") {
    const prefix = ffn.kind === "moe" ? keys.moeNorm : "mlp.linear_fc1.layer_norm_";
    return prefix + (at.part === "ffnNorm" ? "weight" : "bias");
  }
  const name = inFfn[at.part];
  if (name === undefined || at.expert === undefined) return name && `mlp.${name}`;
  return keys.experts === "stacked" ? `mlp.experts.experts.${name}` : `mlp.experts.experts.${at.expert}.${name}`;
}

/** For each group of queries with common keys and values: its queries, its key, its value. */
function attentionRows({ heads, kvHeads, headDim }: DecoderSpec["attn"], part: SlotPart): readonly [number, RowRuns] {
  const group = (heads / kvHeads) * headDim;
  const period = group + 2 * headDim;
  const [start, run] = part[0] === "q" ? [0, group] : part[0] === "k" ? [group, headDim] : [group + headDim, headDim];
  return [kvHeads * period, { start, run, period }];
}

const gates: ReadonlySet<SlotPart> = new Set(["gate", "gateBias", "sharedGate"]);
const gatedParts: ReadonlySet<SlotPart> = new Set([...gates, "up", "upBias", "sharedUp"]);

/** Rows of a slot among those of the matrix that holds it. */
function rowsOf(spec: DecoderSpec, slot: Slot, ffn: Ffn, keys: MegatronKeys): readonly [number, RowRuns, 1 | 2] {
  const { part } = slot.at;
  const [own = 1] = slot.shape;
  if (/^[qkv](Bias)?$/.test(part)) return [...attentionRows(spec.attn, part), 1];
  if (gatedParts.has(part) && ffn.gated && keys.halves === "joined")
    return [...stacked([own, own], gates.has(part) ? 0 : 1), 2];
  return [...stacked([own], 0), 1];
}

function placeInLayer(spec: DecoderSpec, slot: Slot, keys: MegatronKeys): InLayer | null {
  const { ffn } = spec.layers[slot.at.layer!]!;
  const name = nameInLayer(slot, ffn, keys);
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
    for (const module of extraModules) names.push(`${prefix}${module}._extra_state/${shard}`);
    if (ffn.kind === "dense") return;
    for (let expert = 0; expert < ffn.experts; expert++) {
      const own = isStacked ? `shard_${layer}.${expert}_${count}.${ffn.experts}` : `shard_${expert}_${ffn.experts}`;
      for (const matrix of ["linear_fc1", "linear_fc2"])
        names.push(`${prefix}mlp.experts.experts.${matrix}._extra_state/${own}`);
    }
  });
  return names;
}

const extraModules = [
  "self_attention.linear_qkv",
  "self_attention.linear_proj",
  "self_attention.core_attention",
  "mlp.linear_fc1",
  "mlp.linear_fc2",
  "self_attention.q_layernorm",
  "self_attention.k_layernorm",
  "pre_mlp_layernorm",
  "input_layernorm",
  "mlp.shared_experts.linear_fc1",
  "mlp.shared_experts.linear_fc2",
];

/** The second name under which the norm of an MoE layer is asked for, by Transformer Engine; null: no other. */
export function otherNormName(key: string): string | null {
  return key.includes(".mlp.linear_fc1.layer_norm_")
    ? key.replace(".mlp.linear_fc1.layer_norm_", ".pre_mlp_layernorm.")
    : null;
}
