/** The options of `upcycle convert` that say a recipe: a name or a file, and what overrides the file. */
import { dirname, isAbsolute, resolve } from "node:path";
import type { Command } from "commander";
import { inputError } from "../base/errors.js";
import type { ModelSource } from "../files/checkpoint/model-source.js";
import { parseMergekitConfig, type MergekitConfig } from "../base/schemas/mergekit.js";
import { parseRecipeConfig, type RecipeConfig } from "../base/schemas/recipe.js";
import { isHubReference } from "../files/hub/reference.js";
import { exists } from "../files/io/atomic.js";
import { sizeLimits } from "../files/io/open.js";
import { readText } from "../files/io/ranges.js";
import {
  expertInits,
  otherTensors,
  recipeDefaults,
  scalings,
  targetFamilies,
  type UpcycleRecipe,
} from "../surgery/planning/recipe.js";
import { mergekitPlan } from "../surgery/planning/mergekit.js";
import { recipeFromConfig } from "../surgery/planning/recipe-config.js";
import { shownPath } from "./context.js";
import { askedModel, hubReference } from "./model-folder.js";
import { namedModel } from "./model-words.js";
import { oneOf, realNumber, wholeNumber } from "./options.js";

/** The flags that say a recipe, under the keys of recipe files, apart from a few shorter ones. */
export interface RecipeFlags extends Partial<
  Omit<RecipeConfig, "recipe" | "routerGroups" | "allowUnevenTopK" | "auxLossCoef">
> {
  readonly recipe?: string;
  readonly mergekit?: string;
  readonly others?: UpcycleRecipe["others"];
  readonly allowUnevenTopk?: boolean;
  readonly ungroupedRouter?: boolean;
  readonly auxLoss?: number;
  readonly routerInit?: (typeof drawnOrMeasured)[number];
}

/** What a router's rows can start from without prompts, which only files have. */
const drawnOrMeasured = ["normal", "uniform_random", "centroids"] as const;

/** Adds the options that say a recipe. */
export function withRecipe(command: Command): Command {
  return command
    .option(
      "--recipe <name>",
      "E<copies>G<parts>T<experts per token>, for example E8G1T2, or a .yaml file with these options as keys",
    )
    .option(
      "--mergekit <file>",
      "instead of model and recipe: several dense models as experts, in a .yaml file of mergekit-moe",
    )
    .option(
      "--others <whose>",
      `with --mergekit, all but the experts: ${otherTensors.join(", ")} (default: ${recipeDefaults.others})`,
      oneOf("--others", otherTensors),
    )
    .option(
      "--target <family>",
      `auto (simplest exact), ${targetFamilies.join(", ")}`,
      oneOf("--target", ["auto", ...targetFamilies]),
    )
    .option(
      "--router <order>",
      `topk-softmax, softmax-topk (default: ${recipeDefaults.order})`,
      oneOf("--router", ["topk-softmax", "softmax-topk"]),
    )
    .option(
      "--router-init <what>",
      `what router rows start from: ${drawnOrMeasured.join(", ")} (of what each layer's FFN reads on text)`,
      oneOf("--router-init", drawnOrMeasured),
    )
    .option(
      "--scaling <how>",
      `${scalings.join(", ")} (default: ${recipeDefaults.scaling})`,
      oneOf("--scaling", scalings),
    )
    .option(
      "--router-std <number>",
      `standard deviation of the fresh router (default: ${recipeDefaults.routerStd})`,
      realNumber("--router-std", 0),
    )
    .option("--ungrouped-router", "a router row for every part of a copy, in place of one that a copy's parts share")
    .option("--seed <n>", `of everything drawn (default: ${recipeDefaults.seed})`, wholeNumber("--seed", 0))
    .option(
      "--experts <what>",
      `what experts start from: ${expertInits.join(", ")} (default: ${recipeDefaults.experts})`,
      oneOf("--experts", expertInits),
    )
    .option("--noise <amount>", "noise on the experts: a std, or a share of each tensor's own such as 1%")
    .option(
      "--noise-fraction <share>",
      "share of the elements that get noise (default: 1)",
      realNumber("--noise-fraction", 0, 1),
    )
    .option("--drop <ratio>", "Drop-Upcycling: share of each expert's units drawn afresh", realNumber("--drop", 0, 1))
    .option("--permute", "give every expert's hidden units an order of their own")
    .option("--shared <n>", "hidden units of the FFN that go to a shared expert", wholeNumber("--shared", 1))
    .option(
      "--split <how>",
      "hidden units go to the parts of one copy by order, or by activation on text (CMoE; makes the router too)",
      oneOf("--split", ["order", "activation"]),
    )
    .option("--layers <list>", "layers that get experts: all, even, odd, 0,4-7,12- (default: all)")
    .option("--pad", "fill the FFN with zero units where G does not divide its size")
    .option("--correction-bias", "routers with a bias that training can balance experts with")
    .option(
      "--aux-loss <number>",
      `coefficient of the balance loss in the config (default: ${recipeDefaults.auxLossCoef})`,
      realNumber("--aux-loss", 0, 1),
    )
    .option("--allow-uneven-topk", "accept a T that is not a multiple of G");
}

/**
 * What the command line asks `convert` for: models by name, the base first, a recipe, and a precision if a file has
 * one.
 */
export interface RequestedConversion {
  readonly models: readonly [ModelSource, ...ModelSource[]];
  readonly recipe: UpcycleRecipe;
  readonly dtype?: MergekitConfig["dtype"];
}

/**
 * What the command line asks for; flags come before a file's keys. Throws inputError for a file or a recipe that cannot
 * be used.
 */
export async function requestedConversion(
  model: string | undefined,
  flags: RecipeFlags,
  command: Command,
): Promise<RequestedConversion> {
  const { recipe, mergekit, others } = flags;
  if (mergekit !== undefined) return mergekitConversion(model, { ...flags, mergekit });
  if (others !== undefined) throw inputError("--others is about several models, which only --mergekit names");
  if (model === undefined) return command.error("error: missing required argument 'model'");
  if (recipe === undefined) return command.error("error: required option '--recipe <name>' not specified");
  return { models: [await askedModel(model)], recipe: await recipeOfFlags({ ...flags, recipe }) };
}

/** What a file of mergekit-moe asks for. */
async function mergekitConversion(
  model: string | undefined,
  flags: RecipeFlags & { readonly mergekit: string },
): Promise<RequestedConversion> {
  const { recipe, mergekit, others, experts, shared, split, routerInit } = flags;
  if (model !== undefined || recipe !== undefined) {
    throw inputError(
      "--mergekit says which models become experts, " +
        `${model === undefined ? `--recipe ${recipe}` : `"${model}"`} is one too many`,
      { hint: "leave it out" },
    );
  }
  const cutting = [
    ["--experts", experts],
    ["--shared", shared],
    ["--split", split],
  ].find(([, value]) => value !== undefined);
  if (cutting !== undefined) throw inputError(`${cutting[0]} does not go with --mergekit`);
  if (routerInit !== undefined)
    throw inputError("--router-init does not go with --mergekit, whose gate_mode says what router rows start from");
  const file = shownPath(mergekit);
  const config = parseMergekitConfig(await readText(mergekit, sizeLimits.yaml), file);
  const plan = mergekitPlan(config, file, { ...recipeKeysOf(flags), others });
  const [base, ...more] = await Promise.all(plan.models.map((name) => modelOfFile(mergekit, name)));
  if (base === undefined) throw inputError("names no model", { where: file });
  return { models: [base, ...more], recipe: plan.recipe, dtype: config.dtype };
}

/**
 * A model that a mergekit file names, or `model+lora`: a folder as seen from the file or from here, else a model of the
 * Hub. Throws inputError for a path that leads nowhere.
 */
async function modelOfFile(file: string, name: string): Promise<ModelSource> {
  const source = await namedModel(name, (word) => folderOrReference(file, word), shownPath(file));
  if (source !== null) return source;
  throw inputError(`no such folder: ${name}`, {
    where: shownPath(file),
    hint: "write a folder, as seen from this file or from here, or a model of the Hub such as org/name",
  });
}

async function folderOrReference(file: string, word: string): Promise<string | null> {
  if (isHubReference(word)) return hubReference(word);
  for (const path of [resolve(dirname(file), word), resolve(word)])
    if (word !== "" && (await exists(path))) return path;
  const isPath = isAbsolute(word) || /^[.~]|[\\]/.test(word);
  return isPath ? null : hubReference(word);
}

async function recipeOfFlags(flags: RecipeFlags & { readonly recipe: string }): Promise<UpcycleRecipe> {
  const { recipe } = flags;
  const isFile = /\.ya?ml$/i.test(recipe);
  const fileKeys = isFile
    ? parseRecipeConfig(await readText(recipe, sizeLimits.yaml), shownPath(recipe))
    : { recipe, router: undefined };
  const flagKeys = recipeKeysOf(flags);
  return recipeFromConfig({ ...fileKeys, ...flagKeys, router: routerKeys(fileKeys.router, flags) });
}

/**
 * The router of a file with what flags say of it. `--router` sets the order alone, and `--router-init` what the rows
 * start from: what else the file says stays, except prompts, of which other rows are not made.
 */
function routerKeys(
  router: RecipeConfig["router"] | undefined,
  { router: order, routerInit: init }: RecipeFlags,
): RecipeConfig["router"] | undefined {
  if (typeof order === "object") return order;
  const file = typeof router === "object" ? router : { order: router ?? recipeDefaults.order, init: "normal" as const };
  const asked = { ...file, order: order ?? file.order };
  if (init === undefined) return asked;
  return { order: asked.order, init };
}

/** Flags that have the name of their key in recipe files. */
const sameNames = [
  "target",
  "router",
  "scaling",
  "routerStd",
  "seed",
  "experts",
  "noise",
  "noiseFraction",
  "drop",
  "permute",
  "shared",
  "split",
  "layers",
  "pad",
  "correctionBias",
] as const satisfies readonly (keyof RecipeFlags & keyof RecipeConfig)[];

/** The keys of a recipe file that the command line sets. */
function recipeKeysOf(flags: RecipeFlags): Partial<Omit<RecipeConfig, "recipe">> {
  const keys: readonly (readonly [key: keyof RecipeConfig, value: unknown])[] = [
    ...sameNames.map((name) => [name, flags[name]] as const),
    ["routerGroups", flags.ungroupedRouter === true ? false : undefined],
    ["allowUnevenTopK", flags.allowUnevenTopk],
    ["auxLossCoef", flags.auxLoss],
  ];
  return Object.fromEntries(keys.filter(([, value]) => value !== undefined));
}
