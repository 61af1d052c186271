/** A training run on onnxruntime, in this thread. `worker.ts` hosts it, so that the event loop stays free. */
import type * as ort from "onnxruntime-node";
import { at } from "../../base/at.js";
import { elements, typeOf } from "../../graph/ir/ir.js";
import { averageLosses, clipFactor, judge, readLosses } from "../runtime/metrics.js";
import type { ParamInfo, TrainProgram } from "../../graph/programs/programs.js";
import { newtonSchulz } from "../optimizer/muon.js";
import { stepFeeds, type RunAhead } from "../routing/routing-feeds.js";
import { averagesMissing, checkLength, checkStep, checkTuning, frozenOf } from "../optimizer/state.js";
import type {
  BackendOptions,
  LossMetrics,
  MicroBatch,
  StateKind,
  StepMetrics,
  StepSettings,
  TrainOptions,
  TrainRuntime,
} from "../runtime/runtime.js";
import { addRows, takeRowGradients } from "./row-gradients.js";
import { floats, intTensor, numbers, openSession, tensor, type Session } from "./session.js";
import { TrainState, type Orthogonalize, type ArrayKind } from "./state.js";

/** Opens a training run; weights are to be written before the first step. Throws for Muon on anything but a matrix. */
export async function openTrainRuntime(program: TrainProgram, options: TrainOptions): Promise<TrainRuntime> {
  checkTuning(program, options);
  const frozen = frozenOf(program);
  const state = new TrainState(program.params, {
    accumulate: options.accumulate,
    tuning: options.tuning,
    average: options.average,
    frozen,
  });
  const muon = openOrthogonalizer(options);
  const { graph, gradients: rowGradients } = takeRowGradients(program.graph, program.gradients);
  const session = await openSession(graph, options);
  let evaluation: Promise<Session> | undefined;
  const bind = (kind: ArrayKind, params: readonly ParamInfo[]): ort.Tensor[] =>
    params.map(({ key, shape }) => tensor(state.view(kind, key), shape));
  const weights = bind("weight", program.params);
  const gradients = bind("gradient", program.trained);
  const accumulated = options.accumulate ? bind("accumulated", program.trained) : gradients;
  const free = new Array<null>(program.gradients).fill(null);
  const rowTensors = rowGradients.map(({ rows }) => emptyTensor(typeOf(graph, at(graph.outputs, rows)).shape));
  /**
   * Where each output goes: those before the gradients anywhere, gradients into `target`, rows of embeddings into
   * memory of their own.
   */
  const outputsInto = (target: readonly ort.Tensor[]): (ort.Tensor | null)[] => {
    const places: (ort.Tensor | null)[] = [...free, ...target];
    rowGradients.forEach(({ rows }, i) => (places[rows] = at(rowTensors, i)));
    return places;
  };
  const addEmbeddingRows = (target: readonly ort.Tensor[], batch: MicroBatch): void =>
    rowGradients.forEach(({ output, rest }, i) => {
      const table = floats(at(target, output - program.gradients));
      if (!rest) table.fill(0);
      addRows(table, batch.ids, floats(at(rowTensors, i)));
    });
  let peakRss = 0;
  const averages =
    options.average === true
      ? program.params.map(({ key, shape }) => tensor(state.view(frozen.has(key) ? "weight" : "average", key), shape))
      : null;
  const feed = (batch: MicroBatch, params = weights, routing: readonly Float32Array[] = []): ort.Tensor[] => [
    intTensor(batch.ids),
    intTensor(batch.targets),
    ...routing.map((data, i) => tensor(data, at(program.feeds, i).shape)),
    ...params,
  ];
  let shares: Promise<Session> | undefined;
  const ahead: RunAhead = async (batch, routing) => {
    if (program.shares === null) throw new Error("the program shares no counts between micro-batches");
    shares ??= openSession(program.shares.graph, options);
    return (await (await shares).run(feed(batch, weights, routing), [])).map(numbers);
  };

  return {
    async step(batches: readonly MicroBatch[], settings: StepSettings): Promise<StepMetrics> {
      checkStep(options, batches, settings);
      const parts: LossMetrics[] = [];
      const routing = await stepFeeds(program, batches, settings.draw, ahead);
      for (const [i, batch] of batches.entries()) {
        const target = i === 0 ? accumulated : gradients;
        const results = await session.run(feed(batch, weights, routing.next(i)), outputsInto(target));
        const read = (index: number): number[] => numbers(at(results, index));
        addEmbeddingRows(target, batch);
        parts.push(readLosses(program.outputs, read));
        routing.done(read);
        if (i > 0) state.addGradients();
      }
      // onnxruntime's arena keeps what a step has used, so the memory right after a step is its peak.
      peakRss = Math.max(peakRss, process.memoryUsage.rss());
      const where = options.accumulate ? "accumulated" : "gradient";
      const mean = 1 / batches.length;
      const gradNorm = state.gradientNorm(where, mean);
      const losses = averageLosses(parts);
      const verdict = judge(losses, gradNorm, settings.limits);
      if (verdict.applied)
        await state.update(where, mean * clipFactor(gradNorm, settings.clipNorm), settings, muon.run);
      return { ...losses, gradNorm, ...verdict };
    },
    async evaluate(batch: MicroBatch, kind: "weight" | "average" = "weight"): Promise<LossMetrics> {
      const params = kind === "average" ? averages : weights;
      if (params === null) throw averagesMissing();
      evaluation ??= openSession(program.evaluation.graph, options);
      const results = await (await evaluation).run(feed(batch, params), []);
      return readLosses(program.evaluation.outputs, (index) => numbers(at(results, index)));
    },
    read: (kind: StateKind, key: string) => Promise.resolve(state.view(kind, key).slice()),
    write(kind: StateKind, key: string, data: Float32Array) {
      const view = state.view(kind, key);
      checkLength(key, view.length, data);
      view.set(data);
      return Promise.resolve();
    },
    peakMemory: () => Promise.resolve(peakRss),
    async close() {
      await session.close();
      await (await shares?.catch(() => null))?.close();
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
      if (result === undefined) throw new Error(`the iteration of a matrix ${name} gave nothing`);
      return floats(result);
    },
    async close() {
      for (const session of sessions.values()) await (await session.catch(() => null))?.close();
    },
  };
}
