/** `upcycle generate`: texts that follow prompts. */
import { Command } from "commander";
import { at } from "../base/at.js";
import { inputError, interruptedError } from "../base/errors.js";
import { rate } from "../base/format.js";
import { modelFolderOf } from "../files/checkpoint/model-source.js";
import type { Timings } from "../evals/decoding.js";
import { generateBatch, type GeneratedToken, type RoutedLayerChoice, type RoutedToken } from "../evals/generate.js";
import { requireMemory } from "../evals/memory.js";
import { openModel, type TextModel } from "../evals/model.js";
import { inputName } from "../files/io/streams.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { openTokenizer, type TextTokenizer } from "../text/tokenizer/load.js";
import { textStream, type TextStream } from "../text/tokenizer/stream.js";
import { warnOfDamage } from "./damage.js";
import { openContext, type CommandContext } from "./context.js";
import { chosenBackend, withPrecision, type PrecisionFlags } from "./device.js";
import { inputText, orStandardInput } from "./input.js";
import { decoderOf } from "./decoder-of.js";
import { modelSource, orAdapted, shownModel } from "./model-folder.js";
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
  readonly experts?: boolean;
  readonly alternatives?: number;
  readonly stream?: boolean;
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
    .option("--experts", "with --json: the experts that each token is given to, layer by layer, with their weights")
    .option(
      "--alternatives <n>",
      "with --json: the log-probability of each token, and the n likeliest ones in its place",
      wholeNumber("--alternatives", 0, mostAlternatives),
    )
    .option("--stream", "with --json: a line for each token as it comes, and one at the end")
    .action(execute);
  return withExample(
    withJson(withThreads(withPrecision(command))),
    'upcycle generate runs/small/last --prompt "The Congress of" --seed 1',
  );
}

async function execute(name: string, flags: GenerateFlags): Promise<void> {
  requireJson(flags);
  const prompts = await promptsOf(flags);
  const source = await modelSource(name, flags.json);
  const context = openContext({ json: flags.json, stopping: "" });
  // The tokenizer's process starts while the model is opened. Where it fails, `await opening` throws.
  const opening = openTokenizer(modelFolderOf(source), { signal: context.signal });
  opening.catch(() => undefined);
  try {
    const backend = await chosenBackend(flags.device, context.terminal, flags.precision);
    if (!backend.name.startsWith("cuda")) requireMemory([{ name: shownModel(source), spec: await decoderOf(source) }]);
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

/** Tokens that may be shown in place of each one. */
const mostAlternatives = 100;

/** Throws inputError for options whose results only JSON has room for. */
function requireJson({ json, experts, alternatives, stream }: GenerateFlags): void {
  const given = { "--experts": experts, "--alternatives": alternatives, "--stream": stream };
  const [first] = Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  if (json === true || first === undefined) return;
  throw inputError("goes with --json", { where: first, hint: "add --json, or leave it out" });
}

/** A prompt and the text that follows it. */
interface GrowingText {
  readonly prompt: string;
  readonly ids: Int32Array;
  readonly stream: TextStream;
  text: string;
  tokens: number;
  /** Tokens of the prompt and new ones, where more than their text was asked for. */
  readonly read: ShownToken[];
  readonly added: ShownToken[];
  /** Experts by place. */
  readonly experts: (readonly RoutedLayerChoice[])[];
}

/** A token as JSON shows it. All texts together are the text. */
interface ShownToken {
  readonly id: number;
  readonly text: string;
  readonly logProbability?: number;
  readonly alternatives?: readonly ShownToken[];
}

/** Whether more is asked for than the text. */
const isDetailed = ({ experts, alternatives, stream }: GenerateFlags): boolean =>
  experts === true || alternatives !== undefined || stream === true;

/** One prompt and its text go to stdout as they come. Several texts, and JSON, are shown at the end. */
async function continueTexts(
  model: TextModel,
  tokenizer: TextTokenizer,
  prompts: readonly string[],
  flags: GenerateFlags,
  context: CommandContext,
): Promise<void> {
  const { terminal, json, signal } = context;
  const texts = await Promise.all(prompts.map((prompt) => beginText(tokenizer, prompt, isDetailed(flags))));
  const stop = [...model.spec.tokens.eos, ...(tokenizer.eosId === undefined ? [] : [tokenizer.eosId])];
  const start = performance.now();
  const timings = await growTexts(model, tokenizer, texts, { ...flags, stop }, context);
  const tokens = tokensOf(texts);
  const areShown = isStreamed(texts, context);
  if (!areShown && !json) for (const { prompt, text } of texts) terminal.write(`${prompt}${text}\n\n`);
  if (signal.aborted) throw interruptedError(`stopped after ${tokens} tokens`);
  const speeds = speedsOf(timings, tokens, performance.now() - start);
  if (json) {
    const isStream = flags.stream === true;
    return terminal.json({ ...(isStream && { type: "done" }), ...summary(texts, speeds, isStream ? {} : flags) });
  }
  const { tokensPerSecond, promptTokensPerSecond } = speeds;
  const promptWords = promptTokensPerSecond === null ? "" : `, prompt read at ${rate(promptTokensPerSecond)}`;
  terminal.note(`${tokens} tokens, ${rate(tokensPerSecond)}${promptWords}`);
}

async function beginText(tokenizer: TextTokenizer, prompt: string, isDetailed: boolean): Promise<GrowingText> {
  const ids = await tokenizer.encode(prompt, { addSpecialTokens: true });
  const read = isDetailed ? await tokensOfPrompt(tokenizer, ids) : [];
  return { prompt, ids, stream: textStream(tokenizer, ids), text: "", tokens: 0, read, added: [], experts: [] };
}

async function tokensOfPrompt(tokenizer: TextTokenizer, ids: Int32Array): Promise<ShownToken[]> {
  const stream = textStream(tokenizer, new Int32Array());
  const tokens: ShownToken[] = [];
  for (const id of ids) tokens.push({ id, text: await stream.push(id) });
  return tokens;
}

/** The text that a token would add behind another one. */
async function textBehind(tokenizer: TextTokenizer, before: number | undefined, id: number): Promise<string> {
  if (before === undefined) return tokenizer.decode([id]);
  const [start, whole] = await Promise.all([tokenizer.decode([before]), tokenizer.decode([before, id])]);
  return whole.startsWith(start) ? whole.slice(start.length) : tokenizer.decode([id]);
}

/** Whether a text is shown while it grows. */
const isStreamed = (texts: readonly GrowingText[], { json }: CommandContext): boolean => !json && texts.length === 1;

const tokensOf = (texts: readonly GrowingText[]): number => texts.reduce((sum, { tokens }) => sum + tokens, 0);

/** Adds tokens to the texts until each has ended, and returns the engine's timings, if it has counted any. */
async function growTexts(
  model: TextModel,
  tokenizer: TextTokenizer,
  texts: readonly GrowingText[],
  flags: GenerateFlags & { readonly stop: readonly number[] },
  context: CommandContext,
): Promise<Timings | undefined> {
  const { maxNewTokens, temperature, topK, topP, seed, stop, alternatives } = flags;
  const { terminal, json, signal } = context;
  const streamed = isStreamed(texts, context);
  let timings: Timings | undefined;
  const onTimings = (latest: Timings): void => void (timings = latest);
  const add = (text: GrowingText, piece: string): void => {
    text.text += piece;
    if (streamed && piece !== "") terminal.write(piece);
  };
  const tell = (line: Record<string, unknown>): void => {
    if (flags.stream === true) terminal.json(line);
  };
  texts.forEach(({ read }, row) => tell({ type: "prompt", row, tokens: read, layers: routedLayers(model.spec) }));
  const onExperts = ({ row, place, layers }: RoutedToken): void => {
    at(texts, row).experts[place] = layers;
    tell({ type: "experts", row, place, layers });
  };
  const prompts = texts.map(({ ids }) => ids);
  if (streamed) terminal.write(at(texts, 0).prompt);
  try {
    const settings = {
      ...{ maxNewTokens, temperature, topK, topP, seed, stop, signal, onTimings, alternatives },
      ...(flags.experts === true && { onExperts }),
    };
    for await (const { row, ...token } of generateBatch(model, prompts, settings)) {
      const text = at(texts, row);
      text.tokens += 1;
      const piece = await text.stream.push(token.id);
      add(text, piece);
      if (isDetailed(flags)) {
        const shown = await shownToken(tokenizer, token, piece, text.added.at(-1)?.id ?? text.ids.at(-1));
        text.added.push(shown);
        tell({ type: "token", row, place: text.ids.length + text.tokens - 1, ...shown });
      }
      if (!streamed && !json) terminal.progress(`${tokensOf(texts)} tokens in ${texts.length} texts`);
    }
    for (const text of texts) add(text, await text.stream.end());
  } finally {
    // Whatever happened, an error or the shell's next prompt begins on a line of its own.
    if (streamed) terminal.write("\n");
  }
  return timings;
}

async function shownToken(
  tokenizer: TextTokenizer,
  { id, logProbability, alternatives }: Omit<GeneratedToken, "row">,
  text: string,
  before: number | undefined,
): Promise<ShownToken> {
  if (logProbability === undefined) return { id, text };
  const others = (alternatives ?? []).map(async (one) => ({
    ...one,
    text: await textBehind(tokenizer, before, one.id),
  }));
  return { id, text, logProbability, alternatives: await Promise.all(others) };
}

/** Layers of experts, with how many of them a token is given to. */
function routedLayers({ layers }: DecoderSpec): { layer: number; experts: number; topK: number }[] {
  return layers.flatMap(({ ffn }, layer) =>
    ffn.kind === "moe" ? [{ layer, experts: ffn.experts, topK: ffn.topK }] : [],
  );
}

interface Speeds {
  readonly tokensPerSecond: number;
  readonly promptTokensPerSecond: number | null;
}

/** The keys of `--json`, for one text or for several. */
function summary(
  texts: readonly GrowingText[],
  speeds: Speeds,
  asked: Pick<GenerateFlags, "experts" | "alternatives">,
): Record<string, unknown> {
  const hasTokens = asked.experts === true || asked.alternatives !== undefined;
  const results = texts.map(({ prompt, text, tokens, read, added, experts }) => ({
    prompt,
    text,
    tokens,
    ...(hasTokens && { promptTokens: read, newTokens: added }),
    ...(asked.experts === true && { experts }),
  }));
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
