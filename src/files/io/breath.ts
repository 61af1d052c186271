/** Pauses between long computations, in which the process hears signals. */
import { interruptedError } from "../../base/errors.js";

/**
 * Lets events have their turn. Throws interruptedError if the signal has fired, saying that nothing was written: to be
 * called only before anything is.
 */
export async function breathe(signal: AbortSignal | undefined): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  if (signal?.aborted === true) throw interruptedError("stopped before anything was written");
}
