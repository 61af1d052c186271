/**
 * 8-bit weights with their scales, seen as the numbers that they stand for. Names as DeepSeek (`weight_scale_inv`, to
 * be multiplied in spite of its name), compressed-tensors, fbgemm and ModelOpt (`weight_scale`) write them.
 */
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import { toFloat32, fromFloat32, isFloatDtype, type FloatDtype } from "../numeric/dtype.js";
import { dequantizeF8, e8m0ToFloat32, isF8Dtype, scaleGrid, type F8Dtype, type ScaleGrid } from "../numeric/f8.js";
import type { Quantization } from "../../model/decoder/quantization.js";
import { elements } from "../../base/shapes.js";
import type { ReadableTensor } from "./stored.js";

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

/** Whether a tensor is a scale of activations or of cached keys and values, which we compute in full precision. */
export function isActivationScale(name: string): boolean {
  return activationScales.some((ending) => name.endsWith(`.${ending}`));
}

/** The precision that 8-bit weights are read in: the model's own by its config.json, as in transformers. */
export function dequantizedDtype(config: Readonly<Record<string, unknown>>): FloatDtype {
  switch (config["dtype"] ?? config["torch_dtype"]) {
    case "float32":
      return "F32";
    case "float16":
      return "F16";
    default:
      return "BF16";
  }
}

/**
 * The same tensors, 8-bit ones among `weights` presented as `presented`, and the names of the scales they use. Throws
 * inputError if scales do not fit their weight, stand beside a weight that is not 8-bit, or a weight has a zero point.
 */
export function withScales(
  stored: ReadonlyMap<string, ReadableTensor>,
  weights: Iterable<string>,
  quantization: Quantization | null,
  presented: FloatDtype,
  dir: string,
): { readonly tensors: ReadonlyMap<string, ReadableTensor>; readonly scales: ReadonlySet<string> } {
  // Most models have no 8-bit weights, and then nothing has to be copied.
  let tensors: Map<string, ReadableTensor> | null = null;
  const used = new Set<string>();
  for (const name of weights) {
    const weight = stored.get(name);
    if (weight === undefined) continue;
    const where = join(dir, weight.file);
    const scaleTensor = scalesOf(name, stored);
    if (!isF8(weight)) {
      if (scaleTensor === null || !isFloatDtype(weight.dtype)) continue;
      throw inputError(
        `tensor ${name} is ${weight.dtype} but has scales (${scaleTensor.name}), which belong to 8-bit weights`,
        { where },
      );
    }
    if (stored.has(`${name}_zero_point`))
      throw inputError(`tensor ${name} has a zero point, expected scales alone`, { where });
    if (scaleTensor === null && quantization !== null) {
      throw inputError(
        `tensor ${name} is ${weight.dtype} without scales, expected ${name}_scale or ${name}_scale_inv`,
        {
          where,
          hint: "the download is incomplete, or config.json belongs to another model",
        },
      );
    }
    const scaling = scaleTensor && scalingOf(name, weight, scaleTensor, quantization?.block ?? null, where);
    tensors ??= new Map(stored);
    tensors.set(name, dequantized(weight, scaling, presented));
    if (scaleTensor !== null) used.add(scaleTensor.name);
  }
  return { tensors: tensors ?? stored, scales: used };
}

type F8Tensor = ReadableTensor & { readonly dtype: F8Dtype };

function isF8(tensor: ReadableTensor): tensor is F8Tensor {
  return isF8Dtype(tensor.dtype);
}

/** A tensor of scales. */
interface ScaleTensor {
  readonly name: string;
  readonly tensor: ReadableTensor;
}

function scalesOf(weight: string, stored: ReadonlyMap<string, ReadableTensor>): ScaleTensor | null {
  for (const name of scaleNames(weight)) {
    const tensor = stored.get(name);
    if (tensor !== undefined) return { name, tensor };
  }
  return null;
}

/** Scales, and which of them each element of the weight has. */
interface Scaling extends ScaleTensor {
  readonly grid: ScaleGrid;
}

/** Throws inputError for scales of another shape or precision than scales of this weight can have. */
function scalingOf(
  weightName: string,
  { shape }: ReadableTensor,
  { name, tensor }: ScaleTensor,
  block: readonly [number, number] | null,
  where: string,
): Scaling {
  const grid = scaleGrid(shape, tensor.shape, block);
  if (grid === null) {
    throw inputError(
      `tensor ${name} has shape [${tensor.shape.join(", ")}], which fits no layout of scales for ${weightName} ` +
        `[${shape.join(", ")}]`,
      { where },
    );
  }
  if (tensor.presented === null && tensor.dtype !== "U8" && tensor.dtype !== "F8_E8M0") {
    throw inputError(`tensor ${name} is stored as ${tensor.dtype}, expected floating point or powers of two (U8)`, {
      where,
    });
  }
  return { name, tensor, grid };
}

function dequantized(weight: F8Tensor, scaling: Scaling | null, presented: FloatDtype): ReadableTensor {
  return {
    ...weight,
    presented,
    readAs: presented,
    ...(scaling === null ? {} : { scales: { tensor: scaling.name, per: layoutOf(scaling.grid) } }),
    async read(start, count) {
      const bytes = await weight.read(start, count);
      const scales = scaling === null ? new Float32Array(0) : await readScales(scaling);
      const values = dequantizeF8(weight.dtype, bytes, start, scaling?.grid ?? null, scales);
      return fromFloat32(presented, values) as Uint8Array<ArrayBuffer>;
    },
  };
}

/** Reads scales anew each time: those of one weight are small, those of all weights of a large model are not. */
async function readScales({ tensor }: Scaling): Promise<Float32Array> {
  const bytes = await tensor.read(0, elements(tensor.shape));
  return tensor.presented === null ? e8m0ToFloat32(bytes) : toFloat32(tensor.presented, bytes);
}

/** The layout of scales in words. */
function layoutOf({ gridRows, gridColumns, blockRows, blockColumns, rows, columns, shared }: ScaleGrid): string {
  if (gridRows === 1 && gridColumns === 1) return shared ? "per tensor" : "per matrix";
  if (gridRows === rows && (gridColumns === 1 || columns === 1)) return "per row";
  return `per ${blockRows} x ${blockColumns} block`;
}
