/**
 * How a model's tensors are spread over files, and the index that says so. Pure.
 * Source: transformers `save_pretrained` (names, index layout, sorted keys, indent 2, trailing newline).
 */
import { inputError } from "../../base/errors.js";
import { shown } from "../../base/shown.js";
import { foreignText } from "./foreign-file.js";
import { tensorBytes } from "./safetensors.js";
import type { TensorMeta } from "./safetensors.js";
import { duplicateKey, isNestedTooDeeply, nestedTooDeeply } from "./duplicate-key.js";

/** 5 GB: small enough for every host and downloader, large enough to keep the number of files low. */
const defaultShardBytes = 5_000_000_000;
/** Most files of one model; hundreds are the most that anybody publishes. */
const mostShards = 10_000;
/** Name of the weights where they are one safetensors file. */
export const singleFileName = "model.safetensors";
/** Name of the index where the weights are several safetensors files. */
export const indexFileName = "model.safetensors.index.json";
/** Name of the weights where they are one torch archive, as transformers wrote them before safetensors. */
export const pickledFileName = "pytorch_model.bin";
/** Name of the index where the weights are several torch archives. */
export const pickledIndexFileName = "pytorch_model.bin.index.json";

interface Shard {
  readonly file: string;
  readonly tensors: readonly TensorMeta[];
  /** Bytes of the tensors, without the header. */
  readonly bytes: number;
}

interface ShardPlan {
  readonly shards: readonly Shard[];
  /** Text of the index file, or null for a single file, which needs none. */
  readonly index: string | null;
}

/**
 * Fills files in the order given, each up to `maxBytes` of tensors; a larger tensor gets a file of its own. Throws
 * inputError for a size of 0 or less, and for one that would make too many files.
 */
export function planShards(tensors: readonly TensorMeta[], maxBytes: number = defaultShardBytes): ShardPlan {
  if (!(maxBytes > 0)) throw inputError(`shard size is ${maxBytes} bytes, it must be above 0`);
  let group: { tensors: TensorMeta[]; bytes: number } = { tensors: [], bytes: 0 };
  const groups = [group];
  for (const tensor of tensors) {
    const bytes = tensorBytes(tensor.dtype, tensor.shape);
    if (group.tensors.length > 0 && group.bytes + bytes > maxBytes) {
      group = { tensors: [], bytes: 0 };
      groups.push(group);
    }
    group.tensors.push(tensor);
    group.bytes += bytes;
  }
  // So many shards of the usual size are a model that fits on no disk; the check of free space says so.
  if (groups.length > mostShards && maxBytes < defaultShardBytes)
    throw inputError(`shards of ${maxBytes} bytes would be ${groups.length} files, the limit is ${mostShards}`, {
      hint: "use larger shards",
    });
  const shards = groups.map((group, i) => ({ file: shardName(i, groups.length), ...group }));
  return { shards, index: shards.length === 1 ? null : indexText(shards) };
}

/** `model-00001-of-00003.safetensors` for `index` 0 of 3; `model.safetensors` if there is only one. */
export function shardName(index: number, count: number): string {
  if (count === 1) return singleFileName;
  const digits = (n: number): string => String(n).padStart(5, "0");
  return `model-${digits(index + 1)}-of-${digits(count)}.safetensors`;
}

function indexText(shards: readonly Shard[]): string {
  const parameters = shards
    .flatMap((shard) => shard.tensors)
    .reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const files = shards.flatMap(({ file, tensors }) => tensors.map(({ name }): [string, string] => [name, file]));
  files.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const index = {
    metadata: { total_parameters: parameters, total_size: shards.reduce((sum, { bytes }) => sum + bytes, 0) },
    weight_map: Object.fromEntries(files),
  };
  return `${JSON.stringify(index, null, 2)}\n`;
}

/**
 * Reads an index: which file each tensor lies in, by name. Files must end in `extension` and lie in the index's own
 * folder. `metadata` is not judged: totals on the Hub are often stale, and the files themselves are checked anyway.
 * Throws inputError for anything but such an index.
 */
export function parseIndex(text: string, where: string, extension = "safetensors"): Map<string, string> {
  let parsed: unknown;
  if (isNestedTooDeeply(text)) throw inputError(nestedTooDeeply, { where });
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    const foreign = foreignText(text);
    if (foreign !== null) throw inputError(`this is ${foreign.what}`, { where, hint: foreign.hint });
    throw inputError(`index is not valid JSON (${(cause as Error).message})`, { where, cause });
  }
  const map =
    typeof parsed === "object" && parsed !== null ? (parsed as Record<string, unknown>)["weight_map"] : undefined;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw inputError("index has no weight_map object (tensor name -> file)", { where });
  }
  const duplicate = duplicateKey(text, parsed);
  if (duplicate !== undefined) throw inputError(`index has ${JSON.stringify(duplicate)} twice`, { where });
  const files = new Map<string, string>();
  const distinct = new Set(Object.values(map));
  if (distinct.size > mostShards)
    throw inputError(`index lists ${distinct.size} files, the limit is ${mostShards}`, { where });
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== "string" || !isShardName(file, extension)) {
      throw inputError(`tensor ${name} is mapped to ${shown(file)}, expected a .${extension} file beside the index`, {
        where,
      });
    }
    files.set(name, file);
  }
  return files;
}

/** Whether a name is that of a file beside the index, with something before the extension. */
function isShardName(file: string, extension: string): boolean {
  return !/[/\\]/.test(file) && file.endsWith(`.${extension}`) && file.length > extension.length + 1;
}
