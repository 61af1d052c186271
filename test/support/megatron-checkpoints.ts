/** Checkpoints of Megatron-Core that no golden folder shows, made from the weights of one. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { writeDcpMetadata, type DcpChunk, type DcpTensor } from "../../src/files/formats/dcp-metadata.js";
import { pickledGlobal, writePickle, type Picklable } from "../../src/files/formats/pickle-writer.js";
import { archiveOf, planTensorArchive } from "../../src/files/formats/torch-archive.js";
import { zipArchive } from "../files/formats/torch-archive.js";

/** A tensor in memory. */
export interface Whole {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** A rectangle of the last two axes (or of the only one), of the matrix that the first axes pick. */
export function part({ shape, values }: Whole, [from, to]: readonly [number, number], axis = 0): Whole {
  const [rows = 1, columns = 1] = shape;
  const [rowFrom, rowTo] = axis === 0 ? [from, to] : [0, rows];
  const [columnFrom, columnTo] = axis === 0 ? [0, columns] : [from, to];
  const out = new Float32Array((rowTo - rowFrom) * (columnTo - columnFrom));
  for (let row = rowFrom; row < rowTo; row++)
    out.set(
      values.subarray(row * columns + columnFrom, row * columns + columnTo),
      (row - rowFrom) * (columnTo - columnFrom),
    );
  return { shape: shape.length === 1 ? [to - from] : [rowTo - rowFrom, columnTo - columnFrom], values: out };
}

/** Several matrices one below the other. */
export function below(...parts: readonly Whole[]): Whole {
  const values = new Float32Array(parts.reduce((sum, one) => sum + one.values.length, 0));
  let at = 0;
  for (const one of parts) {
    values.set(one.values, at);
    at += one.values.length;
  }
  return { shape: [parts.reduce((sum, one) => sum + one.shape[0]!, 0), ...parts[0]!.shape.slice(1)], values };
}

const bytesOf = ({ values }: Whole): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

function tensorIn(index: number, { shape }: Whole): Picklable {
  const count = shape.reduce((a, b) => a * b, 1);
  const stride = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  return {
    call: pickledGlobal("torch._utils", "_rebuild_tensor_v2"),
    args: [
      { persistent: ["storage", pickledGlobal("torch", "FloatStorage"), String(index), "cpu", count] },
      0,
      { tuple: shape },
      { tuple: stride },
      false,
      { call: pickledGlobal("collections", "OrderedDict"), args: [] },
    ],
  };
}

const dict = (entries: Readonly<Record<string, Picklable>>): Picklable => new Map(Object.entries(entries));

/** `args` as Megatron saves them. */
export const namespace = (settings: Readonly<Record<string, Picklable>>): Picklable => ({
  object: pickledGlobal("argparse", "Namespace"),
  state: dict(settings),
});

/** One rank's file of the old format. */
export function writeRank(
  folder: string,
  settings: Readonly<Record<string, Picklable>>,
  tensors: ReadonlyMap<string, Whole>,
): void {
  mkdirSync(folder, { recursive: true });
  const list = [...tensors];
  const model = new Map<Picklable, Picklable>(list.map(([name, tensor], i) => [name, tensorIn(i, tensor)]));
  model.set("decoder.final_layernorm._extra_state", null);
  const value = dict({ args: namespace(settings), checkpoint_version: { float: 3 }, iteration: 7, model });
  const members = [
    { name: "archive/data.pkl", bytes: writePickle(value) },
    ...list.map(([, tensor], i) => ({ name: `archive/data/${i}`, bytes: bytesOf(tensor) })),
    { name: "archive/version", bytes: new TextEncoder().encode("3\n") },
  ];
  writeFileSync(join(folder, "model_optim_rng.pt"), zipArchive(members));
}

/** A tensor of a distributed checkpoint: stored as `dtype`, in boxes along its first axis. */
export interface Stored extends Whole {
  readonly dtype?: "F32" | "BF16";
  readonly boxes?: number;
}

/** A `torch_dist` folder of one shard. */
export function writeDistributed(
  folder: string,
  settings: Readonly<Record<string, Picklable>>,
  tensors: ReadonlyMap<string, Stored>,
): void {
  mkdirSync(folder, { recursive: true });
  const parts: Uint8Array[] = [];
  let at = 0;
  const put = (bytes: Uint8Array): void => {
    parts.push(bytes);
    at += bytes.length;
  };
  const declared = new Map<string, DcpTensor>();
  for (const [key, { shape, values, dtype = "F32", boxes = 1 }] of tensors) {
    const rows = shape[0]! / boxes;
    const width = values.length / shape[0]!;
    const chunks = Array.from({ length: boxes }, (_, box): DcpChunk => {
      const sizes = [rows, ...shape.slice(1)];
      const plan = planTensorArchive(dtype, sizes, { at, align: 64, checksum: crc32 });
      const begin = at;
      const own = values.slice(box * rows * width, (box + 1) * rows * width);
      const bytes = dtype === "F32" ? new Uint8Array(own.buffer) : rounded(own);
      put(plan.head);
      put(bytes);
      put(plan.tail(crc32(bytes)));
      const offsets = [box * rows, ...shape.slice(1).map(() => 0)];
      return { offsets, sizes, file: "__0_0.distcp", offset: begin, length: at - begin };
    });
    declared.set(key, { dtype, shape, chunks });
  }
  const common = archiveOf([dict({ args: namespace(settings), iteration: 7 })], crc32);
  const item = { file: "__0_0.distcp", offset: at, length: common.length };
  put(common);
  writeFileSync(join(folder, "__0_0.distcp"), Buffer.concat(parts));
  const objects = new Map([["common_state/shard_0_1", item]]);
  writeFileSync(join(folder, ".metadata"), writeDcpMetadata({ tensors: declared, objects }));
  writeFileSync(join(folder, "metadata.json"), '{"sharded_backend": "torch_dist", "sharded_backend_version": 1}');
}

/** The upper halves of float32 bits: what bfloat16 keeps without rounding. */
function rounded(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer);
  return new Uint8Array(Uint16Array.from(bits, (one) => one >>> 16).buffer);
}
