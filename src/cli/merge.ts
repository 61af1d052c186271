/** `upcycle merge` */
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { bytes, compact, duration, folded } from "../base/format.js";
import type { WriteDtype } from "../files/checkpoint/write.js";
import { mergeCheckpoint, planMerging, type MergingPlan } from "../surgery/convert/merge.js";
import { countParams } from "../model/cost/params.js";
import { sizeLimits } from "../files/io/open.js";
import { readJson } from "../files/io/ranges.js";
import type { MergeChoice } from "../surgery/planning/merge.js";
import { openContext, shownPath } from "./context.js";
import { askedModel, modelSource, orAdapted } from "./model-folder.js";
import { byteSize, oneOf, wholeNumber, withExample, withJson, type CommonFlags } from "./options.js";
import { conversionView } from "./progress.js";
import { requireBeforehand } from "./proof.js";

interface MergeFlags extends CommonFlags {
  readonly out?: string;
  readonly expert?: number;
  readonly weights?: string;
  readonly dtype?: keyof typeof dtypes;
  readonly shardSize?: number;
  readonly overwrite?: boolean;
  readonly dryRun?: boolean;
}

const dtypes = { float32: "F32", bfloat16: "BF16", float16: "F16" } as const satisfies Record<string, WriteDtype>;
const dtypeNames = Object.keys(dtypes) as (keyof typeof dtypes)[];

export function mergeCommand(): Command {
  const command = new Command("merge")
    .description("average the experts of a mixture, or pick one, into a dense model folder")
    .argument("<model>", `MoE model folder, ${orAdapted}`)
    .option("--out <dir>", "folder to make (needed unless --dry-run)")
    .option("--expert <n>", "take this expert alone, counted from 0", wholeNumber("--expert", 0))
    .option(
      "--weights <file>",
      "uniform (the default), or a JSON file: a number for each expert, or such a list for each layer (null: dense)",
    )
    .option("--dtype <name>", `${dtypeNames.join(", ")} (default: the model's)`, oneOf("--dtype", dtypeNames))
    .option("--shard-size <size>", "most bytes per weight file (default: 5GB)", byteSize("--shard-size"))
    .option("--overwrite", "replace the folder if it is there")
    .option("--threads <n>", "threads that compute (default: 1)", wholeNumber("--threads", 1, 64))
    .option("--dry-run", "say what would be made; write nothing")
    .action(execute);
  const remark = [
    "Where the folder says how the experts were made (upcycle.json, multiply.json, the key upcycle of config.json),",
    "an expert is a whole copy of the FFN, put together from its parts, and the recipe's factors are undone:",
    "experts that were not trained give the parent back. Otherwise each is taken to be a whole FFN. An",
    "interrupted merge goes on when the same command is given again.",
  ].join(" ");
  return withExample(withJson(command), "upcycle merge models/moe --out models/dense", remark);
}

async function execute(model: string, flags: MergeFlags, command: Command): Promise<void> {
  const choice = await choiceOf(flags);
  const { out, threads, overwrite } = flags;
  if (out === undefined && flags.dryRun !== true)
    return command.error("error: required option '--out <dir>' not specified");
  await requireBeforehand([await askedModel(model)], flags);
  const source = await modelSource(model, flags.json);
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: "finishing the parts in hand" });
  const options = { source, choice, dtype: flags.dtype && dtypes[flags.dtype], maxShardBytes: flags.shardSize };
  if (flags.dryRun === true) {
    const planned = await planMerging(options);
    if (json) terminal.json({ dryRun: true, ...facts(planned) });
    else
      terminal.out(
        [
          ...lines(planned),
          ...planned.warnings.map((warning) => `warning: ${warning}`),
          "dry run: nothing was written",
        ].flatMap((line) => folded(line, terminal.columns)),
      );
    return;
  }
  const made = await mergeCheckpoint({
    ...options,
    out: out!,
    threads,
    overwrite,
    signal,
    onEvent: conversionView(terminal, "merging"),
  });
  if (json)
    return terminal.json({
      dryRun: false,
      model: made.dir,
      weightFiles: made.weightFiles,
      seconds: made.seconds,
      ...facts(made),
    });
  const files = made.weightFiles.length === 1 ? "1 weight file" : `${made.weightFiles.length} weight files`;
  terminal.out([
    ...lines(made).flatMap((line) => folded(line, terminal.columns)),
    `${files} written in ${duration(made.seconds)}`,
    `model: ${shownPath(made.dir)}`,
  ]);
}

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
  const read: unknown = await readJson(weights, sizeLimits.settings);
  const isList = (value: unknown): value is number[] =>
    Array.isArray(value) && value.every((entry) => typeof entry === "number");
  if (isList(read) || (Array.isArray(read) && read.every((entry) => entry === null || isList(entry))))
    return { kind: "mean", weights: read };
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
    dtype: dtypeNames.find((name) => dtypes[name] === dtype),
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
    `${params}; ${bytes(weightBytes, 3)} as ${dtypeNames.find((name) => dtypes[name] === dtype)}`,
  ];
}
