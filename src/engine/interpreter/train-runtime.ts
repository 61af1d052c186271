/** A training run in float64. */
import { at } from "../../base/at.js";
import { elements, matrixSizes } from "../../graph/ir/ir.js";
import { zip } from "../../graph/ir/reference-values.js";
import { averageLosses, clipFactor, judge, readLosses } from "../runtime/metrics.js";
import { MUON_EPS, muonScale, newtonSchulz } from "../optimizer/muon.js";
import type { ParamInfo, TrainProgram } from "../../graph/programs/programs.js";
import { stepFeeds, type RunAhead } from "../routing/routing-feeds.js";
import type { MicroBatch, StateKind, StepSettings, TrainOptions, TrainRuntime } from "../runtime/runtime.js";
import {
  averagesMissing,
  checkLength,
  checkStep,
  checkTuning,
  frozenOf,
  keepsState,
  missingState,
  ratesOf,
  unknownParameter,
  usesMuon,
} from "../optimizer/state.js";
import { compile, compiler, Gate } from "./run.js";

/** What is kept of a parameter between steps, where it is. */
const kinds: readonly StateKind[] = ["weight", "moment1", "moment2", "average"];

/** y becomes a y + b x, element by element. */
function blend(y: Float64Array, a: number, x: Float64Array, b: number): void {
  y.set(zip(y, x, (before, value) => a * before + b * value));
}

/** Mean of arrays of one length, of which there is at least one. */
function meanOf(parts: readonly Float64Array[]): Float64Array {
  const sum = parts.reduce((total, part) => zip(total, part, (a, b) => a + b));
  return sum.map((x) => x / parts.length);
}

/** Norm of all numbers together. */
const normOf = (parts: readonly Float64Array[]): number =>
  Math.sqrt(parts.reduce((total, part) => part.reduce((sum, x) => sum + x * x, total), 0));

/**
 * Opens a training run by the reference evaluation; weights are to be written before the first step. Throws an Error
 * for Muon on anything but a matrix.
 */
export function openReferenceTraining(program: TrainProgram, options: TrainOptions): TrainRuntime {
  checkTuning(program, options);
  const frozen = frozenOf(program);
  const keeping = { ...options, frozen };
  const [run, evaluation] = [compile(program.graph), compile(program.evaluation.graph)];
  const graphs = compiler();
  const gate = new Gate();
  const state = new Map<string, ReadonlyMap<StateKind, Float64Array>>(
    program.params.map(({ key, shape }) => [
      key,
      new Map(
        kinds.filter((kind) => keepsState(keeping, key, kind)).map((kind) => [kind, new Float64Array(elements(shape))]),
      ),
    ]),
  );
  const view = (kind: StateKind, key: string): Float64Array => {
    const own = state.get(key);
    if (own === undefined) throw unknownParameter(key);
    const data = own.get(kind);
    if (data === undefined) throw missingState(key, kind, frozen.has(key));
    return data;
  };
  const feeds = ({ ids, targets }: MicroBatch, kind: "weight" | "average", routing: readonly Float32Array[] = []) => [
    ids,
    targets,
    ...routing,
    ...program.params.map(({ key }) => view(frozen.has(key) ? "weight" : kind, key)),
  ];

  /** What a matrix moves by at rate 1, as torch.optim.Muon has it. */
  const muonDirection = (param: ParamInfo, gradient: Float64Array, { muon }: StepSettings): Float64Array => {
    if (muon === undefined) throw new Error(`${param.key} takes Muon, but the step has no settings for it`);
    const { momentum, nesterov, scale } = muon;
    const [rows, columns] = matrixSizes(param);
    const m = view("moment1", param.key);
    blend(m, momentum, gradient, 1 - momentum);
    const u = nesterov ? zip(gradient, m, (g, average) => (1 - momentum) * g + momentum * average) : m;
    const norm = Math.max(normOf([u]), MUON_EPS);
    const iteration = graphs(`${rows}x${columns}`, newtonSchulz(rows, columns));
    const direction = at(iteration([u.map((x) => x / norm)]), 0);
    return direction.data.map((x) => x * muonScale(scale, rows, columns));
  };

  /** What a parameter moves by at rate 1 (Loshchilov & Hutter 2019, algorithm 2). */
  const adamwDirection = (
    { key }: ParamInfo,
    gradient: Float64Array,
    { beta1, beta2, eps, update }: StepSettings,
  ): Float64Array => {
    const [m, v] = [view("moment1", key), view("moment2", key)];
    blend(m, beta1, gradient, 1 - beta1);
    blend(
      v,
      beta2,
      gradient.map((g) => g * g),
      1 - beta2,
    );
    const [bias1, bias2] = [1 - beta1 ** update, 1 - beta2 ** update];
    return zip(m, v, (mean, square) => mean / bias1 / (Math.sqrt(square / bias2) + eps));
  };

  /** One parameter's update, from its clipped gradient. */
  const move = (param: ParamInfo, gradient: Float64Array, settings: StepSettings): void => {
    const { rate, decay } = ratesOf(options, param, settings);
    const directionOf = usesMuon(options, param.key) ? muonDirection : adamwDirection;
    const weight = view("weight", param.key);
    blend(weight, 1 - rate * decay, directionOf(param, gradient, settings), -rate);
    const { averageDecay } = settings;
    if (averageDecay !== undefined) blend(view("average", param.key), averageDecay, weight, 1 - averageDecay);
  };

  /** Counts of a micro-batch that are wanted before its step. */
  const ahead: RunAhead = (batch, routing) => {
    if (program.shares === null) throw new Error("the program shares no counts between micro-batches");
    const outputs = graphs("shares", program.shares.graph)(feeds(batch, "weight", routing));
    return Promise.resolve(outputs.map(({ data }) => Array.from(data)));
  };

  let peakRss = 0;
  return {
    step: (batches, settings) =>
      gate.pass(async () => {
        checkStep(options, batches, settings);
        const routing = await stepFeeds(program, batches, settings.draw, ahead);
        const results = batches.map((batch, micro) => {
          const outputs = run(feeds(batch, "weight", routing.next(micro)));
          routing.done((index) => Array.from(at(outputs, index).data));
          return outputs;
        });
        const losses = averageLosses(
          results.map((outputs) => readLosses(program.outputs, (index) => Array.from(at(outputs, index).data))),
        );
        const gradients = program.trained.map((_, i) =>
          meanOf(results.map((outputs) => at(outputs, program.gradients + i).data)),
        );
        peakRss = Math.max(peakRss, process.memoryUsage.rss());
        const gradNorm = normOf(gradients);
        const verdict = judge(losses, gradNorm, settings.limits);
        const clip = clipFactor(gradNorm, settings.clipNorm);
        if (verdict.applied)
          for (const [i, param] of program.trained.entries())
            move(
              param,
              at(gradients, i).map((g) => g * clip),
              settings,
            );
        return { ...losses, gradNorm, ...verdict };
      }),
    evaluate: (batch, kind = "weight") =>
      gate.pass(() => {
        if (kind === "average" && options.average !== true) throw averagesMissing();
        const outputs = evaluation(feeds(batch, kind));
        return readLosses(program.evaluation.outputs, (index) => Array.from(at(outputs, index).data));
      }),
    read: (kind, key) => gate.pass(() => Float32Array.from(view(kind, key))),
    write: (kind, key, data) =>
      gate.pass(() => {
        checkLength(key, view(kind, key).length, data);
        view(kind, key).set(data);
      }),
    peakMemory: () => gate.pass(() => peakRss),
    close: () => gate.close(),
  };
}
