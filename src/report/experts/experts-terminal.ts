/** What was found of an MoE's experts as text, at most `columns` wide. */
import { fixed, folded, labelled, percent, significant, table, wrap } from "../../base/format.js";
import type { ExpertsReport } from "../../model/results/experts.js";
import { costRows, findings, routerRows, similarityRows, specialists, textWords } from "./words.js";

const labelWidth = 12;
/** Specialists that are listed. */
const mostSpecialists = 8;

/** The report as lines; `model` and `parent` are shown names. */
export function expertsText(
  report: ExpertsReport,
  { model, parent }: { readonly model: string; readonly parent: string | null },
  columns: number,
): readonly string[] {
  const fact = (label: string, text: string): string[] => labelled(label, text, labelWidth, columns);
  const right = (rows: readonly (readonly string[])[]): readonly string[] =>
    table(
      rows,
      (rows[0] ?? []).map((_, i) => (i === 0 ? "left" : "right")),
      columns,
    );
  const note = (text: string): string[] => [...wrap(text, columns)];
  const found = specialists(report, mostSpecialists);
  return [
    ...fact("model", `${model} (${report.family})`),
    ...(parent === null ? [] : fact("parent", parent)),
    ...fact("text", textWords(report)),
    ...(report.loss === null ? [] : fact("loss", `${fixed(report.loss, 4)} nats per token on the held-out text`)),
    "",
    ...findings(report).flatMap((text) => folded(`- ${text}`, columns)),
    "",
    ...right(routerRows(report)),
    ...note(
      "shares: times an equal share; entropy: of ln(experts); mass: of the chosen; margin: last chosen less next; " +
        "bits: what a choice says of class or text beyond chance (~: chance does as much)",
    ),
    "",
    ...right(similarityRows(report)),
    ...note("cosines of all weights, and of what experts make of the same inputs; together: chosen by one token"),
    ...(found.length === 0
      ? []
      : [
          "",
          ...table(
            [
              ["expert", "prefers", "times its\nusual share", "share of\nthose"],
              ...found.map(({ layer, expert, what, times, share }) => [
                `${layer}:${expert}`,
                what,
                significant(times, 2),
                percent(share),
              ]),
            ],
            ["left", "left", "right", "right"],
            columns,
          ),
        ]),
    ...(report.costs.length === 0
      ? []
      : [
          "",
          ...right(costRows(report)),
          ...note(
            "measured on held-out text, each sequence against itself. The cheapest of many candidates looks cheaper " +
              "than it is: measure the one you choose on other text, --without or --merged.",
          ),
        ]),
  ];
}
