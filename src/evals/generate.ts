/** Text from a model, token by token. */
import { inputError } from "../base/errors.js";
import { randomStream } from "../base/random.js";
import { sampleToken, type SampleSettings } from "../text/sample.js";
import type { RunnableModel } from "./model.js";

export interface GenerateSettings extends SampleSettings {
  readonly maxNewTokens: number;
  readonly seed: number;
  /** Ids that end the text. */
  readonly stop: readonly number[];
  readonly signal?: AbortSignal | undefined;
}

/** Shortest compiled context; longer ones double, so a long text compiles only a few graphs. */
const FIRST_CONTEXT = 32;

/**
 * Yields new token ids. Each is computed from the whole text so far, padded on the right to the compiled length, which causal
 * attention and per-token routing make invisible. A text longer than the model's positions slides its window.
 */
export async function* generate(model: RunnableModel, prompt: Int32Array, settings: GenerateSettings): AsyncGenerator<number> {
  if (prompt.length === 0) throw inputError("the prompt has no tokens", { hint: "give some text to go on from" });
  const stream = randomStream(settings.seed, "generate");
  const longest = model.spec.maxPositions;
  const text = Array.from(prompt);
  for (let i = 0; i < settings.maxNewTokens; i++) {
    if (settings.signal?.aborted === true) return;
    const seen = text.slice(-longest);
    let sequence = FIRST_CONTEXT;
    while (sequence < seen.length) sequence *= 2;
    sequence = Math.min(sequence, longest);
    const ids = new Int32Array(sequence);
    ids.set(seen);
    const logits = await model.logits(ids, { batch: 1, sequence }, Int32Array.of(seen.length - 1));
    const next = sampleToken(logits, settings, stream.uniformAt(i));
    if (settings.stop.includes(next)) return;
    text.push(next);
    yield next;
  }
}
