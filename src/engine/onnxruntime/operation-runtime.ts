/** Small graphs with everything they need as inputs, in this thread. */
import { at } from "../../base/at.js";
import { typeOf, type Graph } from "../../graph/ir/ir.js";
import type { ArrayData, BackendOptions, OperationRuntime } from "../runtime/runtime.js";
import { openSession, shapedTensor, type Session } from "./session.js";

/** Primitives that are worth several threads; a pool for each of the others would cost more than it saves. */
const heavy: ReadonlySet<string> = new Set(["matmul", "attention"]);

/** Opens a runtime that compiles each graph when it first runs. */
export function openOperationRuntime({ threads }: BackendOptions): OperationRuntime {
  // Promises, so that two calls at once compile a graph once.
  const sessions = new Map<string, Promise<Session>>();
  const open = (graph: Graph): Promise<Session> =>
    openSession(graph, {
      threads: graph.nodes.some(({ prim }) => heavy.has(prim)) ? threads : 1,
      arena: false,
      spin: false,
    });
  return {
    async run(name, graph, feeds) {
      const session = sessions.get(name) ?? open(graph);
      sessions.set(name, session);
      const inputs = graph.inputs.map((id, i) => shapedTensor(at(feeds, i), typeOf(graph, id).shape));
      const outputs = await (await session).run(inputs, []);
      return outputs.map(({ data }): ArrayData =>
        data instanceof BigInt64Array ? Int32Array.from(data, Number) : (data as Float32Array),
      );
    },
    memory: (bytes) => new ArrayBuffer(bytes),
    async close() {
      for (const session of sessions.values()) await (await session.catch(() => null))?.close();
      sessions.clear();
    },
  };
}
