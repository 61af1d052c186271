/** `upcycle plan` */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { grouped } from "../base/format.js";
import { nearest, parseHardware, type HardwareTable } from "../base/schemas/index.js";
import { toolVersion } from "../surgery/convert/version.js";
import { isHubReference } from "../files/hub/reference.js";
import { writeFileAtomic } from "../files/io/atomic.js";
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
import { gpuOf, type Gpu } from "../laws/planner/hardware.js";
import { makePlan } from "../laws/planner/plan.js";
import type { PlanRequest } from "../laws/planner/plan-types.js";
import { parseShape, presets, shapeOfSize, shapeSpec } from "../laws/planner/shape.js";
import { defaultSpeed } from "../laws/planner/speed.js";
import { renderPlanHtml } from "../report/plan/plan-page.js";
import { planText } from "../report/plan/plan-terminal.js";
import { specFromConfig } from "../model/decoder/config.js";
import { isMoe, type DecoderSpec } from "../model/decoder/types.js";
import { parseRecipeName, recipeDefaults, checkRecipe } from "../surgery/planning/recipe.js";
import { chartAssets, commandLine, plannerBundle } from "./assets.js";
import { openContext, shownPath } from "./context.js";
import { askedModel, modelFolder, orHub, shownModel } from "./model-folder.js";
import { collect, quantity, realNumber, wholeNumber, withExample, withJson, type CommonFlags } from "./options.js";

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
    .option("--mfu <list>", "measured share of peak: 0.45, or 0.45,0.35 dense and MoE")
    .option(
      "--coefficients <file>",
      "upcycle fit --json of upcycling-shared; or dense=FILE, scratch=FILE, upcycled=FILE (default: published)",
      collect,
    )
    .option("--fitted-recipe <name>", "recipe of the mixtures in your fits")
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
    await writeFileAtomic(
      flags.html,
      renderPlanHtml({ request, command: commandLine(), version: toolVersion }, assets),
    );
  }
  if (json) {
    terminal.json({ upcycle: toolVersion, ...plan });
    return;
  }
  terminal.out(planText(plan, shapeWords(request.spec), flags.full === true, terminal.columns).split("\n"));
  if (flags.html !== undefined) terminal.out(["", `report: ${shownPath(flags.html)}`]);
}

async function requestOf(model: string | undefined, flags: PlanFlags): Promise<PlanRequest> {
  const budget = {
    tokens: flags.tokens ?? null,
    gpuHours: flags.gpuHours ?? null,
    money: flags.money ?? null,
    days: flags.days ?? null,
  };
  const dense = await denseModel(model, flags);
  if (dense.seen === null)
    throw inputError(`how many tokens has ${dense.name} seen?`, { where: "--d1", hint: "give for example --d1 2T" });
  if (Object.values(budget).every((value) => value === null)) {
    throw inputError("no budget", {
      where: "upcycle plan",
      hint: "give at least one of --tokens, --gpu-hours, --money, --days",
    });
  }
  const table = await hardwareTable(flags.hardware);
  const gpu = gpuNamed(table, flags.gpu);
  const recipes = flags.recipe.split(",").map((name) => {
    const shape = parseRecipeName(name);
    checkRecipe({ ...recipeDefaults, ...shape, allowUnevenTopK: flags.allowUnevenTopk === true });
    return shape;
  });
  const [denseMfu, moeMfu] = flags.mfu === undefined ? [null, null] : shares(flags.mfu);
  return {
    name: dense.name,
    spec: dense.spec,
    size: flags.n ?? null,
    seen: dense.seen,
    recipes,
    budget,
    gpu: flags.price === undefined ? gpu : { ...gpu, price: flags.price },
    currency: table.currency,
    gpus: flags.gpus,
    sequence: flags.sequence,
    batchTokens: flags.batch ?? null,
    speed: defaultSpeed,
    mfu: { dense: denseMfu, moe: moeMfu },
    coefficients: await coefficientsOf(flags),
    parentPeak: flags.parentLr ?? null,
    draws: flags.draws,
    seed: flags.seed,
    level: flags.level,
  };
}

interface DenseModel {
  readonly name: string;
  readonly spec: DecoderSpec;
  readonly seen: number | null;
}

async function denseModel(
  model: string | undefined,
  { preset, size, shape, d1, json }: PlanFlags,
): Promise<DenseModel> {
  const given = [model, preset, size, shape].filter((value) => value !== undefined).length;
  if (given !== 1) {
    throw inputError(given === 0 ? "no model" : "more than one model", {
      where: "upcycle plan",
      hint: "give one of: a folder, --preset, --size, --shape",
    });
  }
  const seen = d1 ?? null;
  if (model !== undefined) {
    const named = await askedModel(model);
    if (typeof named !== "string")
      throw inputError("a plan reads config.json alone, in which an adapter changes nothing", {
        where: shownModel(named),
        hint: `leave it out: ${shownModel(named.model)}`,
      });
    const file = join(await modelFolder(named, json, "config"), "config.json");
    const spec = specFromConfig(await readJson(file, sizeLimits.settings), shownPath(file));
    if (isMoe(spec))
      throw inputError("this model is already a mixture of experts", {
        where: isHubReference(model) ? model : shownPath(model),
        hint: "a plan starts from a dense model",
      });
    return { name: isHubReference(model) ? model.slice("hf://".length) : shownPath(model), spec, seen };
  }
  if (preset !== undefined) {
    const found = presets.find(({ id }) => id === preset);
    const names = presets.map(({ id }) => id);
    const meant = nearest(preset, names);
    if (found === undefined)
      throw inputError(`"${preset}" is no preset`, {
        where: "--preset",
        hint: meant === undefined ? `presets: ${names.join(", ")}` : `did you mean ${meant}?`,
      });
    return { name: found.id, spec: shapeSpec(found.shape), seen: seen ?? found.seen };
  }
  if (shape !== undefined) return { name: "your shape", spec: shapeSpec(parseShape(shape, "--shape")), seen };
  const wanted = quantity("--size", 1e7, 1e13)(String(size));
  return { name: `a usual shape of ${String(size)}`, spec: shapeSpec(shapeOfSize(wanted)), seen };
}

/** The built-in table, with a file laid over it. */
export async function hardwareTable(own: string | undefined): Promise<HardwareTable> {
  const builtIn = fileURLToPath(new URL("../../recipes/hardware.yaml", import.meta.url));
  const files = [{ text: await readText(builtIn), file: "hardware.yaml" }];
  if (own !== undefined) files.push({ text: await readText(own, sizeLimits.yaml), file: shownPath(own) });
  return parseHardware(files);
}

/** A row of the table. Throws inputError for a name that it does not have. */
export function gpuNamed({ gpus }: HardwareTable, name: string): Gpu {
  const row = Object.hasOwn(gpus, name) ? gpus[name] : undefined;
  const names = Object.keys(gpus);
  const meant = nearest(name, names);
  if (row === undefined)
    throw inputError(`"${name}" is not in the table of GPUs`, {
      where: "--gpu",
      hint:
        `${meant === undefined ? "" : `did you mean ${meant}? `}known: ${names.join(", ")}; add yours with ` +
        "--hardware",
    });
  return gpuOf(name, {
    ...row,
    peakTflops: row.peakTflops,
    sources: row.sources ?? {},
  });
}

function shares(text: string): [number, number] {
  const parts = text.split(",");
  if (parts.length > 2) throw inputError(`"${text}" is not one or two numbers`, { where: "--mfu" });
  const [dense, moe = dense] = parts.map(realNumber("--mfu", 0.001, 1));
  return [dense!, moe!];
}

async function coefficientsOf({ coefficients = [], fittedRecipe }: PlanFlags): Promise<Coefficients> {
  if (coefficients.length === 0) return publishedCoefficients();
  const recipe = fittedRecipe === undefined ? null : fittedRecipe.toUpperCase();
  if (recipe !== null) parseRecipeName(recipe);
  const named = new Map<string, FitDocument>();
  for (const text of coefficients) {
    const kind = armKinds.find((name) => text.startsWith(`${name}=`));
    const file = kind === undefined ? text : text.slice(kind.length + 1);
    const key = kind ?? "shared";
    if (named.has(key))
      throw inputError(`coefficients for ${key === "shared" ? "all kinds of models" : key} are given twice`, {
        where: "--coefficients",
      });
    named.set(key, await fitDocument(file));
  }
  const shared = named.get("shared");
  if (shared !== undefined && named.size === 1 && shared.law === "upcycling-shared")
    return fittedCoefficients({ shared }, recipe);
  const missing = armKinds.filter((kind) => !named.has(kind));
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
  return fittedCoefficients(
    Object.fromEntries(armKinds.map((kind) => [kind, named.get(kind)!])) as Record<ArmKind, FitDocument>,
    recipe,
  );
}

/** The output of `upcycle fit --json`, checked as far as it is read. Throws inputError. */
async function fitDocument(path: string): Promise<FitDocument> {
  const file = shownPath(path);
  const data = (await readJson(path)) as Partial<FitDocument> | null;
  const refuse = (what: string): never => {
    throw inputError(what, { where: file, hint: "expected what upcycle fit --json prints" });
  };
  if (
    typeof data !== "object" ||
    data === null ||
    typeof data.law !== "string" ||
    typeof data.params !== "object" ||
    data.params === null
  )
    refuse("this is not the output of upcycle fit --json");
  const { law, params, status, draws, ranges } = data as FitDocument;
  if (!Object.values(params).every((value) => typeof value === "number")) refuse("a parameter is no number");
  if (
    draws != null &&
    !(
      typeof draws === "object" &&
      Object.values(draws).every(
        (values) => Array.isArray(values) && values.every((value) => typeof value === "number"),
      )
    )
  )
    refuse("draws are not lists of numbers");
  if (
    ranges != null &&
    !(
      typeof ranges === "object" &&
      Object.values(ranges).every(
        (pair) => Array.isArray(pair) && pair.length === 2 && pair.every((value) => typeof value === "number"),
      )
    )
  )
    refuse("ranges are not pairs of numbers");
  if (status === "iteration-limit") refuse("this fit did not converge");
  const whole = draws != null && Object.keys(params).every((name) => (draws[name]?.length ?? 0) > 1);
  return { file, law, params, status, ...(whole && { draws }), ...(ranges != null && { ranges }) };
}

function shapeWords({ hidden, layers, attn, vocab, tiedHead }: DecoderSpec): string {
  const ffn = layers[0]!.ffn;
  return (
    `hidden ${grouped(hidden)}, ${layers.length} layers, ${attn.heads} heads of ${attn.headDim} (${attn.kvHeads} ` +
    `key-value), FFN ${grouped(ffn.ffnDim)}, vocabulary ${grouped(vocab)} (${tiedHead ? "tied" : "own"} head)`
  );
}
