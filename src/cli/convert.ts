/** `upcycle convert`: a mixture-of-experts model out of dense models, or out of a smaller mixture. */
import { Command } from "commander";
import { at } from "../base/at.js";
import { inputError } from "../base/errors.js";
import { bytes, compact, duration, folded } from "../base/format.js";
import { foldersOf, type ModelSource } from "../files/checkpoint/model-source.js";
import type { FetchedPart } from "../files/hub/fetch.js";
import { isHubReference } from "../files/hub/reference.js";
import { forwardFlops } from "../model/cost/flops.js";
import { countParams } from "../model/cost/params.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import {
  requirePlannable,
  upcycling,
  type ConversionDetails,
  type ConversionPlan,
  type UpcycleOptions,
} from "../surgery/convert/convert.js";
import { requirePlannableMultiplying } from "../surgery/convert/multiply.js";
import { sourceName } from "../surgery/convert/parents.js";
import { isUnnamed, nameRelease, releaseFolder, requireReleasePlace } from "../surgery/convert/release.js";
import { factorRuns } from "../surgery/convert/record.js";
import type { WorkflowResult, WorkflowThreads } from "../surgery/convert/workflow.js";
import { explainExpectation, explainPlan } from "../surgery/planning/explain.js";
import { requireAgreement } from "../surgery/planning/agree.js";
import { utilities, type ExpertUtility } from "../surgery/planning/multiply.js";
import { measuresRouter, recipeName } from "../surgery/planning/recipe.js";
import { openContext, shownPath, type ContextOptions } from "./context.js";
import { loadLine } from "./export.js";
import { askedModel, fetchedSource, fetchedSources, orAdapted } from "./model-folder.js";
import { requestedMultiply, runMultiply } from "./multiply.js";
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

/** All models of a conversion, the base first. What cannot be converted is refused before weights are downloaded. */
async function fetchedModels(
  models: RequestedConversion["models"],
  part: FetchedPart,
  settings: Omit<UpcycleOptions, "source" | "parents">,
  json: boolean | undefined,
): Promise<Pick<UpcycleOptions, "source" | "parents">> {
  const names = models.map((model) => foldersOf(model).join("+"));
  const [source, ...parents] = await fetchedSources(models, json, {
    part,
    // What weights and adapters decide of head and vocabulary is not known yet.
    judgeSpecs: (specs) =>
      requireAgreement(
        specs.map((spec, i) => ({ name: at(names, i), spec })),
        { ...settings.recipe, others: "base" },
      ),
    judge: ([base, ...others]) => requirePlannable({ ...settings, source: base, parents: others }),
  });
  return { source, parents };
}

/** Says of names in a mergekit file that are no folders that they are taken for models of the Hub. */
function noteReferences(models: RequestedConversion["models"], json: boolean | undefined): void {
  const { terminal } = openContext({ json });
  for (const one of models.flatMap(foldersOf).filter(isHubReference))
    terminal.note(`${one.slice(5)}: no such folder, so taken as ${one}`);
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
  const saves = flags.format === "megatron" ? flags.out : undefined;
  if (saves !== undefined) await requireReleasePlace(saves);
  const isToName = saves !== undefined && (await isUnnamed(saves));
  const acceptFinished = (flags.report || isToName) && !measuresRouter(recipe);
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
  if (model === undefined) noteReferences(models, flags.json);
  const sources = await fetchedModels(models, part, settled, flags.json);
  const context = openContext(contextOf(flags));
  const surgery = upcycling({ ...settled, ...sources });
  const view = conversionResultView(models[0], surgery.sources.map(sourceName), saves);
  const afterwards = saves === undefined ? {} : { afterwards: () => nameRelease(saves) };
  const running = { threads: threadsOf(flags), report: flags.report, acceptFinished, ...afterwards };
  await carryOut(surgery, making, running, view, context);
}

/**
 * `base` is the model as the user named it, `names` those of all parents, the base first; `saves`: the folder of saves
 * for Megatron-Core.
 */
function conversionResultView(
  base: ModelSource,
  names: readonly string[],
  saves?: string,
): ResultView<ConversionPlan, ConversionDetails> {
  return {
    facts,
    planLines: (planned) => [...explainPlan(planned.plan, names), ...adapterLines(planned), sizeLine(planned)],
    madeLines: (result, columns) => [
      ...madeLines(result, base, columns),
      ...(saves === undefined ? [] : [loadLine(saves)]),
    ],
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
  const recipe = requestedMultiply(flags);
  if (model === undefined) return command.error("error: missing required argument 'model'");
  requireOutFlag(flags, command);
  const asked = await askedModel(model);
  await requireBeforehand([asked], flags);
  const context = openContext(contextOf(flags));
  const part = flags.dryRun === true && flags.multiplyBy === undefined ? "headers" : "all";
  const source = await fetchedSource(asked, flags.json, part, (one) =>
    requirePlannableMultiplying({ source: one, recipe }),
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
