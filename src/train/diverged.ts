/** A training whose numbers are no longer finite, or whose steps are all skipped as spikes. */
import { UpcycleError } from "../base/errors.js";

/** Where a training diverged and what was kept; a study takes it as the result of that run. */
export class DivergedError extends UpcycleError {
  constructor(message: string, { where, hint }: { readonly where: string; readonly hint: string }) {
    super({ kind: "stopped", message, where, hint });
  }
}
