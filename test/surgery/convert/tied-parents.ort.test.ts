/** Tied parents of a file of mergekit-moe (mergekit#350, mergekit#615): the mixture computes what transformers says. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at, entryOf } from "../../../src/base/at.js";
import { resultOf } from "../../../src/base/events.js";
import { parseMergekitConfig } from "../../../src/base/schemas/index.js";
import { openModel } from "../../../src/evals/model.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { convertCheckpoint } from "../../../src/surgery/convert/convert.js";
import { mergekitPlan } from "../../../src/surgery/planning/mergekit.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { inThread } from "../../support/backend.js";
import { golden, readTensors } from "../../support/golden.js";

const root = temporaryFolder();

describe("a mixture of two models whose head is their embedding", () => {
  it.each([
    ["tied_qwen2", "qwen2_moe"],
    ["tied_llama", "mixtral"],
  ] as const)("%s is a tied %s with transformers' logits", async (name, family) => {
    const [base, expert] = ["base", "expert"].map((part) => golden("mergekit", name, part));
    const text = [
      `base_model: ${base}`,
      "gate_mode: random",
      "experts:",
      `  - source_model: ${base}`,
      `  - source_model: ${expert}`,
    ].join("\n");
    const file = join(root, `${name}.yaml`);
    writeFileSync(file, text);
    // A constant router weighs both experts alike, which is what the golden mixture does.
    const { models, recipe } = mergekitPlan(parseMergekitConfig(text, file), file, { routerStd: 0 });
    const out = join(root, name);
    await resultOf(convertCheckpoint({ source: at(models, 0), parents: models.slice(1), recipe, out }));
    const child = await openCheckpoint(out);
    await child.close();
    expect(child.spec).toMatchObject({ family, tiedHead: true });
    expect([...child.tensors.keys()].filter((tensor) => tensor.includes("lm_head"))).toEqual([]);
    const expected = readTensors(golden("mergekit", name, "expected.safetensors"));
    const ids = entryOf(expected, "input_ids");
    const wanted = Float32Array.from(entryOf(expected, "logits").data);
    const model = await openModel(out, inThread, 1);
    const logits = await model.logits(Int32Array.from(ids.data), { batch: 1, sequence: ids.data.length });
    await model.close();
    const largest = wanted.reduce((most: number, value) => Math.max(most, Math.abs(value)), 0);
    const worst = wanted.reduce((most: number, value, i) => Math.max(most, Math.abs(value - at(logits, i))), 0);
    expect(worst / largest).toBeLessThan(2e-5);
  });
});
