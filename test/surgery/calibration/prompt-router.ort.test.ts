/** Routers made from prompts. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { parseRecipeConfig } from "../../../src/base/schemas/index.js";
import { resultOf } from "../../../src/base/events.js";
import { convertCheckpoint, planConversion } from "../../../src/surgery/convert/convert.js";
import { readRecord, recipeOf } from "../../../src/surgery/convert/record.js";
import { promptRouter, type PromptRouter } from "../../../src/surgery/calibration/prompt-router.js";
import { openStreamedModel, throughLayer } from "../../../src/evals/streamed-model.js";
import { recipeFromConfig } from "../../../src/surgery/planning/recipe-config.js";
import {
  upcycleRecipe,
  type ExpertPrompts,
  type RecipeOptions,
  type UpcycleRecipe,
} from "../../../src/surgery/planning/recipe.js";
import { upcycle, upcycleJson } from "../../cli/upcycle.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { fromFloat32, toFloat32 } from "../../../src/files/numeric/dtype.js";
import { tensorsOf, writeTensors } from "../../support/adapters.js";
import { inThread } from "../../support/backend.js";
import { perturbed } from "../../support/perturbed.js";
import { withWordTokenizer, wordIds } from "../../support/word-tokenizer.js";

const root = temporaryFolder();
const source = withWordTokenizer(perturbed("dense/llama", join(root, "base"), 0));
const poet = perturbed("dense/llama", join(root, "poet"), 2);
const idsOf = (text: string): number[] => [1, ...wordIds(text)];

const prompts: ExpertPrompts[] = [
  { positive: ["the code of a loop", "a loop"], negative: ["rhyme"] },
  { positive: ["the verse"], negative: [] },
];
const recipe = (kind: "hidden" | "cheap_embed", of = prompts, options: RecipeOptions = {}): UpcycleRecipe =>
  upcycleRecipe(`E${of.length}G1T${of.length}`, { routerInit: { kind, prompts: of }, ...options });
const make = (of: UpcycleRecipe, dir = source): Promise<PromptRouter> =>
  promptRouter({ source: dir, recipe: of, backend: inThread, threads: 1 });

async function lineOf(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  return error instanceof UpcycleError ? error.line.replaceAll(root, "ROOT") : String(error);
}

/** The rows of one layer, as one matrix. */
function matrixOf(rows: PromptRouter["rows"], layer: number): Float32Array {
  const matrix = at(rows, layer);
  if (matrix === null) throw new Error(`layer ${layer} has no rows`);
  return matrix;
}

const minus = (a: number[], b: number[]): number[] => a.map((value, i) => value - at(b, i));
const unit = (a: number[]): number[] => a.map((value) => value / Math.hypot(...a));
function near(actual: Float32Array, expected: readonly number[]): void {
  expect(actual).toHaveLength(expected.length);
  expected.forEach((value, i) => expect(actual[i]).toBeCloseTo(value, 5));
}

/** The residual stream that enters `layer`, at the last token. */
async function lastState(text: string, layer: number): Promise<number[]> {
  const model = await openStreamedModel(source, inThread, { threads: 1 });
  const ids = Int32Array.from(idsOf(text));
  const shape = { batch: 1, sequence: ids.length };
  let x = await model.embed(ids, shape);
  for (let below = 0; below < layer; below++) x = await throughLayer(model, below, x, shape);
  await model.close();
  return [...x.subarray(x.length - 32)];
}

describe("prompts", () => {
  it("give rows of hidden states at the last token: averaged, the negative ones taken off, of length 1", async () => {
    const { rows, warnings } = await make(recipe("hidden"));
    expect(warnings).toEqual([]);
    expect(rows).toHaveLength(2);
    for (const layer of [0, 1]) {
      const [a, b, c, d] = await Promise.all(
        ["the code of a loop", "a loop", "rhyme", "the verse"].map((text) => lastState(text, layer)),
      );
      near(matrixOf(rows, layer), [
        ...unit(
          minus(
            a!.map((value, i) => (value + at(b!, i)) / 2),
            c!,
          ),
        ),
        ...unit(d!),
      ]);
    }
  });

  it("give the sum of their tokens' embeddings, the same for each layer", async () => {
    const { rows } = await make(recipe("cheap_embed"));
    const checkpoint = await openCheckpoint(source);
    const embed = await checkpoint.readFloat32("embed");
    await checkpoint.close();
    const sum = (...texts: string[]): number[] =>
      unit(
        texts
          .flatMap(idsOf)
          .map((id) => [...embed.subarray(id * 32, id * 32 + 32)])
          .reduce((x, y) => x.map((value, i) => value + at(y, i))),
      );
    near(matrixOf(rows, 0), [...unit(minus(sum("the code of a loop", "a loop"), sum("rhyme"))), ...sum("the verse")]);
    expect(rows[1]).toEqual(rows[0]);
  });

  it("make the router of the model, repeated for the parts of a copy, and are in the record", async () => {
    const upcycling = upcycleRecipe("E2G2T2", { routerInit: { kind: "hidden", prompts } });
    const { rows } = await make(upcycling);
    const out = join(root, "parts");
    await resultOf(convertCheckpoint({ source, recipe: upcycling, routerRows: rows, out, threads: 2 }));
    const child = await openCheckpoint(out);
    const router = await child.readFloat32("layers.1.router");
    await child.close();
    for (const expert of [0, 1, 2, 3]) {
      const copy = Math.floor(expert / 2);
      expect(router.subarray(expert * 32, expert * 32 + 32)).toEqual(
        matrixOf(rows, 1).subarray(copy * 32, copy * 32 + 32),
      );
    }
    expect(recipeOf((await readRecord(out))!).routerInit).toEqual({ kind: "hidden", prompts });
  });

  it("whose rows are too much alike get a warning", async () => {
    const { warnings } = await make(
      recipe("cheap_embed", [
        { positive: ["a of"], negative: [] },
        { positive: ["of a"], negative: [] },
      ]),
    );
    expect(warnings.join()).toContain(
      "the prompts are too much alike in 2 of 2 layers (experts 0 and 1 at layer 0: cosine 1.0000)",
    );
  });

  it("are refused without a tokenizer, without tokens, and without a direction", async () => {
    expect(await lineOf(make(recipe("hidden"), poet))).toContain(
      "ROOT/poet: the router is to be made from prompts (hidden), but the model has no tokenizer.json",
    );
    expect(await lineOf(make(recipe("hidden", [{ positive: ["a"], negative: ["a"] }, at(prompts, 1)])))).toContain(
      "the prompts of copy 0, layer 0 give no direction",
    );
    expect(
      await lineOf(make(recipe("hidden", [{ positive: ["a ".repeat(200)], negative: [] }, at(prompts, 1)]))),
    ).toContain("a prompt of copy 0 has 201 tokens, the model has 128 positions");
    expect(await lineOf(make(upcycleRecipe("E2G1T2")))).toContain("the recipe has no prompts");
    expect(
      await lineOf(resultOf(convertCheckpoint({ source, recipe: recipe("hidden"), out: join(root, "none") }))),
    ).toContain("its rows were not given");
    expect(
      await lineOf(planConversion({ source, recipe: recipe("hidden"), routerRows: [new Float32Array(3), null] })),
    ).toContain("the router rows of layer 0 do not fit the model");
  });
});

it("made from embeddings that are no numbers say that the model is damaged, not the prompts", async () => {
  const damaged = withWordTokenizer(perturbed("dense/llama", join(root, "damaged"), 0));
  const path = join(damaged, "model.safetensors");
  const tensors = tensorsOf(path);
  const name = "model.embed_tokens.weight";
  const embedding = tensors.get(name);
  if (embedding === undefined) throw new Error(`the model has no ${name}`);
  const values = toFloat32("F32", embedding.bytes).slice();
  values[at(idsOf("verse"), 1) * at(embedding.shape, 1)] = NaN;
  const bytes = fromFloat32("F32", values);
  writeTensors(path, new Map([...tensors, [name, { dtype: "F32" as const, shape: embedding.shape, bytes }]]));
  const error: unknown = await make(recipe("cheap_embed"), damaged).catch((cause: unknown) => cause);
  expect(error).toMatchObject({
    kind: "stopped",
    message: "embeddings of the prompts are NaN or infinite: the model is damaged",
  });
});

describe("recipes with prompts", () => {
  const parse = (text: string): UpcycleRecipe => recipeFromConfig(parseRecipeConfig(text, "recipe.yaml"));
  const line = (text: string): string => {
    try {
      parse(text);
    } catch (error) {
      if (error instanceof UpcycleError) return error.line;
    }
    return "no error";
  };

  it("may give them as a text, as a list or as positive and negative ones", () => {
    const fromYaml = parse(
      "recipe: E3G1T2\nrouter:\n  init: hidden\n  order: softmax-topk\n  prompts:\n    - code\n    - [verse, " +
        "rhyme]\n    - {positive: the, negative: [a]}\n",
    );
    expect(fromYaml).toMatchObject({
      order: "softmax-topk",
      routerInit: {
        kind: "hidden",
        prompts: [
          { positive: ["code"], negative: [] },
          { positive: ["verse", "rhyme"], negative: [] },
          { positive: ["the"], negative: ["a"] },
        ],
      },
    });
    expect(parse("recipe: E3G1T2\nrouter: {init: uniform_random}\n").routerInit).toEqual({ kind: "uniform_random" });
    expect(parse("recipe: E3G1T2\nrouter: softmax-topk\n")).toMatchObject({ order: "softmax-topk", routerInit: null });
  });

  it("are refused if the prompts make no sense", () => {
    expect(line("recipe: E3G1T2\nrouter: {init: hidden}\n")).toContain("hidden needs prompts");
    expect(line("recipe: E3G1T2\nrouter: {init: hidden, prompts: [a, b]}\n")).toContain(
      "prompts for 2 copies, the recipe has 3",
    );
    expect(line("recipe: E2G1T2\nrouter: {init: hidden, prompts: [a, a]}\n")).toContain(
      "all copies have the same prompts",
    );
    expect(line("recipe: E2G1T2\nrouter: {init: hidden, prompts: [a, []]}\n")).toContain(
      "copy 1 has no positive prompts",
    );
    expect(line("recipe: E2G1T2\nrouter: {init: normal, prompts: [a, b]}\n")).toContain(
      "prompts are for the inits hidden and cheap_embed",
    );
    expect(line("recipe: E1G4T2\nrouter: {init: hidden, prompts: [a]}\n")).toContain(
      "with one copy the parts have no prompts",
    );
    expect(line("recipe: E2G1T2\nrouter: {init: hiden}\n")).toContain('did you mean "hidden"?');
    expect(line("recipe: E2G1T2\nrouter: {promts: [a, b]}\n")).toContain('did you mean "prompts"?');
  });
});

describe("upcycle convert", () => {
  const file = join(root, "mix.yaml");
  writeFileSync(
    file,
    "base_model: base\nexperts:\n  - source_model: base\n    positive_prompts: [the code of a loop, a loop]\n  " +
      "  negative_prompts: [rhyme]\n  - source_model: poet\n    positive_prompts: [the verse]\n",
  );

  it("makes a mergekit file's router from its prompts, shown before", async () => {
    const shown = await upcycle("convert", "--mergekit", file, "--dry-run");
    expect(shown.stdout).toContain("router (2 tensors): 2 rows made from prompts");
    const out = join(root, "mixed");
    const output = await upcycleJson("convert", "--mergekit", file, "--out", out, "--no-report");
    expect(output).toMatchObject({ recipe: { routerInit: { kind: "hidden", prompts } } });
    const { rows } = await make(recipe("hidden"));
    const child = await openCheckpoint(out);
    near(await child.readFloat32("layers.1.router"), [...matrixOf(rows, 1)]);
    await child.close();
    expect(readFileSync(join(out, "README.md"), "utf8")).toContain("from the base's hidden states of prompts");
  });

  it("makes the gate of a shared expert from its prompts, and refuses where one of both is missing", async () => {
    const mix = (name: string, shared: string): string => {
      const path = join(root, name);
      writeFileSync(path, `${readFileSync(file, "utf8")}shared_experts:\n  - source_model: base\n${shared}`);
      return path;
    };
    const out = join(root, "gated");
    const gated = mix("gated.yaml", "    positive_prompts: [the code]\n");
    expect(await upcycleJson("convert", "--mergekit", gated, "--out", out, "--no-report")).toMatchObject({
      recipe: { target: "qwen2_moe", sharedParent: { prompts: { positive: ["the code"], negative: [] } } },
    });
    const { rows } = await make(recipe("hidden", [...prompts.slice(0, 2), { positive: ["the code"], negative: [] }]));
    const child = await openCheckpoint(out);
    near(await child.readFloat32("layers.1.sharedRouter"), [...matrixOf(rows, 1).subarray(2 * child.spec.hidden)]);
    near(await child.readFloat32("layers.1.router"), [...matrixOf(rows, 1).subarray(0, 2 * child.spec.hidden)]);
    await child.close();
    const lineOfFile = async (path: string, target: string): Promise<string> =>
      (await upcycle("convert", "--mergekit", path, "--target", target, "--dry-run")).stderr;
    expect(await lineOfFile(gated, "ernie4_5_moe")).toContain("its shared expert has no gate that prompts could make");
    expect(await lineOfFile(mix("bare.yaml", ""), "qwen2_moe")).toContain(
      "its shared expert has a gate, for which there are no prompts",
    );
    expect(await lineOfFile(mix("negative.yaml", "    negative_prompts: [rhyme]\n"), "auto")).toContain(
      "the shared expert has only negative prompts",
    );
  });

  it("calibrates with a router made from prompts", async () => {
    const path = join(root, "calibrated.yaml");
    writeFileSync(
      path,
      "recipe: E2G1T1\nscaling: calibrated\nrouter: {order: softmax-topk, init: hidden, prompts: [code, verse]}\n",
    );
    const output = await upcycleJson("convert", source, "--recipe", path, "--out", join(root, "fitted"), "--no-report");
    const { calibration } = output.recipe as { calibration: number[] };
    expect(calibration).toHaveLength(2);
    for (const factor of calibration) expect(factor).toBeGreaterThan(1);
    for (const factor of calibration) expect(factor).toBeLessThan(2);
  });
});
