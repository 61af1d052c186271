/**
 * The training block: length, batch, learning rate, optimizer, parameter groups, budget. Descriptions go into the JSON
 * Schema.
 */
import { z } from "zod";
import { changesSchema } from "./changes.js";

const positiveInt = z.int().min(1);
const fraction = z.number().min(0).max(1);

const lrSchema = z
  .strictObject({
    peak: z.number().gt(0).max(10).describe("Highest learning rate."),
    schedule: z
      .enum(["constant", "linear", "cosine", "wsd"])
      .default("cosine")
      .describe(
        "After warm-up: stay, fall in a line, fall in a cosine, or stay and fall in the last `decay` steps (wsd).",
      ),
    warmup: z.int().min(0).default(0).describe("Steps from 0 to the peak."),
    final: fraction.default(0.1).describe("Learning rate at the end as a fraction of the peak."),
    decay: positiveInt.optional().describe("wsd only: steps of the final fall; a fifth of the steps if left out."),
    steps: positiveInt
      .optional()
      .describe(
        "Length of the schedule, if it is not that of the training; beyond it the rate stays at its last value.",
      ),
  })
  .describe("Learning rate.");

const optimizerSchema = z
  .strictObject({
    method: z
      .enum(["adamw", "muon"])
      .optional()
      .describe(
        "adamw if left out; muon: Muon for hidden matrices (attention, FFNs, each expert), AdamW for " +
          "embeddings, head, norms, biases and routers.",
      ),
    momentum: z.number().min(0).lt(1).optional().describe("muon only: decay of its momentum; 0.95 if left out."),
    nesterov: z.boolean().optional().describe("muon only: Nesterov momentum; true if left out."),
    muonScale: z
      .enum(["rms", "spectral"])
      .optional()
      .describe(
        "muon only. rms (if left out): updates as large as AdamW's, so that lr and weightDecay fit both. " +
          "spectral: the square root of max(1, rows / columns).",
      ),
    beta1: z.number().min(0).lt(1).default(0.9).describe("Decay of the first moment."),
    beta2: z.number().min(0).lt(1).default(0.95).describe("Decay of the second moment."),
    eps: z.number().gt(0).max(1).default(1e-8).describe("Added to the root of the second moment."),
    weightDecay: z
      .number()
      .min(0)
      .max(10)
      .default(0.1)
      .describe("Decoupled weight decay; norms and biases are left out."),
    clip: z.number().gt(0).max(1e9).default(1).describe("Largest global gradient norm."),
  })
  .superRefine(({ method, ...rest }, context) => {
    if (method === "muon") return;
    for (const key of ["momentum", "nesterov", "muonScale"] as const) {
      if (rest[key] !== undefined)
        context.addIssue({ code: "custom", path: [key], message: `${key} belongs to method muon; set method: muon` });
    }
  })
  .describe("AdamW, or Muon beside it.");

const guardSchema = z
  .strictObject({
    window: z
      .int()
      .min(8)
      .max(10_000)
      .default(100)
      .describe("Applied steps that the next one is compared with; the guard begins when there are as many."),
    deviations: z
      .number()
      .gt(0)
      .max(1000)
      .default(6)
      .describe(
        "A step is skipped whose loss or gradient norm is more than this many standard deviations above the mean.",
      ),
    patience: positiveInt.default(10).describe("Skipped steps in a row after which the run stops."),
  })
  .describe("Spike guard: skip steps that stand far out.");

const averageSchema = z
  .strictObject({
    decay: z.number().gt(0).lt(1).describe("Share of the average that stays at each step, such as 0.999."),
    evaluate: z
      .boolean()
      .default(false)
      .describe("Measure held-out losses with the averaged weights; best/ then holds them."),
  })
  .describe("Exponential moving average of the weights; at the end it lies in average/ as a model.");

const groupSchema = z.strictObject({
  lr: z.number().gt(0).max(1000).optional().describe("Factor on the learning rate; 1 if left out."),
  weightDecay: z
    .number()
    .min(0)
    .max(10)
    .optional()
    .describe("In place of the optimizer's weightDecay; norms and biases stay without."),
  freeze: z
    .boolean()
    .optional()
    .describe("Keep these weights as they are: no gradient is computed and no optimizer state kept."),
});

const groupsSchema = z
  .strictObject({
    router: groupSchema.optional().describe("Router weights, also the gate of a shared expert."),
    experts: groupSchema.optional().describe("Weights of the routed experts."),
    rest: groupSchema
      .optional()
      .describe("Everything else: embeddings, attention, norms, dense FFNs, shared experts, head."),
  })
  .describe("Settings of parts of the model; a part that the model does not have is passed over.");

const freezeSchema = z
  .array(
    z
      .string()
      .regex(/^[A-Za-z0-9.*]+$/)
      .describe("Letters, digits, dots and stars."),
  )
  .min(1)
  .describe(
    'Parameters to keep as they are, by name with stars: "embed", "layers.0.*", "layers.*.q", "layers.*.experts.3.*".',
  );

const routingSchema = z
  .strictObject({
    balance: z
      .enum(["model", "layer", "sequence", "global", "running"])
      .optional()
      .describe(
        "What auxLoss is taken over. Layer by layer, added, 1 where balanced: over a micro-batch (layer, if left " +
          ("out; Megatron's aux_loss), each sequence (seq_aux_loss), the whole step (global: exact, one more forward " +
            "pass), or the step's micro-batches so far (running: global_aux_loss). model: all layers together, as " +
            "transformers, which does not see a layer that uses a few experts alone."),
      ),
    bias: z
      .number()
      .gt(0)
      .max(1)
      .optional()
      .describe(
        "Balancing without a loss: after each step the bias of an expert moves by this much, up if it was " +
          "chosen too rarely (DeepSeek-V3; 0.001 there). For routers with a correction bias.",
      ),
    sinkhorn: z
      .boolean()
      .optional()
      .describe(
        "Choose experts by Sinkhorn's balanced matrix in training; evaluation chooses the best scores. " +
          "With auxLoss: 0.",
      ),
    capacity: z
      .strictObject({
        factor: z
          .number()
          .gt(0)
          .max(1000)
          .describe("An expert takes at most factor times its equal share of a micro-batch's choices, rounded up."),
        drop: z
          .enum(["probs", "position"])
          .default("probs")
          .describe("Which choices go: those with the lowest weight, or those that come last."),
      })
      .optional()
      .describe("Token dropping in training; evaluation drops nothing. Dropless if left out."),
    jitter: z
      .number()
      .gt(0)
      .lt(1)
      .optional()
      .describe("Multiply the routers' inputs by numbers uniform in [1 - jitter, 1 + jitter] in training."),
  })
  .describe("Routing of MoE models in training: balancing, capacity, noise.");

const trainingShape = {
  batch: positiveInt.describe("Sequences per micro-batch."),
  sequence: z.int().min(2).max(1_000_000).describe("Tokens per sequence."),
  accumulate: positiveInt
    .max(65_536)
    .default(1)
    .describe("Micro-batches per step; tokens per step = batch * sequence * accumulate."),
  lr: lrSchema,
  optimizer: optimizerSchema.prefault({}),
  groups: groupsSchema.optional(),
  freeze: freezeSchema.optional(),
  guard: guardSchema.optional(),
  average: averageSchema.optional(),
  checkpoints: z
    .enum(["float32", "bfloat16"])
    .optional()
    .describe(
      "Precision of the saved models; float32 if left out. Training and resuming are in float32 either way: " +
        "with bfloat16 the weights lie beside the moments.",
    ),
  recompute: z
    .enum(["none", "norms", "layer"])
    .optional()
    .describe(
      "What the backward pass makes again instead of keeping it: nothing (if left out), norms and activations, or " +
        "all of a layer but its input. It saves memory and changes no number.",
    ),
  resetAttention: z
    .boolean()
    .optional()
    .describe(
      "Documents that share a sequence do not see each other, and positions count from each document's start; " +
        "false if left out. Documents end with the tokenizer's end-of-text token.",
    ),
  auxLoss: z
    .number()
    .min(0)
    .max(100)
    .default(0.01)
    .describe("Coefficient of the load-balancing loss, see routing.balance; 0 for none; no effect on dense models."),
  zLoss: z.number().min(0).max(100).default(0).describe("Coefficient of the router z-loss; no effect on dense models."),
  routing: routingSchema.optional(),
  evalEvery: positiveInt
    .default(50)
    .describe("Steps between measurements of the held-out loss; first and last step are always measured."),
  saveEvery: positiveInt
    .default(200)
    .describe("Steps between checkpoints that a stopped run resumes from; the last step is always saved."),
};

type Refuse = (path: string[], message: string) => void;

/** Refuses settings of routing that contradict each other. */
function checkRouting(
  { auxLoss, routing }: { readonly auxLoss: number; readonly routing?: RoutingConfig | undefined },
  refuse: Refuse,
): void {
  const { sinkhorn, bias, balance } = routing ?? {};
  if (sinkhorn === true && auxLoss !== 0)
    refuse(
      ["routing", "sinkhorn"],
      `Sinkhorn routing balances by itself and takes no load-balancing loss; set auxLoss: 0 (it is ${auxLoss})`,
    );
  if (sinkhorn === true && bias !== undefined)
    refuse(["routing", "bias"], "Sinkhorn routing balances by itself; remove bias or sinkhorn");
  if (balance !== undefined && auxLoss === 0)
    refuse(
      ["routing", "balance"],
      "balance says what the load-balancing loss is taken over, but auxLoss is 0; remove one of them",
    );
}

function checkDecay({ schedule, decay }: LearningRate, refuse: Refuse): void {
  if (decay !== undefined && schedule !== "wsd")
    refuse(["lr", "decay"], `decay belongs to schedule wsd, the schedule is ${schedule}`);
}

const stepsSchema = positiveInt.describe("Optimizer steps.");

/** The training block of a study file, whose length is given in steps. */
export const trainingSchema = z
  .strictObject({ steps: stepsSchema, ...trainingShape })
  .superRefine(({ steps, lr, ...rest }, context) => {
    const refuse: Refuse = (path, message) => context.addIssue({ code: "custom", path, message });
    checkDecay(lr, refuse);
    checkRouting(rest, refuse);
    const problem = scheduleProblem(lr, steps);
    if (problem !== null) refuse(["lr", problem.key], problem.message);
  });

const budgetSchema = z
  .strictObject({
    time: z
      .string()
      .regex(/^\d+(\.\d+)?[smhd]$/)
      .optional()
      .describe(
        "a number and s, m, h or d, such as 90m: time spent in steps after which the run ends in good order; " +
          "may be raised later.",
      ),
    tokens: positiveInt.optional().describe("Tokens to train on."),
    flops: z
      .number()
      .gt(0)
      .optional()
      .describe("Matrix FLOPs of forward and backward passes to spend, as upcycle inspect counts them."),
  })
  .describe("Where to stop besides steps. The smallest of steps, tokens and flops is the length of the schedule.");

/** The training block of a train file: as many steps as its budget allows. */
export const budgetedTrainingSchema = z
  .strictObject({
    steps: positiveInt.optional().describe("Optimizer steps; may be left out where the budget names tokens or flops."),
    budget: budgetSchema.optional(),
    ...trainingShape,
  })
  .superRefine(({ steps, budget, lr, ...rest }, context) => {
    const refuse: Refuse = (path, message) => context.addIssue({ code: "custom", path, message });
    checkDecay(lr, refuse);
    checkRouting(rest, refuse);
    if (steps === undefined && budget?.tokens === undefined && budget?.flops === undefined) {
      refuse([], 'the length of the training is missing: give "steps", or "tokens" or "flops" in "budget"');
    }
    const problem = steps === undefined ? null : scheduleProblem(lr, steps);
    if (problem !== null) refuse(["lr", problem.key], problem.message);
  });

/** Changes to the training block of a study file: any of its keys. */
export const trainingChangesSchema = changesSchema(z.strictObject({ steps: stepsSchema, ...trainingShape })).describe(
  "Any keys of a training block, in place of the common ones.",
);

/** Why a schedule does not fit into its steps, or null. */
export function scheduleProblem(
  { warmup, decay, steps: scheduleSteps }: LearningRate,
  trainingSteps: number,
): { readonly key: "warmup" | "decay"; readonly message: string } | null {
  const steps = scheduleSteps ?? trainingSteps;
  if (warmup > steps) return { key: "warmup", message: `warmup ${warmup} is longer than steps ${steps}` };
  if (decay !== undefined && warmup + decay > steps)
    return { key: "decay", message: `warmup ${warmup} and decay ${decay} are longer than steps ${steps}` };
  return null;
}

/** The learning-rate schedule of a training block. */
export type LearningRate = z.infer<typeof lrSchema>;
/** A training block whose number of steps is known, whether the file gave it or a budget was turned into it. */
export type TrainingBlock = z.infer<typeof trainingSchema> & { readonly budget?: Budget | undefined };
/** The training block of a train file, whose number of steps may still have to be found from its budget. */
export type BudgetedBlock = z.infer<typeof budgetedTrainingSchema>;
/** Where a training stops besides its steps: a time such as `90m`, tokens, matrix FLOPs. */
export type Budget = z.infer<typeof budgetSchema>;
/** Settings of the spike guard. */
export type GuardConfig = z.infer<typeof guardSchema>;
/** Settings of routing in training. */
export type RoutingConfig = z.infer<typeof routingSchema>;
/** Settings of the router, the experts and the rest of a model apart. */
export type ParameterGroups = z.infer<typeof groupsSchema>;
