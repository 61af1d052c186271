/** A training run in float64. */
import { at } from "../../base/at.js";
import { elements } from "../../graph/ir/ir.js";
import { averageLosses, clipFactor, judge, readLosses } from "../runtime/metrics.js";
import { MUON_EPS, muonScale, newtonSchulz } from "../optimizer/muon.js";
import type { ParamInfo, TrainProgram } from "../../graph/programs/programs.js";
import { stepFeeds } from "../routing/routing-feeds.js";
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

const kinds: readonly StateKind[] = ["weight", "moment1", "moment2", "average"];

/** Norm of all numbers together. */
const normOf = (parts: readonly Float64Array[]): number =>
  Math.sqrt(parts.reduce((total, part) => part.reduce((sum, x) => sum + x * x, total), 0));

export function openTrainRuntime(program: TrainProgram, options: TrainOptions): TrainRuntime {
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
  const muonDirection = ({ key, shape }: ParamInfo, gradient: Float64Array, { muon }: StepSettings): Float64Array => {
    const { momentum, nesterov, scale } = muon!;
    const [rows, columns] = shape as [number, number];
    const m = view("moment1", key);
    gradient.forEach((g, i) => (m[i] = momentum * m[i]! + (1 - momentum) * g));
    const u = nesterov ? gradient.map((g, i) => (1 - momentum) * g + momentum * m[i]!) : m;
    const norm = Math.max(normOf([u]), MUON_EPS);
    const [direction] = graphs(`${rows}x${columns}`, newtonSchulz(rows, columns))([u.map((x) => x / norm)]);
    return direction!.data.map((x) => x * muonScale(scale, rows, columns));
  };

  /** What a parameter moves by at rate 1 (Loshchilov & Hutter 2019, algorithm 2). */
  const adamwDirection = (
    { key }: ParamInfo,
    gradient: Float64Array,
    { beta1, beta2, eps, update }: StepSettings,
  ): Float64Array => {
    const [m, v] = [view("moment1", key), view("moment2", key)];
    return gradient.map((g, i) => {
      m[i] = beta1 * m[i]! + (1 - beta1) * g;
      v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
      return m[i] / (1 - beta1 ** update) / (Math.sqrt(v[i] / (1 - beta2 ** update)) + eps);
    });
  };

  let peakRss = 0;
  return {
    step: (batches, settings) =>
      gate.pass(async () => {
        checkStep(options, batches, settings);
        const shares = (batch: MicroBatch, routing: readonly Float32Array[]) =>
          graphs("shares", program.shares!.graph)(feeds(batch, "weight", routing));
        const routing = await stepFeeds(program, batches, settings.draw, (batch, own) =>
          Promise.resolve(shares(batch, own).map(({ data }) => Array.from(data))),
        );
        const results = batches.map((batch, micro) => {
          const outputs = run(feeds(batch, "weight", routing.next(micro)));
          routing.done((index) => Array.from(at(outputs, index).data));
          return outputs;
        });
        const losses = averageLosses(
          results.map((outputs) => readLosses(program.outputs, (index) => Array.from(at(outputs, index).data))),
        );
        const gradients = program.trained.map((_, i) => {
          const [first, ...others] = results.map((outputs) => at(outputs, program.gradients + i).data);
          // There is a result for each micro-batch, and a step has at least one.
          return first!.map((g, place) => others.reduce((sum, other) => sum + other[place]!, g) / batches.length);
        });
        peakRss = Math.max(peakRss, process.memoryUsage.rss());
        const gradNorm = normOf(gradients);
        const verdict = judge(losses, gradNorm, settings.limits);
        const clip = clipFactor(gradNorm, settings.clipNorm);
        if (verdict.applied) {
          program.trained.forEach((param, i) => {
            const { rate, decay } = ratesOf(options, param, settings);
            const direction = (usesMuon(options, param.key) ? muonDirection : adamwDirection)(
              param,
              at(gradients, i).map((g) => g * clip),
              settings,
            );
            const weight = view("weight", param.key);
            direction.forEach((d, j) => (weight[j] = weight[j]! * (1 - rate * decay) - rate * d));
            const { averageDecay: keep } = settings;
            if (keep === undefined) return;
            const average = view("average", param.key);
            weight.forEach((w, j) => (average[j] = keep * average[j]! + (1 - keep) * w));
          });
        }
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
