/** A launch list run once on the first GPU, on float64 feeds. */
import { device } from "../../../src/engine/cuda/device.js";
import { lowerToLaunches } from "../../../src/engine/cuda/lowering/lower.js";
import type { CudaLowerOptions } from "../../../src/engine/cuda/lowering/options.js";
import { DeviceProgram } from "../../../src/engine/cuda/program.js";
import { Stream } from "../../../src/engine/cuda/stream.js";
import { elements, typeOf, type Graph } from "../../../src/graph/ir/ir.js";

/** The least that kernels are chosen for. */
export const oldest = { capability: 80, multiprocessors: 4 } as const;

/** One for all runs of a process: its scratch memory is large. */
let shared: Stream | undefined;

/** Numbers of each output, in order. Kernels are chosen by the GPU, if the options do not say by which. */
export async function runOnCuda(
  graph: Graph,
  feeds: readonly Float64Array[],
  options: CudaLowerOptions = {},
): Promise<(Float32Array | Int32Array)[]> {
  const gpu = await device(0);
  const stream = (shared ??= new Stream(gpu));
  const memory = (id: number) => gpu.allocate(4 * elements(typeOf(graph, id).shape), "a test");
  const [inputs, outputs] = [graph.inputs.map(memory), graph.outputs.map(memory)];
  const addresses = (of: typeof inputs) => of.map(({ address }) => address);
  const program = await DeviceProgram.open(stream, lowerToLaunches(graph, { chip: gpu.chip, ...options }), {
    inputs: addresses(inputs),
    outputs: addresses(outputs),
  });
  graph.inputs.forEach((id, i) => {
    const data = feeds[i]!;
    const isInt = typeOf(graph, id).dtype === "int";
    stream.upload(inputs[i]!.address, isInt ? Int32Array.from(data) : Float32Array.from(data));
  });
  program.launch();
  const results = graph.outputs.map((id, i) => {
    const { dtype, shape } = typeOf(graph, id);
    const data = dtype === "int" ? new Int32Array(elements(shape)) : new Float32Array(elements(shape));
    stream.download(data, outputs[i]!.address);
    return data;
  });
  await stream.finished();
  for (const thing of [program, ...inputs, ...outputs]) thing[Symbol.dispose]();
  return results;
}
