/** The end of a conversion: what of the parent's function was kept, measured, written beside the model and shown. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { interruptedError, UpcycleError } from "../base/errors.js";
import { duration } from "../base/format.js";
import { foldersOf } from "../files/checkpoint/model-source.js";
import { openCheckpoint, type ModelSource } from "../files/checkpoint/open.js";
import { cardFile, reportFile } from "../surgery/convert/card.js";
import { requireOut } from "../surgery/convert/place.js";
import { measurePreservation } from "../evals/preservation.js";
import { sampleTokens } from "../evals/sample-tokens.js";
import { isHubReference } from "../files/hub/reference.js";
import { writeFileAtomic, writeJson } from "../files/io/atomic.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { onnxruntimeBackend } from "../engine/onnxruntime/backend.js";
import type { PreservationReport } from "../model/results/preservation.js";
import { shownPath } from "./context.js";
import { preservationLines, preservationView } from "./preservation.js";
import type { Terminal } from "./terminal.js";

export interface Proof {
  /** Null: it could not be measured. */
  readonly preservation: PreservationReport | null;
  readonly reportSeconds: number;
}

interface ProofOptions {
  readonly text: readonly string[] | undefined;
  readonly threads: number;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
}

/** A few hundred tokens say whether the function was kept; `verify` measures on more. */
const reportTokens = 256;

interface Asked {
  readonly out?: string | undefined;
  readonly overwrite?: boolean | undefined;
  readonly dryRun?: boolean | undefined;
  readonly text?: readonly string[] | undefined;
  /** A result of the same conversion that was not measured will do. */
  readonly acceptFinished?: boolean | undefined;
}

/**
 * What can be refused before any of the models, by the names that were given, is fetched or read. Throws inputError.
 */
export async function requireBeforehand(
  models: readonly ModelSource[],
  { out, overwrite, dryRun, text = [], acceptFinished }: Asked,
): Promise<void> {
  const folders = models.flatMap(foldersOf).filter((name) => !isHubReference(name));
  if (out !== undefined && dryRun !== true) await requireOut({ out, overwrite, folders, acceptFinished });
  for (const file of text) await withFsErrors(file, "open file", () => stat(file));
}

/** Throws inputError for text that cannot be read, before anything is converted. */
export async function requireText(source: ModelSource, files: readonly string[]): Promise<void> {
  const { spec, dir, close } = await openCheckpoint(source);
  await close();
  await sampleTokens({ dir, spec, files, limit: 2 });
}

/**
 * Writes `preservation.json` and the measured values into the card. The model is complete by then: what goes wrong here
 * is a warning, and the conversion stands.
 */
export async function prove(
  { dir, card }: { readonly dir: string; readonly card: (preservation: PreservationReport) => string },
  source: ModelSource,
  { text, threads, terminal, signal }: ProofOptions,
): Promise<Proof> {
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  try {
    const preservation = await measurePreservation({
      parent: source,
      child: dir,
      text,
      threads,
      signal,
      tokens: reportTokens,
      memory: 0,
      backend: onnxruntimeBackend,
      onEvent: preservationView(terminal),
    });
    await writeJson(join(dir, reportFile), preservation);
    await writeFileAtomic(join(dir, cardFile), card(preservation));
    return { preservation, reportSeconds: seconds() };
  } catch (cause) {
    if (signal.aborted) {
      throw interruptedError("the model is complete, measuring it was stopped", {
        where: shownPath(dir),
        hint: "the same command measures it, or upcycle verify",
      });
    }
    const why =
      cause instanceof UpcycleError
        ? cause.line
        : cause instanceof Error
          ? cause.message.replace(/\s*\n\s*/g, " ")
          : String(cause);
    terminal.note(`warning: the model is complete, but it could not be measured: ${why}`);
    return { preservation: null, reportSeconds: seconds() };
  }
}

export function proofLines({ preservation, reportSeconds }: Proof, columns: number): string[] {
  return preservation === null
    ? []
    : ["", ...preservationLines(preservation, columns), `measured in ${duration(reportSeconds)}`, ""];
}
