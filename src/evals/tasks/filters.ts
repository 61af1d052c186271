/** Filters of the LM Evaluation Harness (lm_eval/filters): what is made of a model's answers before metrics. */
import { inputError } from "../../base/errors.js";
import type { FilterConfig } from "./config.js";
import { isTrue } from "./jinja.js";
import { pythonRegex, strip, type Value } from "./python-text.js";

/** Answers to one sample, one for each repeat; a step may also leave one of them alone. */
type Answers = readonly Value[] | Value;
type Settings = Readonly<Record<string, Value>>;
type Step = (answers: Answers) => Answers;

const all = (answers: Answers): readonly Value[] =>
  Array.isArray(answers) ? (answers as readonly Value[]) : [answers];
const each =
  (work: (text: string) => Value): Step =>
  (answers) =>
    all(answers).map((answer) => work(typeof answer === "string" ? answer : ""));

/** Answers are texts, or where log-likelihoods were asked for whatever stands for them. */
const steps: Readonly<Record<string, (settings: Settings, where: string) => Step>> = {
  take_first: () => (answers) => all(answers)[0] ?? "",
  take_first_k:
    ({ k }) =>
    (answers) =>
      all(answers).slice(0, Number(k)),
  majority_vote: () => (answers) => {
    const counts = new Map<Value, number>();
    for (const answer of all(answers)) counts.set(answer, (counts.get(answer) ?? 0) + 1);
    const most = Math.max(...counts.values());
    return [[...counts].find(([, count]) => count === most)![0]];
  },
  lowercase: () => each((text) => text.toLowerCase()),
  uppercase: () => each((text) => text.toUpperCase()),
  remove_whitespace: () => each((text) => strip(text)),
  map: ({ mapping_dict: mapping, default_value: otherwise }) =>
    each((text) => (mapping as Record<string, Value> | undefined)?.[text] ?? otherwise ?? null),
  regex: (settings, where) => {
    const pattern = settings["regex_pattern"] ?? "#### (\\-?[0-9\\.\\,]+)";
    const fallback = settings["fallback"] ?? "[invalid]";
    const place = Number(settings["group_select"] ?? 0);
    if (typeof pattern !== "string") throw inputError("regex_pattern is no text", { where });
    const regex = pythonRegex(pattern, where);
    return each((text) => {
      const matches = [...text.matchAll(regex)];
      const match = matches.at(place);
      if (match === undefined) return fallback;
      // `findall` gives the whole match, the one group, or all groups, of which the first that is not empty counts.
      const groups = match.slice(1).map((group) => group ?? "");
      const found = groups.length === 0 ? match[0] : groups.length === 1 ? groups[0]! : groups.find(isTrue);
      return found === undefined ? fallback : strip(found);
    });
  },
};

/** A pipeline's work on the answers to one sample. Throws inputError for a step that is not known. */
export function filterOf({ name, steps: list }: FilterConfig, where: string): (answers: readonly Value[]) => Value {
  const work = list.map(({ name: step, settings }) => {
    const make = Object.hasOwn(steps, step) ? steps[step] : undefined;
    if (make === undefined)
      throw inputError(`the filter "${step}" of ${name} is not supported`, {
        where,
        hint: `supported are: ${Object.keys(steps).join(", ")}`,
      });
    return make(settings, where);
  });
  return (answers) => work.reduce<Answers>((rest, step) => step(rest), answers);
}
