/** The file of `upcycle train`: one model, one training. */
import { z } from "zod";
import { evaluationSchema, modelSchema, threadsSchema, tokenizerSchema, trainTextSchema } from "./blocks.js";
import { budgetedTrainingSchema } from "./training.js";
import { parseConfig } from "./validate.js";

/** Schema of a train file. `jsonSchema` makes the JSON Schema of it that editors read. */
export const trainSchema = z
  .strictObject({
    out: z.string().min(1).describe("Folder that the trained model is written to."),
    seed: z.int().min(0).max(1e9).default(0).describe("Of fresh weights and of the data order."),
    threads: threadsSchema,
    model: z
      .union([z.string().min(1), modelSchema])
      .describe(
        "Folder of a model in Hugging Face format (dense or mixture of experts) or hf://org/name[@revision], " +
          "+ADAPTER behind it for a LoRA adapter to merge in; or the shape of a new one.",
      ),
    tokenizer: tokenizerSchema.optional(),
    text: trainTextSchema,
    training: budgetedTrainingSchema.describe("Length, batch and learning rate."),
    evaluation: evaluationSchema.prefault({}),
  })
  .superRefine(({ model, tokenizer, training }, context) => {
    const refuse = (path: string[], message: string): void => context.addIssue({ code: "custom", path, message });
    if (typeof model === "string") {
      if (tokenizer !== undefined) refuse(["tokenizer"], "a model folder brings its own tokenizer; remove this block");
      return;
    }
    if (tokenizer === undefined) refuse([], '"tokenizer" is missing: a new model needs it');
    if (training.sequence > model.maxPositions) {
      refuse(
        ["training", "sequence"],
        `sequence ${training.sequence} is longer than the model's maxPositions ${model.maxPositions}`,
      );
    }
  });

/** A train file, checked, with its defaults filled in. */
export type TrainConfig = z.infer<typeof trainSchema>;

/**
 * Reads the text of a train file; `file` is its name in errors. Throws inputError with one line for each problem, which
 * names file, line and key.
 */
export function parseTrainConfig(text: string, file: string): TrainConfig {
  return parseConfig(trainSchema, text, file);
}
