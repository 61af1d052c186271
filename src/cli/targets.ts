/** `upcycle targets`: the families that an upcycled model can be written as. */
import { Command } from "commander";
import { labelled, table, wrap } from "../base/format.js";
import type { RouterOrder } from "../model/decoder/types.js";
import type { ExpectedPreservation } from "../surgery/planning/expectation.js";
import { parseRecipeName, recipeName, upcycleRecipe } from "../surgery/planning/recipe.js";
import { programs, type Support } from "../surgery/planning/serving.js";
import {
  trainerLine,
  trainers,
  trainersOf,
  type TrainerSupport,
  type TrainerVerdict,
} from "../surgery/planning/trainers.js";
import { neverTargets, surveyRecipe, type TargetVerdict } from "../surgery/planning/survey.js";
import { openContext } from "./context.js";
import { decoderOf } from "./decoder-of.js";
import { modelSource, orAdapted } from "./model-folder.js";
import { withExample, withJson, type CommonFlags } from "./options.js";

interface TargetsFlags extends CommonFlags {
  readonly recipe: string;
  readonly trainers?: boolean;
}

const labelWidth = 18;
const orders: readonly RouterOrder[] = ["topk-softmax", "softmax-topk"];

/** The command with its options and its help. */
export function targetsCommand(): Command {
  const command = new Command("targets")
    .description("say which MoE families can hold an upcycled model, exactly or not, and which programs run it")
    .argument("<model>", `dense model folder (Hugging Face: config.json, weights), ${orAdapted}`)
    .option("--recipe <name>", "E<copies>G<parts>T<experts per token>", "E8G1T2")
    .option("--trainers", "say which programs train from the folder of each target, and with which line")
    .action(execute);
  return withExample(withJson(command), "upcycle targets models/dense");
}

async function execute(name: string, flags: TargetsFlags): Promise<void> {
  const source = await modelSource(name, flags.json, "headers");
  const { terminal, json } = openContext({ json: flags.json });
  const shape = parseRecipeName(flags.recipe);
  const spec = await decoderOf(source);
  const verdicts = orders.flatMap((order) => surveyRecipe(spec, upcycleRecipe(recipeName(shape), { order })));
  if (json) {
    const training = flags.trainers === true ? { trainers: trainersByTarget(verdicts) } : {};
    terminal.json({
      family: spec.family,
      recipe: recipeName(shape),
      targets: verdicts,
      never: neverTargets,
      ...training,
    });
    return;
  }
  if (flags.trainers === true) return terminal.out(trainerLines(verdicts, terminal.columns));
  terminal.out(`${spec.family} with ${recipeName(shape)}`);
  for (const order of orders) {
    const ofOrder = verdicts.filter((verdict) => verdict.order === order);
    terminal.out(section(ofOrder, order, terminal.columns));
  }
  terminal.out("");
  terminal.out("read, run and trained, but never targets");
  for (const [family, why] of Object.entries(neverTargets))
    terminal.out(labelled(`  ${family}`, why, labelWidth, terminal.columns));
}

/** Which trainers take the folder of each target that can be written. */
function trainersByTarget(verdicts: readonly TargetVerdict[]): (TrainerVerdict & { family: string; order: string })[] {
  return verdicts.flatMap(({ family, order, expected }) =>
    expected === null ? [] : trainersOf(family, order).map((verdict) => ({ family, order, ...verdict })),
  );
}

const trainerMarks: Readonly<Record<TrainerSupport, string>> = { own: "own", transformers: "by class", no: "no" };

function trainerLines(verdicts: readonly TargetVerdict[], columns: number): string[] {
  const sections = orders.flatMap((order) => {
    const held = verdicts.filter((verdict) => verdict.order === order && verdict.expected !== null);
    const rows = held.map(({ family }) => [
      family,
      ...trainersOf(family, order).map(({ support }) => trainerMarks[support]),
    ]);
    const heading = ["target", ...trainers];
    return [
      `${order}: ${meanings[order]}`,
      ...table(
        [heading, ...rows],
        heading.map(() => "left" as const),
        columns,
      ),
      "",
    ];
  });
  const notes = [
    ...new Set(
      trainersByTarget(verdicts).flatMap(({ trainer, note }) => (note === null ? [] : [`${trainer}: ${note}`])),
    ),
  ];
  return [
    ...sections,
    "own: a model or expert kernels of its own; by class: through transformers",
    ...notes.flatMap((note) => wrap(note, columns - 4).map((line, i) => `${i === 0 ? "  " : "    "}${line}`)),
    "",
    "lines, with DIR for the folder that convert wrote; read, not run here",
    ...trainers.flatMap((trainer) =>
      wrap(trainerLine(trainer, "DIR"), columns - 4, "keep").map((line, i) => `${i === 0 ? "  " : "    "}${line}`),
    ),
  ];
}

const meanings: Readonly<Record<RouterOrder, string>> = {
  "topk-softmax": "the selected experts' weights sum to 1",
  "softmax-topk": "the selected experts' weights are not renormalised",
};

const marks: Readonly<Record<Support, string>> = { same: "yes", other: "WRONG", no: "no", unknown: "untested" };

const functionWords: Readonly<Record<ExpectedPreservation["kind"], string>> = {
  exact: "exact",
  "constant-router": "exact *",
  approximate: "approximate",
};

/** The verdicts on all families for one router order. */
function section(verdicts: readonly TargetVerdict[], order: RouterOrder, columns: number): string[] {
  const targets = verdicts.flatMap(({ family, expected, serving, idleExpert }) =>
    expected === null ? [] : [{ family, kind: expected.kind, serving, idleExpert }],
  );
  const rows = targets.map(({ family, kind, serving }) => [
    family,
    functionWords[kind],
    ...serving.map(({ support }) => marks[support]),
  ]);
  const idle = targets.filter(({ idleExpert }) => idleExpert).map(({ family }) => family);
  const notes = [
    ...(idle.length === 0
      ? []
      : [
          `${idle.join(", ")}: a shared expert, which the family always has, adds nothing at first and costs each ` +
            "token as much as one expert more",
        ]),
    ...targets.flatMap(({ family, serving }) =>
      serving.flatMap(({ program, support, note }) =>
        note === null || support === "no" ? [] : [`${family} in ${program}: ${note}`],
      ),
    ),
  ];
  const heading = ["target", "function", ...programs];
  const alignment = heading.map(() => "left" as const);
  return [
    "",
    `${order}: ${meanings[order]}`,
    ...(rows.length === 0 ? [] : table([heading, ...rows], alignment, columns)),
    ...(targets.some(({ kind }) => kind === "constant-router")
      ? ["  * while all router logits are equal; otherwise approximate"]
      : []),
    ...notes.flatMap((note) => wrap(note, columns - 4).map((line, i) => `${i === 0 ? "  " : "    "}${line}`)),
    ...(targets.length < verdicts.length ? ["", "cannot hold it"] : []),
    ...verdicts.flatMap(({ family, obstacle }) =>
      obstacle === null ? [] : labelled(`  ${family}`, obstacle, labelWidth, columns),
    ),
  ];
}
