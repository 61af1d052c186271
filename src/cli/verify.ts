/** `upcycle verify` */
import { Command } from "commander";
import { inputError, stopError } from "../base/errors.js";
import { compact, significant, table } from "../base/format.js";
import { shellPath } from "../base/shell.js";
import { openCheckpoint, type ModelSource } from "../files/checkpoint/open.js";
import { readRecord, type UpcycleRecord } from "../surgery/convert/record.js";
import { countParams } from "../model/cost/params.js";
import { measurePreservation } from "../evals/preservation.js";
import type { PreservationReport } from "../model/results/preservation.js";
import { isMoe } from "../model/decoder/types.js";
import { openContext } from "./context.js";
import { chosenBackend, withDevice, type DeviceFlags } from "./device.js";
import { modelSource, orAdapted, shownModel } from "./model-folder.js";
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

export const textHelp =
  "text to measure on: .txt, .jsonl, .jsonl.gz or a folder; may be given again " +
  "(default: built-in text, or random ids for a model without tokenizer)";

const remark =
  "Models that do not fit into --memory are measured layer by layer, their weights streamed from disk; a few " +
  "GB are enough for any size. " +
  ("Exit code 1: the models differ by more than --tolerance; without it, by more than rounding although the " +
    "child's upcycle.json promises the parent's function.");

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
  const [dense, moe] = [await modelSource(denseName, flags.json), await modelSource(moeName, flags.json)];
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: "" });
  await requireOrder(dense, moe);
  const { text, tokens, sequence, memory, tolerance } = flags;
  const found = await measurePreservation({
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
  // What a record promises is said of the weights as they were written, not of an adapter on them.
  const record = typeof moe === "string" ? await readRecord(moe) : null;
  if (json) terminal.json(summary(found));
  else
    terminal.out([
      ...(await modelLines(dense, moe, found, terminal.columns)),
      "",
      ...preservationLines(found, terminal.columns),
    ]);
  requirePreserved(found, record, tolerance, shownModel(moe));
}

/**
 * Throws inputError for a mixture in the place of the parent and a dense model in that of the child: they were given
 * the wrong way round.
 */
async function requireOrder(dense: ModelSource, moe: ModelSource): Promise<void> {
  const isMixture = async (source: ModelSource): Promise<boolean> => {
    const checkpoint = await openCheckpoint(source);
    await checkpoint.close();
    const { spec } = checkpoint;
    return isMoe(spec);
  };
  if (!(await isMixture(dense)) || (await isMixture(moe))) return;
  throw inputError(`this model is a mixture of experts, and ${shownModel(moe)} is dense: the parent comes first`, {
    where: shownModel(dense),
    hint: `swap them: upcycle verify ${shellPath(shownModel(moe))} ${shellPath(shownModel(dense))}`,
  });
}

/** Throws stopError, exit code 1, where the difference is larger than the user or the model's own record allows. */
function requirePreserved(
  { relative, verdict }: PreservationReport,
  record: UpcycleRecord | null,
  tolerance: number | undefined,
  where: string,
): void {
  // Written so that a NaN fails.
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

function summary(found: PreservationReport): Record<string, unknown> {
  const {
    parentLoss: denseLoss,
    childLoss: moeLoss,
    maxAbsLogitDiff,
    meanAbsLogitDiff,
    maxAbsLogit,
    relative,
    tokens,
    source,
    ...rest
  } = found;
  const { klDivergence, topAgreement, sequence, streamed, precision, layers, verdict } = rest;
  return {
    maxAbsLogitDiff,
    meanAbsLogitDiff,
    denseLoss,
    moeLoss,
    maxAbsLogit,
    relative,
    tokens,
    source,
    sequence,
    klDivergence,
    topAgreement,
    streamed,
    precision,
    layers,
    verdict,
  };
}

async function modelLines(
  dense: ModelSource,
  moe: ModelSource,
  found: PreservationReport,
  columns: number,
): Promise<readonly string[]> {
  const row = async (source: ModelSource, loss: number): Promise<string[]> => {
    const checkpoint = await openCheckpoint(source);
    await checkpoint.close();
    const { spec } = checkpoint;
    const { total, active } = countParams(spec);
    return [isMoe(spec) ? "MoE" : "dense", spec.family, compact(total), compact(active), loss.toFixed(5)];
  };
  const rows = [
    ["", "family", "parameters", "active", "loss"],
    await row(dense, found.parentLoss),
    await row(moe, found.childLoss),
  ];
  return table(rows, ["left", "left", "right", "right", "right"], columns);
}
