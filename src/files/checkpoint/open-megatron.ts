/**
 * Checkpoints of Megatron-Core as descriptions and named tensors: `torch_dist` folders in every spelling of their keys,
 * and the old format `torch`. Master weights of the optimizer are preferred where they are stored like the model's.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import { elements } from "../../base/shapes.js";
import { asRecord, fieldsOf, itemsOf, tensorOf, type Inert } from "../formats/inert-pickle.js";
import { parseDcpMetadata, type DcpItem, type DcpMetadata, type DcpTensor } from "../formats/dcp-metadata.js";
import { tensorBytes } from "../formats/safetensors.js";
import { exists } from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";
import { readWhole } from "../io/open.js";
import { openPooled } from "../io/range-pool.js";
import { readJson, readText, type RangeFile } from "../io/ranges.js";
import { specFromConfig } from "../../model/decoder/config.js";
import { specFromMegatron } from "../../model/decoder/megatron.js";
import type { MegatronSettings, MegatronValue } from "../../model/decoder/megatron-settings.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { countParams } from "../../model/cost/params.js";
import { keysFound, megatronPlacements } from "../../model/tensors/megatron.js";
import type { Placement } from "../../model/tensors/placement.js";
import { isLegacy, openLegacy } from "./megatron-legacy.js";
import { joinPieces, type Piece } from "./pieces.js";
import type { ReadableTensor } from "./stored.js";
import { largestPickle, openTorchItem, windowOf, type TorchItem } from "./torch-item.js";

/** What names the folder of the last save. */
export const trackerFile = "latest_checkpointed_iteration.txt";
/** What a folder of the format `torch_dist` has. */
export const dcpFiles = { metadata: ".metadata", format: "metadata.json", common: "common.pt" } as const;

/** What a user adds to what a checkpoint says of itself. */
export interface MegatronReading {
  /** Settings of the model, over those of the checkpoint. */
  readonly settings?: MegatronSettings | undefined;
  /** Words of the vocabulary, where rows were added to make it divisible. */
  readonly vocab?: number | undefined;
  /** A config.json of Hugging Face whose family and special tokens the description takes. */
  readonly like?: string | undefined;
}

/** What is read from the folder: all that `open.ts` makes a checkpoint of. */
export interface MegatronFolder {
  /** The folder of the save itself. */
  readonly dir: string;
  readonly spec: DecoderSpec;
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: ReadonlyMap<string, ReadableTensor>;
  readonly places: readonly Placement[];
  readonly files: readonly RangeFile[];
  readonly notes: readonly string[];
  /** Keys of what is no weight of the model. */
  readonly others: ReadonlySet<string>;
}

/** The folder of a save in a folder of saves, or that folder itself; null if it is no checkpoint of Megatron. */
export async function megatronFolder(dir: string): Promise<string | null> {
  const tracker = join(dir, trackerFile);
  if (!(await exists(tracker))) return (await isSave(dir)) ? dir : withoutTracker(dir);
  const said = (await readText(tracker)).trim();
  const name = /^\d{1,9}$/.test(said) ? `iter_${said.padStart(7, "0")}` : said;
  if (name !== "release" && !name.startsWith("iter_"))
    throw inputError(`says ${JSON.stringify(said.slice(0, 40))}, expected a number or release`, { where: tracker });
  if (!(await isSave(join(dir, name))) && (await exists(join(dir, name))))
    throw inputError(`${name}, which ${trackerFile} names, holds no checkpoint`, {
      where: dir,
      hint: "expected .metadata with metadata.json, or mp_rank_* folders: it was not saved whole",
    });
  if (!(await isSave(join(dir, name))))
    throw inputError(`there is no checkpoint ${name}, which ${trackerFile} names`, {
      where: dir,
      hint: "name the folder of a save, such as DIR/iter_0000100",
    });
  return join(dir, name);
}

/** Throws inputError for a folder of saves that names none of them: Megatron would start from random weights. */
async function withoutTracker(dir: string): Promise<null> {
  if (!(await exists(dir)) || (await exists(join(dir, "config.json")))) return null;
  const names = await withFsErrors(dir, "list folder", () => readdir(dir));
  const saves = names.filter((name) => /^(iter_\d{7}|release)$/.test(name)).sort();
  if (saves.length === 0) return null;
  throw inputError(`the folder has no ${trackerFile}`, {
    where: dir,
    hint: `name one of its checkpoints: ${join(dir, saves.at(-1)!)}`,
  });
}

async function isSave(dir: string): Promise<boolean> {
  if (!(await exists(dir))) return false;
  if ((await exists(join(dir, dcpFiles.metadata))) && (await exists(join(dir, dcpFiles.format)))) return true;
  return !(await exists(join(dir, "config.json"))) && (await isLegacy(dir));
}

/** Opens the folder of a save. Throws inputError for what is missing, damaged, contradictory or no decoder of ours. */
export async function openMegatronFolder(dir: string, reading: MegatronReading = {}): Promise<MegatronFolder> {
  const files: RangeFile[] = [];
  try {
    const { tensors, common, objects } = (await exists(join(dir, dcpFiles.metadata)))
      ? await openDistributed(dir, files)
      : { ...(await openLegacy(dir, files)), objects: new Set<string>() };
    return { ...(await describe(dir, tensors, common, reading)), dir, files, others: objects };
  } catch (cause) {
    await Promise.all(files.map((file) => file.close()));
    throw cause;
  }
}

interface Opened {
  readonly tensors: ReadonlyMap<string, ReadableTensor>;
  readonly common: Inert;
  /** Keys of byte objects. */
  readonly objects: ReadonlySet<string>;
}

async function openDistributed(dir: string, files: RangeFile[]): Promise<Opened> {
  const path = join(dir, dcpFiles.metadata);
  const metadata = parseDcpMetadata(await readWhole(path, largestPickle, "open file"), path);
  const opened = new Map<string, Promise<RangeFile>>();
  const open = (file: string): Promise<RangeFile> => {
    const known = opened.get(file) ?? openShard(dir, file, files);
    opened.set(file, known);
    return known;
  };
  const tensors = new Map<string, ReadableTensor>();
  for (const [key, tensor] of metadata.tensors) tensors.set(withoutPrefix(key), located(dir, key, tensor, open));
  const shards = [...shardsOf(metadata)];
  const sizes = await Promise.all(shards.map(async (file) => [file, (await open(file)).size] as const));
  requireStored(metadata, new Map(sizes), dir);
  return { tensors, common: await commonOf(dir, metadata, open), objects: new Set(metadata.objects.keys()) };
}

/** NeMo puts the class that holds the model in front. */
const withoutPrefix = (key: string): string => key.replace(/^(module\.)+/, "");

function shardsOf({ tensors }: DcpMetadata): Set<string> {
  return new Set([...tensors.values()].flatMap(({ chunks }) => chunks.map(({ file }) => file)));
}

/** Throws inputError for chunks that are larger than what the shards hold of them. */
function requireStored({ tensors }: DcpMetadata, sizes: ReadonlyMap<string, number>, dir: string): void {
  for (const [key, { dtype, chunks }] of tensors)
    for (const { sizes: own, file, offset, length } of chunks) {
      const where = `${dir}, ${key}`;
      if (offset + length > sizes.get(file)!)
        throw inputError(`an item of ${file} ends at byte ${offset + length}, the file has ${sizes.get(file)!}`, {
          where,
          hint: "the file was not copied whole",
        });
      if (tensorBytes(dtype, own) > length)
        throw inputError(`the item at byte ${offset} of ${file} has ${length} bytes, too few for [${own.join(", ")}]`, {
          where,
        });
    }
}

async function openShard(dir: string, file: string, files: RangeFile[]): Promise<RangeFile> {
  const source = await openPooled(join(dir, file));
  files.push(source);
  return source;
}

function located(
  dir: string,
  key: string,
  { dtype, shape, chunks }: DcpTensor,
  open: (file: string) => Promise<RangeFile>,
): ReadableTensor {
  const where = `${dir}, ${key}`;
  const pieces = chunks.map((chunk): Piece => {
    let item: Promise<OpenChunk> | undefined;
    const opening = (): Promise<OpenChunk> => openChunk(open, chunk, { dtype, sizes: chunk.sizes, where });
    return {
      offsets: chunk.offsets,
      sizes: chunk.sizes,
      async read(start, count, into) {
        item ??= opening();
        const { archive, tensor } = await item;
        return archive.read(tensor, start, count, into);
      },
    };
  });
  const names = [...new Set(chunks.map(({ file }) => file))];
  const whole = joinPieces({ file: names[0] ?? "", dtype, shape, pieces, where });
  return names.length > 1 ? { ...whole, otherFiles: names.slice(1) } : whole;
}

interface OpenChunk {
  readonly archive: TorchItem;
  readonly tensor: NonNullable<ReturnType<typeof tensorOf>>;
}

async function openChunk(
  open: (file: string) => Promise<RangeFile>,
  { file, offset, length }: DcpItem,
  { dtype, sizes, where }: { dtype: DcpTensor["dtype"]; sizes: readonly number[]; where: string },
): Promise<OpenChunk> {
  const archive = await openTorchItem(windowOf(await open(file), offset, length));
  const tensor = tensorOf(archive.value);
  const same = tensor !== null && tensor.dtype === dtype && tensor.shape.join() === sizes.join();
  if (!same)
    throw inputError(
      `the item at byte ${offset} of ${file} is ` +
        `${tensor === null ? "no tensor" : `${tensor.dtype} [${tensor.shape.join(", ")}]`}, .metadata says ` +
        `${dtype} [${sizes.join(", ")}]`,
      { where },
    );
  return { archive, tensor };
}

/** The dictionary that all ranks share: a file of its own until core 0.18, a byte object from 0.19 on. */
async function commonOf(
  dir: string,
  { objects }: DcpMetadata,
  open: (file: string) => Promise<RangeFile>,
): Promise<Inert> {
  const path = join(dir, dcpFiles.common);
  if (await exists(path)) {
    const file = await openPooled(path);
    try {
      return (await openTorchItem(file)).value;
    } finally {
      await file.close();
    }
  }
  const item = objects.get("common_state/shard_0_1");
  if (item === undefined) return null;
  const { value } = await openTorchItem(windowOf(await open(item.file), item.offset, item.length));
  return itemsOf(value)?.[0] ?? null;
}

/** Plain values of `args`; objects, which no setting of the model is, are left out. */
function settingsOf(common: Inert): MegatronSettings {
  const settings: Record<string, MegatronValue> = {};
  for (const [name, value] of fieldsOf(fieldsOf(common).get("args"))) {
    const plain = plainValue(value);
    if (plain !== undefined) settings[name] = plain;
  }
  return settings;
}

function plainValue(value: Inert): MegatronValue | undefined {
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value === "number") return value;
  const items = itemsOf(value);
  if (items === null || asRecord(value) !== null) return undefined;
  const isPlain = items.every((item) => typeof item === "number" || typeof item === "string");
  return isPlain ? items : undefined;
}

type Described = Pick<MegatronFolder, "spec" | "config" | "tensors" | "places" | "notes">;

async function describe(
  dir: string,
  tensors: ReadonlyMap<string, ReadableTensor>,
  common: Inert,
  { settings: given, vocab, like }: MegatronReading,
): Promise<Described> {
  const saved = settingsOf(common);
  const settings = { ...saved, ...given };
  if (saved["num_layers"] === undefined && given === undefined)
    throw inputError("the checkpoint does not say what model it holds (no args in its common values)", {
      where: dir,
      hint: "give the model's arguments of pretrain_gpt.py (--args FILE)",
    });
  const rows = tensors.get("embedding.word_embeddings.weight")?.shape[0];
  const beside = await configBeside(like ?? join(dir, "config.json"), like !== undefined);
  const words = wordsOf({ settings, rows, given: vocab, beside: beside?.spec.vocab ?? null });
  const own = specFromMegatron(settings, dir, words);
  const spec = asFamily(own, beside?.spec ?? null, like);
  requireExplained(spec, tensors, dir);
  const keys = keysFound(tensors.keys());
  const masters = mastersOf(tensors);
  const unpadded = new Map([...tensors].map(([key, tensor]) => [key, trimmed(key, masters.get(key) ?? tensor, words)]));
  const padding = rows === undefined ? 0 : rows - words;
  return {
    spec,
    config: beside?.config ?? { megatron: settings },
    tensors: unpadded,
    places: megatronPlacements(spec, keys),
    notes: [
      ...(masters.size === 0 ? [] : [`${masters.size} tensors are the optimizer's float32 master weights`]),
      ...(padding > 0 ? [`the vocabulary's last ${padding} of ${rows} rows are padding and left out`] : []),
    ],
  };
}

/**
 * Throws inputError for settings of a model that is far larger than what is stored, before each of its tensors is
 * named, which takes memory that the checkpoint's bytes do not explain. Smaller differences are told tensor by tensor.
 */
function requireExplained(spec: DecoderSpec, tensors: ReadonlyMap<string, ReadableTensor>, dir: string): void {
  const stored = [...tensors.values()].reduce((sum, { shape }) => sum + elements(shape), 0);
  const { total } = countParams(spec);
  if (total > 4 * stored + 1e5)
    throw inputError(`the settings are those of ${total} parameters, ${stored} are stored`, {
      where: dir,
      hint: "the checkpoint was not saved whole, or its arguments are another model's (--args)",
    });
}

interface Words {
  readonly settings: MegatronSettings;
  /** Of the stored embedding. */
  readonly rows: number | undefined;
  readonly given: number | undefined;
  readonly beside: number | null;
}

/**
 * Words of the vocabulary without the rows that make it divisible. NullTokenizer counted one word more than it was told
 * until core 0.16, which calls the norms' epsilon by its old name.
 */
function wordsOf({ settings, rows, given, beside }: Words): number {
  if (rows === undefined) return given ?? beside ?? 1;
  const { vocab_size: said, tokenizer_type: tokenizer } = settings;
  const extra = tokenizer === "NullTokenizer" && settings["layernorm_epsilon"] === undefined ? 1 : 0;
  const known = given ?? beside ?? (typeof said === "number" && said > 0 ? said + extra : rows);
  if (given !== undefined && given > rows)
    throw inputError(`the vocabulary is said to have ${given} words, its embedding has ${rows} rows`, {
      where: "--vocab-size",
    });
  return Math.min(known, rows);
}

/** Only the rows of words, of the tensors that have one for each. */
function trimmed(key: string, tensor: ReadableTensor, words: number): ReadableTensor {
  const isOfWords = /^(embedding\.word_embeddings|output_layer)\.(weight|bias)$/.test(key);
  if (!isOfWords || tensor.shape[0] === words) return tensor;
  const shape = [words, ...tensor.shape.slice(1)];
  return { ...tensor, shape, bytes: tensorBytes(tensor.dtype, shape) };
}

/** Float32 copies of weights that an optimizer keeps in the model's shape. */
function mastersOf(tensors: ReadonlyMap<string, ReadableTensor>): Map<string, ReadableTensor> {
  const found = new Map<string, ReadableTensor>();
  for (const [key, tensor] of tensors) {
    const own = /^(?:chained_\d+\.)?optimizer\.(?:\d+\.)?state\.(?:fp32_param|param)\.(?:module\.)*(.+)$/.exec(
      key,
    )?.[1];
    const model = own === undefined ? undefined : tensors.get(own);
    if (
      model !== undefined &&
      tensor.dtype === "F32" &&
      elements(model.shape) === elements(tensor.shape) &&
      model.dtype !== "F32"
    )
      found.set(own!, tensor);
  }
  return found;
}

async function configBeside(
  path: string,
  required: boolean,
): Promise<{ readonly config: Record<string, unknown>; readonly spec: DecoderSpec } | null> {
  if (!required && !(await exists(path))) return null;
  const config = await readJson(path);
  return { config: config as Record<string, unknown>, spec: specFromConfig(config, path) };
}

/**
 * The description under a family's name, where that family's says the same network. Throws inputError if the user named
 * a config that says another one.
 */
function asFamily(own: DecoderSpec, other: DecoderSpec | null, like: string | undefined): DecoderSpec {
  if (other === null) return own;
  const difference = differenceOf(own, other);
  if (difference === null) return { ...other, vocab: own.vocab };
  if (like === undefined) return own;
  throw inputError(`this config is of another network than the checkpoint: ${difference}`, { where: like });
}

/** The first part of two descriptions that gives another function, as a name; null: none. */
function differenceOf(own: DecoderSpec, other: DecoderSpec): string | null {
  const parts = ["hidden", "tiedHead", "norm", "attn", "learnedPositions", "block", "multipliers"] as const;
  const plain = (spec: DecoderSpec): Record<string, unknown> => ({
    ...Object.fromEntries(parts.map((part) => [part, spec[part]])),
    // Settings of routers may be said in several ways; the tensors and the choice are compared.
    layers: spec.layers.map(({ window, rope, ffn }) => ({
      window,
      rope,
      ffn: ffn.kind === "dense" ? ffn : { ...ffn, router: { ...ffn.router, renormalise: null } },
    })),
  });
  const [mine, theirs] = [plain(own), plain(other)];
  return Object.keys(mine).find((part) => !agree(mine[part], theirs[part])) ?? null;
}

function agree(a: unknown, b: unknown): boolean {
  if (typeof a === "number" && typeof b === "number")
    return Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b));
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return a === b;
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...keys].every((key) => agree((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key]));
}
