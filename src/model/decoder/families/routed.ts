/**
 * Experts as DeepSeek-V3 has them, which several families took over: sigmoid scores with a correction bias, choice
 * limited to groups, a shared expert as wide as `n_shared_experts` routed ones, leading dense layers.
 */
import { inputError } from "../../../base/errors.js";
import { plainExperts, sigmoidRouter } from "../types.js";
import type { DecoderSpec, MoeFfn, RouterSpec } from "../types.js";
import { refuse, requireKeys } from "./common.js";
import { readExpertCount, readTopK, requirePlainExperts, uniformFfns } from "./experts.js";
import type { ConfigReader } from "./reader.js";

/** What a class assumes; undefined: the key must be there. */
export interface RoutedDefaults {
  readonly experts: number | undefined;
  readonly topK: number | undefined;
  readonly ffnDim: number;
  readonly shared: number | undefined;
  readonly groups: number;
  readonly keptGroups: number;
  readonly renormalised: boolean;
  readonly scaling: number;
}

/** Throws inputError if a key is missing, wrong, or asks for another router than the class has. */
export function readRoutedExperts(config: ConfigReader, defaults: RoutedDefaults): Omit<MoeFfn, "activation"> {
  // Keys of older files, whose other values mean another router or other layers.
  requireKeys(config, { topk_method: "noaux_tc", moe_layer_freq: 1 });
  if (config.get("scoring_func") === "softmax") throw config.fail("scoring_func", '"sigmoid"');
  const experts = readExpertCount(config, defaults.experts, "n_routed_experts");
  const topK = readTopK(config, experts, defaults.topK);
  const ffnDim = config.int("moe_intermediate_size", defaults.ffnDim);
  const shared = config.int("n_shared_experts", defaults.shared, { min: 0, max: 1024 });
  return {
    kind: "moe",
    ffnDim,
    experts,
    topK,
    router: sigmoidRouter({
      groups: readGroups(config, experts, topK, defaults),
      renormalised: config.bool("norm_topk_prob", defaults.renormalised),
      scaling: config.positive("routed_scaling_factor", defaults.scaling),
    }),
    ...plainExperts,
    shared: shared === 0 ? null : { ffnDim: shared * ffnDim, gated: false },
  };
}

/** One group is none. */
function readGroups(
  config: ConfigReader,
  experts: number,
  topK: number,
  defaults: RoutedDefaults,
): RouterSpec["groups"] {
  const count = config.int("n_group", defaults.groups);
  const kept = config.int("topk_group", defaults.keptGroups);
  if (kept > count) throw config.fail("topk_group", `at most n_group (${count})`);
  if (count === 1) return null;
  // Groups are ranked by their two best experts.
  if (experts % count !== 0 || experts / count < 2)
    throw config.fail("n_group", `groups of equal size, at least 2, out of ${experts} experts`);
  if (topK > (kept * experts) / count) {
    throw inputError(
      `num_experts_per_tok is ${topK}, but ${kept} of ${count} groups have only ${(kept * experts) / count} experts`,
      { where: config.where },
    );
  }
  return { count, kept };
}

/** Throws inputError if the spec's experts are not of this kind. */
export function writeRoutedExperts(spec: DecoderSpec): Record<string, unknown> {
  const { moe, dense } = uniformFfns(spec);
  requirePlainExperts(spec, moe);
  const { groups, renormalise, scaling } = requireSigmoidRouter(spec, moe);
  return {
    n_routed_experts: moe.experts,
    num_experts_per_tok: moe.topK,
    moe_intermediate_size: moe.ffnDim,
    n_shared_experts: sharedCount(spec, moe),
    // Without dense layers nobody reads it, but the classes want a number.
    intermediate_size: dense?.ffnDim ?? moe.ffnDim * moe.topK,
    n_group: groups?.count ?? 1,
    topk_group: groups?.kept ?? 1,
    norm_topk_prob: renormalise !== null,
    routed_scaling_factor: scaling,
    // vLLM loads the correction bias only if it finds the name of the method.
    scoring_func: "sigmoid",
    topk_method: "noaux_tc",
    ...writeOwnAuxLoss(spec),
  };
}

/** How many routed experts the shared one is as wide as; 0 without one. */
export function sharedCount(spec: DecoderSpec, { shared, ffnDim }: MoeFfn): number {
  if (shared === null) return 0;
  if (shared.gated) throw refuse(spec, "a shared expert behind a gate");
  if (shared.ffnDim % ffnDim !== 0)
    throw refuse(spec, `a shared expert of ${shared.ffnDim}, not a multiple of the routed ones' ${ffnDim}`);
  return shared.ffnDim / ffnDim;
}

/** The router, if it is DeepSeek-V3's. Throws inputError if it is anything else. */
export function requireSigmoidRouter(spec: DecoderSpec, { router }: MoeFfn): RouterSpec {
  const { groups, renormalise, scaling } = router;
  const own = sigmoidRouter({ groups, renormalised: renormalise !== null, scaling });
  if (JSON.stringify(router) !== JSON.stringify(own))
    throw refuse(spec, "a router other than sigmoid with a correction bias");
  return router;
}

/**
 * These classes have no load-balancing loss; a coefficient for our own training goes along in a key that they do not
 * look at.
 */
export function writeOwnAuxLoss({ auxLossCoef }: DecoderSpec): Record<string, unknown> {
  return auxLossCoef === 0 ? {} : { router_aux_loss_coef: auxLossCoef };
}
