/** `upcycle diff` */
import { Command } from "commander";
import { stopError } from "../base/errors.js";
import { folded, percent, significant, table } from "../base/format.js";
import { diffCheckpoints, type CheckpointDiff, type TensorDiff } from "../surgery/convert/diff.js";
import {
  compareDistances,
  distance,
  groupDiffs,
  groupNames,
  type DiffGroup,
  type NameGroup,
} from "../surgery/convert/diff-groups.js";
import { openContext } from "./context.js";
import { askedModel, fetchedSources, orAdapted, shownModel } from "./model-folder.js";
import { withExample, withJson, type CommonFlags } from "./options.js";

interface DiffFlags extends CommonFlags {
  readonly tensors?: boolean;
  readonly all?: boolean;
  readonly exitCode?: boolean;
}

/** The most rows of each list that are shown without --all. */
const mostRows = 20;

/** The command with its options and its help. */
export function diffCommand(): Command {
  const command = new Command("diff")
    .description("compare two models tensor by tensor, and their configs")
    .argument("<a>", `model folder, ${orAdapted}`)
    .argument("<b>", "model to compare it with")
    .option("--tensors", "a line for every tensor, not for all layers' (and experts') together")
    .option("--all", `show every difference, not the ${mostRows} largest`)
    .option("--exit-code", "exit with 1 if there is any difference")
    .action(execute);
  const remarks = [
    "Tensors are matched by what they are to the model, whatever they are called. " +
      "A line for several says what is largest among them, and the smallest cosine.",
    "relative: ||b - a|| / ||a||. Exit code 0 also for models that differ.",
  ];
  return withExample(withJson(command), "upcycle diff models/before models/after", ...remarks);
}

async function execute(a: string, b: string, flags: DiffFlags): Promise<void> {
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: "" });
  const asked = [await askedModel(a), await askedModel(b)] as const;
  const [sourceA, sourceB] = await fetchedSources(asked, flags.json, { part: "all" });
  const diff = await diffCheckpoints(sourceA, sourceB, {
    signal,
    onProgress: (done, total, name) =>
      terminal.progress(`${percent(done / total, 3)}  ${done} of ${total} tensors  comparing`, name),
  });
  if (json) terminal.json(diff);
  else {
    const most = flags.all === true ? Infinity : mostRows;
    terminal.out(diffLines(diff, { each: flags.tensors === true, most, columns: terminal.columns }));
  }
  if (flags.exitCode === true && !diff.equal)
    throw stopError("the models differ", { where: `${shownModel(sourceA)}, ${shownModel(sourceB)}` });
}

/** How a difference is shown. */
interface DiffView {
  /** Whether each tensor has a row, instead of all layers' together. */
  readonly each: boolean;
  /** The most rows of each list. */
  readonly most: number;
  readonly columns: number;
}

/** What is said first of models whose weights are no numbers; nothing of sound ones. */
function damageLines({ tensors }: CheckpointDiff, columns: number): string[] {
  return (["a", "b"] as const).flatMap((model, side) => {
    const damaged = tensors.filter(({ nonFinite }) => (nonFinite?.[side] ?? 0) > 0);
    const [first] = damaged;
    if (first === undefined) return [];
    const more = damaged.length === 1 ? "" : ` and ${damaged.length - 1} more`;
    return folded(`warning: ${model} is damaged: ${first.name}${more} has values that are NaN or infinite`, columns);
  });
}

function diffLines(diff: CheckpointDiff, view: DiffView): string[] {
  return [...damageLines(diff, view.columns), ...differenceLines(diff, view)];
}

function differenceLines(diff: CheckpointDiff, view: DiffView): string[] {
  const { tensors, onlyA, onlyB, config } = diff;
  if (diff.equal) return [`no difference: ${tensors.length} tensors and the config are equal`];
  const equal = tensors.filter((one) => one.equal).length;
  return [
    `tensors in both: ${tensors.length}, ${equal} of them equal to the last bit`,
    ...only("only in a", onlyA, view),
    ...only("only in b", onlyB, view),
    ...(equal === tensors.length ? [] : ["", ...(view.each ? tensorTable(tensors, view) : groupTable(tensors, view))]),
    ...(config.length === 0 ? [] : ["", ...configTable(config, view)]),
  ];
}

function configTable(config: CheckpointDiff["config"], { most, columns }: DiffView): string[] {
  const rows = config.slice(0, most).map(({ key, a, b }) => [key, a ?? "-", b ?? "-"]);
  return [
    ...table([["config.json", "a", "b"], ...rows], ["left", "left", "left"], columns),
    ...rest(config.length, most),
  ];
}

const numbers = ["max", "mean", "relative", "cosine"];
const right = numbers.map(() => "right" as const);

function tensorTable(tensors: readonly TensorDiff[], { most, columns }: DiffView): string[] {
  const different = tensors.filter(({ equal }) => !equal);
  const largest = different.sort((a, b) => compareDistances(distance(a), distance(b)));
  const rows = largest.slice(0, most).map((one) => [label(one), ...values(one)]);
  return [...table([["tensor", ...numbers], ...rows], ["left", ...right], columns), ...rest(largest.length, most)];
}

function groupTable(tensors: readonly TensorDiff[], { most, columns }: DiffView): string[] {
  const groups = groupDiffs(tensors);
  const rows = groups.slice(0, most).map((group) => [label(group), differing(group), ...values(group)]);
  const lines = table([["tensors", "differ", ...numbers], ...rows], ["left", "left", ...right], columns);
  return [...lines, ...rest(groups.length, most), "--tensors shows them one by one"];
}

function label({
  name,
  shapes,
  dtypes,
  difference,
}: Pick<TensorDiff, "name" | "shapes" | "dtypes" | "difference">): string {
  const [a, b] = dtypes;
  const what = a === b ? name : `${name} (${a}, ${b})`;
  return difference === null ? `${what} [${shapes[0].join(", ")}], [${shapes[1].join(", ")}]` : what;
}

function values({ difference }: Pick<TensorDiff, "difference">): string[] {
  if (difference === null) return ["-", "-", "-", "-"];
  const { maxAbs, meanAbs, relative, cosine } = difference;
  return [
    significant(maxAbs),
    significant(meanAbs),
    significant(relative),
    Number.isNaN(cosine) ? "NaN" : cosine.toFixed(5),
  ];
}

/** How many tensors of a group differ, and in which layers: `all 24`, or `3 of 24, layers 0-2`. */
function differing(group: DiffGroup): string {
  if (group.of === 1) return "1 of 1";
  return group.tensors === group.of ? `all ${group.of}` : `${group.tensors} of ${group.of}, ${layerWords(group)}`;
}

function layerWords({ layers }: NameGroup): string {
  const words = layers.map(([first, last]) => (first === last ? String(first) : `${first}-${last}`)).join(", ");
  const isOneLayer = layers.length === 1 && layers.every(([first, last]) => first === last);
  return `${isOneLayer ? "layer" : "layers"} ${words}`;
}

/** How many tensors only one of the models has, and which. */
function only(title: string, names: readonly string[], { each, most, columns }: DiffView): string[] {
  if (names.length === 0) return [];
  const groups = groupNames(names);
  const wordsOf = (group: NameGroup): string =>
    group.layers.length === 0 || group.tensors === 1
      ? group.name
      : `${group.name} (${group.tensors}, ${layerWords(group)})`;
  const words = each ? names : groups.map(wordsOf);
  const lines = [...words.slice(0, most), ...rest(words.length, most)].map((line) => `  ${line}`);
  return [`${title}: ${names.length}`, ...lines].flatMap((line) => folded(line, columns));
}

const rest = (count: number, most: number): string[] =>
  count > most ? [`and ${count - most} more (--all shows them)`] : [];
