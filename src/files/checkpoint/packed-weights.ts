/**
 * Weights that are packed into fewer bits without an entry in config.json that says so. The names of their tensors do:
 * AutoGPTQ and AutoAWQ (`qweight`), bitsandbytes (`absmax`, `SCB`), MLX (`scales` and `biases`), compressed-tensors
 * (`weight_packed`), HQQ (`W_q`), NVIDIA's NVFP4 (`weight_scale_2`), MXFP4 (`_blocks`).
 */
import { inputError, type UpcycleError } from "../../base/errors.js";
import { shown } from "../../base/shown.js";
import { quantizationFileOf } from "./foreign-folder.js";

interface Packing {
  readonly mark: RegExp;
  readonly what: string;
  readonly hint: string;
}

const unquantized = "use the unquantized model it was made from";

const packings: readonly Packing[] = [
  { mark: /\.g_idx$/, what: "GPTQ (AutoGPTQ, GPTQModel)", hint: unquantized },
  { mark: /\.qweight$/, what: "GPTQ or AWQ", hint: unquantized },
  {
    mark: /\.(absmax|quant_map|SCB)$|\.quant_state\.bitsandbytes__/,
    what: "bitsandbytes",
    hint: `load it with transformers, call model.dequantize() and save it, or ${unquantized}`,
  },
  { mark: /\.weight_packed$/, what: "compressed-tensors", hint: unquantized },
  { mark: /\.weight_scale_2$/, what: "NVFP4 (ModelOpt)", hint: unquantized },
  { mark: /\.W_q$/, what: "HQQ", hint: unquantized },
  {
    mark: /_proj_blocks$/,
    what: "MXFP4",
    hint: "load it with transformers and Mxfp4Config(dequantize=True), save it, and use that",
  },
];

/** What any of them has, MLX included: nearly every folder has no such name. */
const anyMark = new RegExp(
  "\\.(g_idx|qweight|absmax|quant_map|SCB|weight_packed|weight_scale_2|W_q|scales|biases)$" +
    "|\\.quant_state\\.|_proj_blocks$",
);

const mlx: Omit<Packing, "mark"> = {
  what: "MLX",
  hint: `write it in 16 bits with mlx_lm.convert --dequantize, or ${unquantized}`,
};

/**
 * Throws inputError where the tensors are those of packed weights. `config` has no `quantization_config`, which is
 * refused by its own words (`readQuantization`).
 */
export async function requireUnpacked(
  names: Iterable<string>,
  config: Readonly<Record<string, unknown>>,
  dir: string,
): Promise<void> {
  const all = [...names].filter((name) => anyMark.test(name));
  if (all.length === 0) return;
  const there = new Set(all);
  const packing = packings.find(({ mark }) => all.some((name) => mark.test(name)));
  if (packing !== undefined) {
    const mark = all.find((name) => packing.mark.test(name));
    const file = await quantizationFileOf(dir);
    throw packed(packing, `tensor ${mark}${file === null ? "" : `, ${file}`}`, dir);
  }
  // `quantization` is MLX's own key. Its scales alone would look like those of other formats.
  const settings = config["quantization"];
  const scales = all.find((name) => name.endsWith(".scales") && there.has(name.replace(/scales$/, "biases")));
  if (scales !== undefined)
    throw packed(mlx, settings === undefined ? `tensor ${scales}` : `quantization is ${shown(settings)}`, dir);
}

function packed({ what, hint }: Omit<Packing, "mark">, evidence: string, dir: string): UpcycleError {
  return inputError(`the weights are quantized by ${what}, although config.json does not say so (${evidence})`, {
    where: dir,
    hint,
  });
}
