/** What is decided of an arm that Megatron-LM trains before anything is trained: its launch file. */
import { join, resolve } from "node:path";
import { inputError } from "../base/errors.js";
import type { LaunchConfig, MegatronConfig, TrainingBlock } from "../base/schemas/index.js";
import { launchPlanOf } from "../cluster/plan/launch-plan.js";
import { exists } from "../files/io/atomic.js";
import type { Gpu } from "../laws/planner/hardware.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { StudyOptions } from "./types.js";

/** What of an arm decides whether Megatron-LM can train it. */
interface TrainableArm {
  readonly id: string;
  readonly megatron: MegatronConfig | null;
  readonly spec: DecoderSpec;
  readonly training: TrainingBlock;
}

/** Throws inputError for an arm that Megatron-LM is to train and cannot, before anything is trained. */
export async function requireTrainable(
  options: Pick<StudyOptions, "gpuOf">,
  { megatron, spec, training, id }: TrainableArm,
): Promise<void> {
  if (megatron === null) return;
  const where = `arm ${id}`;
  if (!(await exists(join(megatron.megatron, "pretrain_gpt.py"))) && megatron.slurm === undefined)
    throw inputError(`${megatron.megatron} has no pretrain_gpt.py`, {
      where: "megatron.megatron",
      hint: "name a checkout of Megatron-LM",
    });
  const places = { out: "out", checkpoint: "begin", data: "data", tokenizer: "tokenizer" };
  launchPlanOf(launchConfig(megatron, training, 0, places), spec, await gpuNamed(options, megatron), where);
}

/** Throws inputError for a study that knows no GPUs, and for an unknown one. */
export async function gpuNamed({ gpuOf }: Pick<StudyOptions, "gpuOf">, { hardware }: MegatronConfig): Promise<Gpu> {
  if (gpuOf === undefined) throw inputError("arms of Megatron-LM need gpuOf, which says what GPUs there are");
  return gpuOf(hardware.gpu);
}

/** Folders and files of a run. */
interface Places {
  readonly out: string;
  readonly checkpoint: string;
  /** Prefix of the data. */
  readonly data: string;
  readonly tokenizer: string;
}

/** The launch file of a run. */
export function launchConfig(
  megatron: MegatronConfig,
  training: TrainingBlock,
  seed: number,
  { data, ...places }: Places,
): LaunchConfig {
  const { arguments: given, ...keys } = megatron;
  // What is held out is measured afterwards; the data are one document, of which nothing can be split off.
  const ours = { "--eval-iters": 0, ...given };
  const folder = resolve(keys.megatron);
  return {
    ...keys,
    ...places,
    megatron: folder,
    data: [data],
    arguments: ours,
    split: "100,0,0",
    training,
    // Megatron-LM takes no seed of 0.
    seed: seed + 1,
    sources: {},
  };
}
