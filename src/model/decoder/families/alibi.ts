/** Slopes of linear biases (Press et al. 2021, arXiv 2108.12409), as each family has them. */
import { bfloat16 } from "../../../base/bfloat16.js";
import type { Alibi } from "../types.js";

/** 2^(-8 i / n) for i = 1 to n. */
const geometric = (n: number, most = 8): number[] => Array.from({ length: n }, (_, i) => 2 ** ((-most * (i + 1)) / n));

/**
 * Falcon's: for a power of two as published; other numbers of heads get every other slope of twice that many
 * (modeling_falcon.py, build_alibi_tensor, which also rounds to bfloat16).
 */
export function falconAlibi(heads: number): Alibi {
  const whole = 2 ** Math.floor(Math.log2(heads));
  const between = geometric(2 * whole).filter((_, i) => i % 2 === 0);
  const slopes = [...geometric(whole), ...between].slice(0, heads).map(bfloat16);
  return { slopes, rounded: true, scaled: true };
}

/** MPT's: those of the next power of two, every second one first (modeling_mpt.py, build_mpt_alibi_tensor). */
export function mptAlibi(heads: number): Alibi {
  const all = geometric(2 ** Math.ceil(Math.log2(heads)));
  const everySecond = (first: number): number[] => all.filter((_, i) => i % 2 === first);
  const slopes = all.length === heads ? all : [...everySecond(1), ...everySecond(0)].slice(0, heads);
  return { slopes: slopes.map(Math.fround), rounded: false, scaled: false };
}
