/** A second's work that says whether a GPU computes what it should: a small network with its gradients. */
import { randomStream } from "../../base/random.js";
import { backward } from "../../graph/grad/backward.js";
import { GraphBuilder } from "../../graph/ir/builder.js";
import { elements, typeOf, type Graph } from "../../graph/ir/ir.js";
import { evaluate } from "../../graph/ir/reference.js";
import type { Backend } from "../runtime/runtime.js";

/** Largest difference from the float64 interpreter that float32 explains, relative to an output's largest number. */
export const selfTestTolerance = 1e-4;

/** Result of the comparison of a GPU with the interpreter. */
export interface SelfTest {
  /** Largest difference from the interpreter, relative to the largest number of its output. */
  readonly difference: number;
  readonly seconds: number;
  readonly agrees: boolean;
}

const [BATCH, SEQUENCE, HEADS, HEAD, HIDDEN, VOCAB] = [2, 24, 2, 16, 32, 50];

/** A layer of attention and a gated unit, norms, the head with its loss; outputs are the loss and all gradients. */
function network(): Graph {
  const b = new GraphBuilder();
  const tokens = BATCH * SEQUENCE;
  const [ids, targets] = [b.input("ids", "int", [tokens]), b.input("targets", "int", [tokens])];
  const weight = (name: string, ...shape: number[]): number => b.input(name, "f32", shape);
  const table = weight("embed", VOCAB, HIDDEN);
  const norm = weight("norm", HIDDEN);
  const square = (name: string): number => weight(name, HIDDEN, HIDDEN);
  const [q, k, v, gate, up] = [square("q"), square("k"), square("v"), square("gate"), square("up")];
  const x = b.op("embedding", [table, ids], {});
  const normed = b.op("rmsNorm", [x, norm], { eps: 1e-5 });
  const attended = b.op("attention", [b.linear(normed, q), b.linear(normed, k), b.linear(normed, v)], {
    batch: BATCH,
    sequence: SEQUENCE,
    heads: HEADS,
    kvHeads: HEADS,
    headDim: HEAD,
    valueDim: HEAD,
    scale: HEAD ** -0.5,
    window: null,
    softcap: null,
    sinks: false,
  });
  const joined = b.add(x, attended);
  const hidden = b.add(joined, b.op("swiglu", [b.linear(joined, gate), b.linear(joined, up)], {}));
  const loss = b.op("headCrossEntropy", [hidden, table, targets], { softcap: null });
  return b.finish([loss, ...backward(b, loss, [table, norm, q, k, v, gate, up])]);
}

/** Runs the self-test on a backend. Throws what the backend throws where it does not run at all. */
export async function selfTest(backend: Backend): Promise<SelfTest> {
  const started = performance.now();
  const graph = network();
  const feeds = graph.inputs.map((id, i) => {
    const { dtype, shape } = typeOf(graph, id);
    const data = new Float32Array(elements(shape));
    const stream = randomStream(0, `self-test ${i}`);
    if (dtype === "f32") stream.normals(data, 0, 0, 0.3);
    else stream.uniforms(data, 0, VOCAB - 0.01);
    return dtype === "f32" ? data : Int32Array.from(data, Math.floor);
  });
  const expected = evaluate(
    graph,
    feeds.map((data) => Float64Array.from(data)),
  );
  const runtime = await backend.openOperations({ threads: 1 });
  try {
    const outputs = await runtime.run("self-test", graph, feeds);
    const difference = expected.reduce((worst, { data }, i) => Math.max(worst, distance(outputs[i] ?? [], data)), 0);
    return {
      difference,
      seconds: (performance.now() - started) / 1000,
      agrees: difference <= selfTestTolerance,
    };
  } finally {
    await runtime.close();
  }
}

/** Largest difference, relative to the largest expected number; infinite for what is not a number. */
function distance(found: ArrayLike<number>, expected: Float64Array): number {
  const size = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return expected.reduce((worst, value, i) => {
    const difference = Math.abs((found[i] ?? NaN) - value) / size;
    return Number.isNaN(difference) ? Infinity : Math.max(worst, difference);
  }, 0);
}
