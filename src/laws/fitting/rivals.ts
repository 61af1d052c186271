/** Which other forms the points cannot tell from the fitted one. */
import { at } from "../../base/at.js";
import type { Law, Points } from "../forms/types.js";
import { lawById } from "./catalogue.js";
import { fitLaw, type Fit } from "./fit.js";
import type { Loss } from "../solvers/loss.js";
import { studentQuantile } from "./distributions.js";

/** Forms that describe the same columns by another thought. */
const families: readonly (readonly string[])[] = [
  ["upcycling", "upcycling-no-interaction", "upcycling-additive", "upcycling-total"],
  ["upcycling-data", "upcycling-data-no-interaction", "upcycling-data-additive", "upcycling-data-total"],
  ["chinchilla", "kaplan"],
  ["joint", "kaplan"],
];

/** Another form, fitted to the same points. */
export interface Rival {
  readonly fit: Fit;
  /**
   * How much better the fitted law describes the points, in standard errors (Vuong 1989), parameters charged as by
   * Akaike; negative where the rival is better.
   */
  readonly lead: number;
  readonly verdict: "worse" | "cannot tell" | "better";
}

const confidence = 0.9;

/** The law's rivals on these points; empty for a law without any. */
export function rivalsOf(fit: Fit, points: Points, loss: Loss): readonly Rival[] {
  const family = families.find(([first]) => first === fit.law.id) ?? families.find((ids) => ids.includes(fit.law.id));
  const rivals = (family ?? []).flatMap((id): Law[] => {
    const law = lawById(id);
    return id === fit.law.id || law === undefined || points.n <= law.parameters.length ? [] : [law];
  });
  return rivals.map((law) => compared(fit, fitLaw(law, points, { loss }), points));
}

function compared(fit: Fit, rival: Fit, { n, cluster }: Points): Rival {
  const runs = cluster === undefined ? undefined : [...new Set(cluster)];
  const lead = leadOf(fit, rival, cluster);
  const limit = studentQuantile((1 + confidence) / 2, Math.max(1, (runs?.length ?? n) - 1));
  return { fit: rival, lead, verdict: lead > limit ? "worse" : lead < -limit ? "better" : "cannot tell" };
}

/** The difference of the log-likelihoods over its standard error, both from normal residuals; by run where given. */
function leadOf(fit: Fit, rival: Fit, cluster: readonly string[] | undefined): number {
  const n = fit.residuals.length;
  const variance = (residuals: Float64Array): number =>
    Math.max(residuals.reduce((sum, r) => sum + r * r, 0) / n, 1e-30);
  const [own, other] = [variance(fit.residuals), variance(rival.residuals)];
  const differences = fit.residuals.map(
    (r, i) => 0.5 * (Math.log(other / own) + at(rival.residuals, i) ** 2 / other - r ** 2 / own),
  );
  const units = cluster === undefined ? [...differences] : byRun(differences, cluster);
  const sum = units.reduce((total, value) => total + value, 0);
  const mean = sum / units.length;
  const spread = Math.sqrt(units.reduce((total, value) => total + (value - mean) ** 2, 0));
  const charge = fit.law.parameters.length - rival.law.parameters.length;
  // Equal predictions everywhere: neither leads.
  return spread < 1e-9 ? 0 : (sum - charge) / spread;
}

function byRun(values: Float64Array, cluster: readonly string[]): number[] {
  const sums = new Map<string, number>();
  cluster.forEach((name, i) => sums.set(name, (sums.get(name) ?? 0) + at(values, i)));
  return [...sums.values()];
}
