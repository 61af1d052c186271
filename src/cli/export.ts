/** `upcycle export` */
import { Command } from "commander";
import { bytes, compact, duration, folded } from "../base/format.js";
import { countParams } from "../model/cost/params.js";
import { planModel } from "../surgery/convert/make.js";
import { exporting, type ReformPlan } from "../surgery/convert/reform.js";
import { isUnnamed, nameRelease, releaseFolder, requireReleasePlace } from "../surgery/convert/release.js";
import type { WorkflowResult } from "../surgery/convert/workflow.js";
import { openContext, shownPath } from "./context.js";
import { askedModel, fetchedSource, orAdapted } from "./model-folder.js";
import { byteSize, defaultThreads, oneOf, wholeNumber, withExample, withJson } from "./options.js";
import {
  allowNonFinite,
  carryOut,
  countedFiles,
  dtypeChoices,
  dtypeName,
  dtypeOf,
  requireBeforehand,
  soundLines,
  type MakeFlags,
  type ResultView,
} from "./workflow.js";

interface ExportFlags extends MakeFlags {
  readonly format: "megatron";
  readonly threads?: number;
}

/** The command `export` with its options and its help. */
export function exportCommand(): Command {
  const command = new Command("export")
    .description("write a model as it is, dense or MoE, as a checkpoint that Megatron-Core loads")
    .argument("<model>", `model folder, ${orAdapted}`)
    .requiredOption(
      "--format <name>",
      "megatron: one torch_dist folder for any layout of ranks",
      oneOf("--format", ["megatron"]),
    )
    .option("--out <dir>", "folder of saves to make (needed unless --dry-run)")
    .option("--dtype <name>", `${dtypeChoices.join(", ")} (default: the model's)`, oneOf("--dtype", dtypeChoices))
    .option("--shard-size <size>", "most bytes per weight file (default: 5GB)", byteSize("--shard-size"))
    .option("--overwrite", "replace the model in the folder if it is there")
    .option(...allowNonFinite)
    .option("--threads <n>", "threads that copy (default: at most 2)", wholeNumber("--threads", 1, 64))
    .option("--dry-run", "say what would be made; write nothing")
    .action(execute);
  const remark =
    "Start Megatron-LM with --load DIR --finetune --exit-on-missing-checkpoint and the model's arguments. " +
    "upcycle import is the way back. An interrupted export goes on when the same command is given again.";
  return withExample(withJson(command), "upcycle export models/moe --format megatron --out megatron/moe", remark);
}

async function execute(model: string, flags: ExportFlags, command: Command): Promise<void> {
  const { out, shardSize, dryRun } = flags;
  if (out === undefined && dryRun !== true) return command.error("error: required option '--out <dir>' not specified");
  const inside = out === undefined ? flags : { ...flags, out: releaseFolder(out) };
  if (out !== undefined) await requireReleasePlace(out);
  const asked = await askedModel(model);
  const acceptFinished = out !== undefined && (await isUnnamed(out));
  await requireBeforehand([asked], inside, acceptFinished);
  const source = await fetchedSource(asked, flags.json, dryRun === true ? "headers" : "all", (one) =>
    planModel(exporting({ source: one })),
  );
  const context = openContext({ json: flags.json, stopping: "finishing the parts in hand" });
  const threads = flags.threads ?? Math.min(2, defaultThreads());
  await carryOut(
    exporting({ source, dtype: dtypeOf(flags.dtype), maxShardBytes: shardSize }),
    inside,
    {
      threads: { prompts: threads, calibration: threads, writing: threads, proof: threads },
      report: false,
      acceptFinished,
      doing: "exporting",
      ...(out === undefined ? {} : { afterwards: () => nameRelease(out) }),
    },
    reformShown(out),
    context,
  );
}

/** What is shown of a model in another form; `out`: the folder of saves, null for a model folder. */
export function reformShown(out: string | null | undefined): ResultView<ReformPlan, unknown> {
  return {
    facts: ({ plan, dtype, weightBytes, warnings }) => ({
      family: plan.target.family,
      from: plan.source.family,
      format: plan.format,
      dtype: dtypeName(dtype),
      weightBytes,
      warnings,
      params: countParams(plan.target),
    }),
    planLines: (planned) => [...lines(planned), ...planned.warnings.map((warning) => `warning: ${warning}`)],
    madeLines: ({ made }: WorkflowResult<ReformPlan, unknown>, columns) => [
      ...soundLines(made, lines(made)).flatMap((line) => folded(line, columns)),
      `${countedFiles(made.weightFiles)} written in ${duration(made.seconds)}`,
      ...(out == null ? [`model: ${shownPath(made.dir)}`] : [loadLine(out)]),
    ],
  };
}

/** How Megatron-LM loads a folder of saves. */
export const loadLine = (saves: string): string =>
  `load with: --load ${shownPath(saves)} --finetune --exit-on-missing-checkpoint`;

function lines({ plan, dtype, weightBytes }: ReformPlan): string[] {
  const { source, target, format } = plan;
  const form = format === "torch_dist" ? "Megatron-Core (torch_dist)" : target.family;
  return [
    `${source.family} to ${form}: the weights as they are`,
    `parameters: ${compact(countParams(target).total)}; ${bytes(weightBytes, 3)} as ${dtypeName(dtype)}`,
  ];
}
