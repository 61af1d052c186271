/** Measures on text what upcycling needs before it plans: router rows, and calibrated scaling factors. */
import { interruptedError } from "../../base/errors.js";
import { eventsOf } from "../../base/events.js";
import type { Backend } from "../../engine/runtime/runtime.js";
import type { ModelSource } from "../../files/checkpoint/model-source.js";
import { calibrate } from "../calibration/calibrate.js";
import { activationSplit } from "../calibration/activation-split.js";
import { centroidRouter } from "../calibration/centroid-router.js";
import type { EncodedText, TextChoice } from "../calibration/ffn-inputs.js";
import { expertUtility, type MeasuredUtility } from "../calibration/expert-utility.js";
import type { LayerWork } from "../calibration/layer-work.js";
import { promptRouter } from "../calibration/prompt-router.js";
import type { ExpertUtility } from "../planning/multiply.js";
import { promptsOf, type UpcycleRecipe } from "../planning/recipe.js";
import type { RouterRows, UnitOrders } from "../planning/router-rows.js";

/** What runs the parent, and on which text. */
export interface MeasureTools {
  readonly backend: Backend;
  /** Text files or folders; none: built-in text, or random ids for a model without tokenizer. */
  readonly text?: readonly string[] | undefined;
  /** Tokens of that text to measure on; 4096 when left out. */
  readonly tokens?: number | undefined;
  /** Text that is tokens already, in place of `text`. */
  readonly encoded?: EncodedText | undefined;
  /** Threads that read what routers are made from (their last bits depend on it), and threads that calibrate. */
  readonly threads: { readonly prompts: number; readonly calibration: number };
  readonly signal?: AbortSignal | undefined;
}

/** What is told while the parent is measured, before anything is planned. */
export type MeasureEvent =
  /** `done` of `total` layers have read the prompts. */
  | { readonly type: "prompts"; readonly done: number; readonly total: number }
  | { readonly type: "warning"; readonly words: string }
  /** `done` of `total` layers, or of sequences, have read the text that something is measured on. */
  | { readonly type: "reading"; readonly done: number; readonly total: number }
  /** `source` says in words what the tokens are. */
  | { readonly type: "calibrated"; readonly tokens: number; readonly source: string }
  /** For which share of the tokens a unit of the shared expert, and another, is active, in the mean over layers. */
  | {
      readonly type: "split";
      readonly tokens: number;
      readonly source: string;
      readonly sharedRate: number;
      readonly routedRate: number;
    }
  /** The shares of tokens in the smallest and the largest of all layers' clusters. */
  | {
      readonly type: "clustered";
      readonly tokens: number;
      readonly source: string;
      readonly smallest: number;
      readonly largest: number;
    };

/** The recipe with its router's rows, as far as they are measured. */
interface MeasuredRouter {
  readonly recipe: UpcycleRecipe;
  readonly rows: RouterRows;
  /** The order of hidden units where an FFN is split by activation. */
  readonly orders?: UnitOrders | undefined;
}

/**
 * The rows of a router that is made from prompts, of centroids, or in a split by activation. Throws like
 * `promptRouter`, `centroidRouter` and `activationSplit`.
 */
export async function* measuredRouter(
  source: ModelSource,
  recipe: UpcycleRecipe,
  tools: MeasureTools,
): AsyncGenerator<MeasureEvent, MeasuredRouter, undefined> {
  if (recipe.split !== null) return yield* measuredSplit(source, recipe, tools);
  if (promptsOf(recipe) !== null) return { recipe, rows: yield* promptedRouter(source, recipe, tools) };
  const made = yield* reading(tools, (settings, onLayer) => centroidRouter({ ...settings, source, recipe, onLayer }));
  const clusters = made.clusters.filter((layer) => layer !== null);
  const measured = { tokens: made.tokens, source: made.source };
  yield {
    type: "clustered",
    ...measured,
    smallest: Math.min(...clusters.map(({ smallest }) => smallest)),
    largest: Math.max(...clusters.map(({ largest }) => largest)),
  };
  return { recipe: { ...recipe, routerInit: { kind: "centroids", text: measured } }, rows: made.rows };
}

async function* measuredSplit(
  source: ModelSource,
  recipe: UpcycleRecipe,
  tools: MeasureTools,
): AsyncGenerator<MeasureEvent, MeasuredRouter, undefined> {
  const made = yield* reading(tools, (settings, onLayer) => activationSplit({ ...settings, source, recipe, onLayer }));
  const measured = { tokens: made.tokens, source: made.source };
  yield { type: "split", ...measured, sharedRate: made.sharedRate, routedRate: made.routedRate };
  return { recipe: { ...recipe, split: { text: measured } }, rows: made.rows, orders: made.orders };
}

/** What every measurement on text is given beside the model and its own settings. */
type ReadingSettings = TextChoice & Pick<LayerWork, "backend" | "threads" | "signal">;

/** Measures on text and tells how far it is; where it was stopped, the error says that nothing was written. */
async function* reading<Result>(
  { threads, signal, ...tools }: MeasureTools,
  measure: (settings: ReadingSettings, onPart: (done: number, total: number) => void) => Promise<Result>,
): AsyncGenerator<MeasureEvent, Result, undefined> {
  const read = eventsOf<MeasureEvent, Result>(
    (tell, stop) =>
      measure({ ...tools, threads: threads.prompts, signal: stop }, (done, total) =>
        tell({ type: "reading", done, total }),
      ),
    signal,
  );
  try {
    return yield* read;
  } catch (cause) {
    throw signal?.aborted === true ? interruptedError("stopped while reading text, nothing was written") : cause;
  }
}

/** The rows of a router made from prompts. Throws like `promptRouter`, interruptedError when the signal fires. */
async function* promptedRouter(
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

/** What each expert of a mixture is worth. Throws like `expertUtility`. */
export async function* measuredUtility(
  source: ModelSource,
  by: ExpertUtility["by"],
  tools: MeasureTools,
): AsyncGenerator<MeasureEvent, MeasuredUtility, undefined> {
  const measured = yield* reading(tools, (settings, onPart) => expertUtility({ ...settings, source, by, onPart }));
  yield { type: "calibrated", tokens: measured.tokens, source: measured.source };
  return measured;
}

/** The recipe with the factors that were measured on the parent. Throws like `calibrate`. */
export async function* calibratedRecipe(
  source: ModelSource,
  recipe: UpcycleRecipe,
  routerRows: RouterRows | undefined,
  { threads, ...tools }: MeasureTools,
): AsyncGenerator<MeasureEvent, UpcycleRecipe, undefined> {
  const measured = await calibrate({ ...tools, source, recipe, routerRows, threads: threads.calibration });
  yield { type: "calibrated", tokens: measured.tokens, source: measured.source };
  return measured.recipe;
}
