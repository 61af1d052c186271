/**
 * The keys that say a recipe in YAML files: in a recipe file for `upcycle convert`, and in the upcycled arms of a
 * study.
 */
import { z } from "zod";
import { parseConfig } from "./validate.js";

const share = z.number().min(0).max(1);

/** Keys of a recipe file that an upcycled arm of a study has too. */
export const recipeKeys = {
  recipe: z
    .string()
    .regex(/^E[1-9]\d{0,5}G[1-9]\d{0,5}T[1-9]\d{0,5}$/)
    .describe("E<copies>G<parts>T<experts per token>, for example E8G1T2."),
  router: z
    .enum(["topk-softmax", "softmax-topk"])
    .default("topk-softmax")
    .describe("topk-softmax: softmax over the chosen experts. softmax-topk: over all experts, not renormalised."),
  scaling: z
    .enum(["exact", "paper", "calibrated", "none"])
    .default("exact")
    .describe(
      "exact: the factor goes on down. paper: its root on every matrix, as Megatron-Core does. calibrated " +
        "(softmax-topk): on down, measured for each layer. none: weights as they are.",
    ),
  routerStd: z.number().min(0).max(10).default(0.02).describe("Standard deviation of the fresh router weights."),
  routerGroups: z
    .boolean()
    .default(true)
    .describe(
      "The parts of a copy share a router row, so that whole copies are chosen. false: a row for every part, which " +
        "starts far from the parent.",
    ),
  target: z
    .string()
    .min(1)
    .optional()
    .describe(
      "Hugging Face family to write, such as mixtral (upcycle targets lists them); the simplest one that holds " +
        "the parent if left out.",
    ),
  allowUnevenTopK: z
    .boolean()
    .default(false)
    .describe("Accept a T that is not a multiple of G; starts far from the parent."),
  experts: z
    .enum(["copies", "random"])
    .default("copies")
    .describe("What experts start from: the parent's FFN, or fresh weights."),
  noise: z
    .union([z.number().min(0), z.string().regex(/^\d+(\.\d+)?%$/)])
    .default(0)
    .describe('Gaussian noise on the experts: its standard deviation, or a share of each tensor\'s own such as "1%".'),
  noiseFraction: share.default(1).describe("Share of the elements that get noise."),
  drop: share.default(0).describe("Drop-Upcycling: share of each expert's hidden units that is drawn afresh."),
  permute: z
    .boolean()
    .default(false)
    .describe("Give every expert's hidden units an order of their own; changes no function."),
  shared: z
    .int()
    .min(1)
    .optional()
    .describe("Hidden units of the FFN that go to a shared expert; the routed experts share the others."),
  split: z
    .enum(["order", "activation"])
    .default("order")
    .describe(
      "How hidden units go to the parts: in their order, or by when they are active on text (CMoE; E1), which makes " +
        "the router too.",
    ),
  layers: z
    .string()
    .default("all")
    .describe("Layers that get experts: all, even, odd, or numbers and ranges from 0, such as 0,4-7,12-."),
  pad: z.boolean().default(false).describe("Fill the FFN with zero units where G does not divide its size."),
  correctionBias: z
    .boolean()
    .default(false)
    .describe(
      "Give routers a correction bias, zero at first, that training can balance experts with (routing.bias); " +
        "leaves the families that hold one.",
    ),
  auxLossCoef: z
    .number()
    .min(0)
    .max(1)
    .default(0.01)
    .describe("Coefficient of the load-balancing loss in the model's config."),
};

const texts = z.union([z.string(), z.array(z.string())]);

/** All that a router's rows can start from. */
const routerInits = ["normal", "hidden", "cheap_embed", "centroids", "uniform_random"] as const;

/** The router as a block of keys, which also says what its rows start from. */
const routerSchema = z.strictObject({
  order: recipeKeys.router,
  init: z
    .enum(routerInits)
    .default("normal")
    .describe(
      "What its rows start from: normal deviates of routerStd, the parent's hidden states or token embeddings " +
        "of each copy's prompts, centroids of what each layer's FFN reads on text, or torch's default for a linear " +
        "layer.",
    ),
  prompts: z
    .array(
      z.union([
        z.string(),
        z.array(z.string()),
        z.strictObject({
          positive: texts.describe("Texts that the copy should be chosen for."),
          negative: texts.default([]).describe("Texts that it should not be chosen for."),
        }),
      ]),
    )
    .optional()
    .describe("For each copy: a text, several, or positive and negative ones. Of hidden and cheap_embed."),
});

/** The key `router` of recipe files and of studies: the name of an order, or a block that also says of the rows. */
export const routerKey = z
  .union([routerSchema, recipeKeys.router.unwrap()])
  .default("topk-softmax")
  .describe(`${recipeKeys.router.description} Or a block of keys that also says what its rows start from.`);

/** Schema of a recipe file. */
export const recipeConfigSchema = z
  .strictObject({
    ...recipeKeys,
    router: routerKey,
    seed: z.int().min(0).default(0).describe("Of everything that is drawn."),
  })
  .describe("How a dense model is turned into a mixture of experts.");

/** A recipe file, checked. */
export type RecipeConfig = z.output<typeof recipeConfigSchema>;

/** Reads a recipe file. Throws inputError with one line that names file, line and key. */
export function parseRecipeConfig(text: string, file: string): RecipeConfig {
  return parseConfig(recipeConfigSchema, text, file);
}
