/** A preservation report on the terminal. */
import { grouped, percent, significant, wrap } from "../base/format.js";
import type { PreservationEvent } from "../evals/preservation.js";
import { unreachedWords, worstLayer, type PreservationReport } from "../model/results/preservation.js";
import type { Terminal } from "./terminal.js";

/** Shows how far a measurement is. */
export function preservationView(terminal: Terminal): (event: PreservationEvent) => void {
  return (event) => {
    if (event.type === "measuring") {
      terminal.note(
        `measuring on ${grouped(event.tokens)} tokens of ` +
          `${event.source}${event.streamed ? ", weights streamed from disk" : ""}`,
      );
    } else {
      terminal.progress(`measuring  layer ${event.done} of ${event.total}`);
    }
  };
}

/** What was measured, line by line, and what it means. */
export function preservationLines(report: PreservationReport, columns: number): string[] {
  // Means over values that are no numbers say nothing.
  if (report.verdict.kind === "damaged") return [...wrap(report.verdict.words, columns)];
  const worst = worstLayer(report.layers);
  const unreached = unreachedWords(report);
  return [
    `largest logit difference  ${significant(report.maxAbsLogitDiff)}, ${significant(report.relative)} of the ` +
      "largest logit",
    `largest logit             ${significant(report.maxAbsLogit)}`,
    `mean logit difference     ${significant(report.meanAbsLogitDiff)}`,
    `KL divergence             ${significant(report.klDivergence)} nats`,
    `same likeliest token      ${report.topAgreement === 1 ? "always" : percent(report.topAgreement, 4)}`,
    ...(worst === null
      ? []
      : [`FFN error                 ${significant(worst.relative)} at most (layer ${worst.layer})`]),
    "",
    ...wrap(report.verdict.words, columns),
    ...(unreached === null ? [] : wrap(unreached, columns)),
  ];
}
