import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import type { Checkpoint } from "../../../src/files/checkpoint/open.js";
import { writeCheckpoint } from "../../../src/files/checkpoint/write.js";
import { previousName } from "../../../src/files/io/atomic.js";
import { namedSlots } from "../../../src/model/tensors/names.js";
import type { Slot } from "../../../src/model/tensors/slots.js";
import { golden } from "../../support/golden.js";
import { allBytes, failure, fresh, rewrite, variant, withCheckpoint } from "./folders.js";

describe("writeCheckpoint", () => {
  const zeros: (slot: Slot) => Promise<Float32Array> = ({ shape }) =>
    Promise.resolve(new Float32Array(shape.reduce((a, b) => a * b, 1)));
  const spec = (): Promise<Checkpoint["spec"]> =>
    withCheckpoint(golden("dense/qwen3"), (checkpoint) => Promise.resolve(checkpoint.spec));

  it("asks for every slot once, in write order, and copies carried and further files", async () => {
    const source = variant("dense/qwen3");
    writeFileSync(join(source, "tokenizer.json"), "{}");
    writeFileSync(join(source, "modeling_x.py"), "");
    const slotKeys: string[] = [];
    const dir = fresh();
    const model = await spec();
    await writeCheckpoint({
      dir,
      spec: model,
      dtype: "BF16",
      carry: source,
      files: { "README.md": "hello", "generation_config.json": "{}" },
      weights: (slot) => {
        slotKeys.push(slot.key);
        return zeros(slot);
      },
    });
    expect(slotKeys).toEqual(namedSlots(model).map(({ slot }) => slot.key));
    expect(readdirSync(dir).sort()).toEqual([
      "README.md",
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
      // Without it transformers would take the tokenizer for that of the new family.
      "tokenizer_config.json",
    ]);
    expect(readFileSync(join(dir, "generation_config.json"), "utf8")).toBe("{}");
  });

  it("refuses a folder that is not empty, or replaces it as a whole", async () => {
    const dir = variant("dense/llama");
    rmSync(join(dir, "expected.safetensors"));
    const before = readdirSync(dir);
    const model = await spec();
    expect((await failure(writeCheckpoint({ dir, spec: model, dtype: "F32", weights: zeros }))).message).toContain(
      "folder exists and is not empty",
    );
    expect(readdirSync(dir)).toEqual(before);
    await writeCheckpoint({ dir, spec: model, dtype: "F32", weights: zeros, overwrite: true, carry: dir });
    expect(readdirSync(dir).sort()).toEqual(["config.json", "generation_config.json", "model.safetensors"]);
    await withCheckpoint(dir, (checkpoint) => Promise.resolve(expect(checkpoint.spec).toEqual(model)));
    expect(existsSync(previousName(dir))).toBe(false);
  });

  it("can replace an open model by what is read from it", async () => {
    const dir = variant("dense/llama");
    rmSync(join(dir, "expected.safetensors"));
    await withCheckpoint(dir, async (source) => {
      const before = await allBytes(source);
      await rewrite(source, dir, { overwrite: true });
      await withCheckpoint(dir, async (copy) => expect(await allBytes(copy)).toEqual(before));
    });
  });

  it("leaves nothing, or the old folder, after a failure in the middle", async () => {
    const model = await spec();
    let calls = 0;
    const failing: (slot: Slot) => Promise<Float32Array> = (slot) =>
      ++calls % 7 === 0 ? Promise.reject(new Error("boom")) : zeros(slot);
    const parent = fresh();
    mkdirSync(parent);
    await expect(
      writeCheckpoint({ dir: join(parent, "m"), spec: model, dtype: "F32", weights: failing }),
    ).rejects.toThrow("boom");
    expect(readdirSync(parent)).toEqual([]);
    const dir = variant("dense/llama");
    rmSync(join(dir, "expected.safetensors"));
    await expect(
      writeCheckpoint({ dir, spec: model, dtype: "F32", weights: failing, overwrite: true }),
    ).rejects.toThrow("boom");
    await withCheckpoint(dir, (checkpoint) => Promise.resolve(expect(checkpoint.spec.family).toBe("llama")));
  });

  it("leaves no model where it is killed", async () => {
    const model = await spec();
    const parent = fresh();
    const states: string[] = [];
    await writeCheckpoint({
      dir: join(parent, "m"),
      spec: model,
      dtype: "F32",
      maxShardBytes: 20_000,
      weights: async (slot) => {
        expect(existsSync(join(parent, "m"))).toBe(false);
        const partial = readdirSync(parent);
        expect(partial).toHaveLength(1);
        expect(partial[0]).toMatch(/^\.m\.partial-\d+@[\da-f]{8}$/);
        states.push((await failure(openCheckpoint(join(parent, at(partial, 0))))).message);
        return zeros(slot);
      },
    });
    expect(new Set(states)).toEqual(new Set(["folder has no config.json"]));
    expect(readdirSync(parent)).toEqual(["m"]);
  });

  it("refuses places that cannot be written to", async () => {
    const model = await spec();
    const file = fresh();
    writeFileSync(file, "");
    const write = (dir: string): Promise<unknown> =>
      writeCheckpoint({ dir, spec: model, dtype: "F32", weights: zeros });
    expect((await failure(write(join(file, "below")))).kind).toBe("input");
    expect((await failure(write(file))).message).toContain("this is a file");
    expect((await failure(write("/proc/none/m"))).line).toContain("/proc/none/m");
  });

  it("refuses a model that is too large for the disk before anything is written", async () => {
    const model = await spec();
    const dir = fresh();
    const layers = Array.from({ length: 9000 }, () => ({
      ...at(model.layers, 0),
      ffn: { kind: "dense", ffnDim: 2 ** 29, bias: false, activation: "silu", gated: true } as const,
    }));
    const error = await failure(writeCheckpoint({ dir, spec: { ...model, layers }, dtype: "F32", weights: zeros }));
    expect(error.kind).toBe("stopped");
    expect(error.line).toMatch(/not enough disk space: [\d.]+ [TP]B needed/);
    expect(existsSync(dir)).toBe(false);
  });

  it("refuses a wrong amount of data, and further files with names of its own", async () => {
    const model = await spec();
    await expect(
      writeCheckpoint({ dir: fresh(), spec: model, dtype: "F32", weights: () => Promise.resolve(new Float32Array(3)) }),
    ).rejects.toThrow("embed: got 12 bytes, F32 [96, 32] takes 12288");
    for (const name of ["config.json", "model.safetensors", "../x", ""]) {
      expect(
        (
          await failure(
            writeCheckpoint({ dir: fresh(), spec: model, dtype: "F32", weights: zeros, files: { [name]: "" } }),
          )
        ).message,
      ).toContain("cannot be a further file");
    }
  });
});
