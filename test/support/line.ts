import { UpcycleError } from "../../src/base/errors.js";

/**
 * The line a user would see of what `run` throws; "no error" if it throws nothing. What is no error of ours is thrown
 * on.
 */
export function lineOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof UpcycleError) return error.line;
    throw error;
  }
  return "no error";
}
