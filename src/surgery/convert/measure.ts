/** Measures on text what upcycling needs before it plans: router rows from prompts, and calibrated scaling factors. */
import { interruptedError } from "../../base/errors.js";
import { eventsOf } from "../../base/events.js";
import type { Backend } from "../../engine/runtime/runtime.js";
import type { ModelSource } from "../../files/checkpoint/model-source.js";
import { calibrate } from "../calibration/calibrate.js";
import { promptRouter } from "../calibration/prompt-router.js";
import type { UpcycleRecipe } from "../planning/recipe.js";
import type { RouterRows } from "../planning/router-rows.js";

/** What runs the parent, and on which text. */
export interface MeasureTools {
  readonly backend: Backend;
  /** Text files or folders; none: built-in text, or random ids for a model without tokenizer. */
  readonly text?: readonly string[] | undefined;
  /** Threads that read prompts (the router's last bits depend on it), and threads that calibrate. */
  readonly threads: { readonly prompts: number; readonly calibration: number };
  readonly signal?: AbortSignal | undefined;
}

/** What is told while the parent is measured, before anything is planned. */
export type MeasureEvent =
  /** `done` of `total` layers have read the prompts. */
  | { readonly type: "prompts"; readonly done: number; readonly total: number }
  | { readonly type: "warning"; readonly words: string }
  /** `source` says in words what the tokens are. */
  | { readonly type: "calibrated"; readonly tokens: number; readonly source: string };

/** Whether a recipe's router is made from prompts instead of drawn. */
export const hasPrompts = ({ routerInit }: UpcycleRecipe): boolean =>
  routerInit !== null && routerInit.kind !== "uniform_random";

/** The rows of a router that is made from prompts. Throws like `promptRouter`, interruptedError when the signal fires. */
export async function* promptedRouter(
  source: ModelSource,
  recipe: UpcycleRecipe,
  { backend, threads, signal }: MeasureTools,
): AsyncGenerator<MeasureEvent, RouterRows, undefined> {
  const read = eventsOf<MeasureEvent, Awaited<ReturnType<typeof promptRouter>>>((tell, stop) => {
    const onLayer = (done: number, total: number): void => tell({ type: "prompts", done, total });
    return promptRouter({ source, recipe, threads: threads.prompts, backend, signal: stop, onLayer });
  }, signal);
  try {
    const { rows, warnings } = yield* read;
    for (const words of warnings) yield { type: "warning", words };
    return rows;
  } catch (cause) {
    throw signal?.aborted === true ? interruptedError("stopped while reading prompts, nothing was written") : cause;
  }
}

/** The recipe with the factors that were measured on the parent. Throws like `calibrate`. */
export async function* calibratedRecipe(
  source: ModelSource,
  recipe: UpcycleRecipe,
  routerRows: RouterRows | undefined,
  { backend, text, threads, signal }: MeasureTools,
): AsyncGenerator<MeasureEvent, UpcycleRecipe, undefined> {
  const measured = await calibrate({
    source,
    recipe,
    routerRows,
    text,
    threads: threads.calibration,
    backend,
    signal,
  });
  yield { type: "calibrated", tokens: measured.tokens, source: measured.source };
  return measured.recipe;
}
