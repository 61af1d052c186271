/** What a training graph's routers are fed with: drawn numbers, and counts of a step's other micro-batches. */
import type * as ort from "onnxruntime-node";
import { elsewhereOf, routingFeeds } from "../step/routing.js";
import type { TrainProgram } from "../step/programs.js";
import type { BackendOptions, Draw, MicroBatch } from "../step/runtime.js";
import { numbers, openSession, tensor, type Session } from "./session.js";

export interface StepFeeds {
  /** Of micro-batch `micro`, in the order of the program's feeds. */
  next(micro: number): ort.Tensor[];
  /** The results of the micro-batch that was last asked for. */
  done(results: readonly ort.Tensor[]): void;
}

export interface RoutingFeeds {
  /** Of one step; `inputs` are all inputs of the graph, given a micro-batch and its feeds. Where shares must be known ahead, runs every micro-batch forward up to the last router. */
  begin(batches: readonly MicroBatch[], draw: Draw | undefined, inputs: (batch: MicroBatch, feeds: readonly ort.Tensor[]) => ort.Tensor[]): Promise<StepFeeds>;
  close(): Promise<void>;
}

export function openRoutingFeeds({ feeds, shares }: TrainProgram, options: BackendOptions): RoutingFeeds {
  let ahead: Promise<Session> | undefined;
  const empty = feeds.flatMap(({ kind, shape }) => (kind === "elsewhere" ? [new Array<number>(shape[0]!).fill(0)] : []));
  const tensors = (values: readonly Float32Array[]): ort.Tensor[] => values.map((data, i) => tensor(data, feeds[i]!.shape));
  return {
    async begin(batches, draw, inputs) {
      const tokens = batches[0]!.ids.length;
      const before: number[][][] = [];
      let all: number[][][] | null = null;
      if (shares?.ahead === true) {
        ahead ??= openSession(shares.graph, options);
        all = [];
        for (const [micro, batch] of batches.entries()) {
          const made = tensors(routingFeeds(feeds, draw, micro, { counts: empty, tokens }));
          all.push((await (await ahead).run(inputs(batch, made), [])).map(numbers));
        }
      }
      return {
        next: (micro) => tensors(routingFeeds(feeds, draw, micro, shares === null ? null : elsewhereOf(micro, tokens, { before, all, empty }))),
        done(results) {
          if (shares !== null) before.push(shares.counts.map((index) => numbers(results[index]!)));
        },
      };
    },
    async close() {
      await (await ahead?.catch(() => undefined))?.close();
    },
  };
}
