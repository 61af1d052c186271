/**
 * Checkpoints of Megatron's old format `torch`: a file for each rank of tensor, pipeline and expert parallelism
 * (`mp_rank_TP[_PP][_EP]/model_optim_rng.pt`), each with the parts of the weights that the rank had. They are put
 * together under the keys of the new format, one for each layer. Source: NVIDIA/Megatron-LM@d98e8a64,
 * `training/checkpointing.py` (get_checkpoint_name, generate_state_dict), `core/transformer/moe/experts.py`.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import { withFsErrors } from "../io/fs-errors.js";
import { openPooled } from "../io/range-pool.js";
import type { RangeFile } from "../io/ranges.js";
import { fieldsOf, tensorOf, type Inert } from "../formats/inert-pickle.js";
import type { TorchTensor } from "../formats/torch-state.js";
import { openTorchItem, type TorchItem } from "./torch-item.js";
import { joinPieces, type Piece } from "./pieces.js";
import type { ReadableTensor } from "./stored.js";

const weightFile = "model_optim_rng.pt";

interface Rank {
  readonly folder: string;
  readonly tensor: number;
  readonly pipeline: number;
  readonly expert: number;
}

/** What a folder of ranks holds. */
export interface LegacyFolder {
  readonly tensors: ReadonlyMap<string, ReadableTensor>;
  /** The common values that the first rank saved, `args` among them. */
  readonly common: Inert;
}

/** Whether a folder holds files of ranks. */
export async function isLegacy(folder: string): Promise<boolean> {
  const names = await withFsErrors(folder, "list folder", () => readdir(folder));
  return names.some((name) => /^mp_rank_\d{2}/.test(name));
}

/** Opens all ranks; files are added to `files`, for the caller to close. Throws inputError for what is damaged. */
export async function openLegacy(folder: string, files: RangeFile[]): Promise<LegacyFolder> {
  const found = ranksIn(await withFsErrors(folder, "list folder", () => readdir(folder)), folder);
  const parts: RankWeights[] = [];
  let common: Inert = null;
  for (const rank of found) {
    const source = await openPooled(join(folder, rank.folder, weightFile));
    files.push(source);
    const item = await openTorchItem(source);
    if (parts.length === 0) common = item.value;
    parts.push(weightsOf(rank, item, source.path, parts.length === 0 ? settingsOf(item) : parts[0]!.settings));
  }
  return { tensors: joined(parts, folder), common };
}

/** `TP`, `TP_PPP`, `TP_PPP_EEE` or `TP_EEE`: only sizes above one have a number. */
function ranksIn(names: readonly string[], folder: string): Rank[] {
  const named = names.flatMap((name) => {
    const match = /^mp_rank_(\d{2})(?:_(\d{3}))?(?:_(\d{3}))?$/.exec(name);
    return match === null
      ? []
      : [{ name, numbers: match.slice(1).map((one) => (one === undefined ? null : Number(one))) }];
  });
  if (named.length === 0) throw inputError("folder has no mp_rank_* in it", { where: folder });
  return named
    .map(({ name, numbers: [tensor, second, third] }) => ({
      folder: name,
      tensor: tensor ?? 0,
      // Which of the two a single number is, the file's own settings say.
      pipeline: second ?? 0,
      expert: third ?? 0,
    }))
    .sort((a, b) => a.pipeline - b.pipeline || a.expert - b.expert || a.tensor - b.tensor);
}

interface Sizes {
  readonly tensor: number;
  readonly pipeline: number;
  readonly expert: number;
  readonly layers: number;
  readonly experts: number;
  readonly gated: boolean;
  /** Rows of the projections into latents, by their names. */
  readonly latents: ReadonlyMap<string, number>;
}

interface RankWeights {
  readonly rank: Rank;
  readonly settings: Sizes;
  readonly path: string;
  readonly item: TorchItem;
  /** By the names of modules, layers counted over the whole model. */
  readonly tensors: ReadonlyMap<string, TorchTensor>;
}

function settingsOf({ value }: TorchItem): Sizes {
  const args = fieldsOf(fieldsOf(value).get("args"));
  const count = (name: string): number => {
    const found = args.get(name);
    return typeof found === "number" && found > 0 ? found : 1;
  };
  return {
    tensor: count("tensor_model_parallel_size"),
    pipeline: count("pipeline_model_parallel_size"),
    expert: count("expert_model_parallel_size"),
    layers: count("num_layers"),
    experts: count("num_experts"),
    gated: args.get("swiglu") === true || args.get("quick_geglu") === true,
    latents: new Map([
      ["linear_q_down_proj", count("q_lora_rank")],
      ["linear_kv_down_proj", count("kv_lora_rank") + count("qk_pos_emb_head_dim")],
    ]),
  };
}

function weightsOf(named: Rank, item: TorchItem, path: string, settings: Sizes): RankWeights {
  // A single number is the pipeline's rank, or the experts' where there is no pipeline.
  const isExpert = settings.pipeline === 1 && named.pipeline > 0;
  const rank = isExpert ? { ...named, pipeline: 0, expert: named.pipeline } : named;
  const tensors = new Map<string, TorchTensor>();
  const model = fieldsOf(item.value);
  const chunks = model.has("model")
    ? [model.get("model")]
    : [...model].filter(([name]) => /^model\d+$/.test(name)).map(([, chunk]) => chunk);
  if (chunks.length === 0) throw inputError("file has no model in it, expected the weights of a rank", { where: path });
  chunks.forEach((chunk, virtual) => {
    for (const [name, value] of fieldsOf(chunk)) {
      const tensor = tensorOf(value);
      if (tensor === null || name.endsWith("_extra_state")) continue;
      tensors.set(inWholeModel(name, rank, settings, virtual, chunks.length), tensor);
    }
  });
  return { rank, settings, path, item, tensors };
}

/** Layers are counted from the first of the rank's: of each of its virtual stages in turn. */
function inWholeModel(
  name: string,
  { pipeline }: Rank,
  { layers, ...sizes }: Sizes,
  virtual: number,
  stages: number,
): string {
  const match = /^(?:module\.)*decoder\.layers\.(\d+)\.(.*)$/.exec(name);
  if (match === null) return name.replace(/^(module\.)+/, "");
  const each = layers / (sizes.pipeline * stages);
  const first = (virtual * sizes.pipeline + pipeline) * each;
  return `decoder.layers.${first + Number(match[1])}.${match[2]}`;
}

/** Names of modules as keys of the new format, which renames the norms of models without latent attention. */
function keyOf(name: string, isLatent: boolean): string {
  if (isLatent) return name;
  return name
    .replace(/\.input_layernorm\.(weight|bias)$/, ".self_attention.linear_qkv.layer_norm_$1")
    .replace(/\.pre_mlp_layernorm\.(weight|bias)$/, ".mlp.linear_fc1.layer_norm_$1");
}

interface ExpertPart {
  readonly key: string;
  /** Among all experts. */
  readonly expert: number;
  readonly tensor: TorchTensor;
}

/** The experts in a tensor of a rank; null where it is no expert's. */
function expertsOf(name: string, tensor: TorchTensor, { rank, settings, path }: RankWeights): ExpertPart[] | null {
  const each = settings.experts / settings.expert;
  const sequential = /^(.*\.mlp\.experts)\.local_experts\.(\d+)\.(linear_fc[12]\.(?:weight|bias))$/.exec(name);
  const grouped = /^(.*\.mlp\.experts)\.(linear_fc[12]\.(?:weight|bias))(\d+)$/.exec(name);
  const one = (prefix: string, local: string, matrix: string): ExpertPart[] => [
    { key: `${prefix}.experts.${matrix}`, expert: rank.expert * each + Number(local), tensor },
  ];
  if (sequential !== null) return one(sequential[1]!, sequential[2]!, sequential[3]!);
  if (grouped !== null) return one(grouped[1]!, grouped[3]!, grouped[2]!);
  const fused = /^(.*\.mlp\.experts)\.weight([12])$/.exec(name);
  if (fused === null) return null;
  return fusedExperts(fused[1]!, Number(fused[2]), { tensor, each, first: rank.expert * each, path });
}

/** All experts of a rank as one matrix, each [in, out]: the class GroupedMLP of core 0.14 and before. */
function fusedExperts(
  prefix: string,
  matrix: number,
  { tensor, each, first, path }: { tensor: TorchTensor; each: number; first: number; path: string },
): ExpertPart[] {
  const [rows = 0, columns = 0] = tensor.shape;
  const [inside, out] = matrix === 1 ? [rows, columns / each] : [rows / each, columns];
  if (tensor.shape.length !== 2 || !Number.isInteger(inside * out) || tensor.stride[1] !== 1)
    throw inputError(`${prefix}.weight${matrix} [${tensor.shape.join(", ")}] does not hold ${each} experts`, {
      where: path,
    });
  return Array.from({ length: each }, (_, i) => ({
    key: `${prefix}.experts.linear_fc${matrix}.weight`,
    expert: first + i,
    tensor: { ...tensor, shape: [out, inside], stride: [1, out], offset: tensor.offset + i * inside * out },
  }));
}

const byColumns = /\.(linear_proj|linear_fc2)\.weight$/;
const byRows = new RegExp(
  String.raw`(linear_qkv|linear_fc1|linear_q_proj|linear_q_up_proj|linear_kv_up_proj)\.(weight|bias)$|` +
    String.raw`softmax_offset$|word_embeddings\.weight$|output_layer\.(weight|bias)$`,
);

/** Along which axis ranks of tensor parallelism share a tensor; null: each has all of it. */
function sharedAxis(key: string, [rows]: readonly number[], { latents }: Sizes): 0 | 1 | null {
  if (byColumns.test(key)) return 1;
  if (byRows.test(key)) return 0;
  // Local modules share these, those of Transformer Engine do not.
  const whole = latents.get(/\.(linear_q_down_proj|linear_kv_down_proj)\.weight$/.exec(key)?.[1] ?? "");
  return whole !== undefined && rows !== whole ? 0 : null;
}

/** A tensor in the making. */
interface Made {
  shape: number[];
  dtype: TorchTensor["dtype"];
  readonly pieces: Map<string, Piece>;
}

function joined(parts: readonly RankWeights[], folder: string): Map<string, ReadableTensor> {
  const made = new Map<string, Made>();
  const isLatent = parts.some(({ tensors }) =>
    [...tensors.keys()].some((name) => name.includes(".linear_kv_down_proj.")),
  );
  for (const part of parts) {
    for (const [name, tensor] of part.tensors) {
      const experts = expertsOf(name, tensor, part);
      if (experts === null) addPart(made, keyOf(name, isLatent), tensor, part, null);
      else for (const { key, expert, tensor: own } of experts) addPart(made, key, own, part, expert);
    }
  }
  return new Map(
    [...made].map(([key, { dtype, shape, pieces }]) => [
      key,
      joinPieces({
        file: join(parts[0]!.rank.folder, weightFile),
        dtype,
        shape,
        pieces: [...pieces.values()],
        where: `${folder}, ${key}`,
      }),
    ]),
  );
}

/** Where a rank's part lies in the whole; ranks that have the same part overwrite each other. */
function addPart(
  made: Map<string, Made>,
  key: string,
  tensor: TorchTensor,
  part: RankWeights,
  expert: number | null,
): void {
  const { rank, settings, item } = part;
  const axis = sharedAxis(key, tensor.shape, settings);
  const shape = tensor.shape.map((size, i) => (i === axis ? size * settings.tensor : size));
  const lead = expert === null ? [] : [settings.experts];
  const whole = made.get(key) ?? { shape: [...lead, ...shape], dtype: tensor.dtype, pieces: new Map<string, Piece>() };
  made.set(key, whole);
  const add = (rows: readonly [from: number, count: number], at: readonly number[]): void => {
    const [from, count] = rows;
    const sizes = [count, ...tensor.shape.slice(1)];
    const own = { ...tensor, shape: sizes, offset: tensor.offset + from * tensor.stride[0]! };
    const offsets = [...(expert === null ? [] : [expert]), ...at];
    whole.pieces.set(offsets.join(), {
      offsets,
      sizes: [...(expert === null ? [] : [1]), ...sizes],
      read: (start, length, into) => item.read(own, start, length, into),
    });
  };
  const [rows = 1] = tensor.shape;
  const rest = tensor.shape.slice(1).map(() => 0);
  if (axis === 1) add([0, rows], [0, rank.tensor * tensor.shape[1]!]);
  else if (axis === 0 && settings.gated && /linear_fc1\.(weight|bias)$/.test(key)) {
    // Each rank has its gate rows, then its up rows.
    const half = rows / 2;
    add([0, half], [rank.tensor * half, ...rest]);
    add([half, half], [(settings.tensor + rank.tensor) * half, ...rest]);
  } else add([0, rows], [axis === 0 ? rank.tensor * rows : 0, ...rest]);
}
