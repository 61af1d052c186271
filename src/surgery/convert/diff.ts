/**
 * Compares two models tensor by tensor: what only one has, what differs and by how much. A few megabytes are in memory
 * at a time.
 */
import { openCheckpoint, type Checkpoint, type ModelSource } from "../../files/checkpoint/open.js";
import { lineageKey } from "../../files/checkpoint/write.js";
import { toFloat32, type FloatDtype } from "../../files/numeric/dtype.js";
import { countNonFinite } from "../../files/numeric/finite.js";
import { namedSlots } from "../../model/tensors/names.js";

/** One tensor of two models, a and b. */
export interface TensorDiff {
  /** The Hugging Face name where both folders call it the same, else our own. */
  readonly name: string;
  readonly shapes: readonly [readonly number[], readonly number[]];
  readonly dtypes: readonly [FloatDtype, FloatDtype];
  /** Whether both have the same bytes in the same precision. */
  readonly equal: boolean;
  /** Null where the shapes differ. */
  readonly difference: Difference | null;
  /** How many values of a and of b are NaN or infinite; null where the shapes differ. */
  readonly nonFinite: readonly [number, number] | null;
}

/** The difference of b from a, in float64 over the values as float32. */
export interface Difference {
  readonly maxAbs: number;
  readonly meanAbs: number;
  /** ||b - a|| / ||a|| */
  readonly relative: number;
  /** Cosine of the two tensors; 1 for two zero tensors, 0 for one zero tensor and another. */
  readonly cosine: number;
}

/** A key of config.json with different values. */
export interface ConfigDiff {
  /** Dotted path in config.json. */
  readonly key: string;
  /** The value as JSON; null: the key is not there. */
  readonly a: string | null;
  readonly b: string | null;
}

/** How two models, a and b, differ. */
export interface CheckpointDiff {
  /** Names of tensors that only one of the two has. */
  readonly onlyA: readonly string[];
  readonly onlyB: readonly string[];
  /** Tensors that both have, in a's order. */
  readonly tensors: readonly TensorDiff[];
  readonly config: readonly ConfigDiff[];
  /** Whether there is no difference of any kind. */
  readonly equal: boolean;
}

/** How a comparison tells its progress, and what stops it. */
export interface DiffOptions {
  /** Called after every tensor that both have: how many are done, of how many, and the name of this one. */
  readonly onProgress?: ((done: number, total: number, name: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How many elements of one tensor are in memory at once. */
const pieceElements = 1 << 20;

/**
 * Tensors are matched by what they are to the model, so that families with other names or fused tensors compare. Throws
 * inputError for a folder that is no supported model, or an adapter that cannot be merged in.
 */
export async function diffCheckpoints(
  sourceA: ModelSource,
  sourceB: ModelSource,
  { onProgress, signal }: DiffOptions = {},
): Promise<CheckpointDiff> {
  const a = await openCheckpoint(sourceA);
  try {
    const b = await openCheckpoint(sourceB);
    try {
      return await diffOpen(a, b, { onProgress, signal });
    } finally {
      await b.close();
    }
  } finally {
    await a.close();
  }
}

async function diffOpen(a: Checkpoint, b: Checkpoint, { onProgress, signal }: DiffOptions): Promise<CheckpointDiff> {
  const [slotsA, slotsB] = [slotsByKey(a), slotsByKey(b)];
  const pairs = [...slotsA].flatMap(([key, slot]) => {
    const other = slotsB.get(key);
    return other === undefined ? [] : [{ key, slot, other }];
  });
  const tensors: TensorDiff[] = [];
  for (const { key, slot, other } of pairs) {
    signal?.throwIfAborted();
    const name = slot.name === other.name ? slot.name : key;
    tensors.push(await diffTensor(a, b, key, name, slot.shape, other.shape, signal));
    onProgress?.(tensors.length, pairs.length, name);
  }
  const onlyA = [...slotsA].filter(([key]) => !slotsB.has(key)).map(([, { name }]) => name);
  const onlyB = [...slotsB].filter(([key]) => !slotsA.has(key)).map(([, { name }]) => name);
  const config = diffConfigs(a.config, b.config);
  const equal = onlyA.length + onlyB.length + config.length === 0 && tensors.every((tensor) => tensor.equal);
  return { onlyA, onlyB, tensors, config, equal };
}

/** The tensors of a model by slot key, with their names in its files; a slot in several tensors has our own name. */
function slotsByKey({ spec }: Checkpoint): Map<string, { readonly name: string; readonly shape: readonly number[] }> {
  return new Map(
    namedSlots(spec).map(({ slot: { key, shape }, names: [name, ...others] }) => [
      key,
      { name: name === undefined || others.length > 0 ? key : name, shape },
    ]),
  );
}

async function diffTensor(
  a: Checkpoint,
  b: Checkpoint,
  key: string,
  name: string,
  shapeA: readonly number[],
  shapeB: readonly number[],
  signal: AbortSignal | undefined,
): Promise<TensorDiff> {
  const about = { name, shapes: [shapeA, shapeB], dtypes: [a.dtypeOf(key), b.dtypeOf(key)] } as const;
  if (shapeA.join() !== shapeB.join()) return { ...about, equal: false, difference: null, nonFinite: null };
  const [rows = 1, ...rest] = shapeA;
  const width = rest.reduce((x, y) => x * y, 1);
  const step = Math.max(1, Math.floor(pieceElements / width));
  const nonFinite: [number, number] = [0, 0];
  const sums = { equal: about.dtypes[0] === about.dtypes[1], max: 0, abs: 0, square: 0, dot: 0, a: 0, b: 0 };
  for (let start = 0; start < rows; start += step) {
    signal?.throwIfAborted();
    const region = {
      key,
      rowStart: start,
      rowCount: Math.min(step, rows - start),
      columnStart: 0,
      columnCount: width,
      stride: width,
    };
    const [x, y] = await Promise.all([a.readRectangle(region), b.readRectangle(region)]);
    nonFinite[0] += countNonFinite(x.dtype, x.bytes);
    nonFinite[1] += countNonFinite(y.dtype, y.bytes);
    sums.equal &&= Buffer.compare(x.bytes, y.bytes) === 0;
    addUp(sums, toFloat32(x.dtype, x.bytes), toFloat32(y.dtype, y.bytes));
  }
  const count = rows * width;
  // A sum keeps a NaN, which comparing with the largest value so far passes over.
  const nanIfAny = Number.isFinite(sums.abs) ? 0 : NaN;
  const relative = sums.square === 0 ? 0 : Math.sqrt(sums.square) / Math.sqrt(sums.a);
  return {
    ...about,
    equal: sums.equal,
    nonFinite,
    difference: { maxAbs: sums.max + nanIfAny, meanAbs: sums.abs / count, relative, cosine: cosine(sums) },
  };
}

/** Sums over the elements of two tensors, a and b, and the largest difference. */
interface Sums {
  max: number;
  abs: number;
  square: number;
  dot: number;
  a: number;
  b: number;
}

function addUp(sums: Sums, x: Float32Array, y: Float32Array): void {
  for (let i = 0; i < x.length; i++) {
    const [a, b] = [x[i]!, y[i]!];
    const difference = Math.abs(a - b);
    if (difference > sums.max) sums.max = difference;
    sums.abs += difference;
    sums.square += difference * difference;
    sums.dot += a * b;
    sums.a += a * a;
    sums.b += b * b;
  }
}

function cosine({ dot, a, b }: Sums): number {
  if (a === 0 && b === 0) return 1;
  if (a === 0 || b === 0) return 0;
  const quotient = dot / (Math.sqrt(a) * Math.sqrt(b));
  return Number.isNaN(quotient) ? NaN : Math.min(1, Math.max(-1, quotient));
}

function diffConfigs(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>): ConfigDiff[] {
  const [left, right] = [new Map(leaves(a)), new Map(leaves(b))];
  // The record of how the experts were made does not change what a model computes.
  return [...new Set([...left.keys(), ...right.keys()])]
    .filter((key) => key.split(".")[0] !== lineageKey)
    .sort()
    .map((key) => ({ key, a: left.get(key) ?? null, b: right.get(key) ?? null }))
    .filter(({ a: x, b: y }) => x !== y);
}

/** Every value that is no object, as JSON under its dotted path; lists are values. */
function* leaves(value: Readonly<Record<string, unknown>>, path = ""): Generator<[string, string]> {
  for (const [key, inner] of Object.entries(value)) {
    if (typeof inner === "object" && inner !== null && !Array.isArray(inner))
      yield* leaves(inner as Record<string, unknown>, `${path}${key}.`);
    else yield [`${path}${key}`, JSON.stringify(inner)];
  }
}
