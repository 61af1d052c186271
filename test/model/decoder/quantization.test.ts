import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { readQuantization } from "../../../src/model/decoder/quantization.js";

const read = (quantization: unknown): ReturnType<typeof readQuantization> =>
  readQuantization({ quantization_config: quantization }, "config.json");
const group = (weights: object): object => ({ config_groups: { group_0: { targets: ["Linear"], weights } } });
const floats = { num_bits: 8, type: "float", strategy: "channel", symmetric: true };
const compressed = { quant_method: "compressed-tensors", format: "float-quantized", ...group(floats) };

describe("quantization_config", () => {
  it("of 8-bit floats is read, with the block if it is stated", () => {
    expect(readQuantization({}, "c")).toBeNull();
    expect(read(null)).toBeNull();
    expect(read({ quant_method: "fp8", weight_block_size: [128, 64] })).toEqual({ method: "fp8", block: [128, 64] });
    expect(read({ quant_method: "fp8", activation_scheme: "static" })).toEqual({ method: "fp8", block: null });
    expect(read({ quant_method: "fbgemm_fp8" })).toEqual({ method: "fbgemm_fp8", block: null });
    expect(read({ quant_method: "modelopt", quant_algo: "FP8" })).toEqual({ method: "modelopt", block: null });
    expect(read(compressed)).toEqual({ method: "compressed-tensors", block: null });
    expect(
      read({ ...compressed, ...group({ ...floats, strategy: "block", block_structure: [128, 128] }) })?.block,
    ).toEqual([128, 128]);
    expect(
      read({ ...compressed, ...group({ ...floats, strategy: "block", block_structure: "128x128" }) })?.block,
    ).toEqual([128, 128]);
    expect(read({ ...compressed, sparsity_config: { format: "dense" }, transform_config: {} })?.block).toBeNull();
  });

  const refusals: [unknown, string][] = [
    [{ quant_method: "gptq", bits: 4 }, 'has quant_method "gptq", expected 8-bit floats'],
    [{ quant_method: "awq" }, "use the unquantized model it was made from, or a version of it in 8-bit floats"],
    [{ quant_method: "bitsandbytes", load_in_4bit: true }, "call model.dequantize() and save it"],
    [{ quant_method: "mxfp4" }, "Mxfp4Config(dequantize=True)"],
    [{ quant_method: "toString" }, "use the unquantized model"],
    [{}, "has quant_method missing"],
    ["fp8", 'quantization_config is "fp8", expected an object'],
    [{ quant_method: "fp8", weight_block_size: [128] }, "weight_block_size is [128], expected [rows, columns]"],
    [{ quant_method: "fp8", weight_block_size: [0, 128] }, "weight_block_size is [0,128]"],
    [{ quant_method: "modelopt", quant_algo: "NVFP4" }, 'has quant_algo "NVFP4" of modelopt'],
    [{ ...compressed, format: "pack-quantized" }, 'has format "pack-quantized" of compressed-tensors'],
    [{ ...compressed, ...group({ ...floats, num_bits: 4 }) }, "in config_groups.group_0"],
    [{ ...compressed, ...group({ ...floats, type: "int" }) }, "in config_groups.group_0"],
    [{ ...compressed, config_groups: {} }, "has no config_groups"],
    [{ ...compressed, transform_config: { config_groups: {} } }, "has a transform_config"],
    [{ ...compressed, sparsity_config: { format: "sparse-24-bitmask" } }, "has a sparsity_config"],
    [
      {
        ...compressed,
        config_groups: {
          a: { weights: { ...floats, block_structure: [64, 64] } },
          b: { weights: { ...floats, block_structure: [128, 128] } },
        },
      },
      "has blocks of 64 x 64 and of 128 x 128",
    ],
  ];
  it.each(refusals)("%j is refused", (quantization, words) => {
    expect(() => read(quantization)).toThrow(UpcycleError);
    try {
      read(quantization);
    } catch (error) {
      expect((error as UpcycleError).line).toContain(words);
      expect((error as UpcycleError).kind).toBe("input");
    }
  });
});
