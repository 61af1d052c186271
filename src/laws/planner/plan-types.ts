/** What a plan is asked and what it answers, as plain data: `plan.ts` computes it. */
import type { ForwardFlops } from "../../model/cost/flops.js";
import type { ParamCount } from "../../model/cost/params.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { RecipeShape } from "../../surgery/planning/recipe.js";
import type { ArmId, PlanBudget } from "./arms.js";
import type { Coefficients, Curves } from "./coefficients.js";
import type { CatchUp } from "./crossing.js";
import type { Gpu } from "./hardware.js";
import type { LayoutResult, Precision, SpeedModel } from "./layout-types.js";
import type { Optimum } from "./optimum.js";
import type { Advice } from "./training.js";
import type { BacktestRow } from "./backtest.js";
import type { Calibration } from "./calibration.js";
import type { Answer, Interval } from "./verdict.js";

/** Everything a plan depends on. */
export interface PlanRequest {
  readonly name: string;
  readonly spec: DecoderSpec;
  /** N of the laws: parameters of the dense model, embeddings included. Null: those of `spec`. */
  readonly size: number | null;
  /** D1: tokens the dense model has seen. */
  readonly seen: number;
  readonly recipes: readonly RecipeShape[];
  readonly budget: PlanBudget;
  readonly gpu: Gpu;
  /** Of the GPU's price and the budget's money, for people. */
  readonly currency: string;
  readonly gpus: number;
  readonly sequence: number;
  /** Tokens per optimizer step; null: chosen. */
  readonly batchTokens: number | null;
  readonly speed: SpeedModel;
  /** Number format of the blocks' matrix products: `bf16` where nothing is said. */
  readonly precision?: Precision;
  /** Measured share of peak, model FLOPs, of dense models and of MoEs; replaces the speed model. */
  readonly mfu: { readonly dense: number | null; readonly moe: number | null };
  readonly coefficients: Coefficients;
  readonly parentPeak: number | null;
  readonly draws: number;
  readonly seed: number;
  /** Confidence of intervals. */
  readonly level: number;
}

/** A model that is trained: the parent as it is, or an MoE made of it. */
export interface ModelPlan {
  /** `dense`, the name of a recipe, `MoE` for a parent that is one already, or `experts x2`. */
  readonly name: string;
  readonly recipe: RecipeShape | null;
  readonly params: ParamCount;
  readonly flops: ForwardFlops;
  readonly placing: LayoutResult;
  /** Fewest GPUs of this kind on which it fits, where it does not fit on those given. */
  readonly needs: number | null;
  readonly tokensPerSecond: number | null;
  readonly mfu: number | null;
  /**
   * What more tokens a step would bring where filling the pipeline takes much of a step: their number, and the time of
   * a token over that of now; null elsewhere.
   */
  readonly largerBatch: { readonly tokens: number; readonly time: number } | null;
}

/** What one arm reaches and costs under the budget. */
export interface ArmPlan {
  readonly id: ArmId;
  /** What it is called: `upcycled E8G1T2`. */
  readonly label: string;
  /** Recipe of the MoE; null for the parent trained on. */
  readonly recipe: string | null;
  /** D2: further tokens that the budget pays for; null: does not fit, and the budget is not in tokens. */
  readonly tokens: number | null;
  readonly loss: number | null;
  /**
   * The laws were fitted on another recipe, or on one that is not known: the loss says nothing about this recipe's own.
   */
  readonly otherRecipe: boolean;
  readonly interval: Interval | null;
  /** The law's own value where the parent's stands instead. */
  readonly unclamped: number | null;
  readonly seconds: number | null;
  /** Of the seconds, from how published runs stand to the speed model; null where the MFU was measured. */
  readonly secondsInterval: Interval | null;
  readonly gpuHours: number | null;
  readonly money: number | null;
  /** FLOP for all its tokens, forward and backward. */
  readonly compute: number | null;
}

/** D* and the compute-optimal split of one recipe's MoE. */
export interface RecipePlan {
  readonly name: string;
  /** FLOPs per token over the dense model's: r. */
  readonly ratio: number;
  readonly sunk: CatchUp;
  /** Interval of the sunk crossing over the draws that have one, and the share of draws that have. */
  readonly sunkInterval: (Interval & { readonly share: number }) | null;
  /** Scratch gets D1 + D2 tokens, and D1 / r + D2 tokens. */
  readonly chargedTokens: CatchUp;
  readonly chargedFlops: CatchUp;
  readonly optimum: Optimum | null;
}

/** Everything that a plan computes before its notes and its sensitivity, which are drawn from it. */
export interface PlanResults {
  readonly name: string;
  readonly size: number;
  readonly seen: number;
  readonly gpu: Gpu;
  readonly currency: string;
  readonly gpus: number;
  readonly sequence: number;
  readonly batchTokens: number;
  readonly precision: Precision;
  readonly budget: PlanBudget;
  readonly coefficients: Pick<Coefficients, "name" | "source" | "published" | "recipe" | "ranges" | "arms"> & {
    readonly uncertainty: Coefficients["uncertainty"]["kind"];
  };
  readonly level: number;
  readonly draws: number;
  /** Loss of the dense model as it is; null for a parent that is an MoE, of which the laws say nothing. */
  readonly parentLoss: number | null;
  /** The parent is an MoE already: it is laid out and costed, and the laws are not asked. */
  readonly moeParent: boolean;
  /** How the speed model's times are brought to those of published runs. */
  readonly calibration: Calibration;
  /** Which use of the budget gets furthest; null where an arm does not fit, or the laws do not apply. */
  readonly answer: Answer | null;
  /** Published comparisons beside what is said here about each. */
  readonly backtest: readonly BacktestRow[];
  readonly models: readonly ModelPlan[];
  readonly arms: readonly ArmPlan[];
  /** The recipe that the laws are about, or else the first one: the one that the answer is about. */
  readonly main: string | null;
  /** Which arm has the lowest loss among the dense one and those of the main recipe, and in which share of draws. */
  readonly best: { readonly arm: number; readonly share: number | null } | null;
  readonly recipes: readonly RecipePlan[];
  /** D2 below which the upcycled law says worse than the parent. */
  readonly validFrom: number | null;
  /** First D2 at which upcycling is ahead of training the dense model on, at equal tokens. */
  readonly aheadOfDense: number | null;
  /** Were nothing trained yet: best share of dense tokens in D1 + D2, and an MoE from scratch on all. */
  readonly split: {
    readonly total: number;
    readonly share: number;
    readonly loss: number;
    readonly scratch: number;
  } | null;
  readonly advice: readonly Advice[];
}

/** What the parts of one plan are computed from. */
export interface PlanContext {
  readonly request: PlanRequest;
  readonly size: number;
  readonly curves: Curves;
  readonly draws: readonly Curves[];
  readonly models: readonly ModelPlan[];
}
