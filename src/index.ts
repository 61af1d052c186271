/**
 * Upcycle as a library: everything the command line does, typed. Turns a dense model folder into a mixture of experts and measures it:
 *
 * ```js
 * import { compareModels, convertCheckpoint, onnxruntimeBackend, openModel, upcycleRecipe } from "upcycle";
 * await convertCheckpoint({ source: "dense", recipe: upcycleRecipe("E8G1T2"), out: "moe" });
 * const models = await Promise.all(["dense", "moe"].map((dir) => openModel(dir, onnxruntimeBackend, 1)));
 * const { maxAbsLogitDiff } = await compareModels(models[0], models[1], Int32Array.of(1, 2, 3, 4), { sequence: 3, limitTokens: 3 });
 * console.log(maxAbsLogitDiff);
 * await Promise.all(models.map((model) => model.close()));
 * ```
 *
 * Failures that a caller can cause are `UpcycleError`s; paths are relative to the working folder; nothing is written to the console.
 */

// Errors.
export { UpcycleError, exitCodes, type Failure, type FailureKind } from "./base/errors.js";

// What a decoder is: the description that everything else interprets.
export { configFromSpec, specFromConfig, stringifyConfig, type ConfigDtype } from "./spec/config.js";
export {
  families, isMoe, type AttentionSpec, type DecoderSpec, type DenseFfn, type Family, type Ffn, type LayerSpec, type MoeFfn, type Rope,
  type RopeScaling, type RouterOrder, type SpecialTokens,
} from "./spec/types.js";
export { slotsOf, type Slot, type SlotAt, type SlotPart } from "./tensors/slots.js";
export { namedSlots, tensorNames, type NamedSlot } from "./tensors/names.js";

// What it costs.
export { forwardFlopsPerToken, trainFlopsPerToken } from "./cost/flops.js";
export { countParams, type ParamCount } from "./cost/params.js";

// Model folders.
export { openCheckpoint, type Adapter, type Checkpoint, type ModelSource, type StoredTensor } from "./checkpoint/open.js";
export {
  writeCheckpoint, type TensorValue, type Weights, type WriteDtype, type WriteOptions, type WriteProgress, type WrittenCheckpoint,
} from "./checkpoint/write.js";
export { inspectModel, type AdapterSummary, type LayerGroup, type ModelFacts } from "./convert/inspect.js";
export { openTokenizer, type EncodeSettings, type OpenSettings, type TextTokenizer } from "./tokenizer/load.js";
export { textStream, type TextStream } from "./tokenizer/stream.js";

// Models of the Hugging Face Hub, as folders of its cache.
export { fetchModel, type FetchOptions, type HubEvent } from "./hub/fetch.js";
export type { HubLimits } from "./hub/limits.js";
export { isHubReference } from "./hub/reference.js";
export { hubSettings, type HubSettings } from "./hub/settings.js";

// Upcycling: a recipe, a plan as data, a folder.
export {
  parseRecipeName, recipeName, upcycleRecipe, type Noise, type RecipeOptions, type Scaling, type TargetFamily, type UpcycleRecipe,
} from "./surgery/recipe.js";
export { planUpcycle, type PlannedTensor, type SurgeryPlan } from "./surgery/plan.js";
export type { ExpectedPreservation } from "./surgery/expectation.js";
export type { Factors } from "./surgery/scaling.js";
export type { Expr } from "./surgery/expr.js";
export { explainPlan } from "./surgery/explain.js";
export { mergekitPlan, type MergekitPlan } from "./surgery/mergekit.js";
export { parseMergekitConfig, type MergekitConfig } from "./config/index.js";
export { promptRouter, type PromptRouter, type PromptRouterOptions } from "./evals/prompt-router.js";
export { surveyRecipe, type Verdict as TargetVerdict } from "./surgery/survey.js";
export { servingOf, type Program, type Serving, type Support } from "./surgery/serving.js";
export {
  convertCheckpoint, planConversion, type Conversion, type ConversionPlan, type ConvertEvent, type ConvertOptions,
} from "./convert/convert.js";
export { mergeCheckpoint, planMerging, type MergeEvent, type MergeOptions, type Merged, type MergingPlan } from "./convert/merge.js";
export { multiplyExperts, planMultiplying, type Multiplied, type MultiplyEvent, type MultiplyingPlan, type MultiplyOptions } from "./convert/multiply.js";
export type { MultiplyPlan, MultiplyRecipe } from "./surgery/multiply.js";
export type { MergeChoice, MergePlan } from "./surgery/merge.js";
export { exportOnnx, type Exported, type ExportKind, type ExportOptions, type WeightPlace } from "./convert/export-onnx.js";
export { readRecord, recipeOf, type UpcycleRecord } from "./convert/record.js";
export { modelCard, type CardFacts } from "./convert/card.js";
export { trainedFiles } from "./convert/trained-card.js";
export { readParentCard, type ParentCard } from "./convert/parent-card.js";
export { diffCheckpoints, type CheckpointDiff, type ConfigDiff, type DiffOptions, type Difference, type TensorDiff } from "./convert/diff.js";

// Training and studies: async generators of events, each folder goes on where it was stopped.
export {
  jsonSchema, parseStudyConfig, parseTrainConfig, studySchema, trainSchema, type ModelConfig, type StudyConfig, type TextConfig, type TrainConfig,
  type TrainingBlock,
} from "./config/index.js";
export { trainRun, type RunOptions, type RunResult, type TrainEvent } from "./train/run.js";
export { trainFromConfig, type TrainFileEvent, type TrainFileOptions, type TrainRequest } from "./train/from-config.js";
export { freshTensor, newModelSpec } from "./train/init.js";
export { readMetrics, type EvalRecord, type RunMetrics, type StepRecord } from "./train/records.js";
export { runStudy, type StudyEvent, type StudyOptions, type StudyRequest } from "./study/run.js";
export { writeReport } from "./study/report.js";
export { renderHtml } from "./report/html.js";
export { terminalTable } from "./report/terminal.js";
export type { ArmResult, ArmRun, LossPoint, Preservation, StudyResult } from "./report/result.js";

// Plans: dense model, recipes, budget and hardware to predicted losses, cost and layout.
export { makePlan, type ArmPlan, type ModelPlan, type Plan, type PlanRequest } from "./plan/plan.js";
export { fittedCoefficients, publishedCoefficients, type Coefficients } from "./plan/coefficients.js";
export { gpuOf, type Gpu } from "./plan/hardware.js";
export { mixtureOf, presets, shapeOfSize, shapeSpec } from "./plan/shape.js";
export { defaultSpeed } from "./plan/speed.js";

// Running models.
export { openModel, type RunnableModel, type TextModel } from "./evals/model.js";
export { compareModels, meanLoss } from "./evals/compare.js";
export { measurePreservation, type PreservationEvent, type PreservationOptions } from "./evals/preservation.js";
export type { Comparison, LayerError, PreservationReport, Verdict } from "./report/preservation.js";
export { generate, generateBatch, type GeneratedToken, type GenerateSettings } from "./evals/generate.js";
export { startDecoding, type Decoding, type Timings } from "./evals/decoding.js";
export { slidingPerplexity, type Perplexity, type PerplexitySettings } from "./evals/perplexity.js";
export { readInputIds, writeLogits, type InputIds } from "./evals/forward.js";
export { onnxruntimeBackend } from "./ort/backend.js";
export { referenceBackend } from "./reference/backend.js";
export type {
  AdamW, Backend, BackendOptions, ForwardRuntime, LossMetrics, MicroBatch, StateKind, StepMetrics, TrainRuntime,
} from "./step/runtime.js";

// The graph: build, verify, print, differentiate, evaluate as a reference, lower to ONNX.
export { GraphBuilder } from "./graph/builder.js";
export { print, prune, verify } from "./graph/passes.js";
export type { Graph, Node, Prim, PrimAttrs, Value, ValueId, ValueType } from "./graph/ir.js";
export { evaluate, type Tensor } from "./graph/reference.js";
export { backward } from "./grad/backward.js";
export { lower, type LowerOptions, type OnnxProgram } from "./onnx/lower.js";
export { buildDecoder, type Decoder } from "./net/decoder.js";
export { logitsProgram, lossProgram, trainProgram, type LogitsProgram, type LossProgram, type TrainProgram } from "./step/programs.js";

// Scaling laws: the catalogue, published coefficients, fits from files.
export { lawById, laws } from "./laws/catalogue.js";
export { published, publishedById } from "./laws/published.js";
export { fitLaw } from "./laws/fit.js";
export { runFit } from "./fit/fit.js";
export type { Law, Points } from "./laws/types.js";
