/**
 * Rotary angles per position: cos and sin tables [S, rotary/2].
 *
 * Angles are those of transformers, which rounds each step to float32 whatever the precision of the model, as the
 * programs did that models were trained with. At position p an exact angle differs from them by up to p * 6e-8, which
 * would be the largest part of the difference between two engines' log-probabilities.
 *
 * Letters: S positions.
 */
import { at } from "../../base/at.js";
import type { Rope } from "../../model/decoder/types.js";

const { fround } = Math;

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
  const wavelength = fround(fround(2 * Math.PI) / frequency);
  if (wavelength < fround(originalMaxPositions / highFreqFactor)) return frequency;
  if (wavelength > fround(originalMaxPositions / lowFreqFactor)) return fround(frequency / factor);
  const turns = fround(originalMaxPositions / wavelength);
  const blend = fround(fround(turns - lowFreqFactor) / fround(highFreqFactor - lowFreqFactor));
  return fround(fround(fround(fround(1 - blend) * frequency) / factor) + fround(blend * frequency));
}

/** Inverse frequencies [rotary/2], in radians per position, for sequences of this length. */
export function ropeFrequencies(rope: Rope, sequence: number): Float32Array {
  const periods = Float32Array.from({ length: rope.rotary / 2 }, (_, i) => rope.theta ** fround((2 * i) / rope.rotary));
  const base = periods.map((period) => 1 / period);
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
        const kept = fround(1 - Math.min(1, Math.max(0, fround(fround(i - low) / fround(high - low)))));
        const interpolated = fround(1 / fround(scaling.factor * at(periods, i)));
        return fround(interpolated * fround(1 - kept)) + fround(frequency * kept);
      });
    }
    case "longrope": {
      const factors = sequence > scaling.originalMaxPositions ? scaling.long : scaling.short;
      return periods.map((period, i) => 1 / fround(fround(at(factors, i)) * period));
    }
  }
}

/** Tables for positions 0..sequence-1. */
export function ropeTables(rope: Rope, sequence: number): { cos: Float32Array; sin: Float32Array } {
  const frequencies = ropeFrequencies(rope, sequence);
  const factor = "attentionFactor" in rope.scaling ? rope.scaling.attentionFactor : 1;
  const half = rope.rotary / 2;
  const cos = new Float32Array(sequence * half);
  const sin = new Float32Array(sequence * half);
  frequencies.forEach((frequency, i) => {
    for (let position = 0; position < sequence; position++) {
      const angle = fround(position * frequency);
      cos[position * half + i] = factor * Math.cos(angle);
      sin[position * half + i] = factor * Math.sin(angle);
    }
  });
  return { cos, sin };
}
