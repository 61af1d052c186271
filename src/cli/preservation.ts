/** A preservation report on the terminal. */
import { grouped, percent, significant, wrap } from "../base/format.js";
import type { PreservationEvent } from "../evals/preservation.js";
import { worstLayer, type PreservationReport } from "../model/results/preservation.js";
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
export function preservationLines(found: PreservationReport, columns: number): string[] {
  const worst = worstLayer(found.layers);
  return [
    `largest logit difference  ${significant(found.maxAbsLogitDiff)}, ${significant(found.relative)} of the ` +
      "largest logit",
    `largest logit             ${significant(found.maxAbsLogit)}`,
    `mean logit difference     ${significant(found.meanAbsLogitDiff)}`,
    `KL divergence             ${significant(found.klDivergence)} nats`,
    `same likeliest token      ${found.topAgreement === 1 ? "always" : percent(found.topAgreement, 4)}`,
    ...(worst === null
      ? []
      : [`FFN error                 ${significant(worst.relative)} at most (layer ${worst.layer})`]),
    "",
    ...wrap(found.verdict.words, columns),
  ];
}
