/** The parallel layout of a run: upcycle plan's choice, with the degrees that the file fixes. Pure. */
import { inputError } from "../../base/errors.js";
import type { LaunchConfig } from "../../base/schemas/index.js";
import type { Gpu } from "../../laws/planner/hardware.js";
import { bestLayout } from "../../laws/planner/layout.js";
import type { ParallelLayout } from "../../laws/planner/layout-types.js";
import { defaultSpeed } from "../../laws/planner/speed.js";
import { isMoe, type DecoderSpec } from "../../model/decoder/types.js";
import { globalBatch } from "./arguments.js";

/** Throws inputError where nothing fits, or fixed degrees contradict the GPUs or the model. */
export function launchLayout(config: LaunchConfig, spec: DecoderSpec, gpu: Gpu): ParallelLayout {
  const { gpus } = config.hardware;
  const fixed = config.layout;
  const isFixed = Object.keys(fixed).length > 0;
  const { best } = bestLayout({
    spec,
    gpu,
    gpus,
    sequence: config.training.sequence,
    batchTokens: globalBatch(config.training) * config.training.sequence,
    speed: defaultSpeed,
    ...searchLimits(config, spec),
  });
  if (best === null && !isFixed)
    throw inputError(`the model does not fit on ${gpus} ${gpu.title}`, {
      where: "hardware",
      hint: "give more GPUs, or a layout that you know to fit (layout)",
    });
  const chosen =
    isFixed || best === null ? plainLayout(fixed, gpus) : fitted(best.layout, globalBatch(config.training));
  return checked(
    {
      ...chosen,
      ...(fixed.microBatch === undefined ? {} : { microBatch: fixed.microBatch }),
      recompute: recomputed(chosen.recompute, config),
    },
    config,
    spec,
  );
}

/**
 * Megatron-LM trains experts with tensor parallelism only together with sequence parallelism, which the norms of
 * PyTorch refuse. A file that asks for it by its argument has other norms. Source: NVIDIA/Megatron-LM@d98e8a64,
 * `moe_layer.py` (forward), `torch_norm.py`.
 */
const tensorParallelTrains = (
  { transformerEngine, arguments: own }: Pick<LaunchConfig, "transformerEngine" | "arguments">,
  spec: DecoderSpec,
): boolean => transformerEngine || !isMoe(spec) || own["--sequence-parallel"] === true;

/** What a search of layouts is told of it, and of stages, which no argument that is given makes of unequal length. */
export const searchLimits = (
  config: LaunchConfig,
  spec: DecoderSpec,
): { readonly evenStages: true; readonly mostTensor?: number } => ({
  evenStages: true,
  ...(tensorParallelTrains(config, spec) ? {} : { mostTensor: 1 }),
});

/** Without Transformer Engine attention keeps every score, unless it is computed again. */
const recomputed = (
  chosen: ParallelLayout["recompute"],
  { transformerEngine }: LaunchConfig,
): ParallelLayout["recompute"] => (chosen === "none" && !transformerEngine ? "selective" : chosen);

/** The largest micro-batch, up to the chosen one, that divides the sequences of a rank. */
function fitted(layout: ParallelLayout, batch: number): ParallelLayout {
  let { microBatch } = layout;
  while (microBatch > 1 && batch % (microBatch * layout.dp) !== 0) microBatch--;
  // Chunks of layers take turns with as many micro-batches as there are stages.
  const vpp = (batch / (microBatch * layout.dp)) % layout.pp === 0 ? layout.vpp : 1;
  return { ...layout, microBatch, vpp };
}

/** The fixed degrees, 1 where nothing is said. */
function plainLayout(fixed: LaunchConfig["layout"], gpus: number): ParallelLayout {
  const { tp = 1, pp = 1, vpp = 1, cp = 1, ep = 1, etp = tp, microBatch = 1 } = fixed;
  const dp = gpus / (tp * pp * cp);
  const edp = gpus / (etp * pp * ep);
  return { tp, pp, vpp, cp, ep, etp, dp, edp, microBatch, microBatches: 1, recompute: "selective" };
}

function checked(layout: ParallelLayout, config: LaunchConfig, spec: DecoderSpec): ParallelLayout {
  const { gpus } = config.hardware;
  const { tp, pp, vpp, cp, ep, etp, dp, edp, microBatch } = layout;
  const { heads, kvHeads } = spec.attn;
  const { sequence } = config.training;
  const fail = (message: string): never => {
    throw inputError(message, { where: "layout" });
  };
  if (!Number.isInteger(dp)) fail(`tp ${tp} x pp ${pp} x cp ${cp} does not divide ${gpus} GPUs`);
  if (!Number.isInteger(edp)) fail(`etp ${etp} x ep ${ep} x pp ${pp} does not divide ${gpus} GPUs`);
  const experts = spec.layers.find(({ ffn }) => ffn.kind === "moe")?.ffn;
  if (experts?.kind === "moe" && experts.experts % ep !== 0)
    fail(`ep ${ep} does not divide ${experts.experts} experts`);
  if (tp > 1 && !tensorParallelTrains(config, spec))
    fail(
      `tp ${tp}: Megatron-LM trains experts with tensor parallelism only with Transformer Engine, or with norms that ` +
        "take sequence parallelism (arguments: --sequence-parallel: true)",
    );
  if (heads % tp !== 0) fail(`tp ${tp} does not divide ${heads} heads`);
  if (kvHeads % tp !== 0 && tp % kvHeads !== 0) fail(`tp ${tp} does not divide ${kvHeads} key-value heads`);
  // Each rank has a piece of the beginning and one of the end, so that causal attention costs all of them the same.
  if (cp > 1 && sequence % (2 * cp) !== 0)
    fail(`cp ${cp} cuts a sequence in ${2 * cp} pieces, which do not divide its ${sequence} tokens`);
  if (spec.layers.length % pp !== 0) fail(`pp ${pp} does not divide ${spec.layers.length} layers`);
  if (vpp === 1) return layout;
  if (pp === 1) fail(`vpp ${vpp} cuts pipeline stages, and pp is 1`);
  if (spec.layers.length % (pp * vpp) !== 0) fail(`pp ${pp} x vpp ${vpp} does not divide ${spec.layers.length} layers`);
  const microBatches = globalBatch(config.training) / (microBatch * dp);
  if (Number.isInteger(microBatches) && microBatches % pp !== 0)
    fail(`vpp ${vpp} takes micro-batches by ${pp}, one for each stage, and a step has ${microBatches} of them`);
  return layout;
}
