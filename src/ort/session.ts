/** The only file that touches onnxruntime-node. */
import * as ort from "onnxruntime-node";
import type { Graph, ValueId } from "../graph/ir.js";
import { elements } from "../graph/ir.js";
import { lower, type OnnxProgram } from "../onnx/lower.js";
import { graphCache, graphCacheFolder, graphKey } from "./graph-cache.js";

export type FeedData = Int32Array | Float32Array;

export const onnxruntimeVersion: string = ort.env.versions.node ?? "unknown";

/** Nodes from which an optimised graph is kept on disk. The reference sizes have 614 (dense), 1,631 (8 experts) and 7,679 (64 experts); the first two open in about 50 and 100 ms without. */
const WORTH_KEEPING = 3000;

/** A compiled graph. */
export interface Session {
  /** Inputs in graph order; `outputs[i]` is a buffer to write output i into, or null to get a fresh one. */
  run(inputs: readonly ort.Tensor[], outputs: readonly (ort.Tensor | null)[]): Promise<readonly ort.Tensor[]>;
  close(): Promise<void>;
}

export function tensor(data: Float32Array, shape: readonly number[]): ort.Tensor {
  return new ort.Tensor("float32", data, shape);
}

export function intTensor(data: Int32Array): ort.Tensor {
  return new ort.Tensor("int64", BigInt64Array.from(data, (value) => BigInt(value)), [data.length]);
}

/** Integers become int64. */
export function shapedTensor(data: FeedData, shape: readonly number[]): ort.Tensor {
  return data instanceof Float32Array ? tensor(data, shape) : new ort.Tensor("int64", BigInt64Array.from(data, (value) => BigInt(value)), shape);
}

export function numbers(value: ort.Tensor): number[] {
  return Array.from(value.data as ArrayLike<number | bigint>, Number);
}

export function floats(value: ort.Tensor): Float32Array {
  return value.data as Float32Array;
}

export interface SessionOptions {
  readonly threads: number;
  /** Keep memory between runs (default); without it each run allocates and frees what it needs. */
  readonly arena?: boolean;
  /** Threads without work wait actively for a while (default): right for one session, not for many that take turns. */
  readonly spin?: boolean;
  /** Inputs that come with their axes exchanged: see `turnable`. */
  readonly turned?: ReadonlySet<ValueId>;
  /** Data of inputs that are never fed: onnxruntime copies them and packs matrices the way its products read them, which pays with few rows. */
  readonly stored?: ReadonlyMap<ValueId, Float32Array>;
}

/** Lowers and compiles a graph for the CPU. Inputs are then those that are not stored. */
export function openSession(graph: Graph, options: SessionOptions): Promise<Session> {
  const stored = options.stored ?? new Map<ValueId, never>();
  const places = new Map([...stored].map(([id, { byteLength }]) => [id, { location: `${id}`, offset: 0, bytes: byteLength }]));
  return createSession(lower(graph, { turned: options.turned, stored: places }), options);
}

export async function createSession(program: OnnxProgram, { threads, arena = true, spin = true, stored = new Map<ValueId, never>() }: SessionOptions): Promise<Session> {
  const session = await compile(program, stored.size === 0, {
    executionProviders: ["cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: "sequential",
    graphOptimizationLevel: "all",
    // The memory pattern preallocates the sum of all activations; without it peak memory is a third lower at the same speed.
    enableMemPattern: false,
    enableCpuMemArena: arena,
    logSeverityLevel: 3,
    // Only bytes are taken.
    externalData: [...stored].map(([id, { buffer, byteOffset, byteLength }]) => ({ path: `${id}`, data: new Uint8Array(buffer, byteOffset, byteLength) })),
    ...(spin ? {} : { extra: { session: { intra_op: { allow_spinning: "0" } } } }),
  });
  return {
    async run(inputs, outputs) {
      const feeds: Record<string, ort.Tensor> = {};
      program.inputs.forEach((name, i) => (feeds[name] = inputs[i]!));
      const fetches: Record<string, ort.Tensor | null> = {};
      program.outputs.forEach((name, i) => (fetches[name] = outputs[i] ?? null));
      const results = await session.run(feeds, fetches);
      return program.outputs.map((name) => results[name] as ort.Tensor);
    },
    close: () => session.release(),
  };
}

/**
 * A large graph is optimised once per machine: its optimised form is kept on disk, and opened as it is, so that the same nodes run in either case. What is not whole, or what
 * onnxruntime does not open, is made anew. A graph with stored weights is not kept, since its optimised form would hold them.
 */
async function compile({ bytes, nodes }: OnnxProgram, structureOnly: boolean, options: ort.InferenceSession.SessionOptions): Promise<ort.InferenceSession> {
  const create = (from: Uint8Array, changes: ort.InferenceSession.SessionOptions = {}): Promise<ort.InferenceSession> => ort.InferenceSession.create(from, { ...options, ...changes });
  const folder = structureOnly && nodes >= WORTH_KEEPING ? graphCacheFolder(process.env) : null;
  if (folder === null) return create(bytes);
  const cache = graphCache(folder);
  const key = graphKey(bytes, [onnxruntimeVersion, options]);
  const kept = await cache.read(key);
  const opened = kept && (await create(kept, { graphOptimizationLevel: "disabled" }).catch(() => undefined));
  // Where it cannot be written, such as on a full disk, the graph is opened without.
  return opened ?? cache.write(key, (path) => (path === "" ? create(bytes) : create(bytes, { optimizedModelFilePath: path }).catch(() => create(bytes))));
}

/** Evaluates a graph once, on data in the order of its inputs: for tests and oracles. */
export async function evaluateOnce(graph: Graph, feeds: readonly FeedData[], threads = 1): Promise<{ data: number[]; shape: readonly number[] }[]> {
  const session = await openSession(graph, { threads });
  const inputs = graph.inputs.map((id, i) => {
    const { dtype, shape } = graph.values[id]!;
    const data = feeds[i]!;
    if (data.length !== elements(shape)) throw new Error(`feed ${i} has ${data.length} elements, expected ${elements(shape)}`);
    return dtype === "f32"
      ? tensor(Float32Array.from(data), shape)
      : new ort.Tensor("int64", BigInt64Array.from(data, (value) => BigInt(value)), shape);
  });
  const results = await session.run(inputs, []);
  await session.close();
  return results.map((result) => ({ data: numbers(result), shape: result.dims }));
}
