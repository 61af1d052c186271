/**
 * 8-bit weights with their scales, seen as the numbers they stand for. Names as DeepSeek (`weight_scale_inv`, to be
 * multiplied in spite of its name), compressed-tensors, fbgemm and ModelOpt (`weight_scale`) write them.
 */
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import { toFloat32, fromFloat32, isFloatDtype, type FloatDtype } from "../numeric/dtype.js";
import { dequantizeF8, e8m0ToFloat32, isF8Dtype, scaleGrid, type ScaleGrid } from "../numeric/f8.js";
import type { Quantization } from "../../model/decoder/quantization.js";
import { elements } from "../../base/shapes.js";
import type { Located } from "./stored.js";

/** Names that the scales of a weight may have, the likeliest first. */
function scaleNames(name: string): string[] {
  return [
    `${name}_scale_inv`,
    `${name}_scale`,
    ...(name.endsWith(".weight") ? [name.replace(/weight$/, "scale")] : []),
  ];
}

const activationScales = [
  "input_scale",
  "output_scale",
  "activation_scale",
  "input_activation_scale",
  "q_scale",
  "k_scale",
  "v_scale",
  "kv_scale",
  "prob_output_scale",
  "input_scale_ub",
];

/** Whether it is a scale of activations or of cached keys and values, which we compute in full precision. */
export function isActivationScale(name: string): boolean {
  return activationScales.some((ending) => name.endsWith(`.${ending}`));
}

/** Precision that 8-bit weights are read in: the model's own, as in transformers. */
export function dequantizedDtype(config: Readonly<Record<string, unknown>>): FloatDtype {
  const said = config["dtype"] ?? config["torch_dtype"];
  return said === "float32" ? "F32" : said === "float16" ? "F16" : "BF16";
}

/**
 * The same tensors, 8-bit ones among `weights` presented as `presented`, and the names of the scales they use. Throws
 * inputError if scales do not fit their weight, stand beside a weight that is not 8-bit, or a weight has a zero point.
 */
export function withScales(
  located: ReadonlyMap<string, Located>,
  weights: Iterable<string>,
  quantization: Quantization | null,
  presented: FloatDtype,
  dir: string,
): { readonly tensors: ReadonlyMap<string, Located>; readonly scales: ReadonlySet<string> } {
  // Most models have no 8-bit weights, and then nothing has to be copied.
  let tensors: Map<string, Located> | null = null;
  const used = new Set<string>();
  for (const name of weights) {
    const weight = located.get(name);
    if (weight === undefined) continue;
    const where = join(dir, weight.file);
    const scaleName = scaleNames(name).find((one) => located.has(one));
    if (!isF8Dtype(weight.dtype)) {
      if (scaleName === undefined || !isFloatDtype(weight.dtype)) continue;
      throw inputError(
        `tensor ${name} is ${weight.dtype} but has scales (${scaleName}), which belong to 8-bit weights`,
        { where },
      );
    }
    if (located.has(`${name}_zero_point`))
      throw inputError(`tensor ${name} has a zero point, expected scales alone`, { where });
    const scales = scaleName === undefined ? null : located.get(scaleName)!;
    if (scales === null && quantization !== null) {
      throw inputError(
        `tensor ${name} is ${weight.dtype} without scales, expected ${name}_scale or ${name}_scale_inv`,
        {
          where,
          hint: "the download is incomplete, or config.json belongs to another model",
        },
      );
    }
    tensors ??= new Map(located);
    tensors.set(name, scaled(name, weight, scaleName, scales, quantization, presented, where));
    if (scaleName !== undefined) used.add(scaleName);
  }
  return { tensors: tensors ?? located, scales: used };
}

function scaled(
  name: string,
  weight: Located,
  scaleName: string | undefined,
  scales: Located | null,
  quantization: Quantization | null,
  presented: FloatDtype,
  where: string,
): Located {
  const { dtype, shape } = weight;
  if (!isF8Dtype(dtype)) throw new Error(`${name} is ${dtype}`);
  const grid = scales === null ? null : scaleGrid(shape, scales.shape, quantization?.block ?? null);
  if (scales !== null && grid === null) {
    throw inputError(
      `tensor ${scaleName} has shape [${scales.shape.join(", ")}], which fits no layout of scales for ${name} ` +
        `[${shape.join(", ")}]`,
      { where },
    );
  }
  if (scales !== null && scales.presented === null && scales.dtype !== "U8" && scales.dtype !== "F8_E8M0") {
    throw inputError(
      `tensor ${scaleName} is stored as ${scales.dtype}, expected floating point or powers of two (U8)`,
      { where },
    );
  }
  return {
    ...weight,
    presented,
    readAs: presented,
    ...(grid === null ? {} : { scales: { tensor: scaleName!, per: layoutOf(grid) } }),
    async read(start, count) {
      const bytes = await weight.read(start, count);
      return fromFloat32(
        presented,
        dequantizeF8(dtype, bytes, start, grid, await readScales(scales)),
      ) as Uint8Array<ArrayBuffer>;
    },
  };
}

/** Read anew each time: they are small, and the scales of all weights of a large model are not. */
async function readScales(scales: Located | null): Promise<Float32Array> {
  if (scales === null) return new Float32Array(0);
  const bytes = await scales.read(0, elements(scales.shape));
  return scales.presented === null ? e8m0ToFloat32(bytes) : toFloat32(scales.presented, bytes);
}

function layoutOf({ gridRows, gridColumns, blockRows, blockColumns, rows, columns, shared }: ScaleGrid): string {
  if (gridRows === 1 && gridColumns === 1) return shared ? "per tensor" : "per matrix";
  if (gridRows === rows && (gridColumns === 1 || columns === 1)) return "per row";
  return `per ${blockRows} x ${blockColumns} block`;
}
