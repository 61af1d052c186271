/**
 * A backend that runs every graph by its reference evaluation (`graph/ir/reference.ts`), in the caller's thread: the
 * oracle of other backends, and the least that one has to do. State and arithmetic are float64, float32 crosses the
 * interface. Written for clarity, for models of a few thousand parameters.
 */
import { at } from "../../base/at.js";
import { append, cacheFor, extendInputs, presentFrom, repeated, routingOf, type Cache } from "../runtime/cache.js";
import type { ParamInfo } from "../../graph/programs/programs.js";
import type { ArrayData, Backend, ForwardRuntime, OperationRuntime } from "../runtime/runtime.js";
import { compiler, Gate } from "./run.js";
import { openReferenceTraining } from "./train-runtime.js";

function openForwardRuntime(): ForwardRuntime {
  const weights = new Map<string, Float64Array>();
  const [graphs, gate] = [compiler(), new Gate()];
  let cache: Cache<Float64Array> | undefined;
  const paramsOf = (params: readonly ParamInfo[]): Float64Array[] =>
    params.map(({ key }) => {
      const data = weights.get(key);
      if (data === undefined) throw new Error(`weight ${key} was never written`);
      return data;
    });
  return {
    write: (key, data) => gate.pass(() => void weights.set(key, Float64Array.from(data))),
    run: (name, { graph, params }, feeds) =>
      gate.pass(() => {
        const outputs = graphs(name, graph)([...feeds, ...paramsOf(params)]);
        return Float32Array.from(at(outputs, 0).data);
      }),
    extend: (name, program, feeds) =>
      gate.pass(() => {
        const graph = graphs(name, program.graph);
        const started = performance.now();
        const past = cacheFor(Float64Array, cache, program, feeds.capacity);
        cache = past;
        const ints = extendInputs(program, feeds, past.capacity);
        const outputs = graph([
          ...ints,
          ...(program.shape.capacity === 0 ? [] : past.data),
          ...paramsOf(program.params),
        ]);
        append(
          past,
          program,
          outputs.slice(presentFrom(program)).map(({ data }) => data),
          feeds,
        );
        const routing = routingOf(
          program,
          (output) => Int32Array.from(at(outputs, output).data),
          (output) => Float32Array.from(at(outputs, output).data),
        );
        return { output: Float32Array.from(at(outputs, 0).data), routing, ms: performance.now() - started };
      }),
    repeatCache: (rows) =>
      gate.pass(() => {
        if (cache === undefined) throw new Error("there is no cache to repeat");
        cache = repeated(Float64Array, cache, rows);
      }),
    close: () => gate.close(),
  };
}

function openOperationRuntime(): OperationRuntime {
  const [graphs, gate] = [compiler(), new Gate()];
  return {
    run: (name, graph, feeds) =>
      gate.pass(() =>
        graphs(
          name,
          graph,
        )(feeds).map(({ dtype, data }): ArrayData =>
          dtype === "int" ? Int32Array.from(data) : Float32Array.from(data),
        ),
      ),
    memory: (bytes) => new ArrayBuffer(bytes),
    close: () => gate.close(),
  };
}

/** The backend that evaluates graphs in float64, in the caller's thread. */
export const referenceBackend: Backend = {
  name: "reference",
  numerics: "reference",
  openTrain: (program, options) => Promise.resolve().then(() => openReferenceTraining(program, options)),
  openForward: () => Promise.resolve(openForwardRuntime()),
  openOperations: () => Promise.resolve(openOperationRuntime()),
};
