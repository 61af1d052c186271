/**
 * A model folder as an ONNX file: the graph of `graph/programs/export.ts` with the weights stored inside or beside it.
 */
import { access, constants, rm } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { inputError, interruptedError } from "../../base/errors.js";
import { openCheckpoint, type Checkpoint, type ModelSource } from "../../files/checkpoint/open.js";
import type { ValueId } from "../../graph/ir/ir.js";
import { elements } from "../../graph/ir/ir.js";
import { exists, stageFile, type StagedFile } from "../../files/io/atomic.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { requireOutputFile } from "../../files/io/open.js";
import { requireFreeSpace } from "../../files/io/space.js";
import { nonFiniteWords, watchedWeights } from "../../evals/finite-weights.js";
import type { WeightSource } from "../../evals/weight-rows.js";
import { lower, type OnnxProgram } from "../../graph/onnx/lower.js";
import type { ExternalData, LaterData } from "../../graph/onnx/proto.js";
import { decoderRecord } from "../../model/decoder/record.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import {
  forwardExport,
  trainingExport,
  type ExportedGraph,
  type ForwardExport,
  type NamedPort,
  type TrainingExport,
} from "../../graph/programs/export.js";
import { sourceName, sourceOf } from "./parents.js";
import { toolVersion } from "./version.js";

/** Which graph to export, and for which shape. Without `auxCoef` a training graph has the model's own coefficient. */
export type ExportKind =
  | ({ readonly kind: "forward" } & ForwardExport)
  | ({ readonly kind: "training"; readonly auxCoef: number | undefined } & Omit<TrainingExport, "auxCoef">);

/**
 * Where weights are: in the file, in a second file beside it, or in neither; then they are inputs of the graph, which
 * every run is fed by their names.
 */
export type WeightPlace = "inside" | "beside" | "inputs";

/** What to export, and where to. */
export interface ExportOptions {
  readonly source: ModelSource;
  /** The file to make; weights that lie beside it are in `OUT.data`. */
  readonly out: string;
  readonly graph: ExportKind;
  /** `inside` if left out, and `beside` where that would pass protobuf's 2 GiB. */
  readonly weights?: WeightPlace | undefined;
  readonly overwrite?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How many bytes are written, told after every piece. */
export interface ExportEvent {
  readonly type: "progress";
  readonly done: number;
  readonly total: number;
}

/** What was written. */
export interface Exported {
  readonly out: string;
  /** The file of weights, or null where they lie inside. */
  readonly data: string | null;
  /** Size of both files together. */
  readonly bytes: number;
  /** What every run must be fed. */
  readonly inputs: readonly NamedPort[];
  readonly outputs: readonly NamedPort[];
  /** Number of parameters. */
  readonly parameters: number;
  /** What is to be said where weights in the files are NaN or infinite; null: none is. */
  readonly damage: string | null;
  readonly seconds: number;
}

/** A protobuf message ends below 2 GiB. */
const LARGEST_MESSAGE = 2 ** 31 - 1;
/**
 * Weights in a second file begin at multiples of this, so that they can be mapped into memory (onnx.proto3,
 * TensorProto.external_data).
 */
const ALIGN = 4096;
/** How many floats of a weight are in memory at a time. */
const PIECE = 1 << 22;

/**
 * Writes the file, and the file of weights if there is one; names appear when everything is complete. Memory does not
 * grow with the model. Weights are stored in float32, named by slot key. Throws inputError for a model or a place that
 * cannot be used and a sequence longer than the model's positions, stopError for a full disk, interruptedError when
 * `signal` fires. Whoever stops listening stops the export, and nothing is left of it.
 */
export async function* exportOnnx(options: ExportOptions): AsyncGenerator<ExportEvent, Exported, undefined> {
  const { source, out } = options;
  const started = performance.now();
  await requireOnnxPlace(out, options.overwrite);
  const checkpoint = await openCheckpoint(source);
  const weights = watchedWeights(checkpoint);
  try {
    const { spec } = checkpoint;
    const kind =
      options.graph.kind === "forward"
        ? options.graph
        : { ...options.graph, auxCoef: options.graph.auxCoef ?? spec.auxLossCoef };
    requirePositions(spec, kind.sequence, checkpoint.dir);
    const exported = kind.kind === "forward" ? forwardExport(spec, kind) : trainingExport(spec, kind);
    const beside = `${out}.data`;
    const existing = await requireFree([out, beside], options.overwrite === true);
    const { program, places, weightBytes } = lowered(
      exported,
      metadata(checkpoint, kind),
      out,
      options.weights ?? "inside",
    );
    const bytes = program.bytes.length + weightBytes;
    await requireFreeSpace(dirname(out), bytes);
    const write = places === null ? writeInside : writeBeside;
    yield* write(
      { weights, program, exported, places: places ?? new Map<string, ExternalData>(), bytes, existing },
      options,
    );
    const fed = new Set(program.inputs);
    return {
      out,
      data: places === null ? null : beside,
      bytes,
      inputs: exported.inputs.filter(({ name }) => fed.has(name)),
      outputs: exported.outputs,
      parameters: exported.params.reduce((sum, { shape }) => sum + elements(shape), 0),
      damage: nonFiniteWords({ spec, nonFinite: weights.nonFinite }),
      seconds: (performance.now() - started) / 1000,
    };
  } finally {
    await checkpoint.close();
  }
}

function requirePositions({ maxPositions }: DecoderSpec, sequence: number, where: string): void {
  if (sequence <= maxPositions) return;
  throw inputError(`a sequence of ${sequence} tokens is longer than the model's ${maxPositions} positions`, {
    where,
    hint: "export a shorter one",
  });
}

/**
 * Throws inputError for a name that is taken or cannot be given; writes nothing. To be asked before anything slow:
 * `exportOnnx` asks again.
 */
export async function requireOnnxPlace(out: string, overwrite = false): Promise<void> {
  // Whatever else has a name is no model of this kind, and not to be replaced by one.
  if (!out.endsWith(".onnx"))
    throw inputError("the file to make has no name that ends in .onnx", { where: out, hint: "such as model.onnx" });
  await requireFree([out, `${out}.data`], overwrite);
  await withFsErrors(out, "write file", () => access(dirname(resolve(out)), constants.W_OK));
}

/** Which of the files exist. Throws inputError for one that may not be replaced, and like `requireOutputFile`. */
async function requireFree(paths: readonly string[], overwrite: boolean): Promise<readonly string[]> {
  const existing: string[] = [];
  for (const path of paths) {
    await requireOutputFile(path);
    if (!(await exists(path))) continue;
    if (!overwrite)
      throw inputError("file exists", { where: path, hint: "choose another name, or replace it (--overwrite)" });
    existing.push(path);
  }
  return existing;
}

/** What the file says about itself (ModelProto.metadata_props). */
function metadata(checkpoint: Checkpoint, { kind, ...shape }: ExportKind): Record<string, string> {
  const { spec, dtype } = checkpoint;
  return {
    model: sourceName(sourceOf(checkpoint)),
    family: spec.family,
    graph: kind,
    shape: JSON.stringify(shape),
    precision: dtype,
    spec: JSON.stringify(decoderRecord(spec)),
    upcycle: toolVersion,
  };
}

interface Lowered {
  readonly program: OnnxProgram;
  /** Where each weight is in the second file; null if weights are in the first. */
  readonly places: ReadonlyMap<string, ExternalData> | null;
  readonly weightBytes: number;
}

/** Lowers the graph with weights at the place asked for, or in a second file if one file would be too large. */
function lowered(
  exported: ExportedGraph,
  properties: Record<string, string>,
  out: string,
  where: WeightPlace,
): Lowered {
  const { graph, inputs, outputs, params } = exported;
  const lowerWith = (stored: ReadonlyMap<ValueId, ExternalData | LaterData>): OnnxProgram =>
    lower(graph, { inputs, outputs, stored, version: toolVersion, metadata: properties });
  if (where === "inputs") return { program: lowerWith(new Map()), places: null, weightBytes: 0 };
  const sized = params.map(({ id, key, shape }) => ({ id, key, size: 4 * elements(shape) }));
  const weights = sized.reduce((sum, { size }) => sum + size, 0);
  const inside = lowerWith(new Map(sized.map(({ id, size }) => [id, { later: true, bytes: size }])));
  if (where === "inside" && inside.bytes.length + weights <= LARGEST_MESSAGE)
    return { program: inside, places: null, weightBytes: weights };
  let offset = 0;
  const placed = sized.map(({ id, key, size }) => {
    const place: ExternalData = { location: `${basename(out)}.data`, offset, bytes: size };
    offset = Math.ceil((offset + size) / ALIGN) * ALIGN;
    return { id, key, place };
  });
  const program = lowerWith(new Map(placed.map(({ id, place }) => [id, place])));
  if (program.bytes.length > LARGEST_MESSAGE)
    throw inputError("the graph alone passes the 2 GiB that an ONNX file may have", {
      hint: "export a shorter sequence",
    });
  const end = placed.at(-1)?.place;
  return {
    program,
    places: new Map(placed.map(({ key, place }) => [key, place])),
    weightBytes: end === undefined ? 0 : end.offset + end.bytes,
  };
}

interface ExportWork {
  readonly weights: WeightSource;
  readonly program: OnnxProgram;
  readonly exported: ExportedGraph;
  readonly places: ReadonlyMap<string, ExternalData>;
  /** Size of both files together. */
  readonly bytes: number;
  /** Files that are replaced. */
  readonly existing: readonly string[];
}

async function* writeInside(
  { weights, program, exported, bytes, existing }: ExportWork,
  options: ExportOptions,
): AsyncGenerator<ExportEvent, void, undefined> {
  const file = await stageFile(options.out);
  try {
    let at = 0;
    let written = 0;
    const append = async (data: Uint8Array): Promise<ExportEvent> => {
      await file.append(data);
      written += data.byteLength;
      return { type: "progress", done: written, total: bytes };
    };
    const shapes = new Map(exported.params.map(({ key, shape }) => [key, shape]));
    for (const { name, at: end } of program.holes) {
      yield await append(program.bytes.subarray(at, end));
      at = end;
      for await (const piece of weightPieces(weights, name, shapes.get(name) ?? [], options)) yield await append(piece);
    }
    yield await append(program.bytes.subarray(at));
    await file.commit();
  } finally {
    await file.discard();
  }
  // A second file belongs to the file that was replaced: without that file nobody knows whose weights it holds.
  if (existing.includes(options.out))
    for (const path of existing) if (path !== options.out) await rm(path, { force: true });
}

async function* writeBeside(
  { weights, program, exported, places, bytes, existing }: ExportWork,
  options: ExportOptions,
): AsyncGenerator<ExportEvent, void, undefined> {
  const { out } = options;
  const staged: StagedFile[] = [];
  try {
    const data = await stageFile(`${out}.data`);
    staged.push(data);
    const model = await stageFile(out);
    staged.push(model);
    let written = 0;
    const append = async (piece: Uint8Array): Promise<ExportEvent> => {
      await data.append(piece);
      written += piece.byteLength;
      return { type: "progress", done: written, total: bytes };
    };
    for (const { key, shape } of exported.params) {
      const { offset = written } = places.get(key) ?? {};
      yield await append(new Uint8Array(offset - written));
      for await (const piece of weightPieces(weights, key, shape, options)) yield await append(piece);
    }
    await model.append(program.bytes);
    // At no moment does a model stand beside weights that are not its own.
    if (existing.includes(out)) await rm(out, { force: true });
    await data.commit();
    await model.commit();
    yield { type: "progress", done: bytes, total: bytes };
  } finally {
    for (const file of staged) await file.discard();
  }
}

/** The bytes of one weight in float32, in pieces. */
async function* weightPieces(
  weights: WeightSource,
  key: string,
  shape: readonly number[],
  { signal, out }: ExportOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const [rows = 1, ...rest] = shape;
  const step = Math.max(1, Math.floor(PIECE / elements(rest)));
  for (let row = 0; row < rows; row += step) {
    if (signal?.aborted === true) throw interruptedError("stopped, nothing was written", { where: out });
    const floats = await weights.readRows(key, row, Math.min(step, rows - row));
    yield new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
  }
}
