/**
 * Programs that train from a Hugging Face folder directly, and the line that starts each: facts about other projects,
 * as read in their sources (August 2026). pytorch/torchtitan@b5bcd76c, `torchtitan/models/`, `docs/checkpoint.md`,
 * `components/checkpointer/base.py`. NVIDIA-NeMo/Automodel@36044ad3, `nemo_automodel/_transformers/registry.py`.
 * modelscope/ms-swift@3602360a, `docs/source_en/Instruction/Supported-models-and-datasets.md`,
 * `docs/source_en/Megatron-SWIFT/Mcore-Bridge.md`. axolotl-ai-cloud/axolotl@067b021c,
 * `src/axolotl/common/architectures.py`, `src/axolotl/monkeypatch/multipack.py`. hiyouga/LLaMA-Factory@ff6d4d12,
 * `src/llamafactory/model/model_utils/moe.py`. None of the lines was run here. Pure.
 */
import { ownFamily, type RouterOrder } from "../../model/decoder/types.js";
import type { TargetFamily } from "./recipe.js";

/** Programs that read a Hugging Face folder, in the order in which they are shown. */
export const trainers = ["torchtitan", "NeMo AutoModel", "ms-swift", "axolotl", "LLaMA-Factory"] as const;
/** One of `trainers`. */
export type Trainer = (typeof trainers)[number];

/**
 * How a trainer takes a family: `own` with a model and expert kernels of its own, `transformers` through the class of
 * transformers, `no` not at all.
 */
export type TrainerSupport = "own" | "transformers" | "no";

/** What one trainer makes of one target. */
export interface TrainerVerdict {
  readonly trainer: Trainer;
  readonly support: TrainerSupport;
  /** What to know; null: nothing. */
  readonly note: string | null;
}

type Families = readonly TargetFamily[];

/** Families that a trainer has a model, or patches for experts, of its own for. */
const own: Readonly<Record<Trainer, Families>> = {
  torchtitan: ["qwen3_moe"],
  "NeMo AutoModel": ["qwen3_moe", "glm4_moe", "ernie4_5_moe", "hy_v3"],
  "ms-swift": ["qwen2_moe", "qwen3_moe", "glm4_moe", "ernie4_5_moe", "dots1", "hy_v3"],
  axolotl: ["mixtral", "qwen2_moe", "qwen3_moe", "glm4_moe", "lfm2_moe", "dbrx"],
  "LLaMA-Factory": [
    ...(["mixtral", "qwen2_moe", "qwen3_moe", "granitemoe", "phimoe", "ernie4_5_moe", "glm4_moe"] as const),
    ...(["hy_v3", "dbrx"] as const),
  ],
};

/** Trainers that take every other family of transformers by its class. */
const byTransformers: ReadonlySet<Trainer> = new Set(["NeMo AutoModel", "axolotl", "LLaMA-Factory"]);

/** What each trainer makes of a folder of a family. */
export function trainersOf(family: TargetFamily, order: RouterOrder): TrainerVerdict[] {
  return trainers.map((trainer) => {
    // Our own format, which nothing else loads.
    if (family === ownFamily) return { trainer, support: "no", note: null };
    if (trainer === "torchtitan" && family === "qwen3_moe" && order === "softmax-topk")
      return { trainer, support: "no", note: "its qwen3 renormalises the weights of the chosen experts (route_norm)" };
    if (own[trainer].includes(family)) return { trainer, support: "own", note: noteOf(trainer) };
    if (byTransformers.has(trainer)) return { trainer, support: "transformers", note: null };
    return { trainer, support: "no", note: null };
  });
}

const noteOf = (trainer: Trainer): string | null =>
  trainer === "torchtitan" ? "wants a configuration of its own with the model's sizes (torchtitan/models/qwen3)" : null;

const lines: Readonly<Record<Trainer, (folder: string) => string>> = {
  torchtitan: (folder) =>
    "MODULE=qwen3 CONFIG=<yours> ./run_train.sh --checkpoint.enable --checkpoint.initial_load_in_hf " +
    `--checkpoint.initial_load_path ${folder} --hf_assets_path ${folder}`,
  "NeMo AutoModel": (folder) =>
    "automodel <yours>.yaml --nproc-per-node 8 " + `--model.pretrained_model_name_or_path ${folder}`,
  "ms-swift": (folder) => `megatron pt --model ${folder} --save_safetensors true --dataset <yours>`,
  axolotl: (folder) => `axolotl train <yours>.yml --base-model ${folder}`,
  "LLaMA-Factory": (folder) => `llamafactory-cli train <yours>.yaml model_name_or_path=${folder}`,
};

/** The line that starts a trainer on a folder; what stands in `<>` is the user's own. */
export const trainerLine = (trainer: Trainer, folder: string): string => lines[trainer](folder);
