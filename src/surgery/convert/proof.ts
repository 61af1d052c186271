/** Measures at the end of a conversion what of the parent's function was kept, and writes it beside the model. */
import { cardFile } from "../../files/formats/model-files.js";
import { join } from "node:path";
import { interruptedError, UpcycleError } from "../../base/errors.js";
import { eventsOf } from "../../base/events.js";
import type { Backend } from "../../engine/runtime/runtime.js";
import { measurePreservation, type PreservationEvent } from "../../evals/preservation.js";
import { sampleTokens } from "../../evals/sample-tokens.js";
import { openCheckpoint, type ModelSource } from "../../files/checkpoint/open.js";
import { writeFileAtomic, writeJson } from "../../files/io/atomic.js";
import type { PreservationReport } from "../../model/results/preservation.js";
import { reportFile } from "./card.js";

/** What a finished model was found to keep of its parent's function. */
export interface Proof {
  /** Null: it could not be measured. */
  readonly preservation: PreservationReport | null;
  /** How long measuring took. */
  readonly reportSeconds: number;
}

/** What is told while a finished model is measured. */
export type ProofEvent =
  | { readonly type: "proof"; readonly event: PreservationEvent }
  /** The model is complete, but could not be measured. */
  | { readonly type: "unproven"; readonly why: string };

/** What runs both models, and on which text. */
interface ProofTools {
  readonly backend: Backend;
  /** Text files or folders; none: built-in text, or random ids for a model without tokenizer. */
  readonly text: readonly string[] | undefined;
  readonly threads: number;
  readonly signal: AbortSignal | undefined;
}

/** How many tokens are measured on: a few hundred show whether the function was kept; `verify` takes more. */
const reportTokens = 256;

/** Throws inputError for text that cannot be read: it is called before anything is converted. */
export async function requireText(source: ModelSource, files: readonly string[]): Promise<void> {
  const checkpoint = await openCheckpoint(source);
  await checkpoint.close();
  const { dir, spec } = checkpoint;
  await sampleTokens({ dir, spec, files, limit: 2 });
}

/**
 * Writes `preservation.json` and the measured values into the card. The model is complete by then: what goes wrong here
 * is an event, and the conversion stands. Throws interruptedError when the signal fires.
 */
export async function* prove(
  { dir, card }: { readonly dir: string; readonly card: (preservation: PreservationReport) => string },
  source: ModelSource,
  tools: ProofTools,
): AsyncGenerator<ProofEvent, Proof, undefined> {
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  try {
    const preservation = yield* measured(source, dir, tools);
    await writeJson(join(dir, reportFile), preservation);
    await writeFileAtomic(join(dir, cardFile), card(preservation));
    return { preservation, reportSeconds: seconds() };
  } catch (cause) {
    if (tools.signal?.aborted === true) {
      throw interruptedError("the model is complete, measuring it was stopped", {
        where: dir,
        hint: "the same command measures it, or upcycle verify",
      });
    }
    yield { type: "unproven", why: wordsOf(cause) };
    return { preservation: null, reportSeconds: seconds() };
  }
}

function measured(
  parent: ModelSource,
  child: string,
  { backend, text, threads, signal }: ProofTools,
): AsyncGenerator<ProofEvent, PreservationReport, undefined> {
  return eventsOf<ProofEvent, PreservationReport>((tell, stop) => {
    const onEvent = (event: PreservationEvent): void => tell({ type: "proof", event });
    return measurePreservation({
      parent,
      child,
      text,
      threads,
      signal: stop,
      tokens: reportTokens,
      memory: 0,
      backend,
      onEvent,
    });
  }, signal);
}

function wordsOf(cause: unknown): string {
  if (cause instanceof UpcycleError) return cause.line;
  return cause instanceof Error ? cause.message.replace(/\s*\n\s*/g, " ") : String(cause);
}
