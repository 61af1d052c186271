/**
 * What other rooms need to read the YAML files that users write. What commands load at their start imports from the
 * file that holds it: building all schemas takes a tenth of a second.
 */
export type { MixPartConfig, ModelConfig, TextConfig, TokenizerConfig, TrainTextConfig } from "./blocks.js";
export type { BudgetedBlock, GuardConfig, ParameterGroups, RoutingConfig, TrainingBlock } from "./training.js";
export { expandStudy, parseStudyConfig, studySchema } from "./study.js";
export type { Measure, MegatronConfig, Question, StudyConfig } from "./study-blocks.js";
export type { GridConfig, StudyParent } from "./study-grid.js";
export { parseRecipeConfig, recipeConfigSchema } from "./recipe.js";
export { modelWords, parseMergekitConfig, type MergekitConfig } from "./mergekit.js";
export { parseAdapterConfig, rankAndScale, type AdapterConfig } from "./adapter.js";
export { parseTrainConfig, trainSchema, type TrainConfig } from "./train.js";
export { parseTaskFile } from "./task.js";
export { launchSchema, parseLaunchConfig, type LaunchConfig } from "./launch.js";
export { hardwareSchema, parseHardware } from "./hardware.js";
export { jsonSchema } from "./json-schema.js";
export { issueText } from "./issue.js";
