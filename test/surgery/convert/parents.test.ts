/**
 * Several dense parents as the experts of one model. The file is long because every setting of such a recipe is tried
 * with parents that differ.
 */
import { utimesSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { openCheckpoint, type Checkpoint } from "../../../src/files/checkpoint/open.js";
import type { MakeEvent, PlannedModel } from "../../../src/surgery/convert/make.js";
import { resultOf } from "../../../src/base/events.js";
import { convertCheckpoint, planConversion, type ConvertOptions } from "../../../src/surgery/convert/convert.js";
import { readRecord, recipeOf } from "../../../src/surgery/convert/record.js";
import { explainPlan } from "../../../src/surgery/planning/explain.js";
import { upcycleRecipe, type RecipeOptions, type UpcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { refusalOf } from "../../cli/in-process.js";
import { upcycle, upcycleJson } from "../../cli/upcycle.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { golden } from "../../support/golden.js";
import { perturbed } from "../../support/perturbed.js";
import { hashes } from "./hashes.js";

const root = temporaryFolder();
const base = golden("dense/llama");
const coder = perturbed("dense/llama", join(root, "coder"), 1);
const poet = perturbed("dense/llama", join(root, "poet"), 2);
const twin = perturbed("dense/llama", join(root, "twin"), 0);

let folders = 0;
const fresh = (): string => join(root, `out${folders++}`);
const from = (...sources: number[]): UpcycleRecipe["parents"] =>
  sources.map((source) => ({ source, noise: 0, scale: 1 }));
const recipe = (name: string, options: RecipeOptions): UpcycleRecipe =>
  upcycleRecipe(name, { routerStd: 1, ...options });
const options = (parents: string[], of: UpcycleRecipe, more: Partial<ConvertOptions> = {}): ConvertOptions => ({
  source: base,
  parents,
  recipe: of,
  out: fresh(),
  ...more,
});

async function withModels<T>(dirs: readonly string[], work: (...models: Checkpoint[]) => Promise<T>): Promise<T> {
  const models = await Promise.all(dirs.map((dir) => openCheckpoint(dir)));
  try {
    return await work(...models);
  } finally {
    await Promise.all(models.map((model) => model.close()));
  }
}

async function lineOf(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  return error instanceof UpcycleError
    ? `${error.kind}: ${error.line.replaceAll(root, "ROOT").replaceAll(base, "BASE")}`
    : String(error);
}

describe("a conversion of several parents", () => {
  it("takes an expert from each, and everything else from the base", async () => {
    const conversion = options([coder, poet], recipe("E2G1T2", { parents: from(1, 2) }));
    const { record } = await resultOf(convertCheckpoint(conversion));
    await withModels([base, coder, poet, conversion.out], async (b, one, two, child) => {
      for (const part of ["gate", "up", "down"]) {
        for (const [expert, parent] of [one, two].entries()) {
          expect(await child.readFloat32(`layers.1.experts.${expert}.${part}`)).toEqual(
            await parent.readFloat32(`layers.1.${part}`),
          );
        }
      }
      for (const key of ["embed", "layers.0.q", "layers.1.ffnNorm", "head"])
        expect(await child.readFloat32(key)).toEqual(await b.readFloat32(key));
    });
    expect(record).toMatchObject({
      parent: { name: "llama" },
      parents: ["llama", "coder", "poet"],
      expected: { kind: "approximate" },
    });
    expect(await readRecord(conversion.out)).toEqual(record);
    expect(recipeOf(record).parents).toEqual(conversion.recipe.parents);
  });

  it("averages tensors outside the experts over the parents, each counted once", async () => {
    const conversion = options([coder, poet], recipe("E4G1T2", { parents: from(1, 2, 2, 1), others: "average" }));
    await resultOf(convertCheckpoint(conversion));
    await withModels([coder, poet, conversion.out], async (one, two, child) => {
      for (const key of ["embed", "layers.0.q", "layers.1.ffnNorm", "head"]) {
        const [a, b] = [await one.readFloat32(key), await two.readFloat32(key)];
        expect(await child.readFloat32(key), key).toEqual(a.map((value, i) => (value + at(b, i)) / 2));
      }
    });
  });

  it("cuts every copy into parts of its own parent's FFN", async () => {
    const conversion = options([coder], recipe("E2G2T2", { parents: from(0, 1) }));
    await resultOf(convertCheckpoint(conversion));
    await withModels([coder, conversion.out], async (one, child) => {
      const up = await one.readFloat32("layers.0.up");
      expect(await child.readFloat32("layers.0.experts.3.up")).toEqual(up.subarray(up.length / 2));
    });
  });

  it("keeps every bit and so the function if the parents are the same, averaged or not", async () => {
    for (const others of ["base", "average"] as const) {
      const plain = fresh();
      await resultOf(convertCheckpoint({ source: base, recipe: recipe("E3G1T2", {}), out: plain }));
      const conversion = options([twin], recipe("E3G1T2", { parents: from(0, 1, 0), others }));
      await resultOf(convertCheckpoint(conversion));
      await withModels([plain, conversion.out], async (a, b) => {
        expect(b.spec).toEqual(a.spec);
        for (const { key } of slotsOf(a.spec)) expect(await b.readFloat32(key), key).toEqual(await a.readFloat32(key));
      });
    }
  });

  it("writes the same bytes with several threads", async () => {
    const of = recipe("E2G1T2", { parents: from(1, 2), others: "average" });
    const [one, two] = [
      options([coder, poet], of),
      options([coder, poet], of, { threads: 2, pace: { chunkBytes: 512 } }),
    ];
    await resultOf(convertCheckpoint(one));
    await resultOf(convertCheckpoint(two));
    expect(hashes(two.out)).toEqual(hashes(one.out));
  });

  it("puts noise and a factor of its own on each parent's FFN", async () => {
    const conversion = options(
      [coder],
      recipe("E2G1T2", {
        parents: [
          { source: 0, noise: 0, scale: -2 },
          { source: 1, noise: 0.5, scale: 1 },
        ],
      }),
    );
    await resultOf(convertCheckpoint(conversion));
    await withModels([base, coder, conversion.out], async (b, one, child) => {
      expect(await child.readFloat32("layers.0.experts.0.down")).toEqual(
        (await b.readFloat32("layers.0.down")).map((value) => -2 * value),
      );
      expect(await child.readFloat32("layers.0.experts.0.up")).toEqual(await b.readFloat32("layers.0.up"));
      const before = await one.readFloat32("layers.0.up");
      const noise = (await child.readFloat32("layers.0.experts.1.up")).map((value, i) => value - at(before, i));
      const std = Math.sqrt(noise.reduce((sum, value) => sum + value * value, 0) / noise.length);
      expect(std).toBeGreaterThan(0.47);
      expect(std).toBeLessThan(0.53);
    });
  });

  it("names the parents in its plan", async () => {
    const { plan } = await planConversion(
      options([coder, poet], recipe("E2G1T2", { parents: from(1, 2), others: "average" })),
    );
    const lines = explainPlan(plan, ["llama", "coder", "poet"]);
    expect(lines).toContain("q (2 tensors): mean of coder's q and poet's q");
    expect(lines).toContain("experts.up (4 tensors): copy of coder's up; copy of poet's up");
    expect(lines).toContainEqual(
      expect.stringContaining("the experts are the FFNs of 2 models, all else is their mean"),
    );
  });

  it("can draw the router from a uniform distribution", async () => {
    const conversion = options([], recipe("E8G2T2", { routerInit: { kind: "uniform_random" } }));
    await resultOf(convertCheckpoint(conversion));
    await withModels([conversion.out], async (child) => {
      const router = await child.readFloat32("layers.0.router");
      expect(router).toHaveLength(16 * 32);
      const bound = 1 / Math.sqrt(32);
      expect(Math.max(...router.map(Math.abs))).toBeLessThanOrEqual(bound);
      expect(Math.max(...router)).toBeGreaterThan(0.9 * bound);
      for (let row = 0; row < 16; row += 2)
        expect(router.subarray(row * 32, row * 32 + 32)).toEqual(router.subarray(row * 32 + 32, row * 32 + 64));
    });
  });
});

describe("parents of one name", () => {
  const [first, second] = [
    perturbed("dense/llama", join(root, "a", "model"), 1),
    perturbed("dense/llama", join(root, "b", "model"), 2),
  ];
  const of = recipe("E2G1T2", { parents: from(1, 2) });
  const pace = { chunkBytes: 512, flushBytes: 20_000 };

  /** Stops halfway. */
  async function stopped(conversion: ConvertOptions): Promise<void> {
    const abort = new AbortController();
    const onEvent = (event: MakeEvent<PlannedModel>): void =>
      void (event.type === "progress" && event.done > event.total / 2 && abort.abort());
    expect(await lineOf(resultOf(convertCheckpoint({ ...conversion, signal: abort.signal }), onEvent))).toMatch(
      /^interrupted/,
    );
  }

  it.each([
    ["experts' parents", [base, first, second], [base, second, first]],
    ["base and an expert's parent", [first, second, base], [second, first, base]],
    ["one parent, twice, and two", [base, first, first], [base, first, second]],
  ])("swapped between two attempts are not mixed: %s", async (_, before, after) => {
    const conversion = ([source, ...parents]: string[], out: string): ConvertOptions => ({
      source: source!,
      parents,
      recipe: of,
      out,
      pace,
    });
    const [plain, out] = [fresh(), fresh()];
    await resultOf(convertCheckpoint(conversion(after, plain)));
    await stopped(conversion(before, out));
    const types: string[] = [];
    await resultOf(convertCheckpoint({ ...conversion(after, out) }), ({ type }) => void types.push(type));
    expect(hashes(out)).toEqual(hashes(plain));
    expect(types).toContain("replaced");
    expect(types).not.toContain("resumed");
  });

  it("in the same order, by any path, resume", async () => {
    const conversion = options([first, second], of, { pace });
    await stopped(conversion);
    const types: string[] = [];
    const parents = [relative(process.cwd(), first), `${second}/`];
    await resultOf(convertCheckpoint({ ...conversion, parents }), ({ type }) => void types.push(type));
    expect(types).toContain("resumed");
  });

  it("are told apart in a folder that was finished", async () => {
    for (const file of ["config.json", "model.safetensors"])
      for (const dir of [first, second]) utimesSync(join(dir, file), 1e9, 1e9);
    const conversion = options([first, second], of, { acceptFinished: true });
    await resultOf(convertCheckpoint(conversion));
    expect((await resultOf(convertCheckpoint(conversion))).found).toBe(true);
    expect(await lineOf(resultOf(convertCheckpoint({ ...conversion, parents: [second, first] })))).toContain(
      "folder exists and is not empty",
    );
    const alone = { source: first, recipe: recipe("E2G1T2", {}), out: fresh(), acceptFinished: true };
    await resultOf(convertCheckpoint(alone));
    expect((await resultOf(convertCheckpoint(alone))).found).toBe(true);
    expect(await lineOf(resultOf(convertCheckpoint({ ...alone, source: second })))).toContain(
      "folder exists and is not empty",
    );
  });
});

describe("parents that cannot be joined", () => {
  const wide = perturbed("dense/llama", join(root, "turned"), 0, {
    rope_parameters: { rope_theta: 500000.0, rope_type: "default" },
  });
  const tryWith = (parents: string[], name: string, said: RecipeOptions): Promise<string> =>
    lineOf(planConversion(options(parents, upcycleRecipe(name, said))));

  it("are refused, with the first fact that differs", async () => {
    expect(await tryWith([golden("dense/qwen3")], "E2G1T2", { parents: from(0, 1) })).toMatch(
      /^input: .*qwen3: attn\.qkNorm.* is .*, in BASE null/,
    );
    expect(await tryWith([wide], "E2G1T2", { parents: from(0, 1), others: "average" })).toContain(
      "ROOT/turned: layers.0.rope.theta is 500000, in BASE 10000",
    );
    expect(await tryWith([coder], "E2G1T2", { parents: from(0, 2) })).toContain(
      "the recipe takes experts from model 2, there are models 0 to 1",
    );
    expect(
      await tryWith([coder], "E2G1T2", {
        parents: from(0, 1),
        sharedParent: { source: 2, noise: 0, scale: 1, prompts: null },
      }),
    ).toContain("the recipe takes experts from model 2");
    expect(await tryWith([join(root, "nowhere")], "E2G1T2", { parents: from(0, 1) })).toContain(
      "ROOT/nowhere: no such folder",
    );
  });

  it("but differ only in what the base decides get a warning", async () => {
    const { warnings } = await planConversion(options([wide], recipe("E2G1T2", { parents: from(0, 1) })));
    expect(warnings.join("\n")).toContain("was trained with layers.0.rope.theta 500000, the mixture has");
  });

  it("are refused for recipes that make no sense for several parents", () => {
    const line = (name: string, said: RecipeOptions): string => {
      try {
        upcycleRecipe(name, said);
      } catch (error) {
        if (error instanceof UpcycleError) return error.line;
      }
      return "no error";
    };
    expect(line("E3G1T2", { parents: from(0, 1) })).toContain("2 parents for 3 copies");
    expect(line("E2G1T2", { parents: from(0, 1), experts: "random" })).toContain(
      "random experts have nothing of their parents",
    );
    expect(line("E2G1T2", { parents: from(0, 1), shared: 8 })).toContain("a shared expert takes units of one FFN");
    expect(line("E2G1T2", { parents: from(0, 1), scaling: "calibrated", order: "softmax-topk" })).toContain(
      "calibrated scaling measures one parent",
    );
    expect(line("E2G1T2", { parents: from(0, 0.5) })).toContain("the parent of copy 1 is number 0.5");
    expect(
      line("E2G1T2", {
        parents: [
          { source: 0, noise: -1, scale: 1 },
          { source: 0, noise: 0, scale: 1 },
        ],
      }),
    ).toContain("the noise on copy 0 is -1");
    expect(
      line("E2G1T2", {
        parents: [
          { source: 0, noise: 0, scale: NaN },
          { source: 0, noise: 0, scale: 1 },
        ],
      }),
    ).toContain("the factor on copy 0 is NaN");
    expect(line("E2G1T2", { sharedParent: { source: 0, noise: 0, scale: 1, prompts: null } })).toContain(
      "a model is the shared expert, but none are named for the routed ones",
    );
    const shared = { source: 0, noise: 0, scale: 1, prompts: null };
    expect(line("E2G1T2", { parents: from(0, 1), sharedParent: { ...shared, noise: -1 } })).toContain(
      "the noise on the shared expert is -1",
    );
    expect(
      line("E2G1T2", { parents: from(0, 1), sharedParent: { ...shared, prompts: { positive: [], negative: [] } } }),
    ).toContain("the shared expert has no positive prompts");
    expect(line("E2G1T2", { others: "average" })).toContain("there is one parent, nothing to average");
  });
});

describe("upcycle convert --mergekit", () => {
  const file = (text: string): string => {
    const path = join(root, `mix${folders++}.yaml`);
    writeFileSync(path, text);
    return path;
  };
  const experts = "experts:\n  - source_model: coder\n  - source_model: poet\n";

  it("makes the model that the file describes, from folders beside it", async () => {
    const out = fresh();
    const output = await upcycleJson(
      "convert",
      "--mergekit",
      file(`base_model: ${base}\ngate_mode: random\ndtype: bfloat16\n${experts}`),
      "--out",
      out,
      "--no-report",
    );
    expect(output).toMatchObject({
      name: "E2G1T2",
      dtype: "bfloat16",
      recipe: { target: "mixtral", routerStd: 1, parents: from(1, 2) },
    });
    await withModels([out], async (child) =>
      expect(at(child.spec.layers, 0).ffn).toMatchObject({ experts: 2, topK: 2 }),
    );
  });

  it("adds a shared expert as it is, behind a drawn gate or none", async () => {
    const shared = "shared_experts: [{source_model: twin, residual_scale: 0.5}]\n";
    const [gated, plain] = [fresh(), fresh()];
    const text = `base_model: ${base}\ngate_mode: random\n${experts}${shared}`;
    const output = await upcycleJson(
      "convert",
      "--mergekit",
      file(`${text}architecture: qwen\n`),
      "--out",
      gated,
      "--no-report",
    );
    expect(output).toMatchObject({
      recipe: {
        target: "qwen2_moe",
        parents: from(1, 2),
        sharedParent: { source: 3, noise: 0, scale: 0.5, prompts: null },
      },
    });
    await upcycleJson("convert", "--mergekit", file(text), "--target", "ernie4_5_moe", "--out", plain, "--no-report");
    await withModels([base, gated, plain], async (b, one, two) => {
      const { ffnDim } = at(b.spec.layers, 0).ffn;
      expect(at(one.spec.layers, 0).ffn).toMatchObject({ ffnDim, shared: { ffnDim, gated: true } });
      expect(at(two.spec.layers, 1).ffn).toMatchObject({ ffnDim, shared: { ffnDim, gated: false } });
      for (const child of [one, two]) {
        for (const [part, from, by] of [
          ["sharedGate", "gate", 1],
          ["sharedUp", "up", 1],
          ["sharedDown", "down", 0.5],
        ] as const) {
          expect(await child.readFloat32(`layers.1.${part}`)).toEqual(
            (await b.readFloat32(`layers.1.${from}`)).map((value) => by * value),
          );
        }
      }
      const gate = await one.readFloat32("layers.0.sharedRouter");
      expect(Math.hypot(...gate) / Math.sqrt(gate.length)).toBeGreaterThan(0.6);
    });
    const record = (await readRecord(gated))!;
    expect(recipeOf(record).sharedParent).toEqual({ source: 3, noise: 0, scale: 0.5, prompts: null });
    expect(record.expected.why).toBe("a whole FFN is added to the routed experts' as a shared expert");
  });

  it("averages the other tensors, proves the model and writes its card", async () => {
    const out = fresh();
    const { code, stdout } = await upcycle(
      "convert",
      "--mergekit",
      file(`base_model: twin\ngate_mode: random\nexperts: [{source_model: ${base}}, {source_model: twin}]\n`),
      "--others",
      "average",
      "--out",
      out,
    );
    expect(code).toBe(0);
    expect(stdout.replace(/\s+/g, " ")).toContain("the experts are the FFNs of 2 models, all else is their mean");
    // The two are the same model.
    const verified = await upcycleJson("verify", base, out, "--tokens", "100", "--sequence", "32", "--threads", "1");
    expect(verified.relative).toBeLessThanOrEqual(1e-6);
  });

  it.each([
    ["base_model: coder\nexpert: []\n", 'unknown key "expert"; did you mean "experts"?'],
    ["base_model: coder\nexperts:\n  - source_modle: coder\n  - source_model: poet\n", 'unknown key "source_modle"'],
    [`base_model: coder\ngate_mode: hiden\n${experts}`, 'did you mean "hidden"?'],
    [`base_model: coder\n${experts}`, "gate_mode hidden needs prompts"],
    [
      `base_model: coder\ngate_mode: random\nexperts_per_token: 3\n${experts}`,
      "experts_per_token is 3, there are 2 experts",
    ],
    [`base_model: ./missing\ngate_mode: random\n${experts}`, "no such folder: ./missing"],
    [
      `base_model: coder\ngate_mode: random\narchitecture: deepseek\n${experts}`,
      "DeepSeek-MoE's first architecture is none that we write; leave it out and say --target ernie4_5_moe",
    ],
    [
      `base_model: coder\ngate_mode: random\narchitecture: gpt\n${experts}`,
      '"gpt" is no architecture that such a mixture can be written as',
    ],
    [
      `base_model: coder\ngate_mode: random\nshared_experts: [{source_model: poet}, {source_model: coder}]\n${experts}`,
      "there can be one shared expert, as in mergekit",
    ],
    [
      `base_model: coder\ngate_mode: random\narchitecture: mixtral\nshared_experts: [{source_model: poet}]\n${experts}`,
      "mixtral cannot hold this llama model: it has no shared expert",
    ],
  ])("refuses %j", async (text, words) => {
    expect(await refusalOf(["convert", "--mergekit", file(text), "--dry-run"])).toContain(words);
  });

  it("refuses a model or a recipe beside the file", async () => {
    expect((await upcycle("convert", base, "--mergekit", "x.yaml", "--dry-run")).stderr).toContain("is one too many");
    expect((await upcycle("convert", base, "--recipe", "E2G1T2", "--others", "average", "--dry-run")).stderr).toContain(
      "only --mergekit names",
    );
    expect((await upcycle("convert", "--recipe", "E2G1T2", "--dry-run")).stderr).toContain(
      "missing required argument 'model'",
    );
  });
});
