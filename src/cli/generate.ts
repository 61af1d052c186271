/** `upcycle generate`: texts that follow prompts. */
import { Command } from "commander";
import { at } from "../base/at.js";
import { inputError, interruptedError } from "../base/errors.js";
import { rate } from "../base/format.js";
import { modelFolderOf } from "../files/checkpoint/model-source.js";
import type { Timings } from "../evals/decoding.js";
import { generateBatch } from "../evals/generate.js";
import { openModel, type TextModel } from "../evals/model.js";
import { inputName } from "../files/io/streams.js";
import { openTokenizer, type TextTokenizer } from "../text/tokenizer/load.js";
import { textStream, type TextStream } from "../text/tokenizer/stream.js";
import { warnOfDamage } from "./damage.js";
import { openContext, type CommandContext } from "./context.js";
import { chosenBackend, withPrecision, type PrecisionFlags } from "./device.js";
import { inputText, orStandardInput } from "./input.js";
import { modelSource, orAdapted } from "./model-folder.js";
import {
  collect,
  defaultThreads,
  realNumber,
  wholeNumber,
  withExample,
  withJson,
  withThreads,
  type CommonFlags,
} from "./options.js";

interface GenerateFlags extends CommonFlags, PrecisionFlags {
  readonly prompt?: readonly string[];
  readonly promptFile?: string;
  readonly prompts?: string;
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed: number;
}

/** The command with its options and its help. */
export function generateCommand(): Command {
  const command = new Command("generate")
    .description("let a model go on from a prompt, or from several at once")
    .argument("<model>", `model folder with a tokenizer.json, ${orAdapted}`)
    .option("--prompt <text>", "text to go on from; give it several times to go on from several texts at once", collect)
    .option("--prompt-file <file>", `file that is one prompt, but for a line end at its end; ${orStandardInput}`)
    .option("--prompts <file>", `file with one prompt per line; ${orStandardInput}`)
    .option("--max-new-tokens <n>", "stop after this many tokens", wholeNumber("--max-new-tokens", 1), 100)
    .option(
      "--temperature <t>",
      "0 takes the likeliest token, 1 is the model's own distribution",
      realNumber("--temperature", 0),
      0.8,
    )
    .option("--top-k <n>", "choose among the n likeliest tokens", wholeNumber("--top-k", 1))
    .option("--top-p <p>", "choose among the fewest tokens of total probability p", realNumber("--top-p", 0, 1))
    .option("--seed <n>", "of the choices", wholeNumber("--seed", 0), 0)
    .action(execute);
  return withExample(
    withJson(withThreads(withPrecision(command))),
    'upcycle generate runs/small/last --prompt "The Congress of" --seed 1',
  );
}

async function execute(name: string, flags: GenerateFlags): Promise<void> {
  const prompts = await promptsOf(flags);
  const source = await modelSource(name, flags.json);
  const context = openContext({ json: flags.json, stopping: "" });
  // The tokenizer's process starts while the model is opened. Where it fails, `await opening` throws.
  const opening = openTokenizer(modelFolderOf(source), { signal: context.signal });
  opening.catch(() => undefined);
  try {
    const backend = await chosenBackend(flags.device, context.terminal, flags.precision);
    const model = await openModel(source, backend, flags.threads ?? defaultThreads());
    warnOfDamage(context.terminal, model);
    try {
      await continueTexts(model, await opening, prompts, flags, context);
    } finally {
      await model.close();
    }
  } finally {
    await opening.then(
      (tokenizer) => tokenizer.close(),
      () => undefined,
    );
  }
}

async function promptsOf({ prompt = [], promptFile, prompts, json }: GenerateFlags): Promise<readonly string[]> {
  const sources = { "--prompt": prompt[0], "--prompt-file": promptFile, "--prompts": prompts };
  const options = Object.entries(sources).flatMap(([name, text]) => (text === undefined ? [] : [name]));
  if (options.length > 1) {
    throw inputError("prompts are given twice", { where: options.join(", "), hint: "leave all but one of them out" });
  }
  if (options.length === 0) {
    const hint = `give --prompt TEXT, --prompt-file FILE (${orStandardInput}), or --prompts FILE with one per line`;
    throw inputError("no prompt is given", { where: "--prompt", hint });
  }
  if (promptFile !== undefined) {
    const text = (await inputText(promptFile, json)).replace(/\r?\n$/, "");
    if (text === "") throw inputError("there is no prompt: the text is empty", { where: inputName(promptFile) });
    return [text];
  }
  if (prompts === undefined) return prompt;
  const lines = (await inputText(prompts, json)).split(/\r?\n/).filter((line) => line !== "");
  if (lines.length === 0) {
    throw inputError("the file has no prompts", { where: inputName(prompts), hint: "write one per line" });
  }
  return lines;
}

/** A prompt and the text that follows it. */
interface GrowingText {
  readonly prompt: string;
  readonly ids: Int32Array;
  readonly stream: TextStream;
  text: string;
  tokens: number;
}

/** One prompt and its text go to stdout as they come. Several texts, and JSON, are shown at the end. */
async function continueTexts(
  model: TextModel,
  tokenizer: TextTokenizer,
  prompts: readonly string[],
  flags: GenerateFlags,
  context: CommandContext,
): Promise<void> {
  const { terminal, json, signal } = context;
  const texts = await Promise.all(prompts.map((prompt) => beginText(tokenizer, prompt)));
  const stop = [...model.spec.tokens.eos, ...(tokenizer.eosId === undefined ? [] : [tokenizer.eosId])];
  const start = performance.now();
  const timings = await growTexts(model, texts, { ...flags, stop }, context);
  const tokens = tokensOf(texts);
  const areShown = isStreamed(texts, context);
  if (!areShown && !json) for (const { prompt, text } of texts) terminal.write(`${prompt}${text}\n\n`);
  if (signal.aborted) throw interruptedError(`stopped after ${tokens} tokens`);
  const speeds = speedsOf(timings, tokens, performance.now() - start);
  if (json) return terminal.json(summary(texts, speeds));
  const { tokensPerSecond, promptTokensPerSecond } = speeds;
  const promptWords = promptTokensPerSecond === null ? "" : `, prompt read at ${rate(promptTokensPerSecond)}`;
  terminal.note(`${tokens} tokens, ${rate(tokensPerSecond)}${promptWords}`);
}

async function beginText(tokenizer: TextTokenizer, prompt: string): Promise<GrowingText> {
  const ids = await tokenizer.encode(prompt, { addSpecialTokens: true });
  return { prompt, ids, stream: textStream(tokenizer, ids), text: "", tokens: 0 };
}

/** Whether a text is shown while it grows. */
const isStreamed = (texts: readonly GrowingText[], { json }: CommandContext): boolean => !json && texts.length === 1;

const tokensOf = (texts: readonly GrowingText[]): number => texts.reduce((sum, { tokens }) => sum + tokens, 0);

/** Adds tokens to the texts until each has ended, and returns the engine's timings, if it has counted any. */
async function growTexts(
  model: TextModel,
  texts: readonly GrowingText[],
  { maxNewTokens, temperature, topK, topP, seed, stop }: GenerateFlags & { readonly stop: readonly number[] },
  context: CommandContext,
): Promise<Timings | undefined> {
  const { terminal, json, signal } = context;
  const streamed = isStreamed(texts, context);
  let timings: Timings | undefined;
  const onTimings = (latest: Timings): void => void (timings = latest);
  const add = (text: GrowingText, piece: string): void => {
    text.text += piece;
    if (streamed && piece !== "") terminal.write(piece);
  };
  const prompts = texts.map(({ ids }) => ids);
  if (streamed) terminal.write(at(texts, 0).prompt);
  try {
    const settings = { maxNewTokens, temperature, topK, topP, seed, stop, signal, onTimings };
    for await (const { row, id } of generateBatch(model, prompts, settings)) {
      const text = at(texts, row);
      text.tokens += 1;
      add(text, await text.stream.push(id));
      if (!streamed && !json) terminal.progress(`${tokensOf(texts)} tokens in ${texts.length} texts`);
    }
    for (const text of texts) add(text, await text.stream.end());
  } finally {
    // Whatever happened, an error or the shell's next prompt begins on a line of its own.
    if (streamed) terminal.write("\n");
  }
  return timings;
}

interface Speeds {
  readonly tokensPerSecond: number;
  readonly promptTokensPerSecond: number | null;
}

/** The keys of `--json`, for one text or for several. */
function summary(texts: readonly GrowingText[], speeds: Speeds): Record<string, unknown> {
  const results = texts.map(({ prompt, text, tokens }) => ({ prompt, text, tokens }));
  return results.length === 1 ? { ...results[0], ...speeds } : { texts: results, tokens: tokensOf(texts), ...speeds };
}

/** Where the engine has counted, compiling is left out; a text of one token is all prompt. */
function speedsOf(timings: Timings | undefined, tokens: number, ms: number): Speeds {
  if (timings === undefined) return { tokensPerSecond: (tokens / ms) * 1000, promptTokensPerSecond: null };
  const { promptTokens, promptMs, newTokens, newMs } = timings;
  return {
    tokensPerSecond: newTokens > 0 ? (newTokens / newMs) * 1000 : (tokens / ms) * 1000,
    promptTokensPerSecond: (promptTokens / promptMs) * 1000,
  };
}
