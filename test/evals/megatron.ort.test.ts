/** Logits and losses that Megatron-Core computed on a GPU, from checkpoints that it saved or loaded. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { afterAll, describe, expect, it } from "vitest";
import { resultOf } from "../../src/base/events.js";
import { openModel } from "../../src/evals/model.js";
import { argumentsIn, settingsOfArguments } from "../../src/model/decoder/megatron-arguments.js";
import { makeModel } from "../../src/surgery/convert/make.js";
import { importing } from "../../src/surgery/convert/reform.js";
import { inThread } from "../support/backend.js";
import { golden, readTensors } from "../support/golden.js";

const root = mkdtempSync(join(tmpdir(), "upcycle-from-megatron-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

async function imported(name: string, surgery = importing({ source: golden("megatron", name) })): Promise<string> {
  return (await resultOf(makeModel(surgery, { out: join(root, name) }))).dir;
}

const meanLoss = (losses: ArrayLike<number>): number => Array.from(losses).reduce((a, b) => a + b, 0) / losses.length;

describe("checkpoints of Megatron-Core, imported", () => {
  it.each([
    ["dense", "dense"],
    ["dense-0.14", "dense"],
    ["moe", "moe"],
    ["superset-dense", "superset-dense"],
    ["superset-moe", "superset-moe"],
  ])("%s gives the logits of %s within 1e-4", async (name, of) => {
    const expected = readTensors(golden("megatron", of, "expected.safetensors"));
    const model = await openModel(await imported(name), inThread, 1);
    const ids = expected.get("input_ids")!.data as Int32Array;
    const logits = await model.logits(ids, { batch: 2, sequence: 32 });
    const wanted = expected.get("logits")!.data;
    expect(logits.length).toBe(wanted.length);
    expect(Math.max(...logits.map((value, i) => Math.abs(value - wanted[i]!)))).toBeLessThan(1e-4);
    const loss = await model.loss(ids, expected.get("labels")!.data as Int32Array, { batch: 2, sequence: 32 });
    expect(loss).toBeCloseTo(meanLoss(expected.get("token_loss")!.data), 4);
    await model.close();
  });

  it("superset-moe-perlayer gives its losses, with the arguments of its run", async () => {
    const run = JSON.parse(readFileSync(golden("megatron/superset-moe-perlayer/run.json"), "utf8")) as {
      loaded_by: { command: string; fixed_ids_mean_token_loss: number; val_mean_token_loss: number }[];
    };
    const [first] = run.loaded_by;
    const settings = settingsOfArguments(argumentsIn(first!.command));
    const source = golden("megatron/superset-moe-perlayer");
    const model = await openModel(
      await imported("perlayer", importing({ source, reading: { settings } })),
      inThread,
      1,
    );
    const { spec } = model;
    expect(spec.layers.map(({ ffn }) => ffn.kind)).toEqual(["dense", "moe"]);
    const expected = readTensors(golden("megatron/dense/expected.safetensors"));
    const ids = (name: string): Int32Array => expected.get(name)!.data as Int32Array;
    const fixed = await model.loss(ids("input_ids"), ids("labels"), { batch: 2, sequence: 32 });
    expect(Math.abs(fixed - first!.fixed_ids_mean_token_loss)).toBeLessThan(1e-5);
    const val = await model.loss(ids("val_input_ids"), ids("val_labels"), { batch: 4, sequence: 32 });
    expect(Math.abs(val - first!.val_mean_token_loss)).toBeLessThan(1e-5);
    await model.close();
  });
});
