/** Rotary angles per position: cos and sin tables [S, rotary/2]. */
import type { Rope } from "../spec/types.js";

/** Inverse frequencies [rotary/2], in radians per position. */
export function ropeFrequencies(rope: Rope): Float64Array {
  const base = Float64Array.from({ length: rope.rotary / 2 }, (_, i) => rope.theta ** ((-2 * i) / rope.rotary));
  const { scaling } = rope;
  switch (scaling.kind) {
    case "none":
      return base;
    case "linear":
      return base.map((frequency) => frequency / scaling.factor);
    case "llama3": {
      // As in transformers' modeling_rope_utils.py, _compute_llama3_parameters: long waves are divided by the factor,
      // short ones are kept, those between are blended.
      const longest = scaling.originalMaxPositions / scaling.lowFreqFactor;
      const shortest = scaling.originalMaxPositions / scaling.highFreqFactor;
      return base.map((frequency) => {
        const wavelength = (2 * Math.PI) / frequency;
        if (wavelength < shortest) return frequency;
        if (wavelength > longest) return frequency / scaling.factor;
        const blend =
          (scaling.originalMaxPositions / wavelength - scaling.lowFreqFactor) / (scaling.highFreqFactor - scaling.lowFreqFactor);
        return ((1 - blend) * frequency) / scaling.factor + blend * frequency;
      });
    }
  }
}

/** Tables for positions 0..sequence-1; float32 like transformers', computed in float64. */
export function ropeTables(rope: Rope, sequence: number): { cos: Float32Array; sin: Float32Array } {
  const frequencies = ropeFrequencies(rope);
  const half = rope.rotary / 2;
  const cos = new Float32Array(sequence * half);
  const sin = new Float32Array(sequence * half);
  for (let position = 0; position < sequence; position++) {
    for (let i = 0; i < half; i++) {
      cos[position * half + i] = Math.cos(position * frequencies[i]!);
      sin[position * half + i] = Math.sin(position * frequencies[i]!);
    }
  }
  return { cos, sin };
}
