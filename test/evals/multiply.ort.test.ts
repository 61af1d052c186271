import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { UpcycleError } from "../../src/base/errors.js";
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { resultOf } from "../../src/base/events.js";
import { multiplyExperts, planMultiplying } from "../../src/surgery/convert/multiply.js";
import { measurePreservation } from "../../src/evals/preservation.js";
import { inThread } from "../support/backend.js";
import { upcycle, upcycleJson } from "../cli/upcycle.js";
import type { MultiplyRecipe } from "../../src/surgery/planning/multiply.js";
import type { MoeFfn } from "../../src/model/decoder/types.js";

const golden = (name: string): string => fileURLToPath(new URL(`../golden/${name}`, import.meta.url));
const root = mkdtempSync(join(tmpdir(), "upcycle-multiply-"));
let folders = 0;
const fresh = (): string => join(root, `out${folders++}`);
afterAll(() => rmSync(root, { recursive: true }));
const times = (copies: number, changes: Partial<MultiplyRecipe> = {}): MultiplyRecipe => ({
  copies,
  topK: null,
  routerStd: 0,
  seed: 0,
  ...changes,
});

async function relative(
  name: string,
  recipe: MultiplyRecipe,
): Promise<{ relative: number; kind: string; family: string }> {
  const out = fresh();
  const { plan } = await resultOf(multiplyExperts({ source: golden(`moe/${name}`), recipe, out }));
  const report = await measurePreservation({
    parent: golden(`moe/${name}`),
    child: out,
    threads: 1,
    tokens: 48,
    backend: inThread,
  });
  return { relative: report.relative, kind: plan.expected.kind, family: plan.target.family };
}

async function lineOf(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  return error instanceof UpcycleError ? error.line : String(error);
}

describe("copies of experts", () => {
  it.each([
    ["mixtral", 2, "mixtral"],
    ["mixtral", 3, "mixtral"],
    ["qwen2_moe", 2, "qwen2_moe"],
    ["qwen3_moe", 2, "qwen3_moe"],
    ["qwen3_moe_mixed", 2, "qwen3_moe"],
    ["deepseek_v3", 2, "deepseek_v3"],
    ["ernie4_5_moe", 2, "ernie4_5_moe"],
    ["glm4_moe", 2, "glm4_moe"],
    ["hy_v3", 2, "hy_v3"],
    ["gpt_oss", 2, "gpt_oss"],
    ["dbrx", 2, "dbrx"],
    ["granitemoe", 3, "granitemoe"],
    ["flex_olmo", 2, "flex_olmo"],
  ] as const)("of a %s, %i of each, keep its logits, and its family", async (name, copies, family) => {
    const report = await relative(name, times(copies));
    expect(report).toMatchObject({ kind: "exact", family });
    expect(report.relative).toBeLessThan(1e-5);
  });

  it("are not exact with fewer chosen, or with noise on the router, and the plan says so", async () => {
    for (const changes of [{ topK: 2 }, { routerStd: 0.5 }]) {
      const report = await relative("mixtral", times(2, changes));
      expect(report.kind).toBe("approximate");
      expect(report.relative).toBeGreaterThan(1e-4);
    }
    const { plan } = await planMultiplying({ source: golden("moe/mixtral"), recipe: times(2, { topK: 2 }) });
    expect(plan.expected.why).toMatch(
      /^top 2 of \d+ holds copies of the best 1 experts, not of 2; 4 would keep the function$/,
    );
  });

  it("are equal bytes, under router rows that repeat", async () => {
    const out = fresh();
    const { plan, card } = await resultOf(
      multiplyExperts({
        source: golden("moe/mixtral"),
        recipe: times(2, { routerStd: 0.01, seed: 4 }),
        out,
      }),
    );
    const [before, after] = [await openCheckpoint(golden("moe/mixtral")), await openCheckpoint(out)];
    const { experts, topK } = at(before.spec.layers, 0).ffn as MoeFfn;
    expect(after.spec).toEqual(plan.target);
    expect(at(after.spec.layers, 0).ffn).toMatchObject({ experts: 2 * experts, topK: 2 * topK });
    expect((await after.readBytes(`layers.0.experts.${experts + 1}.up`)).bytes).toEqual(
      (await before.readBytes("layers.0.experts.1.up")).bytes,
    );
    const [rows, wide] = [await before.readFloat32("layers.0.router"), await after.readFloat32("layers.0.router")];
    expect(wide.subarray(0, rows.length)).toEqual(rows);
    const noise = rows.map((value, i) => at(wide, rows.length + i) - value);
    expect(Math.sqrt(noise.reduce((sum, value) => sum + value ** 2, 0) / noise.length)).toBeCloseTo(0.01, 2);
    expect(noise.every((value) => value !== 0)).toBe(true);
    expect(readFileSync(join(out, "README.md"), "utf8")).toBe(card);
    expect(JSON.parse(readFileSync(join(out, "multiply.json"), "utf8"))).toMatchObject({
      from: { name: "mixtral" },
      recipe: { copies: 2, routerStd: 0.01 },
    });
    await Promise.all([before.close(), after.close()]);
  });

  it("are refused for dense models, one copy, and a top k beyond the experts", async () => {
    const plan = (source: string, recipe: MultiplyRecipe): Promise<string> =>
      lineOf(planMultiplying({ source, recipe }));
    expect(await plan(golden("dense/llama"), times(2))).toBe(
      "the model is dense: it has no experts to multiply; upcycle it with a recipe such as E8G1T2",
    );
    expect(await plan(golden("moe/mixtral"), times(1))).toBe(
      "the number of copies is 1, expected a whole number of at least 2",
    );
    expect(await plan(golden("moe/mixtral"), times(2, { topK: 999 }))).toMatch(
      /^top 999 is more than the \d+ experts that a token of layer 0 can choose from$/,
    );
    expect(await plan(golden("moe/phimoe"), times(2))).toContain(
      "the router of layer 0 (sparsemixer) gives a weight to two experts",
    );
  });
});

describe("upcycle convert --expert-multiply", () => {
  it("writes the larger mixture and measures that it computes the same", async () => {
    const out = fresh();
    const { code, stdout } = await upcycle("convert", golden("moe/mixtral"), "--expert-multiply", "2", "--out", out);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^mixtral to mixtral: \d+ experts to \d+, 2 per token to 4\n/);
    expect(stdout).toContain("function of the parent: kept exactly");
    expect(JSON.parse(readFileSync(join(out, "preservation.json"), "utf8"))).toMatchObject({
      verdict: expect.any(Object) as unknown,
    });
    expect(
      await upcycleJson("convert", golden("moe/mixtral"), "--expert-multiply", "3", "--topk", "2", "--dry-run"),
    ).toMatchObject({ dryRun: true, family: "mixtral", expected: { kind: "approximate" } });
  });
});
