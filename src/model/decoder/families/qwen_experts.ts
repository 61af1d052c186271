/**
 * What the configs of Qwen2-MoE and Qwen3-MoE have in common: class defaults, small experts, and which layers are
 * sparse.
 */
import { inputError } from "../../../base/errors.js";
import type { DecoderSpec, DenseFfn, MoeFfn } from "../types.js";
import type { Defaults } from "./common.js";
import { readDenseFfnDim, readSmallExperts, writeSmallExperts, type SmallExpertDefaults } from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { isInteger } from "./reader.js";

/** What both classes assume, but for the number of key-value heads. */
export const qwenMoeDefaults: Omit<Defaults, "kvHeads"> = {
  headDim: "derived",
  maxPositions: 32_768,
  activation: "silu",
  llamaLike: true,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: null,
  eos: null,
};

/** The FFNs of a model: of its sparse layers, of its dense ones, and which layers are sparse. */
interface QwenFfns {
  readonly moe: Omit<MoeFfn, "activation">;
  readonly dense: Pick<DenseFfn, "ffnDim">;
  readonly sparse: readonly boolean[];
}

/** FFNs without a shared expert. Both classes leave router weights as they are unless the config says otherwise. */
export function readQwenFfns(
  config: ConfigReader,
  layerCount: number,
  defaults: Omit<SmallExpertDefaults, "renormalised">,
): QwenFfns {
  const moe = readSmallExperts(config, { ...defaults, renormalised: false });
  const sparse = readSparseLayers(config, layerCount);
  return { moe, dense: readDenseFfnDim(config, sparse), sparse };
}

/**
 * Which layers are sparse, by Qwen's rule: not in `mlp_only_layers`, and (layer + 1) a multiple of
 * `decoder_sparse_step`. Throws inputError if none is.
 */
function readSparseLayers(config: ConfigReader, layerCount: number): boolean[] {
  const step = config.int("decoder_sparse_step", 1);
  const dense = new Set(config.list("mlp_only_layers", isInteger, "a list of layer numbers") ?? []);
  const sparse = Array.from({ length: layerCount }, (_, layer) => !dense.has(layer) && (layer + 1) % step === 0);
  if (!sparse.includes(true)) {
    throw inputError(`mlp_only_layers and decoder_sparse_step leave none of ${layerCount} layers with experts`, {
      where: config.where,
    });
  }
  return sparse;
}

/** The keys that `readQwenFfns` reads. Throws inputError for experts of another kind. */
export function writeQwenExperts(spec: DecoderSpec): Record<string, unknown> {
  return {
    ...writeSmallExperts(spec),
    decoder_sparse_step: 1,
    mlp_only_layers: spec.layers.flatMap(({ ffn }, layer) => (ffn.kind === "dense" ? [layer] : [])),
  };
}
