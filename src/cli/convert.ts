/** `upcycle convert` */
import { Command } from "commander";
import { inputError, interruptedError } from "../base/errors.js";
import { bytes, compact, duration, folded } from "../base/format.js";
import { foldersOf, type ModelSource } from "../files/checkpoint/model-source.js";
import type { WriteDtype } from "../files/checkpoint/write.js";
import { convertCheckpoint, planConversion, type Conversion, type ConversionPlan } from "../surgery/convert/convert.js";
import { modelCard } from "../surgery/convert/card.js";
import { sourceName } from "../surgery/convert/parents.js";
import { calibrate } from "../surgery/calibration/calibrate.js";
import { promptRouter } from "../surgery/calibration/prompt-router.js";
import { factorRuns } from "../surgery/convert/record.js";
import { forwardFlops } from "../model/cost/flops.js";
import { countParams } from "../model/cost/params.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { FetchedPart } from "../files/hub/fetch.js";
import { isHubReference } from "../files/hub/reference.js";
import { explainExpectation, explainPlan } from "../surgery/planning/explain.js";
import { onnxruntimeBackend } from "../engine/onnxruntime/backend.js";
import { recipeName, type UpcycleRecipe } from "../surgery/planning/recipe.js";
import type { RouterRows } from "../surgery/planning/router-rows.js";
import { openContext, shownPath, type ContextOptions } from "./context.js";
import { askedModel, fetchedSource, modelSource, orAdapted } from "./model-folder.js";
import {
  byteSize,
  collect,
  defaultThreads,
  oneOf,
  wholeNumber,
  withExample,
  withJson,
  type CommonFlags,
} from "./options.js";
import { multiplyRecipe, runMultiply } from "./multiply.js";
import { conversionView } from "./progress.js";
import { proofLines, prove, requireBeforehand, requireText, type Proof } from "./proof.js";
import { askedOfFlags, withRecipe, type RecipeFlags } from "./recipe-options.js";
import { verifyLine } from "./reproduce.js";
import type { Terminal } from "./terminal.js";
import { textHelp } from "./verify.js";

interface ConvertFlags extends CommonFlags, RecipeFlags {
  readonly expertMultiply?: number;
  readonly topk?: number;
  readonly out?: string;
  readonly dtype?: keyof typeof dtypes;
  readonly routerDtype?: keyof typeof dtypes;
  readonly shardSize?: number;
  readonly overwrite?: boolean;
  readonly dryRun?: boolean;
  /** False after --no-report. */
  readonly report: boolean;
  readonly text?: readonly string[];
}

const dtypes = { float32: "F32", bfloat16: "BF16", float16: "F16" } as const satisfies Record<string, WriteDtype>;
const dtypeNames = Object.keys(dtypes) as (keyof typeof dtypes)[];
const dtypeOf = (name: keyof typeof dtypes | undefined): WriteDtype | undefined => name && dtypes[name];
const nameOf = (dtype: WriteDtype): string => dtypeNames.find((name) => dtypes[name] === dtype)!;
/** Computing beside writing; more threads only wait for the disk. */
const defaultConvertThreads = Math.min(2, defaultThreads());

export function convertCommand(): Command {
  const command = new Command("convert")
    .description("upcycle a dense model folder into a mixture-of-experts model folder")
    .argument("[model]", `dense model folder (Hugging Face: config.json, weights), ${orAdapted}`);
  withRecipe(command)
    .option(
      "--expert-multiply <m>",
      "make a mixture out of a mixture: every expert m times (in place of --recipe)",
      wholeNumber("--expert-multiply", 2, 65_536),
    )
    .option(
      "--topk <t>",
      "experts per token with --expert-multiply (default: m times the model's)",
      wholeNumber("--topk", 1),
    )
    .option("--out <dir>", "folder to make (needed unless --dry-run)")
    .option("--dtype <name>", `${dtypeNames.join(", ")} (default: the model's)`, oneOf("--dtype", dtypeNames))
    .option(
      "--router-dtype <name>",
      "of the routers alone (default: like the rest)",
      oneOf("--router-dtype", dtypeNames),
    )
    .option("--shard-size <size>", "most bytes per weight file (default: 5GB)", byteSize("--shard-size"))
    .option("--overwrite", "replace the folder if it is there")
    .option(
      "--threads <n>",
      "threads that compute (default: at most 2 to convert, all cores to measure, 1 for prompts: the router's " +
        "last bits depend on it)",
      wholeNumber("--threads", 1, 64),
    )
    .option("--dry-run", "say what would be made, tensor by tensor; write nothing")
    .option("--text <file>", textHelp, collect)
    .option("--no-report", "do not measure how much of the parent's function was kept")
    .action(execute);
  return withExample(
    withJson(command),
    "upcycle convert models/dense --recipe E8G1T2 --out models/moe",
    "An interrupted conversion goes on when the same command is given again.",
  );
}

/** A dry run leaves nothing half done, so that Ctrl-C simply ends it, even in the midst of a computation. */
function contextOf({ json, dryRun }: ConvertFlags): ContextOptions {
  return { json, ...(dryRun === true ? {} : { stopping: "finishing the parts in hand" }) };
}

/**
 * Each model's folders, one after the other. A name of a mergekit file that is no folder says so before it is fetched.
 */
async function fetchedSources(
  models: readonly ModelSource[],
  fromFile: boolean,
  part: FetchedPart,
  json: boolean | undefined,
): Promise<ModelSource[]> {
  const sources: ModelSource[] = [];
  for (const named of models) {
    for (const one of foldersOf(named)) {
      if (fromFile && isHubReference(one))
        openContext({ json }).terminal.note(`${one.slice(5)}: no such folder, so taken as ${one}`);
    }
    sources.push(await fetchedSource(named, json, part));
  }
  return sources;
}

async function execute(given: string | undefined, flags: ConvertFlags, command: Command): Promise<void> {
  const { out } = flags;
  const requireNamedOut = (): void => {
    if (out === undefined && flags.dryRun !== true) command.error("error: required option '--out <dir>' not specified");
  };
  if (flags.expertMultiply !== undefined) {
    const wanted = multiplyRecipe(flags);
    if (given === undefined) return command.error("error: missing required argument 'model'");
    requireNamedOut();
    await requireBeforehand([await askedModel(given)], flags);
    const context = openContext(contextOf(flags));
    await runMultiply(
      await modelSource(given, flags.json, flags.dryRun === true ? "headers" : "all"),
      wanted,
      dtypeOf(flags.dtype),
      flags,
      context,
    );
    return;
  }
  if (flags.topk !== undefined)
    throw inputError("goes with --expert-multiply; a recipe's T says how many experts a token gets", {
      where: "--topk",
    });
  const { models, recipe: asked, dtype: said } = await askedOfFlags(given, flags, command);
  requireNamedOut();
  await requireBeforehand(models, { ...flags, acceptFinished: flags.report && !hasPrompts(asked) });
  const part = flags.dryRun === true && asked.scaling !== "calibrated" ? "headers" : "all";
  const [source, ...parents] = (await fetchedSources(models, given === undefined, part, flags.json)) as [
    ModelSource,
    ...ModelSource[],
  ];
  const { terminal, json, signal } = openContext(contextOf(flags));
  if (flags.dryRun !== true && flags.report && flags.text !== undefined) await requireText(source, flags.text);
  // A dry run shows what the router will be made from, and reads no weights; calibration needs it as it will be.
  const routerRows =
    part === "headers" ? undefined : await promptedRouter(asked, source, flags.threads, terminal, signal);
  const recipe =
    asked.scaling === "calibrated" ? await calibrated(asked, source, routerRows, flags, terminal, signal) : asked;
  const options = {
    source,
    parents,
    recipe,
    routerRows,
    dtype: dtypeOf(flags.dtype ?? said ?? undefined),
    routerDtype: dtypeOf(flags.routerDtype),
    maxShardBytes: flags.shardSize,
  };
  if (flags.dryRun === true) {
    const planned = await planConversion(options);
    if (json) terminal.json({ dryRun: true, ...facts(planned) });
    else {
      const lines = [
        ...explainPlan(planned.plan, [source, ...parents].map(sourceName)),
        ...adapterLines(planned),
        sizeLine(planned),
        "dry run: nothing was written",
      ];
      terminal.out(lines.flatMap((line) => folded(line, terminal.columns)));
    }
    return;
  }
  const view = conversionView(terminal);
  const made = await convertCheckpoint({
    ...options,
    out: out!,
    signal,
    threads: flags.threads ?? defaultConvertThreads,
    overwrite: flags.overwrite,
    acceptFinished: flags.report,
    onEvent: view,
  });
  const proof = flags.report
    ? await prove({ dir: made.dir, card: (preservation) => modelCard({ ...made.card, preservation }) }, source, {
        text: flags.text,
        threads: flags.threads ?? defaultThreads(),
        terminal,
        signal,
      })
    : null;
  if (json)
    terminal.json({
      dryRun: false,
      model: made.dir,
      weightFiles: made.weightFiles,
      seconds: made.seconds,
      ...facts(made),
      ...proof,
    });
  else terminal.out(report(made, models[0]!, proof, terminal.columns));
}

const hasPrompts = ({ routerInit }: UpcycleRecipe): boolean =>
  routerInit !== null && routerInit.kind !== "uniform_random";

/** The rows of a router that is made from prompts. */
async function promptedRouter(
  { routerInit, ...recipe }: UpcycleRecipe,
  source: ModelSource,
  threads: number | undefined,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<RouterRows | undefined> {
  if (routerInit === null || routerInit.kind === "uniform_random") return undefined;
  const onLayer = (done: number, total: number): void =>
    terminal.progress(`reading prompts  layer ${done} of ${total}`);
  try {
    // Sums over threads differ in their last bits. So it is one unless said otherwise: the model's bytes must not
    // depend on the machine.
    const { rows, warnings } = await promptRouter({
      source,
      recipe: { ...recipe, routerInit },
      threads: threads ?? 1,
      backend: onnxruntimeBackend,
      signal,
      onLayer,
    });
    warnings.forEach((warning) => terminal.note(`warning: ${warning}`));
    return rows;
  } catch (cause) {
    throw signal.aborted ? interruptedError("stopped while reading prompts, nothing was written") : cause;
  } finally {
    terminal.settle();
  }
}

/** The recipe with the factors measured on the parent. */
async function calibrated(
  recipe: UpcycleRecipe,
  source: ModelSource,
  routerRows: RouterRows | undefined,
  { text, threads }: ConvertFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<UpcycleRecipe> {
  const measured = await calibrate({
    source,
    recipe,
    routerRows,
    text,
    threads: threads ?? defaultThreads(),
    backend: onnxruntimeBackend,
    signal,
  });
  terminal.note(`calibrated on ${measured.tokens} tokens of ${measured.source}`);
  return measured.recipe;
}

function facts({ plan, dtype, routerDtype, weightBytes, adapters, warnings }: ConversionPlan): Record<string, unknown> {
  const { recipe, source, target, factors, expected } = plan;
  return {
    name: recipeName(recipe),
    recipe: { ...recipe, target: target.family },
    dtype: nameOf(dtype),
    routerDtype: routerDtype === null ? null : nameOf(routerDtype),
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

function report(made: Conversion, source: ModelSource, proof: Proof | null, columns: number): string[] {
  const files = made.weightFiles.length === 1 ? "1 weight file" : `${made.weightFiles.length} weight files`;
  return [
    ...[
      explainPlan(made.plan)[0]!,
      ...adapterLines(made),
      sizeLine(made),
      explainExpectation(made.plan.expected),
    ].flatMap((line) => folded(line, columns)),
    made.found ? `${files} found, of the same conversion` : `${files} written in ${duration(made.seconds)}`,
    ...(proof === null ? [] : proofLines(proof, columns)),
    ...(proof?.preservation == null ? [`to measure: ${verifyLine(source, made.dir)}`] : []),
    `model: ${shownPath(made.dir)}`,
  ];
}

/** What is merged into which parent. */
function adapterLines({ adapters }: ConversionPlan): string[] {
  return adapters.flatMap((words, parent) =>
    words === null ? [] : [`${adapters.length === 1 ? "adapter" : `adapter of parent ${parent}`}: ${words}`],
  );
}

/** Matrix products of one token's forward pass, attention's scores left out: they depend on the context. */
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
    `${nameOf(dtype)}; ${flops}`
  );
}
