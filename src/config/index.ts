/** Everything that other floors need of the YAML files. */
export { builtinTexts } from "./blocks.js";
export type {
  EvaluationConfig,
  LearningRate,
  ModelConfig,
  OptimizerConfig,
  TextConfig,
  TokenizerConfig,
  TrainingBlock,
} from "./blocks.js";
export { parseStudyConfig, studySchema, type StudyArm, type StudyConfig } from "./study.js";
export { parseTrainConfig, trainSchema, type TrainConfig } from "./train.js";
export { jsonSchema } from "./json-schema.js";
export { nearest } from "./nearest.js";
