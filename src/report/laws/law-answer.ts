/** What a fit says and how far it can be believed, in a headline and a sentence or two. */
import { compact, fixed, grouped, percent, significant } from "../../base/format.js";
import { poorShare } from "../../laws/fitting/findings.js";
import type { LawSource } from "./law-source.js";

/** The head of a fit's page. */
interface FitAnswer {
  readonly headline: string;
  /** The first prediction, where one was asked for; empty where none was. */
  readonly prediction: string;
  readonly doubts: string;
}

/** What stands at the head of a fit's page. */
export function fitAnswer(result: LawSource): FitAnswer {
  return { headline: headline(result), prediction: predictionWords(result), doubts: doubtWords(result) };
}

function headline({ fit, quality, n }: LawSource): string {
  if (fit.status === "no-better-than-constant") return "No fit: one number for all losses does as well";
  if (fit.status === "iteration-limit") return "Not converged: the best seen, not an optimum";
  if (quality.r2 < poorShare) return `Hardly fits: ${percent(Math.max(0, quality.r2))} of the variance described`;
  return `Describes ${grouped(n)} points within ${significant(100 * quality.logRmse, 2)} %`;
}

function predictionWords({ predictions: [first, ...others] }: LawSource): string {
  if (first === undefined) return "";
  const { at, group, loss, profile, bootstrap, newRun } = first;
  const place = Object.entries(at).map(([name, value]) => `${name} = ${compact(value)}`);
  const ends = ({ low, high }: { readonly low: number; readonly high: number }): string =>
    `${fixed(low, 4)} to ${fixed(high, 4)}`;
  const law = profile ?? bootstrap;
  const ofLaw = law === null ? "" : `the law ${ends(law)}, `;
  const more = others.length === 0 ? "" : ` ${others.length} more below.`;
  return (
    `Predicted at ${[...(group === null ? [] : [group]), ...place].join(", ")}: ${fixed(loss, 4)} nats ` +
    `(${percent(newRun.level)} intervals: ${ofLaw}a new run ${ends(newRun)}).${more}`
  );
}

/** What the fit's own checks say against it. */
function doubtWords({ fit, profiles, misfit, rivals, outliers, predictions, noise }: LawSource): string {
  const lawsWith = (verdict: (typeof rivals)[number]["verdict"]): string =>
    rivals.flatMap(({ law, verdict: own }) => (own === verdict ? [law] : [])).join(", ");
  const open = fit.law.parameters.flatMap(({ name }) =>
    (profiles[name]?.lowOpen ?? false) || (profiles[name]?.highOpen ?? false) || fit.atBound.includes(name)
      ? [name]
      : [],
  );
  const [unknown, better] = [lawsWith("cannot tell"), lawsWith("better")];
  const extrapolated = predictions.filter(({ isOutside }) => isOutside).length;
  const doubts = [
    ...(misfit?.isFlagged === true ? ["the points depart from this form"] : []),
    ...(better === "" ? [] : [`${better} describes them better`]),
    ...(unknown === "" ? [] : [`they cannot tell it from ${unknown}`]),
    ...(open.length === 0 ? [] : [`${open.join(", ")} ${open.length === 1 ? "is" : "are"} not bounded by them`]),
    ...(outliers === 0 ? [] : [`${outliers} ${outliers === 1 ? "lies" : "lie"} far off`]),
    ...(extrapolated === 0 ? [] : [`${extrapolated === 1 ? "a prediction extrapolates" : "predictions extrapolate"}`]),
  ];
  const runs = noise.runs === null ? "" : ` They come from ${noise.runs} runs, which the intervals take into account.`;
  const said =
    doubts.length === 0
      ? "No check of the form, of rivals or of outliers speaks against it."
      : `In doubt: ${doubts.join("; ")}.`;
  return said + runs;
}
