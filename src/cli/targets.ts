/** `upcycle targets` */
import { Command } from "commander";
import { labelled, table, wrap } from "../base/format.js";
import { openCheckpoint } from "../files/checkpoint/open.js";
import type { RouterOrder } from "../model/decoder/types.js";
import { parseRecipeName, recipeName, upcycleRecipe } from "../surgery/planning/recipe.js";
import { programs, type Support } from "../surgery/planning/serving.js";
import { neverTargets, surveyRecipe, type TargetVerdict } from "../surgery/planning/survey.js";
import { openContext } from "./context.js";
import { modelSource, orAdapted } from "./model-folder.js";
import { withExample, withJson, type CommonFlags } from "./options.js";

interface TargetsFlags extends CommonFlags {
  readonly recipe: string;
}

const labelWidth = 18;
const orders: readonly RouterOrder[] = ["topk-softmax", "softmax-topk"];

export function targetsCommand(): Command {
  const command = new Command("targets")
    .description("say which MoE families can hold an upcycled model, exactly or not, and which programs run it")
    .argument("<model>", `dense model folder (Hugging Face: config.json, weights), ${orAdapted}`)
    .option("--recipe <name>", "E<copies>G<parts>T<experts per token>", "E8G1T2")
    .action(execute);
  return withExample(withJson(command), "upcycle targets models/dense");
}

async function execute(name: string, flags: TargetsFlags): Promise<void> {
  const source = await modelSource(name, flags.json, "headers");
  const { terminal, json } = openContext({ json: flags.json });
  const shape = parseRecipeName(flags.recipe);
  const checkpoint = await openCheckpoint(source);
  await checkpoint.close();
  const { spec } = checkpoint;
  const verdicts = orders.flatMap((order) => surveyRecipe(spec, upcycleRecipe(recipeName(shape), { order })));
  if (json) {
    terminal.json({ family: spec.family, recipe: recipeName(shape), targets: verdicts, never: neverTargets });
    return;
  }
  terminal.out(`${spec.family} with ${recipeName(shape)}`);
  for (const order of orders)
    terminal.out(
      section(
        verdicts.filter((verdict) => verdict.order === order),
        order,
        terminal.columns,
      ),
    );
  terminal.out("");
  terminal.out("read, run and trained, but never targets");
  for (const [family, why] of Object.entries(neverTargets))
    terminal.out(labelled(`  ${family}`, why, labelWidth, terminal.columns));
}

const meanings: Readonly<Record<RouterOrder, string>> = {
  "topk-softmax": "the selected experts' weights sum to 1",
  "softmax-topk": "the selected experts' weights are not renormalised",
};

const marks: Readonly<Record<Support, string>> = { same: "yes", other: "WRONG", no: "no", unknown: "untested" };

function section(verdicts: readonly TargetVerdict[], order: RouterOrder, columns: number): string[] {
  const held = verdicts.filter(({ obstacle }) => obstacle === null);
  const rows = held.map(({ family, expected, serving }) => [
    family,
    expected!.kind === "exact" ? "exact" : expected!.kind === "constant-router" ? "exact *" : "approximate",
    ...serving.map(({ support }) => marks[support]),
  ]);
  const notes = held.flatMap(({ family, serving }) =>
    serving.flatMap(({ program, support, note }) =>
      note === null || support === "no" ? [] : [`${family} in ${program}: ${note}`],
    ),
  );
  return [
    "",
    `${order}: ${meanings[order]}`,
    ...(rows.length === 0
      ? []
      : table(
          [["target", "function", ...programs], ...rows],
          ["left", "left", "left", "left", "left", "left"],
          columns,
        )),
    ...(held.some(({ expected }) => expected!.kind === "constant-router")
      ? ["  * while all router logits are equal; otherwise approximate"]
      : []),
    ...notes.flatMap((note) => wrap(note, columns - 4).map((line, i) => `${i === 0 ? "  " : "    "}${line}`)),
    ...(held.length < verdicts.length ? ["", "cannot hold it"] : []),
    ...verdicts.flatMap(({ family, obstacle }) =>
      obstacle === null ? [] : labelled(`  ${family}`, obstacle, labelWidth, columns),
    ),
  ];
}
