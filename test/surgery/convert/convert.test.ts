import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import type { MakeEvent, PlannedModel } from "../../../src/surgery/convert/make.js";
import { resultOf } from "../../../src/base/events.js";
import { convertCheckpoint, planConversion } from "../../../src/surgery/convert/convert.js";
import { readRecord, recipeOf } from "../../../src/surgery/convert/record.js";
import { fromFloat32, toFloat32 } from "../../../src/files/numeric/dtype.js";
import { cosineSimilarity } from "../../../src/files/numeric/similarity.js";
import { evaluateExpr } from "../../../src/surgery/planning/evaluate.js";
import { rectanglesOfWhole } from "../planning/fixtures.js";
import { expertOrigins, originValues } from "../../../src/surgery/planning/lineage.js";
import { sourceShapes } from "../../../src/surgery/planning/plan.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { hashes } from "./hashes.js";

const golden = (name: string): string => fileURLToPath(new URL(`../../golden/dense/${name}`, import.meta.url));
const root = mkdtempSync(join(tmpdir(), "upcycle-convert-"));
let folders = 0;
const fresh = (): string => join(root, `out${folders++}`);
afterAll(() => rmSync(root, { recursive: true }));

async function lineOf(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  return error instanceof UpcycleError
    ? error.line.replaceAll(root, "ROOT").replaceAll(golden(""), "GOLDEN/")
    : String(error);
}

it("a conversion stops before it plans or writes anything if Ctrl-C came while the parents were opened", async () => {
  const out = join(root, "stopped");
  const stopping = AbortSignal.abort();
  expect(
    await lineOf(
      resultOf(convertCheckpoint({ source: golden("llama"), recipe: upcycleRecipe("E4G1T2"), out, signal: stopping })),
    ),
  ).toBe("stopped before anything was written");
  expect(existsSync(out)).toBe(false);
  expect(readdirSync(root).filter((name) => name.includes("unfinished"))).toEqual([]);
});

describe("a conversion", () => {
  it.each([
    ["llama", "E4G1T2", {}],
    ["llama", "E4G2T4", { order: "softmax-topk", routerStd: 0 }],
    ["llama_tied", "E4G2T4", {}],
    ["llama3_rope", "E2G4T4", { scaling: "paper" }],
    ["mistral", "E4G1T2", {}],
    ["qwen2", "E4G2T2", {}],
    ["qwen3", "E8G1T1", { order: "softmax-topk" }],
  ] as const)("of %s with %s writes what the plan says, and it opens again", async (name, recipe, options) => {
    const out = fresh();
    const { plan, weightBytes, weightFiles, record } = await resultOf(
      convertCheckpoint({
        source: golden(name),
        recipe: upcycleRecipe(recipe, options),
        out,
      }),
    );
    const parent = await openCheckpoint(golden(name));
    const child = await openCheckpoint(out);
    expect(child.spec).toEqual(plan.target);
    expect(child.unused).toEqual([]);
    expect(weightFiles.reduce((sum, file) => sum + statSync(join(out, file)).size, 0)).toBe(weightBytes);
    const shapes = sourceShapes(plan.source);
    const context = {
      shapes,
      seed: plan.recipe.seed,
      dtypeOf: parent.dtypeOf,
      readRectangle: rectanglesOfWhole(shapes, parent.readBytes),
    };
    for (const { slot, value } of plan.outputs) {
      const { dtype, bytes } = await child.readBytes(slot.key);
      expect(dtype).toBe(parent.dtype);
      expect(Buffer.compare(bytes, await evaluateExpr(value, slot.shape, dtype, context)), slot.key).toBe(0);
    }
    for (const origin of expertOrigins(parent.spec, child.spec)) {
      const from = originValues(await parent.readFloat32(origin.from.key), origin);
      expect(cosineSimilarity(await child.readFloat32(origin.key), from)).toBeCloseTo(1, 6);
    }
    expect(await readRecord(out)).toEqual(record);
    expect(record.parent.name).toBe(name);
    expect(recipeOf(record)).toEqual({ ...upcycleRecipe(recipe, options), target: plan.target.family });
    await parent.close();
    await child.close();
  });

  it("gives equal files each time, and equal tensors in shards of any size", async () => {
    const options = { source: golden("qwen2"), recipe: upcycleRecipe("E4G2T4", { seed: 3 }) };
    const [one, two, sharded] = [fresh(), fresh(), fresh()];
    await resultOf(convertCheckpoint({ ...options, out: one }));
    await resultOf(convertCheckpoint({ ...options, out: two }));
    expect(hashes(two)).toEqual(hashes(one));
    const { weightFiles, plan } = await resultOf(
      convertCheckpoint({ ...options, out: sharded, maxShardBytes: 20_000 }),
    );
    expect(weightFiles.length).toBeGreaterThan(3);
    const [whole, parts] = [await openCheckpoint(one), await openCheckpoint(sharded)];
    for (const { slot } of plan.outputs) {
      const [a, b] = [await parts.readBytes(slot.key), await whole.readBytes(slot.key)];
      expect(Buffer.compare(a.bytes, b.bytes), slot.key).toBe(0);
    }
    await whole.close();
    await parts.close();
  });

  it("rounds once to another precision", async () => {
    const out = fresh();
    await resultOf(convertCheckpoint({ source: golden("llama"), recipe: upcycleRecipe("E4G2T4"), out, dtype: "BF16" }));
    const [parent, child] = [await openCheckpoint(golden("llama")), await openCheckpoint(out)];
    expect(child.dtype).toBe("BF16");
    const q = await parent.readFloat32("layers.0.q");
    expect(await child.readFloat32("layers.0.q")).toEqual(toFloat32("BF16", fromFloat32("BF16", q)));
    await parent.close();
    await child.close();
  });

  it("writes routers in a precision of their own", async () => {
    const out = fresh();
    const conversion = await resultOf(
      convertCheckpoint({
        source: golden("llama"),
        recipe: upcycleRecipe("E4G2T4"),
        out,
        dtype: "BF16",
        routerDtype: "F32",
      }),
    );
    const child = await openCheckpoint(out);
    const dtypes = new Map([...child.tensors].map(([name, { dtype }]) => [name, dtype]));
    expect(dtypes.get("model.layers.1.block_sparse_moe.gate.weight")).toBe("F32");
    expect([...dtypes.values()].filter((dtype) => dtype === "F32")).toHaveLength(2);
    expect(dtypes.get("model.layers.1.self_attn.q_proj.weight")).toBe("BF16");
    expect(conversion.weightBytes).toBe(statSync(join(out, "model.safetensors")).size);
    await child.close();
  });

  it("tells its plan, bytes and rate, and copies the parent's tokenizer", async () => {
    const events: MakeEvent<PlannedModel>[] = [];
    const out = fresh();
    await resultOf(
      convertCheckpoint({
        source: golden("llama"),
        recipe: upcycleRecipe("E4G1T2"),
        out,
      }),
      (event) => events.push(event),
    );
    expect(at(events, 0).type).toBe("planned");
    const progress = events.filter((event) => event.type === "progress");
    expect(progress.length).toBeGreaterThan(10);
    expect(progress.at(-1)!.done).toBe(progress.at(-1)!.total);
    // Chunks are written a few at a time: which of the last ones ends last is open.
    expect(progress.map(({ tensor }) => tensor)).toContain("lm_head.weight");
    expect(progress.map(({ done }) => done)).toEqual(progress.map(({ done }) => done).sort((a, b) => a - b));
    expect(progress.every(({ bytesPerSecond }) => bytesPerSecond > 0)).toBe(true);
    expect(readFileSync(join(out, "generation_config.json"))).toEqual(
      readFileSync(join(golden("llama"), "generation_config.json")),
    );
  });

  it("can be planned without writing", async () => {
    const { plan, dtype, weightBytes, warnings } = await planConversion({
      source: golden("llama"),
      recipe: upcycleRecipe("E8G1T2"),
      dtype: "BF16",
    });
    expect([plan.target.family, dtype, warnings]).toEqual(["mixtral", "BF16", []]);
    expect(weightBytes).toBeGreaterThan(0);
  });

  it("is refused in one line for sources, folders and settings that cannot be used", async () => {
    const out = fresh();
    await resultOf(convertCheckpoint({ source: golden("llama"), recipe: upcycleRecipe("E4G1T2"), out }));
    const recipe = upcycleRecipe("E4G1T2");
    const lines = [
      await lineOf(resultOf(convertCheckpoint({ source: golden("llama"), recipe, out }))),
      await lineOf(resultOf(convertCheckpoint({ source: out, recipe, out: fresh() }))),
      await lineOf(
        resultOf(convertCheckpoint({ source: golden("llama"), recipe, out: golden("llama"), overwrite: true })),
      ),
      await lineOf(resultOf(convertCheckpoint({ source: out, recipe, out: root, overwrite: true }))),
      await lineOf(
        resultOf(
          convertCheckpoint({ source: golden("qwen3"), recipe: { ...recipe, target: "mixtral" }, out: fresh() }),
        ),
      ),
      await lineOf(resultOf(convertCheckpoint({ source: join(root, "nothing"), recipe, out: fresh() }))),
    ];
    expect(lines).toMatchInlineSnapshot(`
      [
        "ROOT/out13: folder exists and is not empty (5 entries, such as README.md); choose another folder, or replace this one (--overwrite)",
        "recipe E4G1T2: layer 0 of the source is already a mixture of 4 experts; upcycling starts from a dense model",
        "GOLDEN/llama: this is the source folder itself; choose another folder to write to",
        "ROOT: the source folder lies inside this folder; choose another folder to write to",
        "target mixtral, topk-softmax: mixtral cannot hold this qwen3 model: a mixtral model cannot have a norm on queries and keys; these can: qwen3_moe, mellum, glm4_moe, dots1, hy_v3, lfm2_moe, upcycle",
        "ROOT/nothing: no such folder",
      ]
    `);
    writeFileSync(join(out, "upcycle.json"), '{"version":2}');
    expect(await lineOf(readRecord(out))).toMatchInlineSnapshot(
      `"ROOT/out13/upcycle.json: upcycle: this is missing, expected string; this version of ` +
        `upcycle reads records of versions 1 and 2; remove the file to go on without it"`,
    );
    expect(await readRecord(golden("llama"))).toBeNull();
  });
});
