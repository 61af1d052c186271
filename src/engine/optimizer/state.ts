/**
 * Which state a backend keeps of each parameter, by which rates it moves, and what a run cannot be asked for: the same
 * for every backend.
 */
import type { ParamInfo, TrainProgram } from "../../graph/programs/programs.js";
import type { AdamW, MicroBatch, ParamTuning, StateKind, StepSettings, TrainOptions } from "../runtime/runtime.js";

/** What decides which state a parameter has. */
export interface StateOptions extends Pick<TrainOptions, "tuning" | "average"> {
  /** Keys that have weights only. */
  readonly frozen?: ReadonlySet<string> | undefined;
}

const tuningOf = ({ tuning }: Pick<StateOptions, "tuning">, key: string): ParamTuning | undefined => tuning?.[key];

/** Whether a parameter is moved by Muon. */
export const usesMuon = (options: Pick<StateOptions, "tuning">, key: string): boolean =>
  tuningOf(options, key)?.method === "muon";

/** Whether a parameter has state of this kind. */
export function keepsState(options: StateOptions, key: string, kind: StateKind): boolean {
  if (kind === "weight") return true;
  if (options.frozen?.has(key) === true) return false;
  if (kind === "average") return options.average === true;
  return kind !== "moment2" || !usesMuon(options, key);
}

/** Parameters of the program without a gradient. */
export function frozenOf({ params, trained }: Pick<TrainProgram, "params" | "trained">): ReadonlySet<string> {
  const moving = new Set(trained.map(({ key }) => key));
  return new Set(params.map(({ key }) => key).filter((key) => !moving.has(key)));
}

/** Learning rate and weight decay of one parameter. */
export function ratesOf(
  options: StateOptions,
  { key, shape }: ParamInfo,
  settings: AdamW,
): { readonly rate: number; readonly decay: number } {
  const tuning = tuningOf(options, key);
  return {
    rate: settings.learningRate * (tuning?.rate ?? 1),
    decay: settings.decayOn === "all" || shape.length > 1 ? (tuning?.decay ?? settings.weightDecay) : 0,
  };
}

/** The error for a key that the program does not have. */
export const unknownParameter = (key: string): Error => new Error(`no parameter ${key}`);

/** The error for state that a parameter of this run does not have. */
export const missingState = (key: string, kind: string, frozen: boolean): Error =>
  new Error(`${key} has no ${kind}: ${frozen ? "it is frozen" : "this run keeps none"}`);

/** Throws an Error for data of another length than the parameter's. */
export function checkLength(key: string, expected: number, data: Float32Array): void {
  if (data.length !== expected) throw new Error(`${key} has ${expected} elements, got ${data.length}`);
}

/** Throws an Error for a step that asks for what this run was not opened with. */
export function checkStep(options: TrainOptions, batches: readonly MicroBatch[], settings: StepSettings): void {
  if (batches.length === 0) throw new Error("a step takes at least one micro-batch, got none");
  if (batches.length > 1 && !options.accumulate)
    throw new Error(`this run was opened without gradient accumulation, got ${batches.length} micro-batches`);
  if (settings.averageDecay !== undefined && options.average !== true) throw averagesMissing();
  if (settings.muon === undefined && Object.keys(options.tuning ?? {}).some((key) => usesMuon(options, key)))
    throw new Error("parameters of this run take Muon, but the step has no settings for it");
}

/** The error for averages in a run that was opened without them. */
export const averagesMissing = (): Error => new Error("this run keeps no averages");

/** Throws an Error for a tuning that a parameter cannot follow. */
export function checkTuning({ params }: Pick<TrainProgram, "params">, options: TrainOptions): void {
  for (const { key, shape } of params)
    if (usesMuon(options, key) && shape.length !== 2) throw new Error(`Muon takes matrices, ${key} is [${shape}]`);
}
