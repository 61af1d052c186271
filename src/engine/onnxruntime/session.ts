/** The only file that touches onnxruntime-node. */
import * as ort from "onnxruntime-node";
import { at } from "../../base/at.js";
import type { Graph, ValueId } from "../../graph/ir/ir.js";
import { lower, type LowerOptions, type OnnxProgram } from "../../graph/onnx/lower.js";
import { graphCache, graphCacheFolder, graphKey } from "../cache/graph-cache.js";
import { disableTelemetry } from "./telemetry.js";

// The library reads it when the first session is made.
disableTelemetry();

/** Version of the onnxruntime that this package runs on. */
export const onnxruntimeVersion: string = ort.env.versions.node ?? "unknown";

/**
 * Nodes of a graph from which its lowered form is kept on disk: a whole decoder has some hundreds, the operations of a
 * streamed one are quicker lowered than read.
 */
const WORTH_KEEPING = 100;

/** A compiled graph. */
export interface Session {
  /** Inputs in graph order; `outputs[i]` is a buffer to write output i into, or null to get a fresh one. */
  run(inputs: readonly ort.Tensor[], outputs: readonly (ort.Tensor | null)[]): Promise<readonly ort.Tensor[]>;
  close(): Promise<void>;
}

/** A float32 tensor over `data`, which is not copied. */
export function tensor(data: Float32Array, shape: readonly number[]): ort.Tensor {
  return new ort.Tensor("float32", data, shape);
}

/** An int64 tensor of these integers, with one axis unless `shape` says otherwise. */
export function intTensor(data: Int32Array, shape: readonly number[] = [data.length]): ort.Tensor {
  const wide = BigInt64Array.from(data, (value) => BigInt(value));
  return new ort.Tensor("int64", wide, shape);
}

/** A tensor of this shape: integers become int64. */
export function shapedTensor(data: Int32Array | Float32Array, shape: readonly number[]): ort.Tensor {
  return data instanceof Float32Array ? tensor(data, shape) : intTensor(data, shape);
}

/** The elements of a tensor of any type, as a list. */
export function numbers(value: ort.Tensor): number[] {
  return Array.from(value.data as ArrayLike<number | bigint>, Number);
}

/** The elements of a float32 tensor, in place. */
export function floats(value: ort.Tensor): Float32Array {
  return value.data as Float32Array;
}

interface SessionOptions {
  readonly threads: number;
  /** Keep memory between runs (default); without it each run allocates and frees what it needs. */
  readonly arena?: boolean;
  /**
   * Threads without work wait actively for a while (default): right for one session, not for many that take turns.
   * `run`: only while a run lasts, so that the threads of one session do not keep the cores from the next one's.
   */
  readonly spin?: boolean | "run";
  /** Inputs that come with their axes exchanged: see `transposable`. */
  readonly transposed?: ReadonlySet<ValueId>;
  /**
   * Data of inputs that are never fed: onnxruntime copies them and packs matrices the way its products read them, which
   * pays with few rows.
   */
  readonly stored?: ReadonlyMap<ValueId, Float32Array>;
}

/** Lowers and compiles a graph for the CPU. Inputs are then those that are not stored. */
export async function openSession(graph: Graph, options: SessionOptions): Promise<Session> {
  const { threads, arena = true, spin = true, stored = new Map<ValueId, never>(), transposed } = options;
  const places = new Map(
    [...stored].map(([id, { byteLength }]) => [id, { location: `${id}`, offset: 0, bytes: byteLength }]),
  );
  const program = await lowered(graph, { transposed, stored: places });
  const session = await ort.InferenceSession.create(program.bytes, {
    executionProviders: ["cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: "sequential",
    // The lowering leaves nothing to rewrite that takes time, and onnxruntime's search takes longer than all the rest
    // where there are many experts.
    graphOptimizationLevel: "disabled",
    // The memory pattern preallocates the sum of all activations; without it peak memory is a third lower at the same
    // speed.
    enableMemPattern: false,
    enableCpuMemArena: arena,
    logSeverityLevel: 3,
    // onnxruntime takes the data of tensors as bytes alone.
    externalData: [...stored].map(([id, { buffer, byteOffset, byteLength }]) => ({
      path: `${id}`,
      data: new Uint8Array(buffer, byteOffset, byteLength),
    })),
    ...(spin === true
      ? {}
      : { extra: { session: spin === "run" ? { force_spinning_stop: "1" } : { intra_op: { allow_spinning: "0" } } } }),
  });
  return {
    async run(inputs, outputs) {
      const feeds: Record<string, ort.Tensor> = {};
      program.inputs.forEach((name, i) => (feeds[name] = at(inputs, i)));
      const fetches: Record<string, ort.Tensor | null> = {};
      program.outputs.forEach((name, i) => (fetches[name] = outputs[i] ?? null));
      const results = await session.run(feeds, fetches);
      return program.outputs.map((name) => results[name] as ort.Tensor);
    },
    close: () => session.release(),
  };
}

/** What a session needs of a lowered graph. */
type Opened = Pick<OnnxProgram, "bytes" | "inputs" | "outputs">;

/** A graph lowered, or as the cache keeps it. Where weights are stored, their places belong to the program. */
async function lowered(graph: Graph, options: Pick<LowerOptions, "transposed" | "stored">): Promise<Opened> {
  const folder = graph.nodes.length >= WORTH_KEEPING ? graphCacheFolder(process.env) : null;
  if (folder === null) return lower(graph, options);
  const cache = graphCache(folder);
  const key = graphKey([graph, options]);
  const cached = await cache.read(key);
  if (cached !== undefined) {
    // A line of names, then the model.
    const end = cached.indexOf(10);
    const names = JSON.parse(new TextDecoder().decode(cached.subarray(0, end))) as Omit<Opened, "bytes">;
    return { ...names, bytes: cached.subarray(end + 1) };
  }
  const { bytes, inputs, outputs } = lower(graph, options);
  await cache.write(key, [new TextEncoder().encode(`${JSON.stringify({ inputs, outputs })}\n`), bytes]);
  return { bytes, inputs, outputs };
}
