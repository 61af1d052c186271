/** A training run on onnxruntime, in this thread. `worker.ts` hosts it, so that the event loop stays free. */
import type * as ort from "onnxruntime-node";
import { elements } from "../graph/ir.js";
import type { LossOutputs, ParamInfo, TrainProgram } from "../step/programs.js";
import { newtonSchulz } from "../step/muon.js";
import type { BackendOptions, LossMetrics, MicroBatch, StateKind, StepMetrics, StepSettings, TrainOptions, TrainRuntime } from "../step/runtime.js";
import { addRows, takeRowGradients } from "./row-gradients.js";
import { floats, intTensor, numbers, openSession, tensor, type Session } from "./session.js";
import { openRoutingFeeds } from "./routing-feeds.js";
import { TrainState, type Orthogonalize, type RegionKind } from "./state.js";

/** As torch.nn.utils.clip_grad_norm_ has it. */
const CLIP_EPS = 1e-6;

export async function openTrainRuntime(
  program: TrainProgram, options: TrainOptions,
): Promise<TrainRuntime> {
  const trained = new Set(program.trained.map(({ key }) => key));
  const frozen = new Set(program.params.map(({ key }) => key).filter((key) => !trained.has(key)));
  const state = new TrainState(program.params, { accumulate: options.accumulate, tuning: options.tuning, average: options.average, frozen });
  const muon = openOrthogonalizer(options);
  const { graph, gradients: rowGradients } = takeRowGradients(program.graph, program.gradients);
  const session = await openSession(graph, options);
  let evaluation: Promise<Session> | undefined;
  const bind = (kind: RegionKind, params: readonly ParamInfo[]): ort.Tensor[] =>
    params.map(({ key, shape }) => tensor(state.view(kind, key), shape));
  const weights = bind("weight", program.params);
  const gradients = bind("gradient", program.trained);
  const accumulated = options.accumulate ? bind("accumulated", program.trained) : gradients;
  const free = new Array<null>(program.gradients).fill(null);
  /** Where each output goes: those before the gradients anywhere, gradients into `target`, rows of embeddings into memory of their own. */
  const rowTensors = rowGradients.map(({ rows }) => emptyTensor(graph.values[graph.outputs[rows]!]!.shape));
  const outputsInto = (target: readonly ort.Tensor[]): (ort.Tensor | null)[] => {
    const places: (ort.Tensor | null)[] = [...free, ...target];
    rowGradients.forEach(({ rows }, i) => (places[rows] = rowTensors[i]!));
    return places;
  };
  const addEmbeddingRows = (target: readonly ort.Tensor[], batch: MicroBatch): void =>
    rowGradients.forEach(({ output, rest }, i) => {
      const table = floats(target[output - program.gradients]!);
      if (!rest) table.fill(0);
      addRows(table, batch.ids, floats(rowTensors[i]!));
    });
  let peakRss = 0;
  const averages = options.average === true ? program.params.map(({ key, shape }) => tensor(state.view(trained.has(key) ? "average" : "weight", key), shape)) : null;
  const feed = (batch: MicroBatch, params = weights, routing: readonly ort.Tensor[] = []): ort.Tensor[] => [intTensor(batch.ids), intTensor(batch.targets), ...routing, ...params];
  const routing = openRoutingFeeds(program, options);

  return {
    async step(batches: readonly MicroBatch[], settings: StepSettings): Promise<StepMetrics> {
      if (batches.length > 1 && !options.accumulate) throw new Error("this run was opened without gradient accumulation");
      const parts: LossMetrics[] = [];
      const feedsOf = await routing.begin(batches, settings.draw, (batch, feeds) => feed(batch, weights, feeds));
      for (const [i, batch] of batches.entries()) {
        const target = i === 0 ? accumulated : gradients;
        const results = await session.run(feed(batch, weights, feedsOf.next(i)), outputsInto(target));
        addEmbeddingRows(target, batch);
        parts.push(readLosses(results, program.outputs));
        feedsOf.done(results);
        if (i > 0) state.addGradients();
      }
      // onnxruntime's arena keeps what a step has used, so the memory right after a step is its peak.
      peakRss = Math.max(peakRss, process.memoryUsage.rss());
      const where = options.accumulate ? "accumulated" : "gradient";
      const mean = 1 / batches.length;
      const gradNorm = state.gradientNorm(where, mean);
      const losses = averageLosses(parts);
      const finite = Number.isFinite(gradNorm) && Number.isFinite(losses.loss);
      const { limits, clipNorm } = settings;
      const spike = !finite || limits === undefined ? null : losses.loss > limits.loss ? "loss" : gradNorm > limits.gradNorm ? "gradient" : null;
      const applied = finite && spike === null;
      if (applied) {
        const clip = clipNorm === null ? 1 : Math.min(1, clipNorm / (gradNorm + CLIP_EPS));
        await state.update(where, mean * clip, settings, muon.run);
      }
      return { ...losses, gradNorm, applied, spike };
    },
    async evaluate(batch: MicroBatch, kind: "weight" | "average" = "weight"): Promise<LossMetrics> {
      if (kind === "average" && averages === null) throw new Error("this run keeps no averages");
      evaluation ??= openSession(program.evaluation.graph, options);
      return readLosses(await (await evaluation).run(feed(batch, kind === "average" ? averages! : weights), []), program.evaluation.outputs);
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
      await routing.close();
      await muon.close();
      await (await evaluation?.catch(() => null))?.close();
    },
  };
}

const emptyTensor = (shape: readonly number[]): ort.Tensor => tensor(new Float32Array(elements(shape)), shape);

/** Newton-Schulz graphs, compiled once per shape. */
function openOrthogonalizer(options: BackendOptions): { readonly run: Orthogonalize; close(): Promise<void> } {
  const sessions = new Map<string, Promise<Session>>();
  return {
    async run(x, rows, columns) {
      const name = `${rows}x${columns}`;
      const session = sessions.get(name) ?? openSession(newtonSchulz(rows, columns), options);
      sessions.set(name, session);
      const [result] = await (await session).run([tensor(x, [rows, columns])], []);
      return floats(result!);
    },
    async close() {
      for (const session of sessions.values()) await (await session.catch(() => null))?.close();
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
    kept: outputs.kept.map((index) => numbers(results[index]!)),
    entropy: outputs.entropy.map((index) => scalar(index)!),
  };
}

function averageLosses(parts: readonly LossMetrics[]): LossMetrics {
  const mean = (pick: (part: LossMetrics) => number | null): number | null =>
    pick(parts[0]!) === null ? null : parts.reduce((sum, part) => sum + pick(part)! / parts.length, 0);
  const total = (pick: (part: LossMetrics) => readonly (readonly number[])[]): number[][] =>
    pick(parts[0]!).map((layer, l) => layer.map((_, e) => parts.reduce((sum, part) => sum + pick(part)[l]![e]!, 0)));
  return {
    loss: mean((part) => part.loss)!,
    balanceLoss: mean((part) => part.balanceLoss),
    zLoss: mean((part) => part.zLoss),
    entropy: parts[0]!.entropy.map((_, l) => mean((part) => part.entropy[l]!)!),
    counts: total((part) => part.counts),
    kept: total((part) => part.kept),
  };
}
