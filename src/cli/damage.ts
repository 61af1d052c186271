/** A warning for whoever runs a model whose weights are no numbers. */
import { nonFiniteWords } from "../evals/finite-weights.js";
import type { RunnableModel } from "../evals/model.js";
import type { Terminal } from "./terminal.js";

/** Warns on the terminal where weights that were read are NaN or infinite. */
export function warnOfDamage(terminal: Terminal, model: Pick<RunnableModel, "dir" | "spec" | "nonFinite">): void {
  const words = nonFiniteWords(model);
  if (words !== null) terminal.note(`warning: ${model.dir}: ${words}`);
}
