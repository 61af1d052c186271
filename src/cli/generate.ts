/** `upcycle generate` */
import { Command } from "commander";
import { inputError, interruptedError } from "../base/errors.js";
import { rate } from "../base/format.js";
import { modelFolderOf } from "../files/checkpoint/model-source.js";
import type { Timings } from "../evals/decoding.js";
import { generateBatch } from "../evals/generate.js";
import { openModel, type TextModel } from "../evals/model.js";
import { inputName } from "../files/io/streams.js";
import { openTokenizer, type TextTokenizer } from "../text/tokenizer/load.js";
import { textStream } from "../text/tokenizer/stream.js";
import { openContext, type CommandContext } from "./context.js";
import { chosenBackend, withDevice, type DeviceFlags } from "./device.js";
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

interface GenerateFlags extends CommonFlags, DeviceFlags {
  readonly prompt?: readonly string[];
  readonly promptFile?: string;
  readonly prompts?: string;
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed: number;
}

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
    withJson(withThreads(withDevice(command))),
    'upcycle generate runs/small/last --prompt "The Congress of" --seed 1',
  );
}

async function execute(name: string, flags: GenerateFlags): Promise<void> {
  const prompts = await promptsOf(flags);
  const source = await modelSource(name, flags.json);
  const context = openContext({ json: flags.json, stopping: "" });
  // The tokenizer's process starts while the model is opened. A failure of its own is met when it is needed.
  const opening = openTokenizer(modelFolderOf(source), { signal: context.signal });
  opening.catch(() => undefined);
  try {
    const backend = await chosenBackend(flags.device, context.terminal);
    const model = await openModel(source, backend, flags.threads ?? defaultThreads());
    try {
      await goOn(model, await opening, prompts, flags, context);
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
  const texts = { "--prompt": prompt[0], "--prompt-file": promptFile, "--prompts": prompts };
  const given = Object.entries(texts).flatMap(([name, text]) => (text === undefined ? [] : [name]));
  if (given.length > 1) {
    throw inputError("prompts are given twice", { where: given.join(", "), hint: "leave all but one of them out" });
  }
  if (given.length === 0) {
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

interface Written {
  readonly prompt: string;
  text: string;
  tokens: number;
}

/** One prompt: it and what follows on stdout as it comes. Several, and JSON: all at the end. */
async function goOn(
  model: TextModel,
  tokenizer: TextTokenizer,
  prompts: readonly string[],
  flags: GenerateFlags,
  { terminal, json, signal }: CommandContext,
): Promise<void> {
  const { maxNewTokens, temperature, topK, topP, seed } = flags;
  const stop = [...model.spec.tokens.eos, ...(tokenizer.eosId === undefined ? [] : [tokenizer.eosId])];
  const ids = await Promise.all(prompts.map((prompt) => tokenizer.encode(prompt, { addSpecialTokens: true })));
  const streams = ids.map((each) => textStream(tokenizer, each));
  const written = prompts.map((prompt): Written => ({ prompt, text: "", tokens: 0 }));
  const streaming = !json && prompts.length === 1;
  let timings: Timings | undefined;
  const show = (row: number, piece: string): void => {
    written[row]!.text += piece;
    if (streaming && piece !== "") terminal.write(piece);
  };
  if (streaming) terminal.write(prompts[0]!);
  const started = performance.now();
  const total = (): number => written.reduce((sum, { tokens }) => sum + tokens, 0);
  try {
    const settings = {
      maxNewTokens,
      temperature,
      topK,
      topP,
      seed,
      stop,
      signal,
      onTimings: (found: Timings) => (timings = found),
    };
    for await (const { row, id } of generateBatch(model, ids, settings)) {
      written[row]!.tokens += 1;
      show(row, await streams[row]!.push(id));
      if (!streaming && !json) terminal.progress(`${total()} tokens in ${prompts.length} texts`);
    }
    for (const [row, stream] of streams.entries()) show(row, await stream.end());
  } finally {
    // Whatever happened, an error or the shell's next prompt begins on a line of its own.
    if (streaming) terminal.write("\n");
  }
  const showAll = (): void => {
    if (!streaming && !json) for (const { prompt, text } of written) terminal.write(`${prompt}${text}\n\n`);
  };
  if (signal.aborted) {
    showAll();
    throw interruptedError(`stopped after ${total()} tokens`);
  }
  const speeds = speedsOf(timings, total(), performance.now() - started);
  if (json)
    return terminal.json(
      prompts.length === 1 ? { ...written[0], ...speeds } : { texts: written, tokens: total(), ...speeds },
    );
  showAll();
  const read = speeds.promptTokensPerSecond === null ? "" : `, prompt read at ${rate(speeds.promptTokensPerSecond)}`;
  terminal.note(`${total()} tokens, ${rate(speeds.tokensPerSecond)}${read}`);
}

/** Compiling is left out where the engine counted; a text of one token is all prompt. */
function speedsOf(
  timings: Timings | undefined,
  tokens: number,
  ms: number,
): { readonly tokensPerSecond: number; readonly promptTokensPerSecond: number | null } {
  if (timings === undefined) return { tokensPerSecond: (tokens / ms) * 1000, promptTokensPerSecond: null };
  const { promptTokens, promptMs, newTokens, newMs } = timings;
  return {
    tokensPerSecond: newTokens > 0 ? (newTokens / newMs) * 1000 : (tokens / ms) * 1000,
    promptTokensPerSecond: (promptTokens / promptMs) * 1000,
  };
}
