/** A training run on onnxruntime, in this thread. `worker.ts` hosts it, so that the event loop stays free. */
import type * as ort from "onnxruntime-node";
import type { LossOutputs, ParamInfo, TrainProgram } from "../step/programs.js";
import type { AdamW, LossMetrics, MicroBatch, StateKind, StepMetrics, TrainOptions, TrainRuntime } from "../step/runtime.js";
import { intTensor, numbers, openSession, tensor, type Session } from "./session.js";
import { TrainState } from "./state.js";

/** As torch.nn.utils.clip_grad_norm_ has it. */
const CLIP_EPS = 1e-6;

export async function openTrainRuntime(
  program: TrainProgram, options: TrainOptions,
): Promise<TrainRuntime> {
  const trained = new Set(program.trained.map(({ key }) => key));
  const frozen = new Set(program.params.map(({ key }) => key).filter((key) => !trained.has(key)));
  const state = new TrainState(program.params, { accumulate: options.accumulate, tuning: options.tuning, frozen });
  const session = await openSession(program.graph, options);
  let evaluation: Promise<Session> | undefined;
  const bind = (kind: "weight" | "gradient" | "accumulated", params: readonly ParamInfo[]): ort.Tensor[] =>
    params.map(({ key, shape }) => tensor(state.view(kind, key), shape));
  const weights = bind("weight", program.params);
  const gradients = bind("gradient", program.trained);
  const accumulated = options.accumulate ? bind("accumulated", program.trained) : gradients;
  const free = new Array<null>(program.gradients).fill(null);
  let peakRss = 0;
  const feed = (batch: MicroBatch): ort.Tensor[] => [intTensor(batch.ids), intTensor(batch.targets), ...weights];

  return {
    async step(batches: readonly MicroBatch[], optimizer: AdamW): Promise<StepMetrics> {
      if (batches.length > 1 && !options.accumulate) throw new Error("this run was opened without gradient accumulation");
      const parts: LossMetrics[] = [];
      for (const [i, batch] of batches.entries()) {
        const results = await session.run(feed(batch), [...free, ...(i === 0 ? accumulated : gradients)]);
        parts.push(readLosses(results, program.outputs));
        if (i > 0) state.addGradients();
      }
      // onnxruntime's arena keeps what a step has used, so the memory right after a step is its peak.
      peakRss = Math.max(peakRss, process.memoryUsage.rss());
      const where = options.accumulate ? "accumulated" : "gradient";
      const mean = 1 / batches.length;
      const gradNorm = state.gradientNorm(where, mean);
      const losses = averageLosses(parts);
      const applied = Number.isFinite(gradNorm) && Number.isFinite(losses.loss);
      if (applied) {
        const clip = optimizer.clipNorm === null ? 1 : Math.min(1, optimizer.clipNorm / (gradNorm + CLIP_EPS));
        state.update(where, mean * clip, optimizer);
      }
      return { ...losses, gradNorm, applied };
    },
    async evaluate(batch: MicroBatch): Promise<LossMetrics> {
      evaluation ??= openSession(program.evaluation.graph, options);
      return readLosses(await (await evaluation).run(feed(batch), []), program.evaluation.outputs);
    },
    read: (kind: StateKind, key: string) => Promise.resolve(state.view(kind, key).slice()),
    write(kind: StateKind, key: string, data: Float32Array) {
      const view = state.view(kind, key);
      if (view.length !== data.length) throw new Error(`${key} has ${view.length} elements, got ${data.length}`);
      view.set(data);
      return Promise.resolve();
    },
    peakMemory: () => Promise.resolve(peakRss),
    async close() {
      await session.close();
      await (await evaluation?.catch(() => null))?.close();
    },
  };
}

function readLosses(results: readonly ort.Tensor[], outputs: LossOutputs): LossMetrics {
  const scalar = (index: number | null): number | null => (index === null ? null : numbers(results[index]!)[0]!);
  return {
    loss: scalar(outputs.loss)!,
    balanceLoss: scalar(outputs.balance),
    zLoss: scalar(outputs.z),
    counts: outputs.counts.map((index) => numbers(results[index]!)),
  };
}

function averageLosses(parts: readonly LossMetrics[]): LossMetrics {
  const mean = (pick: (part: LossMetrics) => number | null): number | null =>
    pick(parts[0]!) === null ? null : parts.reduce((sum, part) => sum + pick(part)! / parts.length, 0);
  return {
    loss: mean((part) => part.loss)!,
    balanceLoss: mean((part) => part.balanceLoss),
    zLoss: mean((part) => part.zLoss),
    counts: parts[0]!.counts.map((layer, l) => layer.map((_, e) => parts.reduce((sum, part) => sum + part.counts[l]![e]!, 0))),
  };
}
