/**
 * Evaluates a block of a decoder node by node, so that only some rows of one weight are ever in memory as float32:
 * matrix products read their weight some rows at a time, routed experts one after the other. Everything else is one
 * small compiled graph a node.
 *
 * Letters: N tokens or routed rows, A and B sizes of a row before and behind a product.
 */
import { at, entryOf } from "../base/at.js";
import {
  elements,
  lastSize,
  matrixSizes,
  typeOf,
  type Graph,
  type Node,
  type PrimAttrs,
  type ValueId,
  type ValueType,
} from "../graph/ir/ir.js";
import { GraphBuilder } from "../graph/ir/builder.js";
import type { DecoderBlock } from "../graph/nn/blockwise.js";
import type { ArrayData, OperationRuntime } from "../engine/runtime/runtime.js";
import {
  openRowReader,
  rowsAtOnce,
  streamedWeights,
  type RowReader,
  type WeightSizes,
  type WeightSource,
} from "./weight-rows.js";

interface StreamSettings {
  readonly weights: WeightSource;
  readonly operations: OperationRuntime;
  /** Most elements of a weight that are read at once. */
  readonly weightElements?: number | undefined;
  /** Called between two reads; throws to stop. */
  readonly checkpoint?: (() => void) | undefined;
}

/** Elements of a weight that are read at once: 64 MB of float32, twice, as the next ones are read meanwhile. */
export const defaultWeightElements = 1 << 24;

interface Settings extends StreamSettings {
  readonly weightElements: number;
  readonly reader: RowReader;
}

/** The block's outputs. `activations` stand in the order of its first inputs. */
export async function evaluateStreamed(
  block: DecoderBlock,
  activations: readonly ArrayData[],
  stream: StreamSettings,
): Promise<readonly ArrayData[]> {
  const { graph, params } = block;
  const keys = new Map<ValueId, string>();
  const computed = new Map<ValueId, ArrayData>();
  graph.inputs.forEach((id, i) => {
    const activation = activations[i];
    if (activation === undefined) keys.set(id, at(params, i - activations.length));
    else computed.set(id, activation);
  });
  const sized = { ...stream, weightElements: stream.weightElements ?? defaultWeightElements };
  const settings = { ...sized, reader: openRowReader(graph, keys, computed, sized) };
  const lastUse = lastUses(graph);
  for (const [index, node] of graph.nodes.entries()) {
    settings.checkpoint?.();
    const outputs = await evaluateNode(node, graph, keys, computed, settings);
    node.out.forEach((id, i) => computed.set(id, at(outputs, i)));
    for (const id of node.in) if (lastUse.get(id) === index) computed.delete(id);
  }
  return graph.outputs.map((id) => entryOf(computed, id));
}

/** For each value the node that reads it last; outputs are never done with. */
function lastUses({ nodes, outputs }: Graph): Map<ValueId, number> {
  const last = new Map<ValueId, number>();
  nodes.forEach((node, index) => node.in.forEach((id) => last.set(id, index)));
  for (const id of outputs) last.set(id, Infinity);
  return last;
}

async function evaluateNode(
  node: Node,
  graph: Graph,
  keys: ReadonlyMap<ValueId, string>,
  computed: ReadonlyMap<ValueId, ArrayData>,
  settings: Settings,
): Promise<readonly ArrayData[]> {
  const streamed = streamedWeights(node, graph, keys);
  if (streamed !== null) {
    const [input] = node.in;
    const x = computed.get(input) as Float32Array;
    if (streamed.counts !== null)
      return [await grouped(x, computed.get(streamed.counts) as Int32Array, streamed.keys, streamed, settings)];
    const [rows] = matrixSizes(typeOf(graph, input));
    return [await linear(x, rows, at(streamed.keys, 0), streamed, settings)];
  }
  switch (node.prim) {
    case "constant":
      return [constant(node.attrs)];
    case "reshape":
      return [entryOf(computed, node.in[0])];
    case "embedding": {
      const [table, ids] = node.in;
      const key = keys.get(table);
      if (key !== undefined)
        return [await gather(key, lastSize(typeOf(graph, table)), computed.get(ids) as Int32Array, settings)];
      break;
    }
    default:
  }
  return alone(node, graph, keys, computed, settings);
}

function constant({ dtype, shape, values }: PrimAttrs["constant"]): ArrayData {
  const count = elements(shape);
  const fresh = dtype === "f32" ? new Float32Array(count) : new Int32Array(count);
  if (values.length === 1) fresh.fill(at(values, 0));
  else fresh.set(values);
  return fresh;
}

/** Rows read at once from an embedding table. */
const GATHERED = 64;

async function gather(key: string, width: number, ids: Int32Array, { weights }: Settings): Promise<Float32Array> {
  const rows = new Map<number, Float32Array>();
  const distinct = [...new Set(ids)];
  for (let i = 0; i < distinct.length; i += GATHERED) {
    await Promise.all(
      distinct.slice(i, i + GATHERED).map(async (id) => rows.set(id, await weights.readRows(key, id, 1))),
    );
  }
  const out = new Float32Array(ids.length * width);
  ids.forEach((id, i) => out.set(entryOf(rows, id), i * width));
  return out;
}

/** x [N, A] times a stored weight [B, A], transposed, some of the weight's rows at a time. */
async function linear(
  x: Float32Array,
  rows: number,
  key: string,
  weight: WeightSizes,
  settings: Settings,
): Promise<Float32Array> {
  const { size, width } = weight;
  const step = rowsAtOnce(weight, settings.weightElements);
  const productWith = async (start: number, count: number): Promise<Float32Array> => {
    settings.checkpoint?.();
    return product(x, rows, await settings.reader.take(key, start), count, width, settings);
  };
  if (step === size) return productWith(0, size);
  const out = new Float32Array(rows * size);
  for (let start = 0; start < size; start += step) {
    const count = Math.min(step, size - start);
    const y = await productWith(start, count);
    for (let row = 0; row < rows; row++) out.set(y.subarray(row * count, (row + 1) * count), row * size + start);
  }
  return out;
}

/** x [N, A] times w [B, A], transposed. `w` is given away. */
async function product(
  x: Float32Array,
  rows: number,
  w: Float32Array,
  size: number,
  width: number,
  { operations }: Settings,
): Promise<Float32Array> {
  const b = new GraphBuilder();
  const graph = b.finish([b.linear(b.input("x", "f32", [rows, width]), b.input("w", "f32", [size, width]))]);
  const [y] = await operations.run(`linear ${rows} ${width} ${size}`, graph, [x, w], [1]);
  return y as Float32Array;
}

/** Each expert's rows of x times its weight, one expert at a time; experts without rows are not read. */
async function grouped(
  x: Float32Array,
  counts: Int32Array,
  keys: readonly string[],
  weight: WeightSizes,
  settings: Settings,
): Promise<Float32Array> {
  const { size, width } = weight;
  const out = new Float32Array((x.length / width) * size);
  let done = 0;
  for (const [expert, key] of keys.entries()) {
    const count = at(counts, expert);
    if (count === 0) continue;
    // Rounded up, so that a few compiled graphs serve all loads.
    const padded = new Float32Array(roundedUp(count) * width);
    padded.set(x.subarray(done * width, (done + count) * width));
    const y = await linear(padded, roundedUp(count), key, weight, settings);
    out.set(y.subarray(0, count * size), done * size);
    done += count;
  }
  return out;
}

const roundedUp = (count: number): number =>
  count <= 16 ? 2 ** Math.ceil(Math.log2(count)) : Math.ceil(count / 32) * 32;

/** A type without the value's name. */
const pickType = ({ dtype, shape }: ValueType): ValueType => ({ dtype, shape });

/** Evaluates one node as a graph of its own; the parameters that it needs are read whole. */
async function alone(
  node: Node,
  whole: Graph,
  keys: ReadonlyMap<ValueId, string>,
  computed: ReadonlyMap<ValueId, ArrayData>,
  { operations, weights }: Settings,
): Promise<readonly ArrayData[]> {
  const inputs = [...new Set(node.in)];
  const renamed = new Map([...inputs, ...node.out].map((id, i) => [id, i]));
  const now = (id: ValueId): ValueId => entryOf(renamed, id);
  const graph: Graph = {
    values: [...renamed.keys()].map((id) => pickType(typeOf(whole, id))),
    nodes: [{ ...node, in: node.in.map(now), out: node.out.map(now) } as unknown as Node],
    inputs: inputs.map(now),
    outputs: node.out.map(now),
  };
  const feeds = await Promise.all(
    inputs.map(async (id) => computed.get(id) ?? (await weights.readFloat32(entryOf(keys, id)))),
  );
  return operations.run(JSON.stringify(graph), graph, feeds);
}
