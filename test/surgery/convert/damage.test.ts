/** Weights that are NaN or infinite, and precisions: what is refused, written and said. */
import { cpSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { resultOf } from "../../../src/base/events.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { convertBytes, fromFloat32, toFloat32 } from "../../../src/files/numeric/dtype.js";
import {
  convertCheckpoint,
  planConversion,
  upcycling,
  type ConvertOptions,
  type UpcycleOptions,
} from "../../../src/surgery/convert/convert.js";
import { damageWords, recordedDamage } from "../../../src/surgery/convert/damage-words.js";
import { diffCheckpoints } from "../../../src/surgery/convert/diff.js";
import { exportOnnx } from "../../../src/surgery/convert/export-onnx.js";
import { mergeCheckpoint, planMerging } from "../../../src/surgery/convert/merge.js";
import { planMultiplying } from "../../../src/surgery/convert/multiply.js";
import { readRecord } from "../../../src/surgery/convert/record.js";
import { makeByWorkflow } from "../../../src/surgery/convert/workflow.js";
import { explainExpectation } from "../../../src/surgery/planning/explain.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { tensorsOf, writeTensors } from "../../support/adapters.js";
import { inThread } from "../../support/backend.js";
import { golden } from "../../support/golden.js";

const root = temporaryFolder();
let folders = 0;
const fresh = (): string => join(root, `damage${folders++}`);
const recipe = upcycleRecipe("E4G1T2");

/** A copy of a golden model, some of whose tensors are other values or in another precision. */
function changed(
  name: string,
  change: (tensor: string, values: Float32Array) => { readonly dtype: "F32" | "BF16"; readonly values: Float32Array },
): string {
  const dir = fresh();
  cpSync(golden(name), dir, { recursive: true });
  const path = join(dir, "model.safetensors");
  writeTensors(
    path,
    new Map(
      [...tensorsOf(path)].map(([tensor, { shape, bytes }]) => {
        const { dtype, values } = change(tensor, toFloat32("F32", bytes).slice());
        return [tensor, { dtype, shape, bytes: fromFloat32(dtype, values) }];
      }),
    ),
  );
  return dir;
}

/** A copy with one value set. */
const withValue = (name: string, which: string, value: number): string =>
  changed(name, (tensor, values) => {
    if (tensor === which) values[5] = value;
    return { dtype: "F32", values };
  });

const convert = (options: Partial<ConvertOptions> & Pick<ConvertOptions, "source">) => {
  const out = fresh();
  return resultOf(convertCheckpoint({ recipe, out, ...options }));
};

async function failure(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  return error instanceof UpcycleError ? `${error.exitCode} ${error.line.replaceAll(root, "ROOT")}` : String(error);
}

const up = "model.layers.1.mlp.up_proj.weight";

describe("weights that are no numbers", () => {
  it.each([NaN, Infinity, -Infinity])("stop a conversion at %d, which says where they stand", async (value) => {
    const source = withValue("dense/llama", up, value);
    for (const threads of [1, 2])
      expect(await failure(convert({ source, threads }))).toBe(
        `1 ${source.replace(root, "ROOT")}: the model is damaged: 1 of the values of ${up} are NaN or infinite, as a ` +
          "training that has diverged leaves them; use an earlier checkpoint, or convert it all the same with " +
          "--allow-nonfinite",
      );
  });

  it("in a tensor that is drawn from no source do not exist, and in one that is copied are found", async () => {
    const source = withValue("dense/llama", "model.norm.weight", NaN);
    expect(await failure(convert({ source }))).toContain("model.norm.weight");
    expect((await convert({ source: golden("dense/llama") })).damage.size).toBe(0);
  });

  it("of an adapter are found, too", async () => {
    const adapter = fresh();
    cpSync(golden("adapters/llama"), adapter, { recursive: true });
    const path = join(adapter, "adapter_model.safetensors");
    const tensors = tensorsOf(path);
    const [name, tensor] = [...tensors].find(([key]) => key.includes("lora_B"))!;
    const values = toFloat32("F32", tensor.bytes).fill(NaN);
    writeTensors(path, tensors.set(name, { ...tensor, bytes: fromFloat32("F32", values) }));
    const source = { model: golden("dense/llama"), adapter };
    expect(await failure(convert({ source }))).toMatch(/^1 .*with the adapter .* merged in are NaN or infinite/);
  });

  it("are written when they may be: one verdict, on top, and no promise beside it", async () => {
    const source = withValue("dense/llama", up, NaN);
    const out = fresh();
    const { made, proof } = await resultOf(
      makeByWorkflow(upcycling({ source, recipe }), {
        backend: inThread,
        threads: { prompts: 1, calibration: 1, writing: 1, proof: 1 },
        out,
        report: true,
        allowNonFinite: true,
      }),
    );
    expect(made.damage.size).toBeGreaterThan(0);
    expect(damageWords(made.damage)).toMatch(/^this model is damaged: \d+ values? (is|are) NaN or infinite, in /);
    expect(proof?.preservation?.verdict.kind).toBe("damaged");
    const card = readFileSync(join(out, "README.md"), "utf8");
    expect(card).toContain("**This model is damaged");
    expect(card).not.toContain("kept exactly");
    expect(card).not.toContain("same likeliest token");
  });

  it("are found again by a conversion that goes on after it stopped at them", async () => {
    const source = withValue("dense/llama", up, NaN);
    const out = fresh();
    await failure(convert({ source, out, pace: { chunkBytes: 2048, flushBytes: 1 } }));
    const { damage } = await convert({ source, out, allowNonFinite: true, pace: { chunkBytes: 2048, flushBytes: 1 } });
    expect(damage.size).toBeGreaterThan(0);
    expect(existsSync(join(out, "config.json"))).toBe(true);
    // Whoever comes later, be it without measuring or after a kill, finds the verdict in the folder.
    expect(await recordedDamage(out)).toEqual(damage);
    expect((await readRecord(out))?.nonFinite).toEqual(Object.fromEntries(damage));
    expect(readFileSync(join(out, "README.md"), "utf8")).toContain("**This model is damaged");
  });

  it("stop a merge", async () => {
    const moe = await convert({ source: withValue("dense/llama", up, NaN), allowNonFinite: true });
    const merge = (allowNonFinite: boolean) =>
      resultOf(
        mergeCheckpoint({ source: moe.dir, choice: { kind: "mean", weights: null }, out: fresh(), allowNonFinite }),
      );
    expect(await failure(merge(false))).toMatch(/^1 .*is damaged/);
    const merged = await merge(true);
    expect([...merged.damage.keys()]).toEqual([up]);
  });

  it("come from a precision that is too small, which the error says", async () => {
    const source = withValue("dense/llama", up, 1e6);
    expect(await failure(convert({ source, dtype: "F16" }))).toMatch(/^2 .*does not fit into float16.*write bfloat16/);
    const largest = withValue("dense/llama", up, 3.4e38);
    expect(await failure(convert({ source: largest, dtype: "BF16" }))).toMatch(/too large|does not fit/);
    expect((await convert({ source, dtype: "BF16" })).damage.size).toBe(0);
  });

  it("are named by an export to ONNX", async () => {
    const graph = { kind: "forward", batch: 1, sequence: 4, rows: "all", loss: false } as const;
    const damageOf = async (source: string): Promise<string | null> =>
      (await resultOf(exportOnnx({ source, out: `${fresh()}.onnx`, graph }))).damage;
    expect(await damageOf(withValue("dense/llama", up, NaN))).toContain(`weights are NaN or infinite (${up})`);
    expect(await damageOf(golden("dense/llama"))).toBeNull();
  });

  it("are counted where two models are compared", async () => {
    const diff = await diffCheckpoints(golden("dense/llama"), withValue("dense/llama", up, NaN));
    expect(diff.tensors.filter(({ nonFinite }) => nonFinite?.join() !== "0,0")).toMatchObject([
      { name: up, nonFinite: [0, 1] },
    ]);
  });
});

/** A bfloat16 model whose norms are float32, with a value that bfloat16 does not have. */
const mixed = (): string =>
  changed("dense/llama", (tensor, values) => {
    if (!tensor.includes("norm")) return { dtype: "BF16", values };
    values[0] = 1 + 2 ** -20;
    return { dtype: "F32", values };
  });

describe("a tensor that is finer than the rest", () => {
  it("keeps its precision and its bits, and a warning says who does not load it so", async () => {
    const source = mixed();
    const { dir, warnings, dtype } = await convert({ source });
    expect(dtype).toBe("BF16");
    expect(warnings).toContain(
      "5 tensors (such as model.layers.0.input_layernorm.weight) are stored in float32 and stay so beside bfloat16; " +
        "transformers and vLLM load them in bfloat16",
    );
    const [parent, child] = [await openCheckpoint(source), await openCheckpoint(dir)];
    for (const key of ["finalNorm", "layers.0.inputNorm", "layers.1.ffnNorm"]) {
      expect(child.dtypeOf(key)).toBe("F32");
      expect(await child.readBytes(key)).toEqual(await parent.readBytes(key));
    }
    expect(child.dtypeOf("layers.0.experts.1.up")).toBe("BF16");
    expect(child.config["dtype"]).toBe("bfloat16");
    await Promise.all([parent.close(), child.close()]);
  });

  it("is rounded where one precision is asked for, and no promise of exactness stands beside it", async () => {
    const { dir, warnings, plan } = await convert({ source: mixed(), dtype: "BF16" });
    expect(warnings.filter((words) => words.includes("float32"))).toEqual([]);
    expect(explainExpectation(plan.expected)).toBe(
      "function of the parent: kept up to rounding (the selected weights sum to 1 and cover 2 whole copies of the " +
        "FFN, for any router); 5 tensors (such as model.layers.0.input_layernorm.weight) are stored in float32 and " +
        "rounded to bfloat16",
    );
    expect(readFileSync(join(dir, "README.md"), "utf8")).not.toContain("exactly");
    expect((await readRecord(dir))?.expected.rounded).toEqual(plan.expected.rounded);
    const child = await openCheckpoint(dir);
    expect(child.dtypeOf("finalNorm")).toBe("BF16");
    await child.close();
  });

  it("of a further parent is named where it is rounded to the base's precision", async () => {
    const base = changed("dense/llama", (_, values) => ({
      dtype: "BF16",
      values: toFloat32("BF16", convertBytes("F32", "BF16", fromFloat32("F32", values))),
    }));
    const parents = [0, 0, 1, 1].map((source) => ({ source, noise: 0, scale: 1 }));
    const several = upcycleRecipe("E4G1T2", { parents });
    const { warnings } = await convert({ source: base, parents: [golden("dense/llama")], recipe: several });
    expect(warnings.find((words) => words.includes("rounded"))).toMatch(
      /^12 tensors \(such as .*\) are stored in float32 and rounded to bfloat16$/,
    );
  });

  it("comes about where bfloat16 values are changed, which the expectation says", async () => {
    const bfloat16 = (name: string): string => changed(name, (_, values) => ({ dtype: "BF16", values }));
    const roundedBy = async (options: UpcycleOptions): Promise<string | undefined> =>
      (await planConversion(options)).plan.expected.rounded?.join("; ");
    const source = bfloat16("dense/llama");
    expect(await roundedBy({ source, recipe })).toBeUndefined();
    expect(await roundedBy({ source, recipe: upcycleRecipe("E4G1T3", { order: "softmax-topk" }) })).toMatch(
      /^8 tensors \(such as \S*down_proj\.weight\) are multiplied by 1\.333\d* and rounded to bfloat16$/,
    );
    expect(await roundedBy({ source: bfloat16("dense/gemma"), recipe })).toMatch(
      /\b5 tensors \(such as \S*norm\.weight\) are moved by 1 and rounded to bfloat16/,
    );
    const adapter = golden("found/adapter/embedding");
    const adapted = await roundedBy({ source: { model: bfloat16("found/adapter_base"), adapter }, recipe });
    expect(adapted).toMatch(/^3 tensors .* are changed by an adapter and rounded to bfloat16$/);
  });

  it("is named by multiplying and by merging, too", async () => {
    const made = await convert({ source: golden("dense/llama") });
    const multiplied = await planMultiplying({
      source: made.dir,
      dtype: "BF16",
      recipe: { copies: 2, topK: null, routerStd: 0, seed: 0 },
    });
    expect(explainExpectation(multiplied.plan.expected)).toMatch(/kept up to rounding .*rounded to bfloat16$/);
    const choice = { kind: "mean", weights: null } as const;
    const [plain, merged] = [
      await planMerging({ source: made.dir, choice }),
      await planMerging({ source: made.dir, choice, dtype: "BF16" }),
    ];
    expect(plain.plan.kept).toMatch(/to the last bit; the trained experts' average otherwise$/);
    expect(merged.plan.kept).toMatch(/to a rounding; .* stored in float32 and rounded to bfloat16$/);
  });
});
