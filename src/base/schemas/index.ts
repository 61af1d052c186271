/** Everything that other rooms need to read the YAML files that users write. */
export type { MixPartConfig, ModelConfig, TextConfig, TokenizerConfig, TrainTextConfig } from "./blocks.js";
export {
  scheduleProblem,
  type Budget,
  type BudgetedBlock,
  type GuardConfig,
  type ParameterGroups,
  type RoutingConfig,
  type TrainingBlock,
} from "./training.js";
export { expandStudy, parseStudyConfig, studySchema } from "./study.js";
export type { Measure, MegatronConfig, Question, StudyArm, StudyConfig } from "./study-blocks.js";
export { onlyParent, type ExpandedArm, type GridConfig, type StudyParent } from "./study-grid.js";
export { parseRecipeConfig, recipeConfigSchema, type RecipeConfig } from "./recipe.js";
export { modelWords, parseMergekitConfig, type MergekitConfig } from "./mergekit.js";
export { mergeHint, parseAdapterConfig, rankAndScale, type AdapterConfig } from "./adapter.js";
export { parseTrainConfig, trainSchema, type TrainConfig } from "./train.js";
export { functionMark, parseTaskFile, taskFileKeys, type TaskFile } from "./task.js";
export { launchSchema, parseLaunchConfig, type LaunchConfig } from "./launch.js";
export { hardwareSchema, parseHardware, type HardwareTable } from "./hardware.js";
export { jsonSchema } from "./json-schema.js";
export { issueText } from "./issue.js";
export { nearest } from "./nearest.js";
