/** Forward graphs over one set of weights, in this thread. */
import type * as ort from "onnxruntime-node";
import type { Graph } from "../graph/ir.js";
import type { ExtendProgram, LogitsProgram, ParamInfo } from "../step/programs.js";
import { append, cacheFor, cacheShape, extendInputs, type Cache } from "../step/cache.js";
import type { BackendOptions, ExtendFeeds, ForwardRuntime } from "../step/runtime.js";
import { floats, intTensor, openSession, tensor, type Session } from "./session.js";

export function openForwardRuntime(options: BackendOptions): ForwardRuntime {
  const weights = new Map<string, Float32Array>();
  // Promises, so that two calls at once compile a program once.
  const sessions = new Map<string, Promise<Session>>();
  const bound = new Map<string, readonly ort.Tensor[]>();
  let cache: Cache<Float32Array> | undefined;
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
    async extend(name: string, program: ExtendProgram, feeds: ExtendFeeds) {
      const session = await compiled(name, program.graph);
      const started = performance.now();
      const past = cacheFor(Float32Array, cache, program, feeds.capacity);
      cache = past;
      const ints = extendInputs(program, feeds, past.capacity).map(intTensor);
      const cached = program.shape.capacity === 0 ? [] : past.data.map((data, i): ort.Tensor => tensor(data, cacheShape(program, i, past.capacity)));
      const [logits, ...present] = await session.run([...ints, ...cached, ...paramsOf(name, program.params)], []);
      append(past, program, present.map(floats), feeds);
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
