/** Times ONNX graphs, each alone in an onnxruntime session: the clock of `gemm.mjs` and `parts.mjs`. */
import { performance } from "node:perf_hooks";
import * as ort from "onnxruntime-node";

/** Runs that are left out: the first ones make memory. */
const WARM_UP = 2;

/**
 * Milliseconds of a run of each graph, over `rounds` in turns: what a processor can do changes from second to second
 * where others use it too. `inputs` of a graph: shapes of floats by name, or integers. Unoptimised, since onnxruntime
 * would drop what leads to no output.
 */
export async function timeSessions(graphs, { threads, rounds }) {
  const opened = [];
  for (const { bytes, inputs } of graphs) {
    const session = await ort.InferenceSession.create(bytes, {
      executionProviders: ["cpu"],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      executionMode: "sequential",
      graphOptimizationLevel: "disabled",
      enableMemPattern: false,
      enableCpuMemArena: true,
      logSeverityLevel: 3,
    });
    const feeds = Object.fromEntries(
      Object.entries(inputs).map(([name, of]) => [
        name,
        of instanceof BigInt64Array
          ? new ort.Tensor("int64", of, [of.length])
          : new ort.Tensor(
              "float32",
              Float32Array.from({ length: of.reduce((x, y) => x * y, 1) }, (_, i) => ((i * 7919) % 2003) / 1001 - 1),
              of,
            ),
      ]),
    );
    opened.push({ session, feeds, times: [] });
  }
  for (let round = 0; round < rounds + WARM_UP; round++) {
    for (const { session, feeds, times } of opened) {
      const start = performance.now();
      const results = await session.run(feeds);
      times.push(performance.now() - start);
      for (const tensor of Object.values(results)) tensor.dispose();
    }
  }
  for (const { session } of opened) await session.release();
  return opened.map(({ times }) => {
    const warm = times.slice(WARM_UP).sort((x, y) => x - y);
    return { medianMs: warm[warm.length >> 1], minMs: warm[0] };
  });
}
