/** The loss that a training program must print for a model on given tokens, whatever the order of its samples. */
import { totalmem } from "node:os";
import { inputError } from "../base/errors.js";
import type { ModelSource } from "../files/checkpoint/model-source.js";
import { countParams } from "../model/cost/params.js";
import type { Backend } from "../engine/runtime/runtime.js";
import { tokenLoss } from "./compare.js";
import { openModel } from "./model.js";
import { openStreamedModel } from "./streamed-model.js";

/** What is computed, and with which means. */
export interface WindowLossOptions {
  readonly model: ModelSource;
  /** [windows * sequence + 1]: each window predicts the tokens one further. */
  readonly tokens: Int32Array;
  readonly sequence: number;
  /** Rows of zeros behind the vocabulary, whose logits are 0. */
  readonly addedRows: number;
  readonly backend: Backend;
  readonly threads: number;
  /** Bytes that may be used; weights that do not fit are streamed. Half of the machine's when left out. */
  readonly memory?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Mean loss in nats over all windows, in float32 with sums in float64. Throws inputError for tokens that are no whole
 * windows, or outside of the vocabulary.
 */
export async function windowLoss(options: WindowLossOptions): Promise<number> {
  const { model, tokens, sequence, addedRows, backend, threads, memory = totalmem() / 2, signal } = options;
  const windows = (tokens.length - 1) / sequence;
  if (!Number.isInteger(windows) || windows < 1)
    throw inputError(`${tokens.length} tokens are no whole windows of ${sequence} and one more`, { where: "tokens" });
  const streamed = await openStreamedModel(model, backend, { threads, signal });
  const fits = 4 * countParams(streamed.spec).total + 1e9 <= memory;
  if (fits) await streamed.close();
  const opened = fits ? await openModel(model, backend, threads) : streamed;
  try {
    const { vocab } = opened.spec;
    // All windows go through each streamed layer together, as far as their logits fit.
    const together = Math.max(1, Math.min(windows, Math.floor(memory / 8 / (4 * sequence * vocab))));
    let sum = 0;
    for (let from = 0; from < windows; from += together) {
      signal?.throwIfAborted();
      const batch = Math.min(together, windows - from);
      const begin = from * sequence;
      const logits = await opened.logits(tokens.slice(begin, begin + batch * sequence), { batch, sequence });
      for (let row = 0; row < batch * sequence; row++)
        sum += tokenLoss(logits.subarray(row * vocab, (row + 1) * vocab), tokens[begin + row + 1]!, addedRows);
    }
    return sum / (windows * sequence);
  } finally {
    await opened.close();
  }
}
