/**
 * The saturating number of experts (Clark et al. 2022, arXiv 2202.01169, section 4):
 * 1 / Ehat = 1 / (E - 1 + 1 / (1/Es - 1/Em)) + 1 / Em. One expert counts as Es, infinitely many as Em.
 */

interface EffectiveExperts {
  readonly logEhat: number;
  /** d ln Ehat / d ln Es and d ln Ehat / d ln Em. */
  readonly dLogStart: number;
  readonly dLogMax: number;
}

/** ln Ehat for a number of experts, with its derivatives. `start` is Es, `max` is Em. */
export function effectiveExperts(experts: number, start: number, max: number): EffectiveExperts {
  const q = 1 / start - 1 / max;
  const x = experts - 1 + 1 / q;
  const y = 1 / x + 1 / max;
  // dx/dq = -1/q^2, so d(1/x)/dq = 1 / (x q)^2.
  const slope = 1 / (x * q) ** 2;
  return { logEhat: -Math.log(y), dLogStart: slope / (start * y), dLogMax: (1 - slope) / (max * y) };
}
