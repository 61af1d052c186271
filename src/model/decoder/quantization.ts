/**
 * `quantization_config`: which stored formats a config announces. 8-bit floats with scales are ordinary numbers once
 * multiplied out, and are read; formats that only their own kernels can undo are refused. Sources: transformers
 * `utils/quantization_config.py`, compressed-tensors `QuantizationConfig`, NVIDIA ModelOpt's export.
 */
import { inputError } from "../../base/errors.js";
import { shown } from "../../base/shown.js";
import type { UpcycleError } from "../../base/errors.js";

/** A stored format that can be read. */
export interface Quantization {
  /** As the config spells it, such as `fp8`. */
  readonly method: string;
  /** Rows and columns of a block that shares a scale, if the config says. */
  readonly block: readonly [number, number] | null;
}

type Json = Readonly<Record<string, unknown>>;

/** What to do instead, for methods we cannot read. */
const remedies: Readonly<Record<string, string>> = {
  bitsandbytes: "load it with transformers, call model.dequantize() and save it, or use the model it was made from",
  mxfp4: "load it with transformers and Mxfp4Config(dequantize=True), save it, and use that",
};
const usualRemedy = "use the unquantized model it was made from, or a version of it in 8-bit floats";

/**
 * Null if the config announces no quantization. Throws inputError, naming method and what to do, for any other than
 * 8-bit floats: `fp8`, `fbgemm_fp8`, `modelopt` with FP8, and `compressed-tensors` of format float-quantized.
 */
export function readQuantization(config: unknown, where: string): Quantization | null {
  const settings = isObject(config) ? (config["quantization_config"] ?? config["compression_config"]) : undefined;
  if (settings === undefined || settings === null) return null;
  if (!isObject(settings)) throw inputError(`quantization_config is ${shown(settings)}, expected an object`, { where });
  const method = settings["quant_method"];
  const fail = (what: string, hint = usualRemedy): UpcycleError =>
    inputError(
      `quantization_config ${what}, expected 8-bit floats (fp8, fbgemm_fp8, or compressed-tensors ` +
        "float-quantized) or none",
      { where, hint },
    );
  switch (method) {
    case "fp8":
    case "fbgemm_fp8":
      return {
        method,
        block: readBlock(settings["weight_block_size"], "quantization_config.weight_block_size", where),
      };
    case "modelopt":
      if (settings["quant_algo"] !== "FP8") throw fail(`has quant_algo ${shown(settings["quant_algo"])} of modelopt`);
      return { method, block: null };
    case "compressed-tensors":
      return { method, block: readCompressed(settings, where, fail) };
    default:
      throw fail(
        `has quant_method ${shown(method)}`,
        typeof method === "string" && Object.hasOwn(remedies, method) ? remedies[method] : undefined,
      );
  }
}

/**
 * Every group must be 8-bit floats without zero points or rotations; blocks of groups, where there are any, must agree.
 */
function readCompressed(
  config: Json,
  where: string,
  fail: (what: string) => UpcycleError,
): readonly [number, number] | null {
  const format = config["format"];
  if (format !== "float-quantized" && format !== "naive-quantized")
    throw fail(`has format ${shown(format)} of compressed-tensors`);
  for (const key of ["transform_config", "sparsity_config"] as const) {
    const extra = config[key];
    const none =
      extra === undefined ||
      extra === null ||
      (isObject(extra) && (Object.keys(extra).length === 0 || extra["format"] === "dense"));
    if (!none) throw fail(`has a ${key}`);
  }
  const groups = isObject(config["config_groups"]) ? Object.entries(config["config_groups"]) : [];
  if (groups.length === 0) throw fail("has no config_groups");
  let block: readonly [number, number] | null = null;
  for (const [name, group] of groups) {
    const weights = isObject(group) ? group["weights"] : undefined;
    if (!isObject(weights) || weights["num_bits"] !== 8 || weights["type"] !== "float") {
      throw fail(`has weights ${shown(weights)} in config_groups.${name}`);
    }
    const own = readBlock(
      weights["block_structure"],
      `quantization_config.config_groups.${name}.weights.block_structure`,
      where,
    );
    if (own !== null && block !== null && own.join() !== block.join())
      throw fail(`has blocks of ${block.join(" x ")} and of ${own.join(" x ")}`);
    block ??= own;
  }
  return block;
}

function readBlock(value: unknown, key: string, where: string): readonly [number, number] | null {
  if (value === undefined || value === null) return null;
  // compressed-tensors once wrote "128x128".
  const sizes: unknown = typeof value === "string" ? value.split("x").map(Number) : value;
  if (Array.isArray(sizes) && sizes.length === 2 && sizes.every((size) => Number.isSafeInteger(size) && size > 0)) {
    return [sizes[0] as number, sizes[1] as number];
  }
  throw inputError(`${key} is ${shown(value)}, expected [rows, columns]`, { where });
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
