/** Activations and their slopes in float64, for the reference evaluation. */
import { XIELU_EPS, type PlainActivation } from "./ir.js";
import { sigmoid } from "./reference-values.js";

const ROOT_2_OVER_PI = Math.sqrt(2 / Math.PI);
const CUBIC = 0.044715;

/**
 * Error function to about 1e-15: Taylor series up to 3, beyond it the continued fraction of erfc by Lentz's method
 * (Abramowitz & Stegun 7.1.6 and 7.1.14).
 */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a < 3) {
    let term = a;
    let sum = a;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (2 * a * a) / (2 * n + 1);
      sum += term;
    }
    return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * Math.exp(-a * a) * sum;
  }
  let fraction = a;
  for (let n = 60; n >= 1; n--) fraction = a + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-a * a) / (fraction * Math.sqrt(Math.PI)));
}

const normal = (x: number): number => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
const cumulative = (x: number): number => 0.5 * (1 + erf(x / Math.SQRT2));
const tanhPart = (x: number): number => Math.tanh(ROOT_2_OVER_PI * (x + CUBIC * x ** 3));

interface Activation {
  readonly value: (x: number) => number;
  readonly slope: (x: number) => number;
}

/** Value and derivative of each activation at a point. */
export const activations: Readonly<Record<PlainActivation, Activation>> = {
  silu: { value: (x) => x * sigmoid(x), slope: (x) => sigmoid(x) * (1 + x * (1 - sigmoid(x))) },
  gelu: { value: (x) => x * cumulative(x), slope: (x) => cumulative(x) + x * normal(x) },
  geluTanh: {
    value: (x) => 0.5 * x * (1 + tanhPart(x)),
    slope: (x) => {
      const t = tanhPart(x);
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * ROOT_2_OVER_PI * (1 + 3 * CUBIC * x * x);
    },
  },
  relu: { value: (x) => Math.max(0, x), slope: (x) => (x > 0 ? 1 : 0) },
  relu2: { value: (x) => Math.max(0, x) ** 2, slope: (x) => 2 * Math.max(0, x) },
  xieluTail: {
    value: (x) => (x > 0 ? 0 : Math.expm1(Math.min(x, XIELU_EPS)) - x),
    slope: (x) => (x > 0 ? 0 : x < XIELU_EPS ? Math.expm1(x) : -1),
  },
  softplus: {
    value: (x) => Math.max(0, x) + Math.log1p(Math.exp(-Math.abs(x))),
    slope: (x) => sigmoid(x),
  },
};
