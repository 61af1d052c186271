import { at } from "../../../src/base/at.js";
import { numbers, openSession, shapedTensor } from "../../../src/engine/onnxruntime/session.js";
import { elements, typeOf, type Graph } from "../../../src/graph/ir/ir.js";

/** Evaluates a graph once on onnxruntime, on data in the order of its inputs. */
export async function evaluateOnce(
  graph: Graph,
  feeds: readonly (Int32Array | Float32Array)[],
  threads = 1,
): Promise<{ data: number[]; shape: readonly number[] }[]> {
  const session = await openSession(graph, { threads });
  const inputs = graph.inputs.map((id, i) => {
    const { dtype, shape } = typeOf(graph, id);
    const data = at(feeds, i);
    if (data.length !== elements(shape))
      throw new Error(`feed ${i} has ${data.length} elements, expected ${elements(shape)}`);
    return shapedTensor(dtype === "f32" ? Float32Array.from(data) : Int32Array.from(data), shape);
  });
  const results = await session.run(inputs, []);
  await session.close();
  return results.map((result) => ({ data: numbers(result), shape: result.dims }));
}
