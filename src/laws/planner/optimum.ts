/** Where tokens and compute are best spent, by the laws. */
import { at as elementAt } from "../../base/at.js";
import type { ArmLaw, Curves } from "./coefficients.js";

/** The best split of a compute between size and upcycled tokens. */
export interface Optimum {
  /** Parameters of the dense parent. */
  readonly size: number;
  /** D2. */
  readonly tokens: number;
  readonly loss: number;
}

/**
 * Size and upcycled tokens that a compute C is best split into when the parent (any size, trained on D1 tokens) costs
 * nothing: C = 6 r N D2, r = FLOPs per token of the MoE over the dense model's. For the law A D1^-a1 D2^(-a2 + a3
 * ln D1) + B N^-b + E in closed form (derived here): a = a2 - a3 ln D1, A' = A D1^-a1, G = (b B / (a A'))^(1 / (a +
 * b)), N = G (C / 6r)^(a / (a + b)), D2 = C / (6 r N). For other laws by search.
 */
export function computeOptimal(
  { law, params }: ArmLaw,
  curves: Curves,
  { compute, seen, ratio }: { compute: number; seen: number; ratio: number },
): Optimum {
  const product = compute / (6 * ratio);
  const at = (size: number): Optimum => ({
    size,
    tokens: product / size,
    loss: curves.upcycled(size, seen, product / size),
  });
  if (law === "upcycling") {
    const { A, alpha1, alpha2, alpha3, B, beta } = params as Record<
      "A" | "alpha1" | "alpha2" | "alpha3" | "B" | "beta",
      number
    >;
    const slope = alpha2 - alpha3 * Math.log(seen);
    // Where more upcycled tokens no longer help there is no best split.
    if (slope > 0)
      return at(
        ((beta * B) / (slope * A * seen ** -alpha1)) ** (1 / (slope + beta)) * product ** (slope / (slope + beta)),
      );
  }
  return at(lowestOf((logSize) => at(Math.exp(logSize)).loss, Math.log(1e6), Math.log(1e14), Math.exp));
}

/**
 * Best share of D1 in a fixed total of tokens, when the dense training is paid for too: loss and share, beside a
 * MoE from scratch on all of them.
 */
export function bestShare(
  curves: Curves,
  size: number,
  total: number,
): { readonly share: number; readonly loss: number; readonly scratch: number } {
  const loss = (share: number): number => curves.upcycled(size, share * total, (1 - share) * total);
  const share = lowestOf(loss, 1e-3, 1 - 1e-3, (x) => x);
  return { share, loss: loss(share), scratch: curves.scratch(size, total) };
}

/** Argument of the minimum of a function with one: a coarse scan, then golden sections. */
function lowestOf(f: (x: number) => number, low: number, high: number, out: (x: number) => number): number {
  const count = 64;
  const grid = Array.from({ length: count + 1 }, (_, i) => low + ((high - low) * i) / count);
  const values = grid.map(f);
  const best = values.indexOf(Math.min(...values));
  let [a, b] = [elementAt(grid, Math.max(0, best - 1)), elementAt(grid, Math.min(count, best + 1))];
  const golden = (Math.sqrt(5) - 1) / 2;
  for (let i = 0; i < 60; i++) {
    const [lower, upper] = [b - golden * (b - a), a + golden * (b - a)];
    if (f(lower) < f(upper)) b = upper;
    else a = lower;
  }
  return out((a + b) / 2);
}
