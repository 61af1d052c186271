/** Forward graphs over one set of weights, in this thread. */
import type * as ort from "onnxruntime-node";
import type { Graph } from "../graph/ir.js";
import type { ExtendProgram, LogitsProgram, ParamInfo } from "../step/programs.js";
import type { BackendOptions, ExtendFeeds, ForwardRuntime } from "../step/runtime.js";
import { append, emptyCache, moved, type Cache } from "./cache.js";
import { floats, intTensor, openSession, tensor, type Session } from "./session.js";

export function openForwardRuntime(options: BackendOptions): ForwardRuntime {
  const weights = new Map<string, Float32Array>();
  // Promises, so that two calls at once compile a program once.
  const sessions = new Map<string, Promise<Session>>();
  const bound = new Map<string, readonly ort.Tensor[]>();
  let cache: Cache | undefined;
  const compiled = (name: string, graph: Graph): Promise<Session> => {
    const session = sessions.get(name) ?? openSession(graph, options);
    sessions.set(name, session);
    return session;
  };
  /** Weights as tensors, made once per program: a text asks for them once per token. */
  const paramsOf = (name: string, params: readonly ParamInfo[]): readonly ort.Tensor[] => {
    const made = bound.get(name) ?? params.map(({ key, shape }) => {
      const data = weights.get(key);
      if (data === undefined) throw new Error(`weight ${key} was never written`);
      return tensor(data, shape);
    });
    bound.set(name, made);
    return made;
  };
  return {
    write(key, data) {
      weights.set(key, data);
      bound.clear();
      return Promise.resolve();
    },
    async run(name: string, program: LogitsProgram, feeds: readonly Int32Array[]) {
      const session = await compiled(name, program.graph);
      const [logits] = await session.run([...feeds.map(intTensor), ...paramsOf(name, program.params)], []);
      return floats(logits!);
    },
    async extend(name: string, program: ExtendProgram, { ids, lengths, counts, capacity }: ExtendFeeds) {
      const session = await compiled(name, program.graph);
      const started = performance.now();
      const { batch, tokens, capacity: past, positions: most } = program.shape;
      if (past === 0) cache = emptyCache(program, batch, capacity);
      else if (cache === undefined) throw new Error("there is no past to go on from");
      else if (cache.capacity !== past) cache = moved(cache, program, batch, past);
      const room = cache.capacity;
      const positions = Int32Array.from(ids, (_, i) => Math.min(lengths[Math.floor(i / tokens)]! + (i % tokens), most - 1));
      const rows = Int32Array.from(counts, (count, row) => row * tokens + Math.max(0, count - 1));
      if (counts.some((count, row) => lengths[row]! + count > room)) throw new Error(`the cache has room for ${room} keys`);
      const sizes = cache.data.map((data, i): ort.Tensor => tensor(data, [batch, program.kvHeads, room, i % 2 === 0 ? program.keyDim : program.valueDim]));
      const ints = [ids, positions, ...(past === 0 ? [] : [lengths]), rows].map(intTensor);
      const [logits, ...present] = await session.run([...ints, ...(past === 0 ? [] : sizes), ...paramsOf(name, program.params)], []);
      append(cache, program, tokens, present.map(floats), { lengths, counts });
      return { logits: floats(logits!), ms: performance.now() - started };
    },
    async close() {
      for (const session of sessions.values()) await (await session.catch(() => null))?.close();
      sessions.clear();
      bound.clear();
      cache = undefined;
      weights.clear();
    },
  };
}
