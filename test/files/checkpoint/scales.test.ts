import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { inspectModel } from "../../../src/surgery/convert/inspect.js";
import { fromFloat32, toFloat32 } from "../../../src/files/numeric/dtype.js";
import { f8Values } from "../../../src/files/numeric/f8.js";
import { failure, variant, withCheckpoint, type Tensor } from "./folders.js";

const quantized = (name: string): boolean => /(self_attn|mlp)\..*_proj\.weight$/.test(name);
const f8 = (name: string, shape: readonly number[]): Tensor => ({
  name,
  dtype: "F8_E4M3",
  shape,
  bytes: Uint8Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => (i * 37) % 127),
});
const floats = (
  name: string,
  shape: readonly number[],
  values: readonly number[],
  dtype: "F32" | "BF16" = "F32",
): Tensor => ({
  name,
  dtype,
  shape,
  bytes: fromFloat32(dtype, Float32Array.from(values)),
});

/** The golden Llama with 8-bit matrices, and with what `beside` puts next to each. */
function quantizedLlama(beside: (name: string, shape: readonly number[]) => Tensor[], config: object = {}): string {
  const dir = variant("dense/llama", (tensors) =>
    tensors.flatMap((tensor) =>
      quantized(tensor.name) ? [f8(tensor.name, tensor.shape), ...beside(tensor.name, tensor.shape)] : [tensor],
    ),
  );
  const path = join(dir, "config.json");
  const before = JSON.parse(readFileSync(path, "utf8")) as object;
  writeFileSync(
    path,
    JSON.stringify({ ...before, dtype: "bfloat16", quantization_config: { quant_method: "fp8" }, ...config }),
  );
  return dir;
}

const blocks = (name: string, [rows = 0, columns = 0]: readonly number[]): Tensor[] => {
  const shape = [Math.ceil(rows / 24), Math.ceil(columns / 16)];
  return [
    floats(
      `${name}_scale_inv`,
      shape,
      Array.from({ length: at(shape, 0) * at(shape, 1) }, (_, i) => 0.01 * (i + 1)),
    ),
  ];
};

describe("8-bit weights", () => {
  it("are multiplied by scales of blocks and rounded to the model's precision, in parts as in the whole", async () => {
    const dir = quantizedLlama(blocks, { quantization_config: { quant_method: "fp8", weight_block_size: [24, 16] } });
    await withCheckpoint(dir, async (checkpoint) => {
      expect(checkpoint.dtype).toBe("BF16");
      expect(checkpoint.unused).toEqual([]);
      expect(checkpoint.notes).toEqual([]);
      const { dtype, bytes } = await checkpoint.readBytes("layers.0.q");
      expect(dtype).toBe("BF16");
      const table = f8Values("F8_E4M3");
      const expected = Float32Array.from({ length: 32 * 32 }, (_, i) => {
        const block = Math.floor(Math.floor(i / 32) / 24) * 2 + Math.floor((i % 32) / 16);
        return at(table, (i * 37) % 127) * Math.fround(0.01 * (block + 1));
      });
      expect(toFloat32(dtype, bytes)).toEqual(toFloat32("BF16", fromFloat32("BF16", expected)));
      const whole = await checkpoint.readFloat32("layers.0.q");
      expect(await checkpoint.readRows("layers.0.q", 20, 7)).toEqual(whole.slice(20 * 32, 27 * 32));
    });
    const { formats, dtype } = await inspectModel(dir);
    expect(dtype).toBe("BF16");
    expect(formats.map(({ dtype: format, scales }) => [format, scales])).toEqual([
      ["F32", null],
      ["F8_E4M3", "per 24 x 16 block"],
    ]);
  });

  it.each(["float32", "float16"])("are read in the model's %s", async (dtype) => {
    await withCheckpoint(
      quantizedLlama((name) => [floats(`${name}_scale`, [], [0.3])], { dtype }),
      async (checkpoint) => {
        const { dtype: read, bytes } = await checkpoint.readBytes("layers.1.down");
        expect(read).toBe(dtype === "float32" ? "F32" : "F16");
        const expected = Float32Array.of(f8Values("F8_E4M3")[37]! * Math.fround(0.3));
        expect(toFloat32(read, bytes)[1]).toBe(toFloat32(read, fromFloat32(read, expected))[0]);
      },
    );
  });

  it("are multiplied by scales of rows in bfloat16; scales of activations are named and not read", async () => {
    const dir = quantizedLlama((name, [rows = 0]) => [
      floats(
        `${name}_scale`,
        [rows, 1],
        Array.from({ length: rows }, (_, i) => 2 ** (i % 5)),
        "BF16",
      ),
      floats(name.replace(/weight$/, "input_scale"), [1], [0.5]),
    ]);
    await withCheckpoint(dir, async (checkpoint) => {
      expect(checkpoint.unused).toEqual([]);
      expect(checkpoint.notes).toEqual([
        "14 tensors hold scales of activations (such as model.layers.0.mlp.down_proj.input_scale), not read: " +
          "activations are not quantized here",
      ]);
      const [value] = await checkpoint.readRows("layers.0.gate", 3, 1);
      expect(value).toBe(f8Values("F8_E4M3")[(3 * 32 * 37) % 127]! * 8);
    });
  });

  it("are plain values without quantization_config", async () => {
    await withCheckpoint(
      quantizedLlama(() => [], { quantization_config: null }),
      async (checkpoint) => {
        expect((await checkpoint.readFloat32("layers.0.q"))[1]).toBe(f8Values("F8_E4M3")[37]);
      },
    );
  });

  const refused: [string, () => string, string][] = [
    ["no scales", () => quantizedLlama(() => []), "q_proj.weight is F8_E4M3 without scales, expected"],
    [
      "a misshapen grid",
      () => quantizedLlama((name) => [floats(`${name}_scale`, [3, 5], new Array(15).fill(1) as number[])]),
      "has shape [3, 5], which fits no layout of scales",
    ],
    [
      "scales that are no numbers",
      () => quantizedLlama((name) => [{ name: `${name}_scale`, dtype: "I32", shape: [1], bytes: new Uint8Array(4) }]),
      "weight_scale is stored as I32",
    ],
    [
      "a zero point",
      () => quantizedLlama((name) => [floats(`${name}_scale`, [1], [1]), floats(`${name}_zero_point`, [1], [0])]),
      "has a zero point, expected scales alone",
    ],
    [
      "scales beside full precision",
      () =>
        variant("dense/llama", (tensors) => [...tensors, floats("model.layers.0.mlp.up_proj.weight_scale", [1], [2])]),
      "up_proj.weight is F32 but has scales",
    ],
  ];
  it.each(refused)("refuses %s with a line that names the tensor", async (_, make, words) => {
    const error = await failure(openCheckpoint(make()));
    expect(error.kind).toBe("input");
    expect(error.line).toContain(words);
  });
});
