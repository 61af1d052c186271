/**
 * Rotary angles per position: cos and sin tables [S, rotary/2].
 *
 * Letters: S positions.
 */
import { at } from "../../base/at.js";
import type { Rope } from "../../model/decoder/types.js";

/**
 * The dimensions between which YaRN goes from kept to interpolated (modeling_rope_utils.py, _compute_yarn_parameters).
 */
function yarnRamp(
  { theta, rotary }: Rope,
  { betaFast, betaSlow, originalMaxPositions, truncate }: Extract<Rope["scaling"], { kind: "yarn" }>,
): { low: number; high: number } {
  const dimension = (rotations: number): number =>
    (rotary * Math.log(originalMaxPositions / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const [from, to] = [dimension(betaFast), dimension(betaSlow)];
  const low = Math.max(truncate ? Math.floor(from) : from, 0);
  const high = Math.min(truncate ? Math.ceil(to) : to, rotary - 1);
  // Equal ends would divide by zero; transformers widens them alike.
  return { low, high: low === high ? high + 0.001 : high };
}

/**
 * One frequency as in transformers' modeling_rope_utils.py, _compute_llama3_parameters: long waves are divided by the
 * factor, short ones are kept, those between are blended.
 */
function llama3Frequency(
  frequency: number,
  { factor, lowFreqFactor, highFreqFactor, originalMaxPositions }: Extract<Rope["scaling"], { kind: "llama3" }>,
): number {
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength < originalMaxPositions / highFreqFactor) return frequency;
  if (wavelength > originalMaxPositions / lowFreqFactor) return frequency / factor;
  const blend = (originalMaxPositions / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return ((1 - blend) * frequency) / factor + blend * frequency;
}

/** Inverse frequencies [rotary/2], in radians per position, for sequences of this length. */
export function ropeFrequencies(rope: Rope, sequence: number): Float64Array {
  const base = Float64Array.from({ length: rope.rotary / 2 }, (_, i) => rope.theta ** ((-2 * i) / rope.rotary));
  const { scaling } = rope;
  switch (scaling.kind) {
    case "none":
      return base;
    case "linear":
      return base.map((frequency) => frequency / scaling.factor);
    case "llama3":
      return base.map((frequency) => llama3Frequency(frequency, scaling));
    case "yarn": {
      const { low, high } = yarnRamp(rope, scaling);
      return base.map((frequency, i) => {
        const interpolated = Math.min(1, Math.max(0, (i - low) / (high - low)));
        return (frequency / scaling.factor) * interpolated + frequency * (1 - interpolated);
      });
    }
    case "longrope": {
      const factors = sequence > scaling.originalMaxPositions ? scaling.long : scaling.short;
      return base.map((frequency, i) => frequency / at(factors, i));
    }
  }
}

/** Tables for positions 0..sequence-1; float32 like transformers', computed in float64. */
export function ropeTables(rope: Rope, sequence: number): { cos: Float32Array; sin: Float32Array } {
  const frequencies = ropeFrequencies(rope, sequence);
  const factor = "attentionFactor" in rope.scaling ? rope.scaling.attentionFactor : 1;
  const half = rope.rotary / 2;
  const cos = new Float32Array(sequence * half);
  const sin = new Float32Array(sequence * half);
  frequencies.forEach((frequency, i) => {
    for (let position = 0; position < sequence; position++) {
      cos[position * half + i] = factor * Math.cos(position * frequency);
      sin[position * half + i] = factor * Math.sin(position * frequency);
    }
  });
  return { cos, sin };
}
