/** `upcycle experts`: what the experts of an MoE do, and what it would cost to leave some out or to merge them. */
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { percent } from "../base/format.js";
import { isOwnPage, requireFilePlace } from "../files/io/named-file.js";
import { writeFileAtomic } from "../files/io/atomic.js";
import { modelFolderOf, type ModelSource } from "../files/checkpoint/model-source.js";
import { parseChange } from "../experts/measures/changes.js";
import { measureExperts, recordedParent, type ExpertsEvent } from "../experts/measure.js";
import { isMoe, type DecoderSpec } from "../model/decoder/types.js";
import type { ExpertsChange } from "../model/results/experts.js";
import { renderExpertsPage } from "../report/experts/experts-page.js";
import { expertsText } from "../report/experts/experts-terminal.js";
import { chartAssets } from "../study/chart-assets.js";
import { readRecord } from "../surgery/convert/record.js";
import { toolVersion } from "../surgery/convert/version.js";
import { commandLine } from "./assets.js";
import { openContext, shownPath } from "./context.js";
import { decoderOf } from "./decoder-of.js";
import { chosenBackend, withDevice, type DeviceFlags } from "./device.js";
import { modelSource, orAdapted, orHub, shownModel } from "./model-folder.js";
import {
  collect,
  defaultThreads,
  wholeNumber,
  withExample,
  withJson,
  withThreads,
  type CommonFlags,
} from "./options.js";
import type { Terminal } from "./terminal.js";

interface ExpertsFlags extends CommonFlags, DeviceFlags {
  readonly text?: readonly string[];
  readonly parent?: string;
  readonly tokens: number;
  readonly sequence: number;
  readonly candidates?: number;
  readonly without?: readonly ExpertsChange[];
  readonly merged?: readonly ExpertsChange[];
  readonly seed: number;
  readonly html?: string;
}

/** Candidates of each kind where no change is asked for. */
const usualCandidates = 4;

/** The command with its options and its help. */
export function expertsCommand(): Command {
  const changes =
    (kind: ExpertsChange["kind"]) =>
    (text: string, before: readonly ExpertsChange[] | undefined): readonly ExpertsChange[] => [
      ...(before ?? []),
      parseChange(kind, text),
    ];
  const command = new Command("experts")
    .description("say what the experts of an MoE do, how alike they are, and what it costs to drop or merge some")
    .argument("<model>", `folder of a mixture of experts with a tokenizer.json, ${orAdapted}`)
    .option(
      "--text <file>",
      "text to route: .txt, .jsonl, .jsonl.gz, .parquet or a folder; given again, another text to tell apart " +
        "(default: the two texts that come along)",
      collect,
    )
    .option(
      "--parent <dense>",
      `dense model that the experts were made from, ${orHub} (default: the one that upcycle.json names, where it ` +
        "lies beside the model)",
    )
    .option("--tokens <n>", "tokens of each text", wholeNumber("--tokens", 4, 100_000_000), 8192)
    .option("--sequence <n>", "tokens per sequence, at most the model's positions", wholeNumber("--sequence", 2), 256)
    .option(
      "--candidates <n>",
      "experts to leave out one at a time, and pairs to merge, that are tried on held-out text " +
        `(default: ${usualCandidates}, or 0 with --without or --merged)`,
      wholeNumber("--candidates", 0, 10_000),
    )
    .option(
      "--without <LAYER:EXPERT,...>",
      "measure the loss with these experts never chosen; may be given again",
      changes("without"),
    )
    .option(
      "--merged <LAYER:A+B,...>",
      "measure the loss with these experts sharing the mean of their weights; may be given again",
      changes("merged"),
    )
    .option("--seed <n>", "of the deals that say what chance does", wholeNumber("--seed", 0), 0)
    .option("--html <file>", "write a page with heat maps")
    .action(execute);
  return withExample(
    withJson(withThreads(withDevice(command))),
    "upcycle experts models/moe --text prose.txt --html page.html",
    "Of each text every other sequence is looked at; the others are held out, and what a change costs is measured on " +
      "them. Weights are streamed from disk: a model may be larger than memory.",
  );
}

async function execute(name: string, flags: ExpertsFlags): Promise<void> {
  if (flags.html !== undefined) await requireFilePlace(flags.html, "page of this command", isOwnPage);
  const model = await modelSource(name, flags.json);
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: "" });
  const parent = await parentSource(model, flags, terminal);
  const changes = [...(flags.without ?? []), ...(flags.merged ?? [])];
  const report = await measureExperts({
    model,
    parent,
    text: flags.text ?? [],
    tokens: flags.tokens,
    sequence: flags.sequence,
    candidates: flags.candidates ?? (changes.length === 0 ? usualCandidates : 0),
    changes,
    seed: flags.seed,
    backend: await chosenBackend(flags.device, terminal),
    threads: flags.threads ?? defaultThreads(),
    signal,
    onEvent: progressView(terminal),
  });
  const names = { model: shownModel(model), parent: parent === undefined ? null : shownModel(parent) };
  if (flags.html !== undefined) {
    const page = { ...names, command: commandLine(), version: toolVersion };
    await writeFileAtomic(flags.html, renderExpertsPage(report, page, await chartAssets()));
  }
  if (json) {
    terminal.json({ upcycle: toolVersion, ...report });
    return;
  }
  terminal.out(expertsText(report, names, terminal.columns));
  if (flags.html !== undefined) terminal.out(["", `report: ${shownPath(flags.html)}`]);
}

/**
 * The dense parent that was asked for, else the one that the model's record names, if a dense model of that name lies
 * beside it. Throws inputError for a parent that is no dense model.
 */
async function parentSource(
  model: ModelSource,
  { parent, json }: ExpertsFlags,
  terminal: Terminal,
): Promise<ModelSource | undefined> {
  if (parent !== undefined) {
    const source = await modelSource(parent, json);
    if (isMoe(await decoderOf(source)))
      throw inputError("this model is a mixture of experts, not a dense parent", { where: `--parent ${parent}` });
    return source;
  }
  const dir = modelFolderOf(model);
  const record = await readRecord(dir);
  if (record === null) return undefined;
  const { name } = record.parent;
  const found = await recordedParent(dir, name);
  if (found !== null && areOfOneShape(await decoderOf(found), await decoderOf(model))) return found;
  terminal.note(
    `the experts are not compared with their parent: upcycle.json names ${name}, give its folder as --parent`,
  );
  return undefined;
}

/** Whether a model of the recorded name can be the parent: another of that name may have come in its place. */
function areOfOneShape(parent: DecoderSpec, child: DecoderSpec): boolean {
  return !isMoe(parent) && parent.hidden === child.hidden && parent.layers.length === child.layers.length;
}

function progressView(terminal: Terminal): (event: ExpertsEvent) => void {
  return ({ doing, done, total }) => {
    const what = doing === "looking" ? "looking at the experts" : "measuring costs on held-out text";
    terminal.progress(`${percent(done / total, 3)}  layer ${done} of ${total}  ${what}`);
  };
}
