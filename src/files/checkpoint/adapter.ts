/**
 * LoRA adapters of PEFT, merged into a model's weights as they are read: the same model, each of whose adapted slots is
 * W + scale B A. What reads weights (conversions, prompts, measurements) knows nothing of it. The adapter is of the
 * STORED tensor's shape; a slot that is a part of one (Phi-3's queries) takes its own rows of B. A and B of a module
 * are read when they are needed, and a few stay in memory, which does not grow with the number of modules.
 *
 * Letters: r rank, O outputs and I inputs of a linear layer; W [O, I], A [r, I], B [O, r]. An embedding of V words with
 * hidden size H is W [V, H], and its factors stand the other way round: A [r, V], B [H, r].
 *
 * Names and formulas as in the public repository huggingface/peft: src/peft/tuners/lora/layer.py (`get_delta_weight` of
 * Linear and Embedding).
 */
import { join } from "node:path";
import { at, entryOf } from "../../base/at.js";
import { inputError, type UpcycleError } from "../../base/errors.js";
import { mergeHint, parseAdapterConfig, rankAndScale, type AdapterConfig } from "../../base/schemas/adapter.js";
import { exists } from "../io/atomic.js";
import type { RangeFile } from "../io/ranges.js";
import { sizeLimits } from "../io/open.js";
import { foreignText } from "../formats/foreign-file.js";
import { readText } from "../io/ranges.js";
import { toFloat32, type FloatDtype } from "../numeric/dtype.js";
import { addLowRank, type LowRank } from "../numeric/low-rank.js";
import { matrixShape, wholeRows, type SourceRectangle, type TypedBytes } from "../numeric/rectangles.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { placements, rowSpans, type Placement } from "../../model/tensors/placement.js";
import { unwrapped } from "../../model/tensors/stored-names.js";
import { adapterNames, adapterWholes, type AdapterNames } from "./adapter-wholes.js";
import { locateAdapter } from "./locate.js";
import { openRectangleReader } from "./rectangle-reader.js";
import { readSlot, readSlotRows, slotSources, type SlotSource } from "./slot-sources.js";
import { elements } from "../../base/shapes.js";
import type { ReadableTensor } from "./stored.js";
import type { Adapter, Checkpoint } from "./types.js";

/** Name of the settings of a PEFT adapter. */
export const adapterConfigFile = "adapter_config.json";

interface OpenAdapter extends Adapter {
  /** The model with the adapter, whose vocabulary may be another one. */
  readonly spec: DecoderSpec;
  /** What else a user should know of it. */
  readonly notes: readonly string[];
  /** Slots that it brings as a whole. */
  readonly replaced: ReadonlyMap<string, SlotSource>;
  /** The change of a slot; null: the adapter does not change it. */
  changeOf(slotKey: string): SlotChange | null;
  close(): Promise<void>;
}

/** How an adapter changes a slot. */
interface SlotChange {
  /** The row of B that each of `count` rows of the slot from `start` on takes. */
  rowsOf(start: number, count: number): number[];
  factors(): Promise<LowRank>;
}

/** Names of a module's two factors in the files. */
interface FactorNames {
  readonly module: string;
  /** Factors of an embedding stand the other way round: its change is the transpose of B A. */
  readonly embedding: boolean;
  readonly a?: string;
  readonly b?: string;
}

/** Most bytes of factors, as float32, that stay in memory once they have been read. */
const cacheBytes = 64 << 20;

/**
 * Opens an adapter folder (adapter_config.json, adapter_model.safetensors or .bin) for a model. Throws inputError for
 * what is missing or damaged, for an adapter of another model, and for one whose merged weights are anything but W +
 * scale B A; nothing in it is passed over.
 */
async function openAdapter(dir: string, base: Checkpoint): Promise<OpenAdapter> {
  const configPath = join(dir, adapterConfigFile);
  if (!(await exists(configPath)))
    throw inputError(`folder has no ${adapterConfigFile}`, {
      where: dir,
      hint: "expected a LoRA adapter as PEFT saves it",
    });
  const text = await readText(configPath, sizeLimits.settings);
  const foreign = foreignText(text);
  if (foreign !== null) throw inputError(`this is ${foreign.what}`, { where: configPath, hint: foreign.hint });
  const config = parseAdapterConfig(text, configPath);
  const files: RangeFile[] = [];
  const close = async (): Promise<void> => void (await Promise.all(files.map((file) => file.close())));
  try {
    const tensors = await locateAdapter(dir, files);
    const names = adapterNames(base.spec);
    const wholes = await adapterWholes(tensors, base.tensors, names, { spec: base.spec, config, dir });
    const { spec } = wholes;
    const places = placesByName(spec);
    const changes = [...factorNames(tensors, names, dir, spec)].map((factors) =>
      changeOfMatrix(factors, { tensors, places, config, dir, spec }),
    );
    if (changes.length === 0 && wholes.tensors.size === 0)
      throw inputError("the adapter has no tensors", { where: dir });
    const ranks = changes.length === 0 ? [config.r] : changes.map(({ rank }) => rank);
    const replaced = placements(spec).filter(({ name }) => wholes.tensors.has(name));
    return {
      spec,
      notes: wholes.notes,
      replaced: slotSources(replaced, wholes.tensors, dir, "the model"),
      dir,
      config,
      close,
      tensors: new Map(
        [...tensors].map(([name, { file, dtype, shape, bytes }]) => [name, { file, dtype, shape, bytes }]),
      ),
      changed: changes.map(({ name }) => name),
      wholes: [...wholes.tensors.keys()],
      ranks: [ranks.reduce((a, b) => Math.min(a, b)), ranks.reduce((a, b) => Math.max(a, b))],
      changeOf: changesBySlot(changes),
    };
  } catch (cause) {
    await close();
    throw cause;
  }
}

function changesBySlot(changes: readonly MatrixChange[]): OpenAdapter["changeOf"] {
  const bySlot = new Map(
    changes.flatMap((change) => change.slots.map((place) => [place.slot.key, { change, place }] as const)),
  );
  const cached = factorCache(cacheBytes);
  return (slotKey) => {
    const entry = bySlot.get(slotKey);
    if (entry === undefined) return null;
    const { change, place } = entry;
    return {
      rowsOf: (start, count) => storedRows(place, start, count),
      factors: () => cached(change.name, () => readFactors(change)),
    };
  };
}

function placesByName(spec: DecoderSpec): Map<string, Placement[]> {
  const places = new Map<string, Placement[]>();
  for (const place of placements(spec)) places.set(place.name, [...(places.get(place.name) ?? []), place]);
  return places;
}

/** Some trainers leave the adapter's name, `default`, in the tensors' names. */
const factorName = /^base_model\.model\.(.+)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?$/;

/** Pairs A and B of each module. */
function factorNames(
  tensors: ReadonlyMap<string, ReadableTensor>,
  names: AdapterNames,
  dir: string,
  spec: DecoderSpec,
): Iterable<FactorNames> {
  const byModule = new Map<string, FactorNames>();
  for (const [name, { file }] of tensors) {
    const where = join(dir, file);
    if (names.whole(name) !== null) continue;
    const [, path, embedding, which] = factorName.exec(unwrapped(name)) ?? [];
    if (path === undefined) throw noFactor(name, where);
    const module = names.module(path);
    const other = byModule.get(module) ?? { module, embedding: embedding !== undefined };
    const key = which === "A" ? "a" : "b";
    if (other[key] !== undefined || other.embedding !== (embedding !== undefined))
      throw inputError(`${name} and ${other[key] ?? other.a ?? other.b} are of one module`, { where });
    byModule.set(module, { ...other, [key]: name });
  }
  const tied = [...byModule.values()].find(
    ({ module, embedding }) => spec.tiedHead && (embedding || module === "lm_head"),
  );
  if (tied !== undefined)
    throw inputError(`the adapter changes ${tied.module}, which embedding and head of this model share`, {
      where: dir,
      hint: mergeHint,
    });
  return byModule.values();
}

/** The error for a tensor that is neither A nor B of a module. */
function noFactor(name: string, where: string): UpcycleError {
  const what = name.includes("lora_magnitude_vector")
    ? "is of DoRA"
    : /lora_[AB]\..*bias$/.test(name)
      ? "is a bias of LoRA"
      : /\.lora_/.test(name)
        ? "is no factor of LoRA that is known here"
        : "is no factor of LoRA, and no tensor of this model";
  return inputError(`tensor ${name} ${what}`, { where, hint: mergeHint });
}

/** One of the two factors, which can be read as numbers. */
type Factor = ReadableTensor & { readonly presented: FloatDtype };

/** The change of a stored matrix. */
interface MatrixChange {
  /** Name of the stored tensor. */
  readonly name: string;
  /** The slots that lie in it. */
  readonly slots: readonly Placement[];
  readonly rank: number;
  readonly scale: number;
  /** [r, I], of an embedding [r, V]. */
  readonly a: Factor;
  /** [O, r], of an embedding [H, r]. */
  readonly b: Factor;
  readonly embedding: boolean;
}

/** What an adapter's factors are held against. */
interface AdapterContext {
  readonly tensors: ReadonlyMap<string, ReadableTensor>;
  readonly places: ReadonlyMap<string, readonly Placement[]>;
  readonly config: AdapterConfig;
  readonly dir: string;
  readonly spec: DecoderSpec;
}

/** Throws inputError for a lone factor, for one of another shape, and where the model has no such matrix. */
function changeOfMatrix(names: FactorNames, context: AdapterContext): MatrixChange {
  const { module, embedding } = names;
  const { tensors, config, dir } = context;
  const [nameA, nameB] = bothFactors(names, dir);
  const name = `${module}.weight`;
  const slots = slotsOfMatrix(name, module, context);
  const shape = at(slots, 0).shape;
  const [outputs, inputs] = slots.some(isTransposed) ? [at(shape, 1), at(shape, 0)] : [at(shape, 0), at(shape, 1)];
  const { rank, scale } = rankAndScale(config, module);
  const [shapeA, shapeB] = embedding
    ? [
        [rank, outputs],
        [inputs, rank],
      ]
    : [
        [rank, inputs],
        [outputs, rank],
      ];
  const matrix = `rank ${rank} and ${name} [${shape.join(", ")}]`;
  const a = requireFactor(nameA, entryOf(tensors, nameA), shapeA, matrix, dir);
  const b = requireFactor(nameB, entryOf(tensors, nameB), shapeB, matrix, dir);
  return { name, slots, rank, scale, a, b, embedding };
}

function bothFactors({ a, b }: FactorNames, dir: string): readonly [a: string, b: string] {
  if (a !== undefined && b !== undefined) return [a, b];
  throw inputError(`tensor ${a ?? b} has no ${a === undefined ? "lora_A" : "lora_B"} beside it`, {
    where: dir,
    hint: "the adapter is incomplete; copy or download it again",
  });
}

/** The slots of the matrix that a module's factors change. */
function slotsOfMatrix(name: string, module: string, { places, dir, spec }: AdapterContext): readonly Placement[] {
  const slots = places.get(name);
  if (slots?.[0]?.shape.length === 2) return slots;
  throw inputError(
    `the adapter changes ${module}, the model (${spec.family}, ${spec.layers.length} layers) has no matrix ${name}`,
    { where: dir, hint: "is this adapter of another model?" },
  );
}

function requireFactor(
  name: string,
  factor: ReadableTensor,
  expectedShape: readonly number[],
  matrix: string,
  dir: string,
): Factor {
  const where = join(dir, factor.file);
  const { presented, dtype, shape } = factor;
  if (presented === null)
    throw inputError(`tensor ${name} is stored as ${dtype}, expected F32, BF16, F16 or F64`, { where });
  if (shape.join() !== expectedShape.join()) {
    throw inputError(
      `tensor ${name} has shape [${shape.join(", ")}], expected [${expectedShape.join(", ")}] for ${matrix}`,
      { where, hint: `is this adapter of another model, of one with added words, or another ${adapterConfigFile}?` },
    );
  }
  return factor as Factor;
}

/**
 * Whether a matrix is stored as [I, O], as GPT-2's `Conv1D` is. What `fan_in_fan_out` says is not needed: PEFT, too,
 * goes by the module.
 */
const isTransposed = ({ slot, layout }: Placement): boolean =>
  layout !== null && layout.columnStride !== 1 && matrixShape(slot.shape)[1] > 1;

/** The output of the stored matrix that each of `count` rows of the slot from `start` on is. */
function storedRows({ layout }: Placement, start: number, count: number): number[] {
  if (layout === null) return Array.from({ length: count }, (_, i) => start + i);
  return [...rowSpans(layout.rows, start, count)].flatMap((span) =>
    Array.from({ length: span.count }, (_, i) => span.at + i),
  );
}

async function readFactors({ a, b, rank, scale, embedding }: MatrixChange): Promise<LowRank> {
  const [first, second] = [await readFactor(a), await readFactor(b)];
  return embedding
    ? { rank, scale, a: transposed(second, rank), b: transposed(first, first.length / rank) }
    : { rank, scale, a: first, b: second };
}

async function readFactor(factor: Factor): Promise<Float32Array> {
  return toFloat32(factor.presented, await factor.read(0, elements(factor.shape)));
}

/** The transpose of a matrix with so many columns. */
function transposed(values: Float32Array, columns: number): Float32Array {
  const rows = values.length / columns;
  return Float32Array.from(values, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!);
}

/** Holds what was read last, up to `maxBytes`; two that ask for the same at once share one reading. */
function factorCache(maxBytes: number): (name: string, read: () => Promise<LowRank>) => Promise<LowRank> {
  // The least recently used first.
  const factors = new Map<string, Promise<LowRank>>();
  const sizes = new Map<string, number>();
  const makeRoom = (newest: string): void => {
    let total = [...factors.keys()].reduce((sum, key) => sum + (sizes.get(key) ?? 0), 0);
    for (const key of factors.keys()) {
      if (total <= maxBytes || key === newest) break;
      total -= sizes.get(key) ?? 0;
      factors.delete(key);
    }
  };
  return (name, read) => {
    const reading = factors.get(name) ?? read();
    factors.delete(name);
    factors.set(name, reading);
    reading.then(
      ({ a, b }) => {
        sizes.set(name, a.byteLength + b.byteLength);
        makeRoom(name);
      },
      () => factors.delete(name),
    );
    return reading;
  };
}

/**
 * The model with the adapter in `dir` merged in: its changed slots are read in float32, all others as before. Throws
 * like `openAdapter`; `base` stays open then.
 */
export async function withAdapter(base: Checkpoint, dir: string): Promise<Checkpoint> {
  const adapter = await openAdapter(dir, base);
  const { spec } = adapter;
  // Where the adapter gives one of embedding and head, the model's own is the other.
  const baseKey = (key: string): string => (key === "head" && base.spec.tiedHead ? "embed" : key);
  const under = withReplaced(base, adapter.replaced, baseKey);
  const shapes = new Map(placements(spec).map(({ slot }) => [slot.key, matrixShape(slot.shape)] as const));
  const rowsOf = (key: string, start = 0, count = entryOf(shapes, key)[0]): SourceRectangle => {
    const [rows, width] = entryOf(shapes, key);
    if (!(start >= 0 && count >= 0 && start + count <= rows))
      throw new Error(`rows ${start} to ${start + count} of ${key}, which has ${rows}`);
    return wholeRows(key, start, count, width);
  };
  const { config, tensors, changed, wholes, ranks } = adapter;
  return {
    ...base,
    spec,
    notes: [...base.notes, ...adapter.notes],
    adapter: { dir, config, tensors, changed, wholes, ranks },
    dtypeOf: (key) => (adapter.changeOf(key) === null ? under.dtypeOf(key) : "F32"),
    storedDtypeOf: (key) => base.storedDtypeOf(baseKey(key)),
    async readRectangle(rectangle, into) {
      const change = adapter.changeOf(rectangle.key);
      if (change === null) return under.readRectangle(rectangle, into);
      return float32Bytes(await readMerged(under, change, rectangle, into));
    },
    async readRows(key, start, count, memory) {
      const change = adapter.changeOf(key);
      if (change === null) return under.readRows(key, start, count, memory);
      return readMerged(under, change, rowsOf(key, start, count), memory && new Uint8Array(memory));
    },
    async readFloat32(key) {
      const change = adapter.changeOf(key);
      return change === null ? under.readFloat32(key) : readMerged(under, change, rowsOf(key));
    },
    async readBytes(key) {
      const change = adapter.changeOf(key);
      return change === null ? under.readBytes(key) : float32Bytes(await readMerged(under, change, rowsOf(key)));
    },
    async close() {
      await Promise.all([base.close(), adapter.close()]);
    },
  };
}

/** What weights are read from, by slot. */
type SlotReaders = Pick<Checkpoint, "dtypeOf" | "readBytes" | "readFloat32" | "readRectangle" | "readRows">;

/** The model's weights, some of whose slots are read from the adapter's files instead. */
function withReplaced(
  base: Checkpoint,
  replaced: ReadonlyMap<string, SlotSource>,
  baseKey: (key: string) => string,
): SlotReaders {
  const readRectangle = openRectangleReader();
  const readBytes = (key: string): Promise<TypedBytes> => {
    const source = replaced.get(key);
    return source === undefined ? base.readBytes(baseKey(key)) : readSlot(source);
  };
  return {
    dtypeOf: (key) => replaced.get(key)?.dtype ?? base.dtypeOf(baseKey(key)),
    readBytes,
    async readFloat32(key) {
      if (!replaced.has(key)) return base.readFloat32(baseKey(key));
      const { dtype, bytes } = await readBytes(key);
      return toFloat32(dtype, bytes);
    },
    async readRectangle(rectangle, into) {
      const source = replaced.get(rectangle.key);
      return source === undefined
        ? base.readRectangle({ ...rectangle, key: baseKey(rectangle.key) }, into)
        : readRectangle(source.parts, rectangle, into);
    },
    async readRows(key, start, count, memory) {
      const source = replaced.get(key);
      return source === undefined
        ? base.readRows(baseKey(key), start, count, memory)
        : readSlotRows(source, { start, count }, memory, readRectangle);
    },
  };
}

/** The rectangle W + scale B A in float32, in `into` where it fits. */
async function readMerged(
  base: Pick<Checkpoint, "readRectangle">,
  change: SlotChange,
  rectangle: SourceRectangle,
  into?: Uint8Array,
): Promise<Float32Array> {
  const { dtype, bytes } = await base.readRectangle(rectangle);
  const values = toFloat32(dtype, bytes);
  const fits = into !== undefined && into.byteLength >= values.byteLength && into.byteOffset % 4 === 0;
  const out = fits ? new Float32Array(into.buffer, into.byteOffset, values.length) : new Float32Array(values.length);
  const rows = change.rowsOf(rectangle.rowStart, rectangle.rowCount);
  addLowRank(values, rows, rectangle.columnStart, await change.factors(), out);
  return out;
}

function float32Bytes({ buffer, byteOffset, byteLength }: Float32Array): TypedBytes {
  return { dtype: "F32", bytes: new Uint8Array(buffer, byteOffset, byteLength) };
}
