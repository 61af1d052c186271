/**
 * Merging: what comes back of a parent, from which record, and what is refused. The file is long because each way of
 * making an MoE has its way back.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { at, entryOf } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { writeCheckpoint } from "../../../src/files/checkpoint/write.js";
import type { MakeEvent, PlannedModel } from "../../../src/surgery/convert/make.js";
import { resultOf } from "../../../src/base/events.js";
import { convertCheckpoint } from "../../../src/surgery/convert/convert.js";
import { multiplyExperts } from "../../../src/surgery/convert/multiply.js";
import { mergeCheckpoint, planMerging } from "../../../src/surgery/convert/merge.js";
import type { DecoderSpec, MoeFfn } from "../../../src/model/decoder/types.js";
import { upcycleRecipe, type RecipeOptions } from "../../../src/surgery/planning/recipe.js";
import type { MergeChoice } from "../../../src/surgery/planning/merge.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { copyModel, upcycle, upcycleJson } from "../../cli/upcycle.js";
import { perturbed } from "../../support/perturbed.js";
import { hashes } from "./hashes.js";

const golden = (name: string): string => fileURLToPath(new URL(`../../golden/${name}`, import.meta.url));
const root = mkdtempSync(join(tmpdir(), "upcycle-merge-"));
let folders = 0;
const fresh = (): string => join(root, `out${folders++}`);
afterAll(() => rmSync(root, { recursive: true }));
const uniform: MergeChoice = { kind: "mean", weights: null };

async function lineOf(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  return error instanceof UpcycleError ? error.line.replaceAll(root, "ROOT") : String(error);
}

async function upcycled(name: string, recipe: string, options: RecipeOptions = {}): Promise<string> {
  const out = fresh();
  await resultOf(convertCheckpoint({ source: golden(`dense/${name}`), recipe: upcycleRecipe(recipe, options), out }));
  return out;
}

async function merged(source: string, choice: MergeChoice = uniform): Promise<string> {
  const out = fresh();
  await resultOf(mergeCheckpoint({ source, choice, out }));
  return out;
}

const configOf = (dir: string): Record<string, unknown> =>
  JSON.parse(readFileSync(join(dir, "config.json"), "utf8")) as Record<string, unknown>;

/** Every tensor as float32. */
async function tensorsOf(
  dir: string,
): Promise<{ spec: DecoderSpec; dtype: string; tensors: Map<string, Float32Array> }> {
  const { spec, dtype, readFloat32, close } = await openCheckpoint(dir);
  const tensors = new Map<string, Float32Array>();
  for (const { key } of slotsOf(spec)) tensors.set(key, await readFloat32(key));
  await close();
  return { spec, dtype, tensors };
}

async function expectSame(dir: string, parent: string): Promise<void> {
  const [a, b] = [await tensorsOf(dir), await tensorsOf(parent)];
  expect(a.spec).toEqual(b.spec);
  for (const [key, values] of b.tensors)
    expect(
      Buffer.compare(new Uint8Array(entryOf(a.tensors, key).buffer.slice(0)), new Uint8Array(values.buffer.slice(0))),
      key,
    ).toBe(0);
}

/** The folder again, with some tensors changed. */
async function changed(
  dir: string,
  change: (key: string, values: Float32Array) => Float32Array,
  keep: readonly string[] = [],
): Promise<string> {
  const { spec, tensors } = await tensorsOf(dir);
  const out = fresh();
  const files = Object.fromEntries(keep.map((name) => [name, readFileSync(join(dir, name))]));
  await writeCheckpoint({
    dir: out,
    spec,
    dtype: "F32",
    weights: ({ key }) => Promise.resolve(change(key, entryOf(tensors, key))),
    files,
  });
  return out;
}

describe("merging an untouched upcycled model", () => {
  it.each([
    ["llama", "E4G1T2", {}],
    ["llama", "E8G1T1", { order: "softmax-topk" }],
    ["llama", "E2G4T4", { order: "softmax-topk", routerStd: 0 }],
    ["llama", "E3G2T2", { permute: true, seed: 5 }],
    ["llama", "E4G2T4", { scaling: "none" }],
    ["llama", "E1G4T2", {}],
    ["llama_tied", "E4G2T4", {}],
    ["mistral", "E4G2T4", {}],
    ["qwen2", "E4G1T2", {}],
    ["qwen2", "E4G4T4", { order: "softmax-topk" }],
    ["qwen2", "E2G2T2", { shared: 32 }],
    ["qwen3", "E4G2T4", { layers: "odd", permute: true }],
    ["qwen3", "E5G1T1", { order: "softmax-topk", scaling: "calibrated", calibration: [4, 0.5, 2, 8] }],
    ["gpt2", "E4G2T4", {}],
    ["gpt_neox", "E2G2T2", { order: "softmax-topk", permute: true }],
    ["nemotron", "E2G4T4", {}],
    ["stablelm_qk", "E4G2T4", {}],
  ] as const)("gives %s back after %s %j, to the last bit", async (name, recipe, options) => {
    const parent = golden(`dense/${name}`);
    const layers = (await tensorsOf(parent)).spec.layers.length;
    const calibration = "calibration" in options ? options.calibration.slice(0, layers) : undefined;
    await expectSame(
      await merged(await upcycled(name, recipe, { ...options, ...(calibration && { calibration }) })),
      parent,
    );
  });

  it.each([
    ["llama", "E3G5T5", { pad: true }],
    ["qwen2", "E2G5T5", { pad: true, shared: 30 }],
    ["llama", "E2G5T10", { pad: true, permute: true, order: "softmax-topk", routerStd: 0 }],
    ["gpt2", "E2G3T3", { pad: true }],
  ] as const)(
    "gives %s back after %s %j, without the units that filled the last part",
    async (name, recipe, options) => {
      const parent = golden(`dense/${name}`);
      const moe = await upcycled(name, recipe, { ...options, scaling: "none" });
      await expectSame(await merged(moe), parent);
      expect((await planMerging({ source: moe, choice: uniform })).warnings.join()).not.toContain(
        "filled the last part",
      );
    },
  );

  it("keeps padding that noise has changed or whose record has no FFN size, and says so", async () => {
    const noisy = await upcycled("llama", "E2G5T5", { pad: true, noise: { std: 0.01, relative: true, fraction: 1 } });
    const { plan, warnings } = await planMerging({ source: noisy, choice: uniform });
    const inner = at((await tensorsOf(golden("dense/llama"))).spec.layers, 0).ffn.ffnDim;
    expect(at(plan.target.layers, 0).ffn.ffnDim).toBe(5 * Math.ceil(inner / 5));
    expect(warnings.join()).toContain("units that filled the last part stay in the FFN");
    const old = await upcycled("llama", "E2G5T5", { pad: true });
    const record = JSON.parse(readFileSync(join(old, "upcycle.json"), "utf8")) as { parent: { inner?: number[] } };
    record.parent.inner = [inner];
    writeFileSync(join(old, "upcycle.json"), JSON.stringify(record));
    expect(await lineOf(planMerging({ source: old, choice: uniform }))).toContain(
      "upcycle.json knows the FFNs of 1 layers, the model has 2",
    );
    delete record.parent.inner;
    writeFileSync(join(old, "upcycle.json"), JSON.stringify(record));
    expect((await planMerging({ source: old, choice: uniform })).warnings.join()).toContain(
      "units that filled the last part stay",
    );
  });

  it.each([
    ["E2G2T2", { permute: true, seed: 3 }],
    ["E4G1T2", { order: "softmax-topk", routerStd: 0 }],
    ["E2G2T4", { permute: true, order: "softmax-topk" }],
  ] as const)(
    "gives the parent back after %s %j and its experts multiplied, once and again",
    async (recipe, options) => {
      const [twice, again] = [fresh(), fresh()];
      await resultOf(
        multiplyExperts({
          source: await upcycled("llama", recipe, options),
          recipe: { copies: 2, topK: null, routerStd: 0.1, seed: 0 },
          out: twice,
        }),
      );
      await expectSame(await merged(twice), golden("dense/llama"));
      await resultOf(
        multiplyExperts({
          source: twice,
          recipe: { copies: 2, topK: 2 * upcycleRecipe(recipe).topK, routerStd: 0, seed: 0 },
          out: again,
        }),
      );
      await expectSame(await merged(again), golden("dense/llama"));
      await expectSame(await merged(again, { kind: "expert", index: 3 }), golden("dense/llama"));
      const file = join(again, "multiply.json");
      const text = readFileSync(file, "utf8");
      writeFileSync(file, text.replace('"copies": 4\n', '"copies": 0\n'));
      expect(await lineOf(planMerging({ source: again, choice: uniform }))).toContain(
        "multiply.json: lineage.copies: ",
      );
      writeFileSync(file, text.replace('"copies": 4\n', '"copies": 2\n'));
      expect(await lineOf(planMerging({ source: again, choice: uniform }))).toMatch(
        /^layer \d has \d+ experts, which the recipe E\dG\dT\d, 2 times, in multiply.json does not make; to merge whole experts, remove that record: /,
      );
    },
  );

  it.each([
    ["E2G4T4", {}, 1],
    ["E3G2T2", { permute: true, seed: 5, layers: "odd" }, 1],
    ["E2G2T2", { permute: true, seed: 3 }, 3],
    ["E3G5T5", { pad: true, scaling: "none" }, 2],
    ["E4G4T8", { order: "softmax-topk" }, 2],
  ] as const)(
    "gives the parent back after %s %j, %d times, without its records, from what config.json says",
    async (recipe, options, copies) => {
      const once = await upcycled("llama", recipe, options);
      rmSync(join(once, "upcycle.json"));
      const moe = copies === 1 ? once : fresh();
      if (copies > 1) {
        await resultOf(
          multiplyExperts({ source: once, recipe: { copies, topK: null, routerStd: 0.5, seed: 0 }, out: moe }),
        );
        rmSync(join(moe, "multiply.json"));
      }
      const out = await merged(moe);
      await expectSame(out, golden("dense/llama"));
      expect(configOf(out)).not.toHaveProperty("upcycle");
      expect((await planMerging({ source: moe, choice: uniform })).warnings).toEqual([]);
    },
  );

  it("with several parents gives each of them back by the lineage in config.json, which has no prompts", async () => {
    const [base, coder] = [golden("dense/llama"), perturbed("dense/llama", fresh(), 1)];
    const mix = fresh();
    const prompts = [["code"], ["verse"]].map((positive) => ({ positive, negative: [] }));
    const parents = [
      { source: 1, noise: 0, scale: 0.5 },
      { source: 0, noise: 0, scale: -2 },
    ];
    const recipe = upcycleRecipe("E2G1T2", { parents, routerInit: { kind: "cheap_embed", prompts } });
    await resultOf(
      convertCheckpoint({
        source: base,
        parents: [coder],
        recipe,
        routerRows: [0, 1].map(() => Float32Array.from({ length: 64 }, (_, i) => i)),
        out: mix,
      }),
    );
    expect(JSON.stringify(configOf(mix))).not.toContain("verse");
    rmSync(join(mix, "upcycle.json"));
    const [result, expected] = [
      await tensorsOf(await merged(mix, { kind: "expert", index: 0 })),
      await tensorsOf(coder),
    ];
    expect(result.tensors.get("layers.1.down")).toEqual(expected.tensors.get("layers.1.down"));
  });

  it("with several parents gives each of them back, their factors undone, or their average", async () => {
    const [base, coder] = [golden("dense/llama"), perturbed("dense/llama", fresh(), 1)];
    const mix = fresh();
    const parents = [
      { source: 1, noise: 0, scale: 0.5 },
      { source: 0, noise: 0, scale: -2 },
      { source: 0, noise: 0, scale: 0 },
    ];
    await resultOf(
      convertCheckpoint({
        source: base,
        parents: [coder],
        recipe: upcycleRecipe("E3G2T2", { parents, permute: true }),
        out: mix,
      }),
    );
    const [b, c] = [await tensorsOf(base), await tensorsOf(coder)];
    const [picked, other, both] = [
      await merged(mix, { kind: "expert", index: 0 }),
      await merged(mix, { kind: "expert", index: 1 }),
      await merged(mix, { kind: "mean", weights: [1, 1, 0] }),
    ];
    const [one, two, mean] = [await tensorsOf(picked), await tensorsOf(other), await tensorsOf(both)];
    for (const part of ["gate", "up", "down"]) {
      const key = `layers.1.${part}`;
      expect(one.tensors.get(key), key).toEqual(c.tensors.get(key));
      expect(two.tensors.get(key), key).toEqual(b.tensors.get(key));
      expect(mean.tensors.get(key), key).toEqual(
        entryOf(c.tensors, key).map((value, i) => (value + at(entryOf(b.tensors, key), i)) / 2),
      );
    }
    expect(one.tensors.get("layers.1.q")).toEqual(b.tensors.get("layers.1.q"));
    expect((await planMerging({ source: mix, choice: { kind: "expert", index: 0 } })).plan.kept).toBe(
      "the FFN of the one parent that the expert was",
    );
    expect(await lineOf(planMerging({ source: mix, choice: uniform }))).toContain(
      "copy 2 was upcycled with the factor 0, so nothing of its down is left; leave it out",
    );
    const shared = fresh();
    const sharedParent = { source: 1, noise: 0, scale: 1, prompts: null };
    await resultOf(
      convertCheckpoint({
        source: base,
        parents: [coder],
        recipe: upcycleRecipe("E2G1T2", { parents: parents.slice(0, 2), sharedParent }),
        out: shared,
      }),
    );
    expect(await lineOf(planMerging({ source: shared, choice: uniform }))).toContain(
      "every token gets a shared expert of another model as well as the routed ones, which no one FFN does",
    );
  });

  it("gives the parent back from any one replica, and from any weights", async () => {
    const moe = await upcycled("llama", "E3G2T2", { permute: true });
    await expectSame(await merged(moe, { kind: "expert", index: 2 }), golden("dense/llama"));
    await expectSame(await merged(moe, { kind: "mean", weights: [1, 0, 2.5] }), golden("dense/llama"));
  });

  it("gives the parent back exactly in bfloat16 too, and to one rounding with factors that are no powers of two", async () => {
    const bf16 = fresh();
    const dense = fresh();
    const { spec, tensors } = await tensorsOf(golden("dense/llama"));
    await writeCheckpoint({
      dir: dense,
      spec,
      dtype: "BF16",
      weights: ({ key }) => Promise.resolve(entryOf(tensors, key)),
    });
    await resultOf(
      convertCheckpoint({ source: dense, recipe: upcycleRecipe("E4G4T8", { order: "softmax-topk" }), out: bf16 }),
    );
    await expectSame(await merged(bf16), dense);
    const paper = await upcycled("llama", "E3G2T4", { scaling: "paper", order: "softmax-topk" });
    const { plan } = await planMerging({ source: paper, choice: uniform });
    expect(plan.kept).toContain("to a rounding");
    const result = await tensorsOf(await merged(paper));
    expect(result.spec).toEqual(spec);
    for (const [key, values] of tensors) {
      entryOf(result.tensors, key).forEach((value, i) =>
        expect(Math.abs(value - at(values, i)), key).toBeLessThanOrEqual(2 ** -23 * Math.abs(at(values, i))),
      );
    }
  });
});

describe("a merged model", () => {
  it("is the average of trained experts, scaled back", async () => {
    const moe = await upcycled("llama", "E2G2T2");
    const own = (key: string): number =>
      key === "layers.0.experts.2.down" ? 1.5 : key === "layers.1.experts.1.gate" ? -0.25 : 0;
    const trained = await changed(moe, (key, values) => values.map((value) => value + own(key)), ["upcycle.json"]);
    const [parent, child] = [await tensorsOf(golden("dense/llama")), await tensorsOf(await merged(trained))];
    const inner = at(parent.spec.layers, 0).ffn.ffnDim;
    const [wasDown, wasGate] = [entryOf(parent.tensors, "layers.0.down"), entryOf(parent.tensors, "layers.1.gate")];
    // Expert 2 is part 0 of replica 1: half of 1.5, and half of that for the factor 2 on down. Expert 1 is part 1 of
    // replica 0.
    entryOf(child.tensors, "layers.0.down").forEach((value, i) =>
      expect(value).toBeCloseTo(at(wasDown, i) + (i % inner < inner / 2 ? 0.375 : 0), 5),
    );
    entryOf(child.tensors, "layers.1.gate").forEach((value, i) =>
      expect(value).toBeCloseTo(at(wasGate, i) - (i < wasGate.length / 2 ? 0 : 0.125), 5),
    );
  });

  it.each([
    ["mixtral", "mistral", 1],
    ["qwen3_moe", "qwen3", null],
    ["granitemoe", "granite", 1],
    ["flex_olmo", "olmo2", null],
    ["olmoe", "upcycle", null],
  ] as const)(
    "of a %s without a record is a %s of whole experts, times the sum of equal weights",
    async (name, family, sum) => {
      const source = golden(`moe/${name}`);
      const before = await tensorsOf(source);
      const child = await tensorsOf(await merged(source));
      expect(child.spec.family).toBe(family);
      const { experts, topK, router } = at(before.spec.layers, 0).ffn as MoeFfn;
      const factor = sum ?? (router.renormalise === null ? topK / experts : 1);
      for (const [part, by] of [
        ["gate", 1],
        ["up", 1],
        ["down", factor],
      ] as const) {
        entryOf(child.tensors, `layers.0.${part}`).forEach((value, i) => {
          const mean =
            Array.from({ length: experts }, (_, e) =>
              at(entryOf(before.tensors, `layers.0.experts.${e}.${part}`), i),
            ).reduce((a, b) => a + b, 0) / experts;
          expect(value).toBeCloseTo(by * mean, 6);
        });
      }
      expect(child.tensors.get("layers.0.q")).toEqual(before.tensors.get("layers.0.q"));
    },
  );

  it("cannot be made of parts of FFNs without a record, multiplied or not", async () => {
    const forgotten = await changed(await upcycled("llama", "E2G4T4"), (_, values) => values);
    const twice = fresh();
    await resultOf(
      multiplyExperts({
        source: forgotten,
        recipe: { copies: 2, topK: null, routerStd: 0.1, seed: 0 },
        out: twice,
      }),
    );
    for (const source of [forgotten, twice]) {
      for (const choice of [uniform, { kind: "expert", index: 1 }] as const) {
        expect(await lineOf(planMerging({ source, choice }))).toContain(
          "layers.0.router: the first 4 experts share one router row, as the 4 parts of one FFN do, and no " +
            "record says how they were cut",
        );
      }
    }
    // Rows of whole experts differ, and so do those of parts that training has parted: neither tells, and the user must
    // know.
    const whole = await changed(await upcycled("llama", "E4G1T2"), (_, values) => values);
    const trained = await changed(await upcycled("llama", "E2G4T4"), (key, values) =>
      key.endsWith(".router") ? values.map((value, i) => value + 1e-3 * i) : values,
    );
    for (const source of [whole, trained]) {
      expect((await planMerging({ source, choice: uniform })).warnings).toContain(
        "no record says how the experts were made (upcycle.json, multiply.json, the key upcycle of " +
          "config.json): each is taken to be a whole FFN, which parts of one are not",
      );
    }
  });

  it("of one expert alone is a copy of its bytes, and says how it was made", async () => {
    const out = fresh();
    const events: MakeEvent<PlannedModel>["type"][] = [];
    const { plan } = await resultOf(
      mergeCheckpoint({
        source: golden("moe/mixtral"),
        choice: { kind: "expert", index: 1 },
        out,
      }),
      ({ type }) => events.push(type),
    );
    const [before, child] = [await tensorsOf(golden("moe/mixtral")), await tensorsOf(out)];
    for (const part of ["gate", "up", "down"])
      expect(child.tensors.get(`layers.1.${part}`)).toEqual(before.tensors.get(`layers.1.experts.1.${part}`));
    expect(plan.unused).toContain("layers.0.router");
    expect(plan.how).toMatch(/^expert 1 of \d+$/);
    expect(events[0]).toBe("planned");
    expect(events).toContain("progress");
    expect(JSON.parse(readFileSync(join(out, "merge.json"), "utf8"))).toMatchObject({
      version: 1,
      from: { name: "mixtral", family: "mixtral" },
      recipe: null,
      expert: 1,
    });
    expect(readFileSync(join(out, "README.md"), "utf8")).toContain(
      "A dense model, merged from the experts of **mixtral**",
    );
  });

  it("has the same bytes with threads, small chunks, and after an interruption", async () => {
    const source = await upcycled("qwen2", "E4G4T4", { permute: true });
    const [one, two, three] = [fresh(), fresh(), fresh()];
    await resultOf(mergeCheckpoint({ source, choice: uniform, out: one }));
    await resultOf(mergeCheckpoint({ source, choice: uniform, out: two, threads: 2 }));
    expect(hashes(two)).toEqual(hashes(one));
    const stop = new AbortController();
    const again = { source, choice: uniform, out: three, pace: { chunkBytes: 4096, flushBytes: 8192 } };
    let progressCount = 0;
    expect(
      await lineOf(
        resultOf(
          mergeCheckpoint({
            ...again,
            signal: stop.signal,
          }),
          ({ type }) => void (type === "progress" && ++progressCount === 12 && stop.abort()),
        ),
      ),
    ).not.toBe("no error");
    const events: MakeEvent<PlannedModel>["type"][] = [];
    await resultOf(mergeCheckpoint({ ...again }), ({ type }) => events.push(type));
    expect(events).toContain("resumed");
    expect(hashes(three)).toEqual(hashes(one));
  });
});

describe("a merge is refused", () => {
  it("for a dense model, experts that do not exist, and weights that do not fit", async () => {
    const mixtral = golden("moe/mixtral");
    const plan = (source: string, choice: MergeChoice): Promise<string> => lineOf(planMerging({ source, choice }));
    expect(await plan(golden("dense/llama"), uniform)).toBe("the model is dense: it has no experts to merge");
    expect(await plan(mixtral, { kind: "expert", index: 99 })).toMatch(
      /^there is no expert 99: layer 0 has \d+, 0 to \d+$/,
    );
    expect(await plan(mixtral, { kind: "mean", weights: [1] })).toMatch(
      /^weights of layer 0: there are 1 for \d+ experts; give a number for each$/,
    );
    const { experts } = at((await tensorsOf(mixtral)).spec.layers, 0).ffn as MoeFfn;
    const all = (value: number): number[] => Array.from({ length: experts }, () => value);
    expect(await plan(mixtral, { kind: "mean", weights: all(0) })).toBe("weights of layer 0: all are 0");
    expect(await plan(mixtral, { kind: "mean", weights: all(-1) })).toBe(
      "weights of layer 0: -1 is no number of at least 0",
    );
    expect(await plan(mixtral, { kind: "mean", weights: [all(1), all(1), all(1)] })).toBe(
      "weights: there are lists for 3 layers, the model has 2; give a list of numbers, or one such list for each layer",
    );
    expect(await plan(mixtral, { kind: "mean", weights: [all(1), null] })).toBe(
      "weights of layer 1: there are none, but the layer has experts; give a list of numbers, or one such list " +
        "for each layer",
    );
  });

  it("for shared experts that add something, and for experts that no dense FFN is", async () => {
    expect(await lineOf(planMerging({ source: golden("moe/qwen2_moe"), choice: uniform }))).toContain(
      "the shared expert is always added and is not zero",
    );
    expect(await lineOf(planMerging({ source: golden("moe/gpt_oss"), choice: uniform }))).toContain(
      "the experts of layer 0 limit and shift their gated units",
    );
  });

  it("for a record that does not fit the model", async () => {
    const moe = await upcycled("llama", "E2G2T2");
    const path = join(moe, "upcycle.json");
    const record = JSON.parse(readFileSync(path, "utf8")) as { recipe: { expansion: number } };
    writeFileSync(path, JSON.stringify({ ...record, recipe: { ...record.recipe, expansion: 4 } }));
    expect(await lineOf(planMerging({ source: moe, choice: uniform }))).toBe(
      "layer 0 has 4 experts, which the recipe E4G2T2 in upcycle.json does not make; to merge whole experts, " +
        "remove that record: upcycle.json, multiply.json and the key upcycle of config.json",
    );
  });

  it("for a record in config.json that cannot be read", async () => {
    const moe = await upcycled("llama", "E2G2T2");
    rmSync(join(moe, "upcycle.json"));
    const { upcycle: lineage, ...config } = configOf(moe) as { upcycle: Record<string, unknown> & { recipe: object } };
    const lineFor = async (value: unknown): Promise<string> => {
      writeFileSync(join(moe, "config.json"), JSON.stringify({ ...config, upcycle: value }));
      return (await lineOf(planMerging({ source: moe, choice: uniform }))).replace(/^ROOT\/out\d+/, "DIR");
    };
    expect(await lineFor({ ...lineage, version: 2 })).toBe(
      "DIR/config.json: upcycle.version: Invalid input: expected 1; remove the key upcycle to go on without it",
    );
    expect(await lineFor("E2G2T2")).toMatch(
      /^DIR\/config.json: upcycle: Invalid input: expected object.*; remove the key upcycle to go on without it$/,
    );
    expect(await lineFor({ ...lineage, recipe: { ...lineage.recipe, granularity: 0 } })).toContain(
      "G is 0, expected a whole number of at least 1",
    );
    expect(await lineFor({ ...lineage, recipe: { ...lineage.recipe, granularity: 4 } })).toContain(
      "which the recipe E2G4T2 in config.json does not make",
    );
    expect(await lineFor(lineage)).toBe("no error");
  });

  it("into its own source", async () => {
    const source = copyModel(golden("moe/mixtral"), fresh());
    expect(await lineOf(resultOf(mergeCheckpoint({ source, choice: uniform, out: source, overwrite: true })))).toBe(
      "ROOT/" + source.slice(root.length + 1) + ": this is the source folder itself; choose another folder to write to",
    );
  });
});

describe("upcycle merge", () => {
  it("writes the dense model and prints what it is made of", async () => {
    const moe = await upcycled("llama", "E4G2T4");
    const out = fresh();
    const { code, stdout } = await upcycle("merge", moe, "--out", out);
    expect(code).toBe(0);
    expect(stdout).toContain(
      "mixtral to llama: the average of 4 experts, each put together from 2 parts,\n  down times 0.5\n",
    );
    await expectSame(out, golden("dense/llama"));
    const weights = join(root, "weights.json");
    writeFileSync(weights, "[1, 2, 3, 4]");
    expect(await upcycleJson("merge", moe, "--dry-run", "--weights", weights)).toMatchObject({
      dryRun: true,
      family: "llama",
      from: "mixtral",
      record: true,
      choice: { kind: "mean", weights: [1, 2, 3, 4] },
    });
    writeFileSync(weights, '{"a": 1}');
    const [wrong, both] = [
      await upcycle("merge", moe, "--out", fresh(), "--weights", weights),
      await upcycle("merge", moe, "--expert", "1", "--weights", weights),
    ];
    expect([wrong.code, wrong.stderr]).toEqual([
      2,
      expect.stringContaining("is not a list of numbers, nor one such list (or null) for each layer"),
    ]);
    expect([both.code, both.stderr]).toEqual([
      2,
      "upcycle: --expert, --weights: an expert of its own needs no weights; leave one of them out\n",
    ]);
  });
});
