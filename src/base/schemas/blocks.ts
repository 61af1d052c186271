/** The blocks that study and train files share. Descriptions go into the JSON Schema, so editors show them. */
import { z } from "zod";

const positiveInt = z.int().min(1);
/** Ten times as many as the deepest networks that were trained; each takes some thirty nodes of the graph. */
const mostLayers = 1000;
/** Some ten times the sizes of the largest models that were trained. */
const [mostHidden, mostFfnDim, mostHeads] = [2 ** 18, 2 ** 20, 2 ** 14];
/** The largest number of positions that programs read from config.json: an int32. */
const mostPositions = 2 ** 31 - 1;

/** Names of the texts that come with the toolkit. */
export const builtinTexts = ["sotu", "moby-dick"] as const;

const heldOutSchema = z
  .number()
  .gt(0)
  .max(0.5)
  .default(0.05)
  .describe("Fraction of the documents that is never trained on; losses are measured there.");

const fieldSchema = z
  .string()
  .min(1)
  .default("text")
  .describe("Which field of a .jsonl line, or column of a .parquet file, holds the text.");

const textShape = {
  builtin: z
    .array(z.enum(builtinTexts))
    .min(1)
    .optional()
    .describe("Texts that come with the toolkit: sotu (State of the Union addresses 1790-2021), moby-dick."),
  files: z
    .array(z.string().min(1))
    .min(1)
    .optional()
    .describe(
      "Your own text: .txt, .jsonl, .jsonl.gz or .parquet files, or folders of such; a .txt file is one document.",
    ),
  field: fieldSchema,
  heldOut: heldOutSchema,
};

/** The text of a study. */
export const textSchema = z
  .strictObject(textShape)
  .superRefine(({ builtin, files }, context) => {
    if (builtin === undefined && files === undefined) {
      context.addIssue({ code: "custom", path: [], message: 'text names no source: give "builtin" or "files"' });
    }
  })
  .describe("What is trained and evaluated on.");

const mixPartSchema = z
  .strictObject({
    name: z
      .string()
      .min(1)
      .max(60)
      .optional()
      .describe("In logs; the file's name if left out. Also names the random order, so a moved file keeps it."),
    weight: z.number().gt(0).max(1e12).describe("Share of the trained sequences, relative to the other parts."),
    builtin: z.enum(builtinTexts).optional().describe("A text that comes with the toolkit."),
    path: z
      .string()
      .min(1)
      .optional()
      .describe(
        "Text (.txt, .jsonl, .jsonl.gz, .parquet, or a folder of such), or tokens that Megatron-LM prepared " +
          "(.bin with its .idx).",
      ),
    field: fieldSchema,
    heldOut: z.number().gt(0).max(0.5).optional().describe("In place of the common fraction."),
  })
  .superRefine(({ builtin, path }, context) => {
    if ((builtin === undefined) === (path === undefined)) {
      context.addIssue({
        code: "custom",
        path: [],
        message: 'a part of the data mix has one source: give either "path" or "builtin"',
      });
    }
  });

/** The text of a train file: one stream, or a data mix. */
export const trainTextSchema = z
  .strictObject({
    ...textShape,
    mix: z
      .array(mixPartSchema)
      .min(1)
      .optional()
      .describe("Several texts with weights, in place of builtin and files."),
  })
  .superRefine(({ builtin, files, mix }, context) => {
    const refuse = (path: string[], message: string): void => context.addIssue({ code: "custom", path, message });
    if (builtin === undefined && files === undefined && mix === undefined)
      refuse([], 'text names no source: give "builtin", "files" or "mix"');
    if (mix !== undefined && (builtin !== undefined || files !== undefined))
      refuse(["mix"], '"mix" stands alone; name the other texts as parts of it');
  })
  .describe("What is trained and evaluated on.");

/** The tokenizer that a new model gets. */
export const tokenizerSchema = z
  .strictObject({
    vocab: z
      .int()
      .min(260)
      .max(1_000_000)
      .describe("Size of the vocabulary to learn, at least the 256 bytes and 4 special tokens."),
  })
  .describe("A byte-pair tokenizer learnt from the training text; a model folder brings its own.");

/** The shape of a new model. */
export const modelSchema = z
  .strictObject({
    // Not qwen2: transformers opens its own tokenizer class for that family, whatever tokenizer.json says.
    family: z.enum(["llama", "qwen3"]).default("llama").describe("Hugging Face family of the new dense model."),
    hidden: positiveInt.max(mostHidden).describe("Width of the residual stream."),
    layers: positiveInt.max(mostLayers).describe("Number of blocks."),
    heads: positiveInt.max(mostHeads).describe("Query heads."),
    kvHeads: positiveInt.max(mostHeads).optional().describe("Key and value heads; as many as heads if left out."),
    inner: positiveInt.max(mostFfnDim).describe("FFN hidden size; the recipe's G must divide it."),
    headDim: positiveInt.max(mostHidden).optional().describe("Size of one head; hidden / heads if left out."),
    tiedHead: z.boolean().default(true).describe("Use the embedding matrix as output head."),
    ropeTheta: z.number().gt(0).default(10000).describe("Base of the rotary frequencies."),
    normEps: z.number().gt(0).max(0.1).default(1e-5).describe("Epsilon of the RMS norms."),
    maxPositions: positiveInt
      .max(mostPositions)
      .default(2048)
      .describe("Longest sequence that the model is meant for."),
    initStd: z.number().gt(0).max(1).default(0.02).describe("Standard deviation of fresh weights."),
  })
  .superRefine(({ hidden, heads, kvHeads = heads, headDim }, context) => {
    const refuse = (key: string, message: string): void => context.addIssue({ code: "custom", path: [key], message });
    if (heads % kvHeads !== 0) refuse("kvHeads", `kvHeads ${kvHeads} does not divide heads ${heads}`);
    const size = headDim ?? hidden / heads;
    if (!Number.isInteger(size)) refuse("heads", `heads ${heads} does not divide hidden ${hidden}; set headDim`);
    else if (size % 2 !== 0) refuse("heads", `the size of a head is ${size}, rotary positions need an even one`);
  })
  .describe("A new dense model, trained from scratch.");

/** How much text held-out losses are measured on. */
export const evaluationSchema = z
  .strictObject({
    tokens: positiveInt
      .default(20_000)
      .describe("Held-out tokens per measurement, always the same ones; all of them if there are fewer."),
  })
  .describe("How the held-out loss is measured; how often is evalEvery of the training block.");

/** The number of threads that a file asks for. */
export const threadsSchema = positiveInt.max(1024).optional().describe("Threads of the engine; all cores if left out.");

/** The text of a study, checked; see `textSchema`. */
export type TextConfig = z.infer<typeof textSchema>;
/** The text of a train file, checked; see `trainTextSchema`. */
export type TrainTextConfig = z.infer<typeof trainTextSchema>;
/** One part of a data mix: a text and its weight. */
export type MixPartConfig = z.infer<typeof mixPartSchema>;
/** The tokenizer that a new model gets, checked; see `tokenizerSchema`. */
export type TokenizerConfig = z.infer<typeof tokenizerSchema>;
/** The shape of a new dense model as study and train files describe it, checked; sizes are numbers of elements. */
export type ModelConfig = z.infer<typeof modelSchema>;
