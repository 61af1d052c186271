/**
 * LoRA adapters of PEFT, merged into a model's weights as they are read: the same model, each of whose adapted slots is
 * W + scale B A. What reads weights (conversions, prompts, measurements) knows nothing of it. The adapter is of the
 * STORED tensor's shape; a slot that is a part of one (Phi-3's queries) takes its own rows of B. A and B of a module
 * are read when they are needed, and a few are kept: memory does not grow with the number of modules.
 *
 * Names and formulas as in the public repository huggingface/peft: src/peft/tuners/lora/layer.py (`get_delta_weight` of
 * Linear and Embedding).
 */
import { type SourceRectangle, matrixShape } from "../numeric/rectangles.js";
import { join } from "node:path";
import { inputError, type UpcycleError } from "../../base/errors.js";
import { mergeHint, parseAdapterConfig, rankAndScale, type AdapterConfig } from "../../base/schemas/index.js";
import { exists } from "../io/atomic.js";
import type { RangeFile } from "../io/ranges.js";
import { sizeLimits } from "../io/open.js";
import { readText } from "../io/ranges.js";
import { toFloat32 } from "../numeric/dtype.js";
import { addLowRank, type LowRank } from "../numeric/low-rank.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { placements, rowSpans, type Placement } from "../../model/tensors/placement.js";
import { locateAdapter } from "./locate.js";
import { elements } from "../../base/shapes.js";
import type { Located } from "./stored.js";
import type { Adapter, Checkpoint } from "./types.js";

/** Name of the settings of a PEFT adapter. */
export const adapterConfigFile = "adapter_config.json";

interface OpenAdapter extends Adapter {
  /** The change of a slot, and the row of B that each of its rows takes; null: none. */
  changeOf(
    slotKey: string,
  ): { readonly rowOf: (start: number, count: number) => number[]; readonly factors: () => Promise<LowRank> } | null;
  close(): Promise<void>;
}

/** Names of a module's two factors in the files. */
interface Factors {
  readonly module: string;
  /** Those of an embedding stand the other way round: its change is the transpose of B A. */
  readonly embedding: boolean;
  readonly a?: string;
  readonly b?: string;
}

/** What is kept of factors that have been read, as float32. */
const keptBytes = 64 << 20;

/**
 * Opens an adapter folder (adapter_config.json, adapter_model.safetensors or .bin) for a model. Throws inputError for
 * what is missing or damaged, for an adapter of another model, and for one whose merged weights are anything but W +
 * scale B A; nothing in it is passed over.
 */
async function openAdapter(dir: string, spec: DecoderSpec): Promise<OpenAdapter> {
  const configPath = join(dir, adapterConfigFile);
  if (!(await exists(configPath)))
    throw inputError(`folder has no ${adapterConfigFile}`, {
      where: dir,
      hint: "expected a LoRA adapter as PEFT saves it",
    });
  const config = parseAdapterConfig(await readText(configPath, sizeLimits.settings), configPath);
  const files: RangeFile[] = [];
  const close = async (): Promise<void> => void (await Promise.all(files.map((file) => file.close())));
  try {
    const located = await locateAdapter(dir, files);
    const places = placesByName(spec);
    const changes = [...factorsOf(located, dir, spec)].map((factors) =>
      checked(factors, { located, places, config, dir, spec }),
    );
    if (changes.length === 0) throw inputError("the adapter has no tensors", { where: dir });
    const kept = keep(keptBytes);
    const bySlot = new Map(
      changes.flatMap((change) => change.slots.map((place) => [place.slot.key, { change, place }] as const)),
    );
    const ranks = changes.map(({ rank }) => rank);
    return {
      dir,
      config,
      close,
      tensors: new Map(
        [...located].map(([name, { file, dtype, shape, bytes }]) => [name, { file, dtype, shape, bytes }]),
      ),
      changed: changes.map(({ name }) => name),
      ranks: [ranks.reduce((a, b) => Math.min(a, b)), ranks.reduce((a, b) => Math.max(a, b))],
      changeOf(slotKey) {
        const found = bySlot.get(slotKey);
        if (found === undefined) return null;
        const { change, place } = found;
        return {
          rowOf: (start, count) => storedRows(place, start, count),
          factors: () => kept(change.name, () => readFactors(change)),
        };
      },
    };
  } catch (cause) {
    await close();
    throw cause;
  }
}

function placesByName(spec: DecoderSpec): Map<string, Placement[]> {
  const places = new Map<string, Placement[]>();
  for (const place of placements(spec)) places.set(place.name, [...(places.get(place.name) ?? []), place]);
  return places;
}

/** Pairs A and B of each module. Some trainers leave the adapter's name, `default`, in the tensors' names. */
function factorsOf(located: ReadonlyMap<string, Located>, dir: string, spec: DecoderSpec): Iterable<Factors> {
  const found = new Map<string, Factors>();
  for (const [name, { file }] of located) {
    const where = join(dir, file);
    const [, module, embedding, which] =
      /^base_model\.model\.(.+)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?$/.exec(name) ?? [];
    if (module === undefined) throw unreadable(name, where);
    const before = found.get(module) ?? { module, embedding: embedding !== undefined };
    const key = which === "A" ? "a" : "b";
    if (before[key] !== undefined || before.embedding !== (embedding !== undefined))
      throw inputError(`${name} and ${before[key] ?? before.a ?? before.b} are of one module`, { where });
    found.set(module, { ...before, [key]: name });
  }
  const tied = [...found.keys()].find(
    (module) => spec.tiedHead && (found.get(module)!.embedding || module === "lm_head"),
  );
  if (tied !== undefined)
    throw inputError(`the adapter changes ${tied}, which embedding and head of this model share`, {
      where: dir,
      hint: mergeHint,
    });
  return found.values();
}

function unreadable(name: string, where: string): UpcycleError {
  const what = name.includes("lora_magnitude_vector")
    ? "is of DoRA"
    : /lora_[AB]\..*bias$/.test(name)
      ? "is a bias of LoRA"
      : /\.lora_/.test(name)
        ? "is no factor of LoRA that is known here"
        : "is no factor of LoRA: a module or a vocabulary that was trained as a whole";
  return inputError(`tensor ${name} ${what}`, { where, hint: mergeHint });
}

/** A stored matrix's change. */
interface Change {
  /** Name of the stored tensor. */
  readonly name: string;
  readonly slots: readonly Placement[];
  readonly rank: number;
  readonly scale: number;
  /** [rank, columns] and [rows, rank], of an embedding [rank, rows] and [columns, rank]. */
  readonly a: Located;
  readonly b: Located;
  readonly embedding: boolean;
}

interface Surroundings {
  readonly located: ReadonlyMap<string, Located>;
  readonly places: ReadonlyMap<string, readonly Placement[]>;
  readonly config: AdapterConfig;
  readonly dir: string;
  readonly spec: DecoderSpec;
}

function checked(
  { module, embedding, a: nameA, b: nameB }: Factors,
  { located, places, config, dir, spec }: Surroundings,
): Change {
  if (nameA === undefined || nameB === undefined) {
    throw inputError(`tensor ${(nameA ?? nameB)!} has no ${nameA === undefined ? "lora_A" : "lora_B"} beside it`, {
      where: dir,
      hint: "the adapter is incomplete; copy or download it again",
    });
  }
  const name = `${module}.weight`;
  const slots = places.get(name);
  if (slots === undefined || slots[0]!.shape.length !== 2) {
    throw inputError(
      `the adapter changes ${module}, the model (${spec.family}, ${spec.layers.length} layers) has no matrix ${name}`,
      { where: dir, hint: "is this adapter of another model?" },
    );
  }
  const { shape } = slots[0]!;
  const [out, width] = slots.some(isTransposed) ? [shape[1]!, shape[0]!] : [shape[0]!, shape[1]!];
  const { rank, scale } = rankAndScale(config, module);
  const [a, b] = [located.get(nameA)!, located.get(nameB)!];
  const [wantedA, wantedB] = embedding
    ? [
        [rank, out],
        [width, rank],
      ]
    : [
        [rank, width],
        [out, rank],
      ];
  for (const [factor, one, wanted] of [
    [nameA, a, wantedA],
    [nameB, b, wantedB],
  ] as const) {
    const where = join(dir, one.file);
    if (one.presented === null)
      throw inputError(`tensor ${factor} is stored as ${one.dtype}, expected F32, BF16, F16 or F64`, { where });
    if (one.shape.join() !== wanted.join()) {
      throw inputError(
        `tensor ${factor} has shape [${one.shape.join(", ")}], expected [${wanted.join(", ")}] for rank ` +
          `${rank} and ${name} [${shape.join(", ")}]`,
        {
          where,
          hint: `is this adapter of another model, or another ${adapterConfigFile}?`,
        },
      );
    }
  }
  return { name, slots, rank, scale, a, b, embedding };
}

/** Stored [in, out], as GPT-2's `Conv1D`. What `fan_in_fan_out` says is not needed: PEFT, too, goes by the module. */
const isTransposed = ({ slot, layout }: Placement): boolean =>
  layout !== null && layout.columnStride !== 1 && matrixShape(slot.shape)[1] > 1;

/** The row of the stored matrix's output that each of the slot's rows is. */
function storedRows({ layout }: Placement, start: number, count: number): number[] {
  if (layout === null) return Array.from({ length: count }, (_, i) => start + i);
  return [...rowSpans(layout.rows, start, count)].flatMap((span) =>
    Array.from({ length: span.count }, (_, i) => span.at + i),
  );
}

async function readFactors({ a, b, rank, scale, embedding }: Change): Promise<LowRank> {
  const read = async (factor: Located): Promise<Float32Array> =>
    toFloat32(factor.presented!, await factor.read(0, elements(factor.shape)));
  const [first, second] = [await read(a), await read(b)];
  return embedding
    ? { rank, scale, a: transposed(second, rank), b: transposed(first, first.length / rank) }
    : { rank, scale, a: first, b: second };
}

/** The transpose of a matrix with so many columns. */
function transposed(values: Float32Array, columns: number): Float32Array {
  const rows = values.length / columns;
  return Float32Array.from(values, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!);
}

/** Keeps what was read last, up to so many bytes. */
function keep(most: number): (name: string, read: () => Promise<LowRank>) => Promise<LowRank> {
  const held = new Map<string, Promise<LowRank>>();
  const sizes = new Map<string, number>();
  return (name, read) => {
    const found = held.get(name) ?? read();
    held.delete(name);
    held.set(name, found);
    found.then(
      ({ a, b }) => {
        sizes.set(name, a.byteLength + b.byteLength);
        let total = [...held.keys()].reduce((sum, key) => sum + (sizes.get(key) ?? 0), 0);
        for (const key of held.keys()) {
          if (total <= most || key === name) break;
          total -= sizes.get(key) ?? 0;
          held.delete(key);
        }
      },
      () => held.delete(name),
    );
    return found;
  };
}

/**
 * The model with the adapter in `dir` merged in: its changed slots are read in float32, all others as before. Throws
 * like `openAdapter`; `base` stays open then.
 */
export async function withAdapter(base: Checkpoint, dir: string): Promise<Checkpoint> {
  const adapter = await openAdapter(dir, base.spec);
  const shapes = new Map(placements(base.spec).map(({ slot }) => [slot.key, matrixShape(slot.shape)] as const));
  const rectangleOf = (key: string, rowStart: number, rowCount: number): SourceRectangle => {
    const columnCount = shapes.get(key)![1];
    return { key, rowStart, rowCount, columnStart: 0, columnCount, stride: columnCount };
  };
  /** The merged rectangle in `into`, if there is any and it fits; null: the slot is not changed. */
  const merged = async (rectangle: SourceRectangle, into?: Uint8Array): Promise<Float32Array | null> => {
    const change = adapter.changeOf(rectangle.key);
    if (change === null) return null;
    const { dtype, bytes } = await base.readRectangle(rectangle);
    const values = toFloat32(dtype, bytes);
    const fits = into !== undefined && into.byteLength >= values.byteLength && into.byteOffset % 4 === 0;
    const out = fits ? new Float32Array(into.buffer, into.byteOffset, values.length) : new Float32Array(values.length);
    addLowRank(
      values,
      change.rowOf(rectangle.rowStart, rectangle.rowCount),
      rectangle.columnStart,
      await change.factors(),
      out,
    );
    return out;
  };
  const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
    new Uint8Array(buffer, byteOffset, byteLength);
  const { dir: folder, config, tensors, changed, ranks } = adapter;
  return {
    ...base,
    adapter: { dir: folder, config, tensors, changed, ranks },
    dtypeOf: (key) => (adapter.changeOf(key) === null ? base.dtypeOf(key) : "F32"),
    async readRectangle(rectangle, into) {
      const values = await merged(rectangle, into);
      return values === null ? base.readRectangle(rectangle, into) : { dtype: "F32", bytes: bytesOf(values) };
    },
    async readRows(key, start, count, memory) {
      if (adapter.changeOf(key) === null) return base.readRows(key, start, count, memory);
      if (!(start >= 0 && count >= 0 && start + count <= shapes.get(key)![0]))
        throw new Error(`rows ${start} to ${start + count} of ${key}, which has ${shapes.get(key)![0]}`);
      return (await merged(rectangleOf(key, start, count), memory && new Uint8Array(memory)))!;
    },
    async readFloat32(key) {
      return adapter.changeOf(key) === null
        ? base.readFloat32(key)
        : (await merged(rectangleOf(key, 0, shapes.get(key)![0])))!;
    },
    async readBytes(key) {
      return adapter.changeOf(key) === null
        ? base.readBytes(key)
        : { dtype: "F32", bytes: bytesOf((await merged(rectangleOf(key, 0, shapes.get(key)![0])))!) };
    },
    async close() {
      await Promise.all([base.close(), adapter.close()]);
    },
  };
}
