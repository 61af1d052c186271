/** `upcycle import` */
import { join } from "node:path";
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { megatronFolder, type MegatronReading } from "../files/checkpoint/open-megatron.js";
import { exists } from "../files/io/atomic.js";
import { sizeLimits } from "../files/io/open.js";
import { readText } from "../files/io/ranges.js";
import { argumentsIn, settingsOfArguments } from "../model/decoder/megatron-arguments.js";
import { families, type Family } from "../model/decoder/types.js";
import { importing } from "../surgery/convert/reform.js";
import { openContext, shownPath } from "./context.js";
import { reformShown } from "./export.js";
import { modelFolder } from "./model-folder.js";
import { byteSize, oneOf, wholeNumber, withExample, withJson } from "./options.js";
import { allowNonFinite, carryOut, dtypeChoices, dtypeOf, requireBeforehand, type MakeFlags } from "./workflow.js";

interface ImportFlags extends MakeFlags {
  readonly args?: string;
  readonly like?: string;
  readonly vocabSize?: number;
  readonly target?: Family;
}

/** The command `import` with its options and its help. */
export function importCommand(): Command {
  const command = new Command("import")
    .description("write a checkpoint of Megatron-Core as a Hugging Face model folder")
    .argument("<dir>", "folder of saves, or of one save (torch_dist, or mp_rank_* files)")
    .option("--out <dir>", "folder to make (needed unless --dry-run)")
    .option("--args <file>", "arguments of pretrain_gpt.py, or a script with them, where the checkpoint holds none")
    .option("--like <model>", "model folder whose family, special tokens and tokenizer the new one gets")
    .option(
      "--vocab-size <n>",
      "words of the vocabulary, where rows were added to it (default: as the checkpoint says)",
      wholeNumber("--vocab-size", 1),
    )
    .option(
      "--target <family>",
      "family to write (default: --like's, or one that holds the model)",
      oneOf("--target", families),
    )
    .option("--dtype <name>", `${dtypeChoices.join(", ")} (default: the stored one)`, oneOf("--dtype", dtypeChoices))
    .option("--shard-size <size>", "most bytes per weight file (default: 5GB)", byteSize("--shard-size"))
    .option("--overwrite", "replace the folder if it is there")
    .option(...allowNonFinite)
    .option("--dry-run", "say what would be made; write nothing")
    .action(execute);
  const remark =
    "Nothing in the checkpoint is executed. The optimizer's float32 master weights are taken where they are stored " +
    "in the model's shape. An interrupted import goes on when the same command is given again.";
  return withExample(withJson(command), "upcycle import megatron/moe --out models/moe", remark);
}

async function execute(dir: string, flags: ImportFlags, command: Command): Promise<void> {
  const { out, shardSize, dryRun, json, like, target } = flags;
  if (out === undefined && dryRun !== true) return command.error("error: required option '--out <dir>' not specified");
  await requireBeforehand([dir], flags);
  if ((await exists(dir)) && (await megatronFolder(dir)) === null)
    throw inputError("folder holds no checkpoint of Megatron-Core", {
      where: shownPath(dir),
      hint: "expected .metadata with metadata.json, or mp_rank_* folders; upcycle export is the way there",
    });
  const model = like === undefined ? undefined : await modelFolder(like, json, "settings");
  const context = openContext({ json, stopping: "finishing the parts in hand" });
  const surgery = importing({
    source: dir,
    reading: await readingOf(flags, model),
    carry: model,
    family: target,
    dtype: dtypeOf(flags.dtype),
    maxShardBytes: shardSize,
  });
  const threads = { prompts: 1, calibration: 1, writing: 1, proof: 1 };
  await carryOut(surgery, flags, { threads, report: false, doing: "importing" }, reformShown(null), context);
}

async function readingOf(
  { args, vocabSize }: ImportFlags,
  model: string | undefined,
): Promise<MegatronReading | undefined> {
  if (args === undefined && vocabSize === undefined && model === undefined) return undefined;
  const settings =
    args === undefined ? undefined : settingsOfArguments(argumentsIn(await readText(args, sizeLimits.settings)));
  return { settings, vocab: vocabSize, like: model === undefined ? undefined : join(model, "config.json") };
}
