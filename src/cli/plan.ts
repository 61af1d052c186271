/** `upcycle plan`: predicted losses, cost and layout of upcycling. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { at, entryOf } from "../base/at.js";
import { inputError } from "../base/errors.js";
import { grouped } from "../base/format.js";
import { parseHardware, type HardwareTable } from "../base/schemas/hardware.js";
import { toolVersion } from "../surgery/convert/version.js";
import { isHubReference } from "../files/hub/reference.js";
import { exists, writeFileAtomic } from "../files/io/atomic.js";
import { isOwnPage, requireFilePlace } from "../files/io/named-file.js";
import { sizeLimits } from "../files/io/open.js";
import { readJson, readText } from "../files/io/ranges.js";
import {
  armKinds,
  fittedCoefficients,
  publishedCoefficients,
  type ArmKind,
  type Coefficients,
  type FitDocument,
} from "../laws/planner/coefficients.js";
import { lawById } from "../laws/fitting/catalogue.js";
import { published } from "../laws/forms/published.js";
import { gpuOf, type Gpu } from "../laws/planner/hardware.js";
import { makePlan } from "../laws/planner/plan.js";
import { planViews } from "../laws/planner/views.js";
import type { Precision } from "../laws/planner/layout-types.js";
import type { PlanBudget } from "../laws/planner/arms.js";
import type { PlanRequest } from "../laws/planner/plan-types.js";
import { parseShape, presets, shapeOfSize, shapeSpec } from "../laws/planner/shape.js";
import { defaultSpeed } from "../laws/planner/speed.js";
import { renderPlanHtml } from "../report/plan/plan-page.js";
import { planText } from "../report/plan/plan-terminal.js";
import { specFromConfig } from "../model/decoder/config.js";
import { isMoe, type DecoderSpec } from "../model/decoder/types.js";
import { parseRecipeName, recipeDefaults, checkRecipe, type RecipeShape } from "../surgery/planning/recipe.js";
import { chartAssets } from "../study/chart-assets.js";
import { commandWords, plannerBundle } from "./assets.js";
import { openContext, shownPath } from "./context.js";
import { askedModel, modelFolder, orHub, shownModel } from "./model-folder.js";
import {
  collect,
  didYouMean,
  quantity,
  realNumber,
  wholeNumber,
  withExample,
  withJson,
  type CommonFlags,
} from "./options.js";

interface PlanFlags extends CommonFlags {
  readonly preset?: string;
  readonly size?: string;
  readonly shape?: string;
  readonly d1?: number;
  readonly n?: number;
  readonly recipe: string;
  readonly allowUnevenTopk?: boolean;
  readonly tokens?: number;
  readonly gpuHours?: number;
  readonly money?: number;
  readonly days?: number;
  readonly gpu: string;
  readonly gpus: number;
  readonly price?: number;
  readonly hardware?: string;
  readonly sequence: number;
  readonly batch?: number;
  readonly precision: Precision;
  readonly mfu?: string;
  readonly coefficients?: readonly string[];
  readonly fittedRecipe?: string;
  readonly parentLr?: number;
  readonly level: number;
  readonly draws: number;
  readonly seed: number;
  readonly full?: boolean;
  readonly html?: string;
}

/** The command with its options and its help. */
export function planCommand(): Command {
  const command = new Command("plan")
    .description("predict losses, cost and layout of upcycling a dense model")
    .argument(
      "[model]",
      `folder of a dense model, ${orHub} (of which only the config is fetched); or use one of the next three`,
    )
    .option("--preset <name>", "a public model, named below")
    .option("--size <params>", "a usual shape of this size: 7B")
    .option("--shape <list>", "hidden=4096,layers=32,heads=32,inner=11008,vocab=32000")
    .option("--d1 <tokens>", "tokens the dense model has seen: 2T", quantity("--d1", 1))
    .option("--recipe <list>", "recipes to compare", "E8G1T2,E8G8T8")
    .option("--allow-uneven-topk", "accept T that is no multiple of G")
    .option("--tokens <n>", "budget: further tokens, the same for all", quantity("--tokens", 1))
    .option("--gpu-hours <n>", "budget: GPU hours", quantity("--gpu-hours", 1e-6))
    .option("--money <n>", "budget: money", quantity("--money", 1e-6))
    .option("--days <n>", "budget: days on these GPUs", quantity("--days", 1e-6))
    .option("--gpu <name>", "kind of GPU", "h100-sxm")
    .option("--gpus <n>", "how many", wholeNumber("--gpus", 1, 65536), 8)
    .option("--price <n>", "of a GPU hour, instead of the table's", quantity("--price", 1e-9))
    .option("--hardware <file>", "YAML laid over the built-in table of GPUs")
    .option("--sequence <n>", "tokens per sequence", wholeNumber("--sequence", 128, 1 << 22), 4096)
    .option("--batch <tokens>", "tokens per step (default: chosen)", quantity("--batch", 1))
    .option("--precision <name>", "matrix products of the blocks in bf16 or fp8", precisionOf, "bf16")
    .option("--mfu <list>", "measured share of peak: 0.45, or 0.45,0.35 dense and MoE")
    .option(
      "--coefficients <file>",
      "upcycle fit --json of upcycling-shared; or dense=FILE, scratch=FILE, upcycled=FILE (default: published)",
      collect,
    )
    .option("--fitted-recipe <name>", "recipe of the MoEs in your fits")
    .option("--n <params>", "N of the laws (default: all parameters)", quantity("--n", 1))
    .option("--parent-lr <rate>", "highest learning rate of the parent's training", realNumber("--parent-lr", 1e-8, 1))
    .option("--level <part>", "confidence of intervals", realNumber("--level", 0.5, 0.9999), 0.9)
    .option("--draws <n>", "draws of the coefficients", wholeNumber("--draws", 0, 20000), 500)
    .option("--seed <n>", "of the draws", wholeNumber("--seed", 0), 0)
    .option("--full", "every table, sum and reason")
    .option("--html <file>", "write a page with sliders")
    .action(execute);
  const remark = [
    `Presets: ${presets.map(({ id }) => id).join(", ")}.`,
    "GPUs: h100-sxm, a100-80gb, h200-sxm and others; a wrong name lists all. Numbers may end in K, M, B or T.",
  ];
  return withExample(withJson(command), "upcycle plan --preset llama-2-7b --gpus 64 --money 50K", ...remark);
}

async function execute(model: string | undefined, flags: PlanFlags): Promise<void> {
  const { terminal, json } = openContext({ json: flags.json });
  if (flags.html !== undefined) await requireFilePlace(flags.html, "page of this command", isOwnPage);
  const request = await requestOf(model, flags);
  const plan = makePlan(request);
  if (flags.html !== undefined) {
    const assets = { ...(await chartAssets()), liveJs: await plannerBundle() };
    await writeFileAtomic(flags.html, renderPlanHtml({ request, words: commandWords(), version: toolVersion }, assets));
  }
  if (json) {
    terminal.json({
      upcycle: toolVersion,
      // What the plan is computed from, so that the studio computes it again when a slider moves.
      words: commandWords(),
      request,
      ...plan,
      views: planViews(request, plan),
    });
    return;
  }
  terminal.out(planText(plan, shapeWords(request.spec), flags.full === true, terminal.columns).split("\n"));
  if (flags.html !== undefined) terminal.out(["", `report: ${shownPath(flags.html)}`]);
}

/** The request that the command line makes. Throws inputError. */
async function requestOf(model: string | undefined, flags: PlanFlags): Promise<PlanRequest> {
  const dense = await denseModel(model, flags);
  if (dense.seen === null)
    throw inputError(`how many tokens has ${dense.name} seen?`, { where: "--d1", hint: "give for example --d1 2T" });
  const budget = budgetOf(flags);
  const table = await hardwareTable(flags.hardware);
  const gpu = gpuNamed(table, flags.gpu);
  const { precision } = flags;
  if (precision === "fp8" && gpu.fp8Peak === null)
    throw inputError(`the table of GPUs has no fp8 speed for ${gpu.name}`, {
      where: "--precision fp8",
      hint: "leave it out, or give peakTflops.fp8 with --hardware",
    });
  if (flags.batch !== undefined && flags.batch < flags.sequence)
    throw inputError(`a step of ${flags.batch} tokens is less than one sequence of ${flags.sequence}`, {
      where: "--batch",
      hint: "give more, or a shorter --sequence",
    });
  return {
    name: dense.name,
    spec: dense.spec,
    size: flags.n ?? null,
    seen: dense.seen,
    // An MoE is not upcycled again: it is trained on, or its experts are multiplied.
    recipes: isMoe(dense.spec) ? [] : recipesOf(flags),
    budget,
    gpu: flags.price === undefined ? gpu : { ...gpu, price: flags.price },
    currency: table.currency,
    gpus: flags.gpus,
    sequence: flags.sequence,
    batchTokens: flags.batch ?? null,
    speed: defaultSpeed,
    precision,
    mfu: flags.mfu === undefined ? { dense: null, moe: null } : sharesOfPeak(flags.mfu),
    coefficients: await coefficientsOf(flags),
    parentPeak: flags.parentLr ?? null,
    draws: flags.draws,
    seed: flags.seed,
    level: flags.level,
  };
}

function budgetOf(flags: PlanFlags): PlanBudget {
  const { tokens = null, gpuHours = null, money = null, days = null } = flags;
  if (tokens === null && gpuHours === null && money === null && days === null) {
    throw inputError("no budget", {
      where: "upcycle plan",
      hint: "give at least one of --tokens, --gpu-hours, --money, --days",
    });
  }
  return { tokens, gpuHours, money, days };
}

function recipesOf({ recipe, allowUnevenTopk }: PlanFlags): RecipeShape[] {
  return recipe.split(",").map((name) => {
    const shape = parseRecipeName(name);
    checkRecipe({ ...recipeDefaults, ...shape, allowUnevenTopK: allowUnevenTopk === true });
    return shape;
  });
}

interface DenseModel {
  readonly name: string;
  readonly spec: DecoderSpec;
  /** Tokens that it was trained on; null: not known. */
  readonly seen: number | null;
}

/** The dense model that a plan starts from. Throws inputError unless the command line says exactly one. */
async function denseModel(
  model: string | undefined,
  { preset, size, shape, d1, json }: PlanFlags,
): Promise<DenseModel> {
  const count = [model, preset, size, shape].filter((value) => value !== undefined).length;
  if (count !== 1) {
    throw inputError(count === 0 ? "no model" : "more than one model", {
      where: "upcycle plan",
      hint: "give one of: a folder, --preset, --size, --shape",
    });
  }
  const seen = d1 ?? null;
  if (model !== undefined) return modelOfFolder(model, seen, json);
  if (preset !== undefined) return modelOfPreset(preset, seen);
  if (shape !== undefined) return { name: "your shape", spec: shapeSpec(parseShape(shape, "--shape")), seen };
  const params = quantity("--size", 1e7, 1e13)(String(size));
  return { name: `a usual shape of ${String(size)}`, spec: shapeSpec(shapeOfSize(params)), seen };
}

async function modelOfFolder(model: string, seen: number | null, json: boolean | undefined): Promise<DenseModel> {
  const source = await askedModel(model);
  if (typeof source !== "string")
    throw inputError("a plan reads config.json alone, in which an adapter changes nothing", {
      where: shownModel(source),
      hint: `leave it out: ${shownModel(source.model)}`,
    });
  const file = join(await modelFolder(source, json, "config"), "config.json");
  const spec = specFromConfig(await readJson(file, sizeLimits.settings), shownPath(file));
  return { name: isHubReference(model) ? model.slice("hf://".length) : shownPath(model), spec, seen };
}

function modelOfPreset(id: string, seen: number | null): DenseModel {
  const preset = presets.find((one) => one.id === id);
  if (preset !== undefined) return { name: preset.id, spec: shapeSpec(preset.shape), seen: seen ?? preset.seen };
  const names = presets.map((one) => one.id);
  throw inputError(`"${id}" is no preset`, {
    where: "--preset",
    hint: didYouMean(id, names) ?? `presets: ${names.join(", ")}`,
  });
}

/** The built-in table of GPUs, with the user's file laid over it. */
export async function hardwareTable(userFile: string | undefined): Promise<HardwareTable> {
  const builtIn = fileURLToPath(new URL("../../recipes/hardware.yaml", import.meta.url));
  const files = [{ text: await readText(builtIn), file: "hardware.yaml" }];
  if (userFile !== undefined)
    files.push({ text: await readText(userFile, sizeLimits.yaml), file: shownPath(userFile) });
  return parseHardware(files);
}

/** A row of the table. Throws inputError for a name that it does not have; `where` says who named it. */
export function gpuNamed({ gpus }: HardwareTable, name: string, where = "--gpu"): Gpu {
  const row = Object.hasOwn(gpus, name) ? gpus[name] : undefined;
  if (row !== undefined) return gpuOf(name, { ...row, peakTflops: row.peakTflops, sources: row.sources ?? {} });
  const names = Object.keys(gpus);
  const question = didYouMean(name, names);
  throw inputError(`"${name}" is not in the table of GPUs`, {
    where,
    hint: `${question === undefined ? "" : `${question} `}known: ${names.join(", ")}; add yours with --hardware`,
  });
}

/** Reads `--precision`. Throws inputError. */
function precisionOf(text: string): Precision {
  if (text === "bf16" || text === "fp8") return text;
  throw inputError(`"${text}" is neither bf16 nor fp8`, { where: "--precision" });
}

/** `0.45`, or `0.45,0.35`: shares of the GPU's peak that dense models and MoEs reach. */
function sharesOfPeak(text: string): PlanRequest["mfu"] {
  const parts = text.split(",");
  if (parts.length > 2) throw inputError(`"${text}" is not one or two numbers`, { where: "--mfu" });
  const shares = parts.map(realNumber("--mfu", 0.001, 1));
  return { dense: at(shares, 0), moe: at(shares, shares.length - 1) };
}

/** The coefficients that the plan predicts with: published ones, or the user's own fits. Throws inputError. */
async function coefficientsOf({ coefficients = [], fittedRecipe }: PlanFlags): Promise<Coefficients> {
  if (coefficients.length === 0) return publishedCoefficients();
  const recipe = fittedRecipe === undefined ? null : fittedRecipe.toUpperCase();
  if (recipe !== null) parseRecipeName(recipe);
  const fits = await fitsOf(coefficients);
  const shared = fits.get("shared");
  if (shared !== undefined && fits.size === 1 && shared.law === "upcycling-shared")
    return fittedCoefficients({ shared }, recipe);
  const missing = armKinds.filter((kind) => !fits.has(kind));
  if (shared !== undefined || missing.length > 0) {
    throw inputError(
      shared === undefined
        ? `no coefficients for ${missing.join(", ")}`
        : `${shared.file} is a fit of ${shared.law}, which does not cover dense, from-scratch and upcycled models`,
      {
        where: "--coefficients",
        hint:
          "give one fit of --law upcycling-shared, or dense=FILE scratch=FILE upcycled=FILE; losses of different " +
          "sources cannot be compared",
      },
    );
  }
  const byKind = Object.fromEntries(armKinds.map((kind) => [kind, entryOf(fits, kind)]));
  return fittedCoefficients(byKind as Record<ArmKind, FitDocument>, recipe);
}

/** The fits that `FILE` (for all kinds of models) and `KIND=FILE` name, by kind. */
async function fitsOf(words: readonly string[]): Promise<ReadonlyMap<ArmKind | "shared", FitDocument>> {
  const fits = new Map<ArmKind | "shared", FitDocument>();
  for (const text of words) {
    const kind = armKinds.find((name) => text.startsWith(`${name}=`));
    const file = kind === undefined ? text : text.slice(kind.length + 1);
    const key = kind ?? "shared";
    if (fits.has(key))
      throw inputError(`coefficients for ${key === "shared" ? "all kinds of models" : key} are given twice`, {
        where: "--coefficients",
      });
    fits.set(key, await fitDocument(file));
  }
  return fits;
}

/** The output of `upcycle fit --json`, checked as far as it is read. Throws inputError. */
async function fitDocument(path: string): Promise<FitDocument> {
  await requireNoLaw(path);
  const file = shownPath(path);
  const data = (await readJson(path)) as Partial<FitDocument> | null;
  const problem = fitProblem(data);
  if (problem !== null) throw inputError(problem.what, { where: file, hint: problem.hint });
  const { law, params, status, draws, ranges } = data as FitDocument;
  const isDrawn = draws != null && Object.keys(params).every((name) => (draws[name]?.length ?? 0) > 1);
  return { file, law, params, status, ...(isDrawn && { draws }), ...(ranges != null && { ranges }) };
}

/** A law's name is no fit of it: a plan takes its numbers from the user's own points. Throws inputError. */
async function requireNoLaw(path: string): Promise<void> {
  if (lawById(path) === undefined || (await exists(path))) return;
  const numbers = published.some(({ law }) => law === path)
    ? "its published numbers are of other models than yours"
    : "no numbers were published for it that we could read";
  throw inputError(`"${path}" is a law, not the file of a fit; ${numbers}`, {
    where: "--coefficients",
    hint: `fit it to your runs and name the file: upcycle fit runs.csv --law ${path} --json > ${path}.json`,
  });
}

/** Why data cannot be the fit that a plan needs, and what to do; null where it can. */
function fitProblem(data: Partial<FitDocument> | null): { readonly what: string; readonly hint: string } | null {
  const malformed = (what: string): ReturnType<typeof fitProblem> => ({
    what,
    hint: "expected what upcycle fit --json prints",
  });
  if (!isRecord(data) || typeof data.law !== "string" || !isRecord(data.params))
    return malformed("this is not the output of upcycle fit --json");
  const { law, params, status, draws, ranges } = data;
  if (!Object.values(params).every(isNumber)) return malformed("a parameter is no number");
  if (draws != null && !isRecordOf(draws, isNumbers)) return malformed("draws are not lists of numbers");
  if (ranges != null && !isRecordOf(ranges, (pair) => isNumbers(pair) && pair.length === 2))
    return malformed("ranges are not pairs of numbers");
  switch (status) {
    case "iteration-limit":
      return { what: "this fit did not converge", hint: "fit again with --grid, or to more points" };
    case "no-better-than-constant":
      return {
        what: `this is no fit: ${law} describes those losses no better than one number for all of them`,
        hint: "its numbers predict nothing; fit a law that describes the points (--compare), or more points",
      };
    default:
      return null;
  }
}

const isNumber = (value: unknown): value is number => typeof value === "number";
const isNumbers = (value: unknown): value is number[] => Array.isArray(value) && value.every(isNumber);
const isRecord = <T extends object>(value: T | null | undefined): value is T =>
  typeof value === "object" && value !== null;
const isRecordOf = (record: object, isValue: (value: unknown) => boolean): boolean =>
  typeof record === "object" && Object.values(record).every(isValue);

function shapeWords({ hidden, layers, attn, vocab, tiedHead }: DecoderSpec): string {
  const { ffn } = at(layers, 0);
  const moe = layers.find((layer) => layer.ffn.kind === "moe")?.ffn;
  const experts =
    moe?.kind === "moe" ? `, MoE of ${moe.experts} experts of ${grouped(moe.ffnDim)}, ${moe.topK} chosen` : "";
  return (
    `hidden ${grouped(hidden)}, ${layers.length} layers, ${attn.heads} heads of ${attn.headDim} (${attn.kvHeads} ` +
    `key-value), FFN ${grouped(ffn.ffnDim)}${experts}, vocabulary ${grouped(vocab)} (${tiedHead ? "tied" : "own"} head)`
  );
}
