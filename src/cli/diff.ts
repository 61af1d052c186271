/** `upcycle diff` */
import { Command } from "commander";
import { stopError } from "../base/errors.js";
import { folded, significant, table } from "../base/format.js";
import { diffCheckpoints, type CheckpointDiff, type TensorDiff } from "../convert/diff.js";
import { openContext } from "./context.js";
import { modelSource, orAdapted, shownModel } from "./model-folder.js";
import { withExample, withJson, type CommonFlags } from "./options.js";

interface DiffFlags extends CommonFlags {
  readonly all?: boolean;
  readonly exitCode?: boolean;
}

/** Rows of each list that are shown without --all. */
const shown = 20;

export function diffCommand(): Command {
  const command = new Command("diff")
    .description("compare two models tensor by tensor, and their configs")
    .argument("<a>", `model folder, ${orAdapted}`)
    .argument("<b>", "model to compare it with")
    .option("--all", `show every difference, not the ${shown} largest`)
    .option("--exit-code", "exit with 1 if there is any difference")
    .action(execute);
  const remark = "Tensors are matched by what they are to the model, whatever they are called.\nrelative: ||b - a|| / ||a||. Exit code 0 also for models that differ.";
  return withExample(withJson(command), "upcycle diff models/before models/after", remark);
}

async function execute(a: string, b: string, flags: DiffFlags): Promise<void> {
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: "" });
  const [sourceA, sourceB] = [await modelSource(a, flags.json), await modelSource(b, flags.json)];
  const found = await diffCheckpoints(sourceA, sourceB, {
    signal,
    onProgress: (done, total, name) => terminal.progress(`comparing  ${done} of ${total} tensors  ${name}`),
  });
  if (json) terminal.out(JSON.stringify(found));
  else diffLines(found, flags.all === true ? Infinity : shown).forEach((line) => terminal.out(line));
  if (flags.exitCode === true && !found.equal) throw stopError("the models differ", { where: `${shownModel(sourceA)}, ${shownModel(sourceB)}` });
}

function diffLines(found: CheckpointDiff, most: number): string[] {
  const { tensors, onlyA, onlyB, config } = found;
  if (found.equal) return [`no difference: ${tensors.length} tensors and the config are equal`];
  const different = tensors.filter(({ equal }) => !equal);
  // A tensor of another shape, or with a NaN, is further away than any number says.
  const size = ({ difference }: TensorDiff): number => (difference === null || Number.isNaN(difference.relative) ? Infinity : difference.relative);
  const largest = different.map((one) => [size(one), one] as const).sort(([x], [y]) => (x === y ? 0 : y - x)).map(([, one]) => one);
  return [
    `tensors in both: ${tensors.length}, ${tensors.length - different.length} of them equal to the last bit`,
    ...list("only in a", onlyA, most),
    ...list("only in b", onlyB, most),
    ...(different.length === 0 ? [] : ["", table([["tensor", "max", "mean", "relative", "cosine"], ...largest.slice(0, most).map(row)], ["left", "right", "right", "right", "right"]), ...rest(largest.length, most)]),
    ...(config.length === 0 ? [] : ["", table([["config.json", "a", "b"], ...config.slice(0, most).map(({ key, a, b }) => [key, a ?? "-", b ?? "-"])], ["left", "left", "left"]), ...rest(config.length, most)]),
  ];
}

function row({ name, shapes, dtypes, difference }: TensorDiff): string[] {
  const [a, b] = dtypes;
  const label = a === b ? name : `${name} (${a}, ${b})`;
  if (difference === null) return [`${label} [${shapes[0].join(", ")}], [${shapes[1].join(", ")}]`, "-", "-", "-", "-"];
  const { maxAbs, meanAbs, relative, cosine } = difference;
  return [label, significant(maxAbs), significant(meanAbs), significant(relative), Number.isNaN(cosine) ? "NaN" : cosine.toFixed(5)];
}

function list(title: string, names: readonly string[], most: number): string[] {
  if (names.length === 0) return [];
  const more = names.length > most ? `, and ${names.length - most} more` : "";
  return folded(`${title}: ${names.length} (${names.slice(0, most).join(", ")}${more})`, 80);
}

const rest = (count: number, most: number): string[] => (count > most ? [`and ${count - most} more (--all shows them)`] : []);
