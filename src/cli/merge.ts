/** `upcycle merge`: a dense model out of the experts of an MoE. */
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { bytes, compact } from "../base/format.js";
import { merging, requireMergeable, type MergingPlan } from "../surgery/convert/merge.js";
import { countParams } from "../model/cost/params.js";
import { sizeLimits } from "../files/io/open.js";
import { readJson } from "../files/io/ranges.js";
import type { MergeChoice } from "../surgery/planning/merge.js";
import { openContext, shownPath } from "./context.js";
import { askedModel, fetchedSource, orAdapted } from "./model-folder.js";
import { byteSize, oneOf, wholeNumber, withExample, withJson } from "./options.js";
import { withDevice } from "./device.js";
import {
  allowNonFinite,
  carryOut,
  dtypeName,
  dtypeChoices,
  dtypeOf,
  requireBeforehand,
  resultView,
  type MakeFlags,
} from "./workflow.js";

interface MergeFlags extends MakeFlags {
  readonly expert?: number;
  readonly weights?: string;
}

/** The command with its options and its help. */
export function mergeCommand(): Command {
  const command = new Command("merge")
    .description("average the experts of an MoE, or pick one, into a dense model folder")
    .argument("<model>", `MoE model folder, ${orAdapted}`)
    .option("--out <dir>", "folder to make (needed unless --dry-run)")
    .option("--expert <n>", "take this expert alone, counted from 0", wholeNumber("--expert", 0))
    .option(
      "--weights <file>",
      "uniform (the default), or a JSON file: a number for each expert, or such a list for each layer (null: dense)",
    )
    .option("--dtype <name>", `${dtypeChoices.join(", ")} (default: the model's)`, oneOf("--dtype", dtypeChoices))
    .option("--shard-size <size>", "most bytes per weight file (default: 5GB)", byteSize("--shard-size"))
    .option("--overwrite", "replace the folder if it is there")
    .option(...allowNonFinite)
    .option("--threads <n>", "threads that compute (default: 1)", wholeNumber("--threads", 1, 64))
    .option("--dry-run", "say what would be made; write nothing")
    .action(execute);
  const remark = [
    "Where the folder says how the experts were made (upcycle.json, multiply.json, the key upcycle of config.json),",
    "an expert is a whole copy of the FFN, put together from its parts, and the recipe's factors are undone:",
    "experts that were not trained give the parent back. Otherwise each is taken to be a whole FFN. An",
    "interrupted merge goes on when the same command is given again.",
  ].join(" ");
  return withExample(withJson(withDevice(command)), "upcycle merge models/moe --out models/dense", remark);
}

async function execute(model: string, flags: MergeFlags, command: Command): Promise<void> {
  const choice = await choiceOf(flags);
  const { threads = 1, shardSize } = flags;
  if (flags.out === undefined && flags.dryRun !== true)
    return command.error("error: required option '--out <dir>' not specified");
  const asked = await askedModel(model);
  await requireBeforehand([asked], flags);
  const source = await fetchedSource(asked, flags.json, "all", (one) => requireMergeable({ source: one, choice }));
  const context = openContext({ json: flags.json, stopping: "finishing the parts in hand" });
  const surgery = merging({ source, choice, dtype: dtypeOf(flags.dtype), maxShardBytes: shardSize });
  const running = {
    threads: { prompts: threads, calibration: threads, writing: threads, proof: threads },
    report: false,
    doing: "merging",
  };
  await carryOut(surgery, flags, running, resultView(facts, lines), context);
}

/** What the flags say of the experts: one of them, or weights for all. */
async function choiceOf({ expert, weights }: MergeFlags): Promise<MergeChoice> {
  if (expert !== undefined) {
    if (weights !== undefined)
      throw inputError("an expert of its own needs no weights", {
        where: "--expert, --weights",
        hint: "leave one of them out",
      });
    return { kind: "expert", index: expert };
  }
  if (weights === undefined || weights === "uniform") return { kind: "mean", weights: null };
  const data: unknown = await readJson(weights, sizeLimits.settings);
  const isList = (value: unknown): value is number[] =>
    Array.isArray(value) && value.every((entry) => typeof entry === "number");
  const isListOfLists = (value: unknown): value is (number[] | null)[] =>
    Array.isArray(value) && value.every((entry) => entry === null || isList(entry));
  if (isList(data) || isListOfLists(data)) return { kind: "mean", weights: data };
  throw inputError("is not a list of numbers, nor one such list (or null) for each layer", {
    where: shownPath(weights),
  });
}

function facts({ plan, dtype, weightBytes, warnings }: MergingPlan): Record<string, unknown> {
  const { source, target, choice, how, kept, lineage } = plan;
  return {
    family: target.family,
    from: source.family,
    record: lineage !== null,
    choice,
    how,
    kept,
    dtype: dtypeName(dtype),
    weightBytes,
    warnings,
    params: countParams(target),
    sourceParams: countParams(source),
  };
}

function lines({ plan, dtype, weightBytes }: MergingPlan): string[] {
  const { source, target, how, kept } = plan;
  const params = `parameters: ${compact(countParams(target).total)} (of ${compact(countParams(source).total)})`;
  return [
    `${source.family} to ${target.family}: ${how}`,
    `function: ${kept}`,
    `${params}; ${bytes(weightBytes, 3)} as ${dtypeName(dtype)}`,
  ];
}
