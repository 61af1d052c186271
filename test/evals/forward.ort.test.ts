import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at, entryOf } from "../../src/base/at.js";
import { UpcycleError } from "../../src/base/errors.js";
import { readInputIds, writeLogits } from "../../src/evals/forward.js";
import { openModel } from "../../src/evals/model.js";
import type { Dtype } from "../../src/files/formats/safetensors.js";
import { planHeader } from "../../src/files/formats/safetensors.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { inThread } from "../support/backend.js";
import { golden, readTensors } from "../support/golden.js";

const root = temporaryFolder();
let folders = 0;

/** A safetensors file of the given tensors. */
function file(...tensors: [name: string, dtype: Dtype, shape: number[], data: ArrayBufferView][]): string {
  const plan = planHeader(tensors.map(([name, dtype, shape]) => ({ name, dtype, shape })));
  const bytes = new Uint8Array(plan.fileBytes);
  bytes.set(plan.bytes);
  for (const [name, , , data] of tensors)
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), entryOf(plan.tensors, name).begin);
  const path = join(root, `in${folders++}.safetensors`);
  writeFileSync(path, bytes);
  return path;
}

async function lineOf(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  return error instanceof UpcycleError ? `${error.exitCode} ${error.line.replaceAll(root, "ROOT")}` : String(error);
}

describe("forward", () => {
  it.each(["dense/llama", "dense/qwen3", "moe/mixtral", "moe/qwen2_moe"])(
    "%s: file to file, transformers' logits",
    async (name) => {
      const model = await openModel(golden(name), inThread, 1);
      const input = await readInputIds(golden(name, "expected.safetensors"));
      expect([input.batch, input.sequence]).toEqual([2, 24]);
      const out = join(root, `${name.replace("/", "-")}.safetensors`);
      expect(await writeLogits(model, input, out)).toEqual({ shape: [2, 24, 96] });
      await model.close();
      const { shape, data } = entryOf(readTensors(out), "logits");
      expect(shape).toEqual([2, 24, 96]);
      const expectedLogits = entryOf(readTensors(golden(name, "expected.safetensors")), "logits").data;
      let worst = 0;
      expectedLogits.forEach((value, i) => (worst = Math.max(worst, Math.abs(value - at(data, i)))));
      expect(worst).toBeLessThan(1e-4);
      expect(readdirSync(root).filter((entry) => entry.includes("partial"))).toEqual([]);
    },
  );

  it("reads int32 and int64 alike, whatever else the file holds", async () => {
    const ids = [3, 0, 95, 7, 1, 2];
    const narrow = await readInputIds(
      file(["a", "F32", [1], new Float32Array(1)], ["input_ids", "I32", [2, 3], Int32Array.from(ids)]),
    );
    const wide = await readInputIds(
      file(["input_ids", "I64", [2, 3], BigInt64Array.from(ids, BigInt)], ["z", "BOOL", [3], new Uint8Array(3)]),
    );
    expect(narrow).toEqual({ ids: Int32Array.from(ids), batch: 2, sequence: 3 });
    expect(wide).toEqual(narrow);
  });

  it("refuses what is no input, in one line", async () => {
    const model = await openModel(golden("dense/llama"), inThread, 1);
    const cut = join(root, "cut.safetensors");
    writeFileSync(cut, readFileSync(golden("dense/llama", "expected.safetensors")).subarray(0, 900));
    const good = { ids: Int32Array.of(1, 2), batch: 1, sequence: 2 };
    const lines = [
      await lineOf(readInputIds(join(root, "nothing.safetensors"))),
      await lineOf(readInputIds(cut)),
      await lineOf(readInputIds(file(["ids", "I32", [1, 1], new Int32Array(1)]))),
      await lineOf(readInputIds(file(["input_ids", "I32", [3], new Int32Array(3)]))),
      await lineOf(readInputIds(file(["input_ids", "I32", [3, 0], new Int32Array(0)]))),
      await lineOf(readInputIds(file(["input_ids", "F32", [1, 1], new Float32Array(1)]))),
      await lineOf(readInputIds(file(["input_ids", "I64", [1, 1], BigInt64Array.of(-1n)]))),
      await lineOf(readInputIds(file(["input_ids", "I64", [1, 1], BigInt64Array.of(1n << 40n)]))),
      await lineOf(writeLogits(model, { ...good, ids: Int32Array.of(1, 96) }, join(root, "out"))),
      await lineOf(writeLogits(model, { ...good, ids: Int32Array.of(-1, 1) }, join(root, "out"))),
      await lineOf(writeLogits(model, good, join(root, "no", "folder", "out"))),
    ];
    mkdirSync(join(root, "taken"));
    lines.push(
      await lineOf(writeLogits(model, good, join(root, "taken"))),
      await lineOf(writeLogits(model, good, join(root, "out"), AbortSignal.abort())),
    );
    await model.close();
    expect(lines.map((line) => line.replaceAll(golden("dense/llama"), "MODEL"))).toMatchInlineSnapshot(`
      [
        "2 ROOT/nothing.safetensors: cannot open file: no such file or folder",
        "2 ROOT/cut.safetensors: tensor logits: data ends at byte 18432, but the file holds only 684 bytes of data (is it cut short?)",
        "2 ROOT/in2.safetensors: no tensor input_ids, found ids",
        "2 ROOT/in3.safetensors: input_ids has shape [3], expected [batch, sequence]",
        "2 ROOT/in4.safetensors: input_ids has shape [3, 0], expected [batch, sequence]",
        "2 ROOT/in5.safetensors: input_ids has dtype F32, expected I32 or I64",
        "2 ROOT/in6.safetensors: input_ids holds -1, which is no token id",
        "2 ROOT/in7.safetensors: input_ids holds 1099511627776, which is no token id",
        "2 MODEL: token id 96 is outside the vocabulary 0..95",
        "2 MODEL: token id -1 is outside the vocabulary 0..95",
        "2 ROOT/no/folder/out: cannot write file: its folder does not exist; make it first",
        "2 ROOT/taken: this is a folder, expected a file",
        "130 ROOT/out: stopped, nothing was written",
      ]
    `);
    expect(existsSync(join(root, "out"))).toBe(false);
    expect(readdirSync(root).filter((entry) => entry.includes("partial"))).toEqual([]);
  });

  it("gives the same logits to a sequence alone, in a batch, and cut short", async () => {
    const model = await openModel(golden("moe/qwen3_moe"), inThread, 1);
    const { ids } = await readInputIds(golden("moe/qwen3_moe", "expected.safetensors"));
    const together = await model.logits(ids, { batch: 2, sequence: 24 });
    const [alone, short] = [
      await model.logits(ids.slice(24), { batch: 1, sequence: 24 }),
      await model.logits(ids.slice(0, 7), { batch: 1, sequence: 7 }),
    ];
    alone.forEach((value, i) => expect(Math.abs(value - at(together, 24 * 96 + i))).toBeLessThan(1e-5));
    short.forEach((value, i) => expect(Math.abs(value - at(together, i))).toBeLessThan(1e-5));
    // The same call twice, and two calls at once: the same bits.
    const [again, twice] = await Promise.all([
      model.logits(ids, { batch: 2, sequence: 24 }),
      model.logits(ids, { batch: 2, sequence: 24 }),
    ]);
    expect(again).toEqual(together);
    expect(twice).toEqual(together);
    await model.close();
  });

  it("closes its runtime if a model cannot be loaded", async () => {
    let closed = 0;
    const failing = {
      ...inThread,
      openForward: () =>
        Promise.resolve({
          write: () => Promise.reject(new Error("no room")),
          run: () => Promise.reject(new Error("run")),
          extend: () => Promise.reject(new Error("extend")),
          close: () => Promise.resolve(void closed++),
        }),
    };
    await expect(openModel(golden("dense/llama"), failing, 1)).rejects.toThrow("no room");
    expect(closed).toBe(1);
  });
});
