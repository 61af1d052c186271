/** Runs graphs by the reference evaluation; what runtimes of this backend have in common. */
import { at } from "../../base/at.js";
import { elements, typeOf, type Graph } from "../../graph/ir/ir.js";
import { verify } from "../../graph/ir/passes.js";
import { evaluate } from "../../graph/ir/reference.js";
import type { Tensor } from "../../graph/ir/reference-values.js";

type Feed = Float64Array | Float32Array | Int32Array;

/** Runs a graph on feeds in the order of its inputs. */
export type Run = (feeds: readonly Feed[]) => Tensor[];

/** Proves a graph once; each run gives its outputs in float64. A feed that does not fit its input throws. */
export function compile(graph: Graph): Run {
  verify(graph);
  return (feeds) => {
    if (feeds.length !== graph.inputs.length)
      throw new Error(`the graph takes ${graph.inputs.length} inputs, got ${feeds.length}`);
    return evaluate(
      graph,
      feeds.map((feed, i) => {
        const { shape, name = i } = typeOf(graph, at(graph.inputs, i));
        if (feed.length !== elements(shape))
          throw new Error(`input ${name} is [${shape}], got ${feed.length} elements`);
        return feed instanceof Float64Array ? feed : Float64Array.from(feed);
      }),
    );
  };
}

/** Graphs compiled once per name. */
export function compiler(): (name: string, graph: Graph) => Run {
  const runs = new Map<string, Run>();
  return (name, graph) => {
    const run = runs.get(name) ?? compile(graph);
    runs.set(name, run);
    return run;
  };
}

/** Becomes an error for each call after `close`. */
export class Gate {
  private closed = false;

  /** What `work` gives or throws, as a promise. */
  async pass<T>(work: () => T | Promise<T>): Promise<T> {
    if (this.closed) throw new Error("the runtime is closed");
    return work();
  }

  /** Refuses every further call. */
  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}
