/**
 * Upcycle as a library: everything the command line does, typed. Turns a dense model folder into a mixture of experts
 * and measures it:
 *
 * ```js
 * import { compareModels, convertCheckpoint, onnxruntimeBackend, openModel, resultOf, upcycleRecipe } from "upcycle";
 * await resultOf(convertCheckpoint({ source: "dense", recipe: upcycleRecipe("E8G1T2"), out: "moe" }));
 * const models = await Promise.all(["dense", "moe"].map((dir) => openModel(dir, onnxruntimeBackend, 1)));
 * const [dense, moe] = models;
 * const tokens = Int32Array.of(1, 2, 3, 4);
 * const { maxAbsLogitDiff } = await compareModels(dense, moe, tokens, { sequence: 3, limitTokens: 3 });
 * console.log(maxAbsLogitDiff);
 * await Promise.all(models.map((model) => model.close()));
 * ```
 *
 * Long operations (conversions, exports, trainings, studies) are async generators: `for await` hears their typed
 * events, `resultOf` runs one to its end and returns what it made. Failures that a caller can cause are
 * `UpcycleError`s; paths are relative to the working folder; nothing is written to the console.
 */

// Errors.
export { UpcycleError, exitCodes, type Failure, type FailureKind } from "./base/errors.js";

// Long operations are async generators of typed events; `resultOf` runs one to its end.
export { resultOf } from "./base/events.js";

// The description of a decoder, which everything else interprets.
export { configFromSpec, specFromConfig, stringifyConfig, type ConfigDtype } from "./model/decoder/config.js";
export {
  families,
  isMoe,
  type AttentionSpec,
  type DecoderSpec,
  type DenseFfn,
  type Family,
  type Ffn,
  type LayerSpec,
  type MoeFfn,
  type Rope,
  type RopeScaling,
  type RouterOrder,
  type SpecialTokens,
} from "./model/decoder/types.js";
export { slotsOf, type Slot, type SlotAt, type SlotPart } from "./model/tensors/slots.js";
export { namedSlots, tensorNames, type NamedSlot } from "./model/tensors/names.js";

// The cost of a decoder: parameters and FLOPs.
export { forwardFlopsPerToken, trainFlopsPerToken } from "./model/cost/flops.js";
export { countParams, type ParamCount } from "./model/cost/params.js";

// Model folders.
export {
  openCheckpoint,
  type Adapter,
  type Checkpoint,
  type ModelSource,
  type StoredTensor,
} from "./files/checkpoint/open.js";
export {
  writeCheckpoint,
  type TensorValue,
  type Weights,
  type WriteDtype,
  type WriteOptions,
  type WriteProgress,
  type WrittenCheckpoint,
} from "./files/checkpoint/write.js";
export { inspectModel, type AdapterSummary, type LayerGroup, type ModelFacts } from "./surgery/convert/inspect.js";
export { openTokenizer, type EncodeSettings, type OpenSettings, type TextTokenizer } from "./text/tokenizer/load.js";
export { textStream, type TextStream } from "./text/tokenizer/stream.js";

// Models of the Hugging Face Hub, as folders of its cache.
export { fetchModel, type FetchOptions, type HubEvent } from "./files/hub/fetch.js";
export type { HubLimits } from "./files/hub/limits.js";
export { isHubReference } from "./files/hub/reference.js";
export { hubSettings, type HubSettings } from "./files/hub/settings.js";

// Upcycling: a recipe becomes a plan as data, and the plan becomes a model folder.
export {
  parseRecipeName,
  recipeName,
  upcycleRecipe,
  type Noise,
  type RecipeOptions,
  type Scaling,
  type TargetFamily,
  type UpcycleRecipe,
} from "./surgery/planning/recipe.js";
export { planUpcycle, type PlannedSlot as PlannedTensor, type SurgeryPlan } from "./surgery/planning/plan.js";
export type { ExpectedPreservation } from "./surgery/planning/expectation.js";
export type { Factors } from "./surgery/planning/scaling.js";
export type { Expr } from "./surgery/planning/expr.js";
export { explainPlan } from "./surgery/planning/explain.js";
export { mergekitPlan, type MergekitPlan } from "./surgery/planning/mergekit.js";
export { parseMergekitConfig, type MergekitConfig } from "./base/schemas/index.js";
export {
  centroidRouter,
  type CentroidRouter,
  type CentroidRouterOptions,
  type LayerClusters,
} from "./surgery/calibration/centroid-router.js";
export { activationSplit, type MeasuredSplit, type SplitOptions } from "./surgery/calibration/activation-split.js";
export { expertUtility, type MeasuredUtility, type UtilityOptions } from "./surgery/calibration/expert-utility.js";
export { promptRouter, type PromptRouter, type PromptRouterOptions } from "./surgery/calibration/prompt-router.js";
export { surveyRecipe, type TargetVerdict } from "./surgery/planning/survey.js";
export { servingOf, type Program, type Serving, type Support } from "./surgery/planning/serving.js";
export {
  trainerLine,
  trainersOf,
  type Trainer,
  type TrainerSupport,
  type TrainerVerdict,
} from "./surgery/planning/trainers.js";
export {
  convertCheckpoint,
  planConversion,
  upcycling,
  type Conversion,
  type ConversionPlan,
  type ConvertOptions,
} from "./surgery/convert/convert.js";
export { mergeCheckpoint, merging, planMerging, type MergeOptions } from "./surgery/convert/merge.js";
export { multiplyExperts, multiplying, planMultiplying, type MultiplyOptions } from "./surgery/convert/multiply.js";
export type { MadeModel, MakeEvent, PlannedModel, Surgery } from "./surgery/convert/make.js";
export {
  makeByWorkflow,
  planByWorkflow,
  type WorkflowEvent,
  type WorkflowOptions,
  type WorkflowResult,
  type WorkflowTools,
} from "./surgery/convert/workflow.js";
export type { MultiplyPlan, MultiplyRecipe } from "./surgery/planning/multiply.js";
export type { MergeChoice, MergePlan } from "./surgery/planning/merge.js";
export {
  exportOnnx,
  type ExportEvent,
  type Exported,
  type ExportKind,
  type ExportOptions,
  type WeightPlace,
} from "./surgery/convert/export-onnx.js";
export { readRecord, recipeOf, type UpcycleRecord } from "./surgery/convert/record.js";
export { modelCard, type CardFacts } from "./surgery/convert/card.js";
export { trainedFiles } from "./surgery/convert/trained-card.js";
export { readParentCard, type ParentCard } from "./surgery/convert/parent-card.js";
export {
  diffCheckpoints,
  type CheckpointDiff,
  type ConfigDiff,
  type DiffOptions,
  type Difference,
  type TensorDiff,
} from "./surgery/convert/diff.js";

// Training and studies: async generators of events; each run folder resumes where it was stopped.
export {
  jsonSchema,
  parseStudyConfig,
  parseTrainConfig,
  studySchema,
  trainSchema,
  type ModelConfig,
  type StudyConfig,
  type TextConfig,
  type TrainConfig,
  type TrainingBlock,
} from "./base/schemas/index.js";
export { trainRun, type RunOptions, type RunResult, type TrainEvent } from "./train/run.js";
export { trainFromConfig, type TrainFileEvent, type TrainFileOptions, type TrainRequest } from "./train/from-config.js";
export { freshTensor, newModelSpec } from "./train/init.js";
export { readMetrics, type EvalRecord, type RunMetrics, type StepRecord } from "./train/records.js";
export { listRuns, type ListedRun } from "./train/run-list.js";
export { exportMetrics, type LogFormat } from "./train/exported-logs.js";
export {
  outlookOf,
  runStudy,
  type StudyEvent,
  type StudyOptions,
  type StudyOutlook,
  type StudyRequest,
} from "./study/run.js";
export { writeReport } from "./study/report.js";
export { renderHtml } from "./report/study/html.js";
export { terminalTable } from "./report/study/terminal.js";
export { answersOf, type Answer, type AnswerVerdict } from "./report/study/answers.js";
export type {
  ArmResult,
  ArmRun,
  LossPoint,
  ParentResult,
  Preservation,
  PublishedEffect,
  QuestionResult,
  StudyResult,
  TaskScore,
} from "./model/results/result.js";

// Plans: dense model, recipes, budget and hardware to predicted losses, cost and layout.
export { makePlan, type Plan } from "./laws/planner/plan.js";
export type { ArmPlan, ModelPlan, PlanRequest } from "./laws/planner/plan-types.js";
export { fittedCoefficients, publishedCoefficients, type Coefficients } from "./laws/planner/coefficients.js";
export { gpuOf, type Gpu } from "./laws/planner/hardware.js";
export { mixtureOf, presets, shapeOfSize, shapeSpec } from "./laws/planner/shape.js";
export { defaultSpeed } from "./laws/planner/speed.js";

// Running models.
export { openModel, type RunnableModel, type TextModel } from "./evals/model.js";
export { compareModels, meanLoss } from "./evals/compare.js";
export { measurePreservation, type PreservationEvent, type PreservationOptions } from "./evals/preservation.js";
export type {
  FunctionComparison as Comparison,
  LayerError,
  PreservationReport,
  PreservationVerdict as Verdict,
} from "./model/results/preservation.js";
export { measureExperts, type ExpertsEvent, type ExpertsOptions } from "./experts/measure.js";
export type {
  ChangeCost,
  Coactivation,
  ExpertLayer,
  ExpertLoad,
  ExpertsChange,
  ExpertSimilarity,
  ExpertsReport,
  MeasuredText,
  ParentSimilarity,
  RouterCertainty,
  Specialisation,
} from "./model/results/experts.js";
export {
  generate,
  generateBatch,
  type GeneratedToken,
  type GenerateSettings,
  type RoutedLayerChoice,
  type RoutedToken,
} from "./evals/generate.js";
export { startDecoding, type Decoding, type DecodingOptions, type ReadTokens, type Timings } from "./evals/decoding.js";
export { slidingPerplexity, type Perplexity, type PerplexitySettings } from "./evals/perplexity.js";
export { readInputIds, writeLogits, type InputIds } from "./evals/forward.js";
export { localModel, type AnsweringModel, type OpeningModel } from "./evals/scoring/model.js";
export type { ClientSettings } from "./evals/scoring/server-client.js";
export { serverAddress, serverModel, type ServerAddress, type ServerSettings } from "./evals/scoring/server.js";
export { DataReader, type DataSettings } from "./evals/suite/data.js";
export {
  evaluateModel,
  prepareTasks,
  type EvaluationEvent,
  type EvaluationSettings,
  type ModelOutcome,
  type PreparedTask,
} from "./evals/suite/evaluate.js";
export { differencesOf, type TaskDifferences } from "./evals/suite/differences.js";
export { readTasks, type TaskRequest } from "./evals/suite/task-files.js";
export { onnxruntimeBackend } from "./engine/onnxruntime/backend.js";
export { referenceBackend } from "./engine/interpreter/backend.js";
export type {
  AdamW,
  Backend,
  BackendOptions,
  ForwardRuntime,
  LossMetrics,
  MicroBatch,
  StateKind,
  StepMetrics,
  TrainRuntime,
} from "./engine/runtime/runtime.js";

// The graph: build, verify, print, differentiate, evaluate as a reference, lower to ONNX.
export { GraphBuilder } from "./graph/ir/builder.js";
export { print, prune, verify } from "./graph/ir/passes.js";
export type { Graph, Node, Prim, PrimAttrs, Value, ValueId, ValueType } from "./graph/ir/ir.js";
export { evaluate } from "./graph/ir/reference.js";
export type { Tensor } from "./graph/ir/reference-values.js";
export { backward } from "./graph/grad/backward.js";
export { lower, type LowerOptions, type OnnxProgram } from "./graph/onnx/lower.js";
export { buildDecoder, type Decoder } from "./graph/nn/decoder.js";
export {
  logitsProgram,
  lossProgram,
  trainProgram,
  type LogitsProgram,
  type LossProgram,
  type TrainProgram,
} from "./graph/programs/programs.js";

// Scaling laws: the catalogue, published coefficients, fits from files.
export { lawById, laws } from "./laws/fitting/catalogue.js";
export { published, publishedById } from "./laws/forms/published.js";
export { fitLaw } from "./laws/fitting/fit.js";
export { runFit } from "./laws/points/fit.js";
export type { Law, Points } from "./laws/forms/types.js";
