/** A study's numbers as plain tables, and those as Markdown and as LaTeX. */
import { compact, fixed, flops, significant } from "../../base/format.js";
import { markdownText } from "../../base/markdown.js";
import type { ArmResult, StudyResult, TaskScore } from "../../model/results/result.js";
import { answersOf, measureName, publishedCell, signed, verdictWords, type Answer } from "./answers.js";
import { holm, pairedTest, significance } from "./paired.js";

/** A table of texts. */
export interface ResultTable {
  /** Name for references to it. */
  readonly id: string;
  readonly caption: string;
  readonly headings: readonly string[];
  /** The first columns of text; all others are numbers. */
  readonly texts: number;
  readonly rows: readonly (readonly string[])[];
}

/** What the tables are made of. */
type ResultNumbers = Pick<StudyResult, "arms" | "questions" | "tasks">;

/** All tables of a study: the arms, and the questions where there are some. */
export function resultTables(result: ResultNumbers): ResultTable[] {
  const { tasks = [], questions } = result;
  return [
    armTable(result),
    ...(questions.length === 0 ? [] : [questionTable(result)]),
    ...(tasks.length === 0 ? [] : [taskTable(tasks, result)]),
  ];
}

function armTable({ arms }: ResultNumbers): ResultTable {
  return {
    id: "arms",
    caption:
      "Held-out loss in nats per token at the end of training: mean, standard deviation over the seeds and 95 % " +
      "interval of the mean (Student). FLOPs are those of the forward and the backward pass of one run.",
    headings: ["Arm", "Parameters", "Active", "Tokens", "FLOPs", "Seeds", "Loss", "Deviation", "95 % interval"],
    texts: 1,
    rows: arms.map(armRow),
  };
}

/** What stands before the name of a task, for each group that it stands in. */
export const taskIndent = "– ";

/** Scores with their p-values by Holm over all of them, the groups' too: NaN where a score has none. */
function adjustedScores(tasks: readonly TaskScore[]): readonly (readonly number[])[] {
  const adjusted = holm(tasks.flatMap(({ arms }) => arms.map(({ p = NaN }) => p)));
  let next = 0;
  return tasks.map(({ arms }) => arms.map(() => adjusted[next++] ?? NaN));
}

/** What stands before a score that is surely above or below the parent's, so that the digits stay below each other. */
function sureMark({ interval }: TaskScore["arms"][number], adjusted: number): string {
  if (interval === null || !(adjusted < significance)) return "";
  return interval[0] + interval[1] > 0 ? "↑ " : "↓ ";
}

function taskTable(tasks: readonly TaskScore[], { arms }: ResultNumbers): ResultTable {
  const labels = new Map(arms.map(({ id, label }) => [id, label]));
  const [first] = tasks;
  const adjusted = adjustedScores(tasks);
  const comparisons = adjusted.flat().filter((p) => !Number.isNaN(p)).length;
  return {
    id: "tasks",
    caption:
      "Share of right answers on tasks that come along: the parent, and one run of each arm at its end; groups stand " +
      "above their tasks. ↑ and ↓: above or below the parent by the exact sign test on the same samples, at 5 % over " +
      `all ${comparisons} comparisons (Holm). Chance is what a model has that does not read the question; questions ` +
      "of knowledge are beyond models of this size.",
    headings: ["Task", "Chance", "Parent", ...(first?.arms ?? []).map(({ id }) => labels.get(id) ?? id), "Samples"],
    texts: 1,
    rows: tasks.map(({ task, level = 0, samples, chance, parent, arms: own }, row) => [
      taskIndent.repeat(level) + task,
      fixed(chance, 2),
      fixed(parent, 3),
      ...own.map((arm, column) => sureMark(arm, adjusted[row]?.[column] ?? NaN) + fixed(arm.value, 3)),
      String(samples),
    ]),
  };
}

function armRow({ label, params, runs }: ArmResult): string[] {
  const losses = runs.map(({ finalLoss }) => finalLoss).filter((loss) => Number.isFinite(loss));
  const { n, mean, deviation, low, high } = pairedTest(losses);
  const end = runs[0]?.points.at(-1);
  return [
    label,
    compact(params.total),
    compact(params.active),
    compact(end?.tokens ?? NaN),
    flops(end?.flops ?? NaN),
    n === runs.length ? String(n) : `${n} of ${runs.length}`,
    fixed(mean, 4),
    n < 2 ? "–" : significant(deviation, 2),
    n < 2 ? "–" : `${fixed(low, 4)} to ${fixed(high, 4)}`,
  ];
}

function questionTable({ questions }: ResultNumbers): ResultTable {
  return {
    id: "questions",
    caption:
      "Paired differences, the first arm less the second, by parent and seed, 95 % intervals (Student), p-values " +
      "corrected by Holm over all questions, and the smallest difference that this many pairs find in 80 % of cases.",
    headings: [
      "Question",
      "Arms",
      "Measure",
      "Verdict",
      "Pairs",
      "Difference",
      "95 % interval",
      "p (Holm)",
      "Detectable",
      "Published",
    ],
    texts: 4,
    rows: answersOf(questions).map(questionRow),
  };
}

function questionRow(answer: Answer): string[] {
  const { question, test, adjusted, detectable } = answer;
  const known = (value: number, text: (value: number) => string): string =>
    Number.isFinite(value) ? text(value) : "–";
  return [
    question.ask,
    `${question.compare} less ${question.with}`,
    measureName(question.measure),
    verdictWords(answer),
    String(test.n),
    known(test.mean, signed),
    known(test.low, (low) => `${signed(low)} to ${signed(test.high)}`),
    known(adjusted, (p) => (p < 1e-4 ? "< 0.0001" : significant(p, 2))),
    known(detectable, (value) => significant(value, 3)),
    publishedCell(answer, signed),
  ];
}

/** A table in Markdown, as GitHub reads it. */
export function markdownTable({ caption, headings, texts, rows }: ResultTable): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => markdownText(cell).replaceAll("|", "\\|")).join(" | ")} |`;
  const rule = `| ${headings.map((_, column) => (column < texts ? ":--" : "--:")).join(" | ")} |`;
  return [line(headings), rule, ...rows.map(line), "", markdownText(caption), ""].join("\n");
}

/** A table in LaTeX, with the package booktabs. */
export function latexTable({ id, caption, headings, texts, rows }: ResultTable): string {
  const columns = headings.map((_, column) => (column < texts ? "l" : "r")).join("");
  const line = (cells: readonly string[]): string => `    ${cells.map(latexText).join(" & ")} \\\\`;
  return [
    "\\begin{table}",
    "  \\centering",
    `  \\begin{tabular}{${columns}}`,
    "    \\toprule",
    line(headings),
    "    \\midrule",
    ...rows.map(line),
    "    \\bottomrule",
    "  \\end{tabular}",
    `  \\caption{${latexText(caption)}}`,
    `  \\label{tab:${id}}`,
    "\\end{table}",
    "",
  ].join("\n");
}

const latexCharacters: Readonly<Record<string, string>> = {
  "\\": "\\textbackslash{}",
  "{": "\\{",
  "}": "\\}",
  $: "\\$",
  "&": "\\&",
  "#": "\\#",
  _: "\\_",
  "%": "\\%",
  "^": "\\textasciicircum{}",
  "~": "\\textasciitilde{}",
  "<": "\\textless{}",
  ">": "\\textgreater{}",
  "−": "$-$",
  "–": "--",
  "↑": "$\\uparrow$",
  "↓": "$\\downarrow$",
};

/** Text that means itself in LaTeX. */
const latexText = (text: string): string =>
  text.replace(/[\\{}$&#_%^~<>−–↑↓]/g, (character) => latexCharacters[character] ?? character).replace(/\s+/g, " ");

/** The study as Markdown: findings, tables, figures. */
export function markdownReport(
  result: StudyResult,
  figures: readonly { readonly file: string; readonly title: string }[],
): string {
  return [
    `# ${markdownText(result.name)}`,
    "",
    ...result.findings.map((finding) => `- ${markdownText(finding)}`),
    "",
    ...resultTables(result).map(markdownTable),
    ...figures.map(({ file, title }) => `![${markdownText(title)}](${file})\n`),
    "Commands:",
    "",
    "```sh",
    ...result.commands,
    "```",
    "",
  ].join("\n");
}
