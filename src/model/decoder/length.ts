/**
 * What of a decoder only shows in long texts: windows, rope and factors on queries beyond the length that a model was
 * first trained on, learnt positions. Pure.
 */
import type { DecoderSpec, RopeScaling } from "./types.js";

/** Parts of a decoder that sequences of so many tokens do not reach, in words; empty where they reach all. */
export function partsBeyond({ layers, attn, learnedPositions, maxPositions }: DecoderSpec, sequence: number): string[] {
  const words = new Set<string>();
  const windows = new Map<number, number>();
  for (const { window, rope } of layers) {
    // A query sees itself and `window - 1` tokens before it.
    if (window !== null && sequence <= window) windows.set(window, (windows.get(window) ?? 0) + 1);
    const length = rope === null ? null : changesBeyond(rope.scaling);
    if (length !== null && sequence <= length.positions) words.add(length.words);
  }
  for (const [window, count] of windows)
    words.add(`windows of ${window} tokens (${count === 1 ? "1 layer" : `${count} layers`})`);
  const { lengthScale } = attn;
  if (lengthScale !== null && sequence <= lengthScale.originalMaxPositions)
    words.add(`the factor on queries beyond ${lengthScale.originalMaxPositions} positions`);
  if (learnedPositions && sequence < maxPositions)
    words.add(`learnt positions from ${sequence} to ${maxPositions - 1}`);
  return [...words].sort();
}

function changesBeyond(scaling: RopeScaling): { readonly positions: number; readonly words: string } | null {
  switch (scaling.kind) {
    // Linear scaling is the same at every position.
    case "none":
    case "linear":
      return null;
    case "longrope":
      return {
        positions: scaling.originalMaxPositions,
        words: `LongRoPE's factors beyond ${scaling.originalMaxPositions} positions`,
      };
    case "yarn":
    case "llama3":
      return {
        positions: scaling.originalMaxPositions,
        words: `rope beyond the ${scaling.originalMaxPositions} positions that ${scaling.kind} scaling extends`,
      };
  }
}
