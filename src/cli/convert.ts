/** `upcycle convert`: a mixture-of-experts model out of dense models, or out of a smaller mixture. */
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { bytes, compact, duration, folded } from "../base/format.js";
import { foldersOf, type ModelSource } from "../files/checkpoint/model-source.js";
import type { FetchedPart } from "../files/hub/fetch.js";
import { isHubReference } from "../files/hub/reference.js";
import { forwardFlops } from "../model/cost/flops.js";
import { countParams } from "../model/cost/params.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { upcycling, type ConversionDetails, type ConversionPlan } from "../surgery/convert/convert.js";
import { sourceName } from "../surgery/convert/parents.js";
import { nameRelease, releaseFolder, requireReleasePlace } from "../surgery/convert/release.js";
import { factorRuns } from "../surgery/convert/record.js";
import type { WorkflowResult, WorkflowThreads } from "../surgery/convert/workflow.js";
import { explainExpectation, explainPlan } from "../surgery/planning/explain.js";
import { utilities, type ExpertUtility } from "../surgery/planning/multiply.js";
import { measuresRouter, recipeName } from "../surgery/planning/recipe.js";
import { openContext, shownPath, type ContextOptions } from "./context.js";
import { askedModel, fetchedSource, orAdapted } from "./model-folder.js";
import { multiplyRecipe, runMultiply } from "./multiply.js";
import { byteSize, collect, defaultThreads, oneOf, wholeNumber, withExample, withJson } from "./options.js";
import { withDevice } from "./device.js";
import { requestedConversion, withRecipe, type RequestedConversion, type RecipeFlags } from "./recipe-options.js";
import { verifyLine } from "./reproduce.js";
import { resolvedBy } from "./settings.js";
import { textHelp } from "./verify.js";
import {
  allowNonFinite,
  carryOut,
  countedFiles,
  dtypeName,
  dtypeChoices,
  dtypeOf,
  proofLines,
  requireBeforehand,
  soundLines,
  type DtypeName,
  type MakeFlags,
  type ResultView,
} from "./workflow.js";

interface ConvertFlags extends MakeFlags, RecipeFlags {
  readonly expertMultiply?: number;
  readonly topk?: number;
  readonly multiplyBy?: ExpertUtility["by"];
  readonly routerDtype?: DtypeName;
  readonly format?: "hf" | "megatron";
  /** False after --no-report. */
  readonly report: boolean;
}

/** One thread computes while another writes; more threads only wait for the disk. */
const defaultConvertThreads = Math.min(2, defaultThreads());

/** The command with its options and its help. */
export function convertCommand(): Command {
  const command = new Command("convert")
    .description("upcycle a dense model folder into a mixture-of-experts model folder")
    .argument("[model]", `dense model folder (Hugging Face: config.json, weights), ${orAdapted}`);
  withRecipe(command)
    .option(
      "--expert-multiply <m>",
      "make an MoE out of an MoE: every expert m times (in place of --recipe)",
      wholeNumber("--expert-multiply", 2, 65_536),
    )
    .option(
      "--topk <t>",
      "experts per token with --expert-multiply (default: m times the model's; the model's own with --multiply-by)",
      wholeNumber("--topk", 1),
    )
    .option(
      "--multiply-by <what>",
      `with --expert-multiply, copy experts of more ${utilities.join(" or ")} more often, measured on text`,
      oneOf("--multiply-by", utilities),
    )
    .option("--out <dir>", "folder to make (needed unless --dry-run)")
    .option(
      "--format <name>",
      "hf: a Hugging Face folder (the default); megatron: a torch_dist folder that Megatron-Core loads",
      oneOf("--format", ["hf", "megatron"]),
    )
    .option("--dtype <name>", `${dtypeChoices.join(", ")} (default: the model's)`, oneOf("--dtype", dtypeChoices))
    .option(
      "--router-dtype <name>",
      "of the routers alone (default: like the rest)",
      oneOf("--router-dtype", dtypeChoices),
    )
    .option("--shard-size <size>", "most bytes per weight file (default: 5GB)", byteSize("--shard-size"))
    .option("--overwrite", "replace the folder if it is there")
    .option(...allowNonFinite)
    .option(
      "--threads <n>",
      "threads that compute (default: at most 2 to convert, all cores to measure, 1 for prompts: the router's " +
        "last bits depend on it)",
      wholeNumber("--threads", 1, 64),
    )
    .option("--dry-run", "say what would be made, tensor by tensor; write nothing")
    .option("--text <file>", textHelp, collect)
    .option(
      "--calibration <file>",
      "text for what is measured before converting (centroids, calibrated scaling); may be given again (default: " +
        "that of --text)",
      collect,
    )
    .option(
      "--calibration-tokens <n>",
      "tokens of it (default: 4096)",
      wholeNumber("--calibration-tokens", 1, 10_000_000),
    )
    .option("--no-report", "do not measure how much of the parent's function was kept")
    .action(execute);
  resolvedBy(command, settings);
  return withExample(
    withJson(withDevice(command)),
    "upcycle convert models/dense --recipe E8G1T2 --out models/moe",
    "An interrupted conversion goes on when the same command is given again.",
  );
}

/** The recipe as flags and file make it, with its defaults. */
async function settings(
  [model]: readonly (string | undefined)[],
  flags: ConvertFlags,
  command: Command,
): Promise<Record<string, unknown>> {
  const options = { threads: threadsOf(flags) };
  if (flags.expertMultiply !== undefined) return { options };
  const { models, recipe, dtype } = await requestedConversion(model, flags, command);
  return {
    options,
    models: models.map((one) => foldersOf(one).join("+")),
    recipe: { name: recipeName(recipe), ...recipe },
    dtype,
  };
}

/** A dry run leaves nothing half done, so that Ctrl-C simply ends it, even in the midst of a computation. */
function contextOf({ json, dryRun }: ConvertFlags): ContextOptions {
  return { json, ...(dryRun === true ? {} : { stopping: "finishing the parts in hand" }) };
}

/**
 * The folders of all models, fetched one after the other, the base first. Where a name of a mergekit file is no folder,
 * a note says so before it is fetched.
 */
async function fetchedSources(
  [base, ...others]: RequestedConversion["models"],
  fromFile: boolean,
  part: FetchedPart,
  json: boolean | undefined,
): Promise<{ readonly source: ModelSource; readonly parents: readonly ModelSource[] }> {
  const fetchOne = async (model: ModelSource): Promise<ModelSource> => {
    for (const one of foldersOf(model)) {
      if (fromFile && isHubReference(one))
        openContext({ json }).terminal.note(`${one.slice(5)}: no such folder, so taken as ${one}`);
    }
    return fetchedSource(model, json, part);
  };
  const source = await fetchOne(base);
  const parents: ModelSource[] = [];
  for (const other of others) parents.push(await fetchOne(other));
  return { source, parents };
}

async function execute(model: string | undefined, flags: ConvertFlags, command: Command): Promise<void> {
  const { expertMultiply, topk, multiplyBy } = flags;
  if (expertMultiply !== undefined) return multiply(model, { ...flags, expertMultiply }, command);
  if (topk !== undefined)
    throw inputError("goes with --expert-multiply; a recipe's T says how many experts a token gets", {
      where: "--topk",
    });
  if (multiplyBy !== undefined)
    throw inputError("goes with --expert-multiply, which says how many experts there will be", {
      where: "--multiply-by",
    });
  const { models, recipe, dtype } = await requestedConversion(model, flags, command);
  requireOutFlag(flags, command);
  const acceptFinished = flags.report && !measuresRouter(recipe);
  const saves = flags.format === "megatron" ? flags.out : undefined;
  if (saves !== undefined) await requireReleasePlace(saves);
  const making = saves === undefined ? flags : { ...flags, out: releaseFolder(saves) };
  await requireBeforehand(models, making, acceptFinished);
  const part = flags.dryRun === true && recipe.scaling !== "calibrated" ? "headers" : "all";
  const settled = {
    recipe,
    dtype: dtypeOf(flags.dtype ?? dtype ?? undefined),
    routerDtype: dtypeOf(flags.routerDtype),
    maxShardBytes: flags.shardSize,
    format: flags.format === "megatron" ? "torch_dist" : undefined,
  } as const;
  const sources = await fetchedSources(models, model === undefined, part, flags.json);
  const context = openContext(contextOf(flags));
  const surgery = upcycling({ ...settled, ...sources });
  const view = conversionResultView(models[0], surgery.sources.map(sourceName));
  const afterwards = saves === undefined ? {} : { afterwards: () => nameRelease(saves) };
  const running = { threads: threadsOf(flags), report: flags.report, acceptFinished, ...afterwards };
  await carryOut(surgery, making, running, view, context);
}

/** `base` is the model as the user named it, `names` those of all parents, the base first. */
function conversionResultView(
  base: ModelSource,
  names: readonly string[],
): ResultView<ConversionPlan, ConversionDetails> {
  return {
    facts,
    planLines: (planned) => [...explainPlan(planned.plan, names), ...adapterLines(planned), sizeLine(planned)],
    madeLines: (result, columns) => madeLines(result, base, columns),
  };
}

function requireOutFlag({ out, dryRun }: ConvertFlags, command: Command): void {
  if (out === undefined && dryRun !== true) command.error("error: required option '--out <dir>' not specified");
}

/** Carries out `upcycle convert MODEL --expert-multiply M`. */
async function multiply(
  model: string | undefined,
  flags: ConvertFlags & { readonly expertMultiply: number },
  command: Command,
): Promise<void> {
  const recipe = multiplyRecipe(flags);
  if (model === undefined) return command.error("error: missing required argument 'model'");
  requireOutFlag(flags, command);
  const asked = await askedModel(model);
  await requireBeforehand([asked], flags);
  const context = openContext(contextOf(flags));
  const source = await fetchedSource(
    asked,
    flags.json,
    flags.dryRun === true && flags.multiplyBy === undefined ? "headers" : "all",
  );
  await runMultiply(source, recipe, flags, context);
}

/**
 * Sums over several threads differ in their last bits, and a model's bytes must not depend on the machine. So prompts
 * are read on one thread unless `--threads` says otherwise.
 */
function threadsOf({ threads }: ConvertFlags): WorkflowThreads {
  const all = threads ?? defaultThreads();
  return { prompts: threads ?? 1, calibration: all, writing: threads ?? defaultConvertThreads, proof: all };
}

function facts({ plan, dtype, routerDtype, weightBytes, adapters, warnings }: ConversionPlan): Record<string, unknown> {
  const { recipe, source, target, factors, expected } = plan;
  return {
    name: recipeName(recipe),
    recipe: { ...recipe, target: target.family },
    dtype: dtypeName(dtype),
    routerDtype: routerDtype === null ? null : dtypeName(routerDtype),
    weightBytes,
    factors: factorRuns(factors),
    expected,
    warnings,
    ...(adapters.every((adapter) => adapter === null) ? {} : { adapters }),
    params: countParams(target),
    parentParams: countParams(source),
    flopsPerToken: flopsOf(target),
    parentFlopsPerToken: flopsOf(source),
  };
}

function madeLines(
  { made, proof }: WorkflowResult<ConversionPlan, ConversionDetails>,
  source: ModelSource,
  columns: number,
): string[] {
  const files = countedFiles(made.weightFiles);
  const [name = ""] = explainPlan(made.plan);
  return [
    ...soundLines(made, [name, ...adapterLines(made), sizeLine(made), explainExpectation(made.plan.expected)]).flatMap(
      (line) => folded(line, columns),
    ),
    made.found ? `${files} found, of the same conversion` : `${files} written in ${duration(made.seconds)}`,
    ...proofLines(proof, columns),
    ...(proof?.preservation == null ? [`to measure: ${verifyLine(source, made.dir)}`] : []),
    `model: ${shownPath(made.dir)}`,
  ];
}

/** One line for each adapter, which says into which parent it is merged. */
function adapterLines({ adapters }: ConversionPlan): string[] {
  return adapters.flatMap((words, parent) =>
    words === null ? [] : [`${adapters.length === 1 ? "adapter" : `adapter of parent ${parent}`}: ${words}`],
  );
}

/**
 * FLOPs of the matrix products of one token's forward pass, without attention's scores, which depend on the context.
 */
function flopsOf(spec: DecoderSpec): number {
  const { total, attention } = forwardFlops(spec, 1, "causal");
  return total - attention;
}

function sizeLine({ plan, dtype, weightBytes }: ConversionPlan): string {
  const { total, active } = countParams(plan.target);
  const parent = compact(countParams(plan.source).total);
  const flops =
    `${compact(flopsOf(plan.target))} FLOPs per token, attention's scores left out (parent ` +
    `${compact(flopsOf(plan.source))})`;
  return (
    `parameters: ${compact(total)}, ${compact(active)} active (parent ${parent}); ${bytes(weightBytes, 3)} as ` +
    `${dtypeName(dtype)}; ${flops}`
  );
}
