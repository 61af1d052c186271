/** `upcycle verify` */
import { Command } from "commander";
import { inputError, stopError } from "../base/errors.js";
import { compact, significant, table } from "../base/format.js";
import { shellPath } from "../base/shell.js";
import type { ModelSource } from "../files/checkpoint/open.js";
import { readRecord, type UpcycleRecord } from "../surgery/convert/record.js";
import { countParams } from "../model/cost/params.js";
import { requireOneVocabulary } from "../evals/compare.js";
import { measurePreservation } from "../evals/preservation.js";
import type { PreservationReport } from "../model/results/preservation.js";
import { isMoe, type DecoderSpec } from "../model/decoder/types.js";
import { openContext } from "./context.js";
import { decoderOf } from "./decoder-of.js";
import { chosenBackend, withDevice, type DeviceFlags } from "./device.js";
import { askedModel, fetchedSources, orAdapted, shownModel } from "./model-folder.js";
import {
  byteSize,
  collect,
  defaultThreads,
  realNumber,
  wholeNumber,
  withExample,
  withJson,
  withThreads,
  type CommonFlags,
} from "./options.js";
import { preservationLines, preservationView } from "./preservation.js";

interface VerifyFlags extends CommonFlags, DeviceFlags {
  readonly text?: readonly string[];
  readonly tokens?: number;
  readonly sequence: number;
  readonly memory?: number;
  readonly tolerance?: number;
}

/** Words for the help of `--text`. */
export const textHelp =
  "text to measure on: .txt, .jsonl, .jsonl.gz or a folder; may be given again " +
  "(default: built-in text, or random ids for a model without tokenizer)";

const remark =
  "Models that do not fit into --memory are measured layer by layer, their weights streamed from disk; a few " +
  "GB are enough for any size. " +
  ("Exit code 1: the models differ by more than --tolerance; without it, by more than rounding although the " +
    "child's upcycle.json promises the parent's function.");

/** The command with its options and its help. */
export function verifyCommand(): Command {
  const command = new Command("verify")
    .description("measure how far an MoE model's function is from its dense parent's")
    .argument("<dense>", `folder of the dense parent, ${orAdapted}`)
    .argument("<moe>", "folder of the upcycled model, likewise")
    .option("--text <file>", textHelp, collect)
    .option("--tokens <n>", "tokens to predict (default: 4096, streamed 512)", wholeNumber("--tokens", 1, 100_000_000))
    .option("--sequence <n>", "tokens per sequence, at most the model's positions", wholeNumber("--sequence", 1), 256)
    .option(
      "--memory <size>",
      "memory that may be used, 4GB for example (default: half of the machine's)",
      byteSize("--memory"),
    )
    .option(
      "--tolerance <number>",
      "largest difference to accept, as a fraction of the largest logit",
      realNumber("--tolerance", 0),
    )
    .action(execute);
  return withExample(
    withJson(withThreads(withDevice(command))),
    "upcycle verify models/dense models/moe --text book.txt",
    remark,
  );
}

async function execute(denseName: string, moeName: string, flags: VerifyFlags): Promise<void> {
  const asked = [await askedModel(denseName), await askedModel(moeName)] as const;
  const names = [shownModel(asked[0]), shownModel(asked[1])] as const;
  const [dense, moe] = await fetchedSources(asked, flags.json, {
    part: "all",
    judgeSpecs: ([parent, child]) => requireOrder(parent, child, names),
    judge: ([parent, child]) => requireComparable(parent, child, names),
  });
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: "" });
  await requireComparable(dense, moe, names);
  const { text, tokens, sequence, memory, tolerance } = flags;
  const report = await measurePreservation({
    parent: dense,
    child: moe,
    text,
    tokens,
    sequence,
    memory,
    signal,
    threads: flags.threads ?? defaultThreads(),
    backend: await chosenBackend(flags.device, terminal),
    onEvent: preservationView(terminal),
  });
  // A record promises something of the weights as they were written, not of a model that an adapter has changed.
  const record = typeof moe === "string" ? await readRecord(moe) : null;
  const { columns } = terminal;
  const parts = [await modelLines(dense, moe, report, columns), preservationLines(report, columns)] as const;
  if (json) terminal.json(summary(report));
  else {
    const [above, below] = report.verdict.kind === "damaged" ? parts.toReversed() : parts;
    terminal.out([...(above ?? []), "", ...(below ?? [])]);
  }
  requirePreserved(report, record, tolerance, shownModel(moe));
}

/** The parent's and the child's name, as the user wrote them. */
type Names = readonly [parent: string, child: string];

/** Throws inputError for models that are the wrong way round, and for models of different vocabularies. */
async function requireComparable(dense: ModelSource, moe: ModelSource, names: Names): Promise<void> {
  const [parent, child] = [await decoderOf(dense), await decoderOf(moe)];
  requireOrder(parent, child, names);
  requireOneVocabulary({ spec: parent, dir: names[0] }, { spec: child, dir: names[1] });
}

/** Throws inputError where an MoE stands in the place of the parent and a dense model in that of the child. */
function requireOrder(parent: DecoderSpec, child: DecoderSpec, [parentName, childName]: Names): void {
  if (!isMoe(parent) || isMoe(child)) return;
  throw inputError(`this model is a mixture of experts, and ${childName} is dense: the parent comes first`, {
    where: parentName,
    hint: `swap them: upcycle verify ${shellPath(childName)} ${shellPath(parentName)}`,
  });
}

/** Throws stopError, exit code 1, where the difference is larger than the user or the model's own record allows. */
function requirePreserved(
  { relative, verdict }: PreservationReport,
  record: UpcycleRecord | null,
  tolerance: number | undefined,
  where: string,
): void {
  if (verdict.kind === "damaged")
    throw stopError("a logit is not a number, so nothing was compared", {
      where,
      hint: "upcycle diff PARENT CHILD counts NaN and infinite values tensor by tensor",
    });
  const within = (limit: number): boolean => relative <= limit;
  if (tolerance !== undefined) {
    if (!within(tolerance))
      throw stopError(
        `the logits differ by ${significant(relative)} of the largest, more than --tolerance ${tolerance}`,
        { where },
      );
  } else if (record?.expected.exactAtStart === true && !within(verdict.tolerance)) {
    throw stopError(
      `the logits differ by ${significant(relative)} of the largest, but upcycle.json promises the function of ` +
        `${record.parent.name}`,
      {
        where,
        hint: "is this the parent, or has the model been changed since? --tolerance sets another limit",
      },
    );
  }
}

/** The keys of `--json`, which call the parent dense and the child MoE. */
function summary(report: PreservationReport): Record<string, unknown> {
  return {
    maxAbsLogitDiff: report.maxAbsLogitDiff,
    meanAbsLogitDiff: report.meanAbsLogitDiff,
    denseLoss: report.parentLoss,
    moeLoss: report.childLoss,
    maxAbsLogit: report.maxAbsLogit,
    relative: report.relative,
    tokens: report.tokens,
    source: report.source,
    sequence: report.sequence,
    klDivergence: report.klDivergence,
    topAgreement: report.topAgreement,
    streamed: report.streamed,
    precision: report.precision,
    layers: report.layers,
    verdict: report.verdict,
  };
}

/** A table of both models: family, parameters and loss. */
async function modelLines(
  dense: ModelSource,
  moe: ModelSource,
  { parentLoss, childLoss }: PreservationReport,
  columns: number,
): Promise<readonly string[]> {
  const row = async (source: ModelSource, loss: number): Promise<string[]> => {
    const spec = await decoderOf(source);
    const { total, active } = countParams(spec);
    return [isMoe(spec) ? "MoE" : "dense", spec.family, compact(total), compact(active), loss.toFixed(5)];
  };
  const rows = [
    ["", "family", "parameters", "active", "loss"],
    await row(dense, parentLoss),
    await row(moe, childLoss),
  ];
  return table(rows, ["left", "left", "right", "right", "right"], columns);
}
