/** Calibrated scaling: the factor measured on the parent's own activations. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { resultOf } from "../../../src/base/events.js";
import { convertCheckpoint } from "../../../src/surgery/convert/convert.js";
import { readRecord, recipeOf } from "../../../src/surgery/convert/record.js";
import { calibrate } from "../../../src/surgery/calibration/calibrate.js";
import { measurePreservation } from "../../../src/evals/preservation.js";
import { planUpcycle } from "../../../src/surgery/planning/plan.js";
import { upcycleRecipe, type UpcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { denseSpec } from "../planning/fixtures.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { fromFloat32 } from "../../../src/files/numeric/dtype.js";
import { tensorsOf, writeTensors } from "../../support/adapters.js";
import { inThread } from "../../support/backend.js";
import { golden } from "../../support/golden.js";
import { lineOf } from "../../support/line.js";
import { perturbed } from "../../support/perturbed.js";

const root = temporaryFolder();
const source = golden("dense/qwen3");
const recipe = (name: string, routerStd: number): UpcycleRecipe =>
  upcycleRecipe(name, { order: "softmax-topk", scaling: "calibrated", routerStd });
const measure = (of: UpcycleRecipe): ReturnType<typeof calibrate> =>
  calibrate({ source, recipe: of, tokens: 120, sequence: 20, backend: inThread, threads: 1 });

async function worstLayer(of: UpcycleRecipe, name: string): Promise<number> {
  const out = join(root, name);
  await resultOf(convertCheckpoint({ source, recipe: of, out }));
  const { layers } = await measurePreservation({
    parent: source,
    child: out,
    tokens: 100,
    sequence: 20,
    backend: inThread,
    threads: 1,
    memory: 0,
  });
  return Math.max(...layers!.map(({ relative }) => relative));
}

describe("calibration", () => {
  it("gives the formula's factor for equal logits", async () => {
    const { recipe: measured, mass, source: words } = await measure(recipe("E4G2T4", 0));
    for (const s of measured.calibration!) expect(s).toBeCloseTo((4 * 2 * 2) / 4, 6);
    for (const m of mass) expect(m).toBeCloseTo(1 / 2, 6);
    expect(words).toContain("random token ids");
  });

  it("keeps the function better than the formula for a random router, and is written into the record", async () => {
    const calibrated = (await measure(recipe("E8G1T2", 0.5))).recipe;
    expect(calibrated.calibration).toHaveLength(2);
    const [fitted, formula] = [
      await worstLayer(calibrated, "fitted"),
      await worstLayer({ ...calibrated, scaling: "exact" }, "formula"),
    ];
    expect(fitted).toBeLessThan(formula / 2);
    const record = (await readRecord(join(root, "fitted")))!;
    expect(recipeOf(record).calibration).toEqual(calibrated.calibration);
    expect(record.factors.map(({ down }) => down)).toEqual(calibrated.calibration);
  });

  it("is refused where an FFN reads values that are no numbers", async () => {
    const huge = perturbed("dense/qwen3", join(root, "huge"), 0);
    const path = join(huge, "model.safetensors");
    const tensors = tensorsOf(path);
    for (const [name, { shape, bytes }] of tensors)
      if (name.endsWith("layers.0.self_attn.o_proj.weight"))
        tensors.set(name, {
          dtype: "F32",
          shape,
          bytes: fromFloat32("F32", new Float32Array(bytes.length / 4).fill(3e38)),
        });
    writeTensors(path, tensors);
    const settings = { tokens: 120, sequence: 20, backend: inThread, threads: 1 } as const;
    const error: unknown = await calibrate({ source: huge, recipe: recipe("E4G1T2", 0.02), ...settings }).catch(
      (cause: unknown) => cause,
    );
    expect(error).toMatchObject({
      kind: "input",
      where: huge,
      message: "the FFN of layer 0 reads values that are NaN or infinite, nothing can be measured on them",
    });
  });

  it("must come before a plan, and is only for weights that are not renormalised", () => {
    expect(lineOf(() => planUpcycle(denseSpec("qwen3"), recipe("E8G1T2", 0.02)))).toContain(
      "calibrated scaling has no measured factors",
    );
    expect(lineOf(() => planUpcycle(denseSpec("qwen3"), { ...recipe("E8G1T2", 0.02), calibration: [1] }))).toContain(
      "do not fit the model's 2 layers",
    );
    expect(lineOf(() => upcycleRecipe("E8G1T2", { scaling: "calibrated" }))).toContain(
      "calibrated scaling fits weights that are not renormalised",
    );
  });
});
