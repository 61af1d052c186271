/** Quantiles for intervals, and the likelihoods that belong to the losses. */
import { at as elementAt } from "../../base/at.js";
import type { Loss } from "../solvers/loss.js";

/** Error function, by its series below 3 and a continued fraction above; 1e-15 absolute. */
export function errorFunction(x: number): number {
  if (x < 0) return -errorFunction(-x);
  if (x > 6) return 1;
  if (x < 3) {
    let term = x;
    let sum = x;
    for (let k = 1; Math.abs(term) > 1e-17 * Math.abs(sum) && k < 200; k++) {
      term *= (-x * x) / k;
      sum += term / (2 * k + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let k = 60; k >= 1; k--) fraction = k / 2 / (x + fraction);
  return 1 - Math.exp(-x * x) / (Math.sqrt(Math.PI) * (x + fraction));
}

/** Regularised incomplete beta function by its continued fraction (Lentz; Numerical Recipes, section 6.4). */
export function incompleteBeta(a: number, b: number, x: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(b, a, 1 - x);
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log(1 - x)) / a;
  let c = 1;
  let d = 1 / (1 - ((a + b) * x) / (a + 1));
  let sum = d;
  for (let m = 1; m < 300; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / (1 + even * d);
    c = 1 + even / c;
    sum *= c * d;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / (1 + odd * d);
    c = 1 + odd / c;
    sum *= c * d;
    if (Math.abs(c * d - 1) < 1e-15) break;
  }
  return front * sum;
}

/** ln Gamma by Lanczos (g = 7, 9 terms). */
export function logGamma(x: number): number {
  const terms = [
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
  ];
  const sum = terms.reduce((total, term, i) => (i === 0 ? term : total + term / (x - 1 + i)), 0);
  const t = x + 6.5;
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
}

/** Quantile of Student's t: P(T <= result) = probability, for probability >= 1/2. */
export function studentQuantile(probability: number, freedom: number): number {
  const tail = 2 * (1 - probability);
  let low = 0;
  let high = 1;
  const above = (t: number): number => incompleteBeta(freedom / 2, 0.5, freedom / (freedom + t * t));
  while (above(high) > tail && high < 1e9) high *= 2;
  for (let i = 0; i < 200 && high - low > 1e-13 * high; i++) {
    const middle = (low + high) / 2;
    if (above(middle) > tail) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Probability that an F-distributed number with these degrees of freedom is larger than `value`. */
export function fisherTail(value: number, freedom: number, otherFreedom: number): number {
  if (!(value > 0)) return 1;
  return incompleteBeta(otherFreedom / 2, freedom / 2, otherFreedom / (otherFreedom + freedom * value));
}

/**
 * Largest log-likelihood of n ln-residuals whose losses sum to `objective`, over the scale of their distribution:
 * normal for squares, Laplace for absolute values, and for Huber's loss the density proportional to exp(-rho(r) / s),
 * normal in the middle with Laplace's tails.
 */
export function logLikelihood({ name, delta }: Loss, objective: number, n: number): number {
  const sum = Math.max(objective, 1e-300);
  switch (name) {
    case "mse":
    case "mse-raw":
      return -0.5 * n * (Math.log((2 * Math.PI * sum) / n) + 1);
    case "lad":
      return -n * (Math.log((2 * sum) / n) + 1);
    case "huber": {
      const at = (logScale: number): number => {
        const s = Math.exp(logScale);
        const middle = Math.sqrt(2 * Math.PI * s) * errorFunction(delta / Math.sqrt(2 * s));
        const tails = (2 * s * Math.exp((-delta * delta) / (2 * s))) / delta;
        return -sum / s - n * Math.log(middle + tails);
      };
      // The scale of a Laplace fit and that of a normal one, with room on both sides.
      let low = Math.log(sum / n) - 3;
      let high = low + 7;
      const golden = (Math.sqrt(5) - 1) / 2;
      let [a, b] = [high - golden * (high - low), low + golden * (high - low)];
      let [fa, fb] = [at(a), at(b)];
      while (high - low > 1e-7) {
        if (fa > fb) {
          [high, b, fb] = [b, a, fa];
          a = high - golden * (high - low);
          fa = at(a);
        } else {
          [low, a, fa] = [a, b, fb];
          b = low + golden * (high - low);
          fb = at(b);
        }
      }
      return Math.max(fa, fb);
    }
  }
}

/** Linear interpolation between order statistics, as numpy's default. `sorted` ascending. */
export function quantile(sorted: ArrayLike<number>, probability: number): number {
  const at = probability * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(sorted.length - 1, low + 1);
  return elementAt(sorted, low) + (at - low) * (elementAt(sorted, high) - elementAt(sorted, low));
}
