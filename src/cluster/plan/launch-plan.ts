/** Everything that is decided of a run before it is started: layout, arguments, environment. Pure. */
import { inputError } from "../../base/errors.js";
import type { LaunchConfig } from "../../base/schemas/index.js";
import type { Gpu } from "../../laws/planner/hardware.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { environmentOf, launchArguments } from "./arguments.js";
import { launchLayout } from "./layout.js";
import type { LaunchPlan } from "./scripts.js";

/**
 * The plan of a run of this model. `where` names the file in errors. Throws inputError for settings that Megatron-LM
 * does not have, and for a model that does not fit.
 */
export function launchPlanOf(config: LaunchConfig, spec: DecoderSpec, gpu: Gpu, where: string): LaunchPlan {
  if (config.training.sequence > spec.maxPositions && spec.learnedPositions)
    throw inputError(`a sequence of ${config.training.sequence} is longer than ${spec.maxPositions} learnt positions`, {
      where: `${where} (training.sequence)`,
    });
  const layout = launchLayout(config, spec, gpu);
  return {
    config,
    layout,
    vocab: spec.vocab,
    arguments: launchArguments({ config, spec, layout }),
    environment: environmentOf(layout, config.environment),
    gpusPerNode: gpu.perNode,
  };
}
