/** `upcycle generate` */
import { Command } from "commander";
import { interruptedError } from "../base/errors.js";
import { rate } from "../base/format.js";
import { generate } from "../evals/generate.js";
import { openModel, type RunnableModel } from "../evals/model.js";
import { onnxruntimeBackend } from "../ort/backend.js";
import { openTokenizer } from "../tokenizer/load.js";
import { textStream } from "../tokenizer/stream.js";
import { openContext, type CommandContext } from "./context.js";
import { modelFolder, orHub } from "./model-folder.js";
import { defaultThreads, realNumber, wholeNumber, withExample, withJson, withThreads, type CommonFlags } from "./options.js";

interface GenerateFlags extends CommonFlags {
  readonly prompt: string;
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed: number;
}

export function generateCommand(): Command {
  const command = new Command("generate")
    .description("let a model go on from a prompt")
    .argument("<model>", `model folder with a tokenizer.json, ${orHub}`)
    .requiredOption("--prompt <text>", "text to go on from")
    .option("--max-new-tokens <n>", "stop after this many tokens", wholeNumber("--max-new-tokens", 1), 100)
    .option("--temperature <t>", "0 takes the likeliest token, 1 is the model's own distribution", realNumber("--temperature", 0), 0.8)
    .option("--top-k <n>", "choose among the n likeliest tokens", wholeNumber("--top-k", 1))
    .option("--top-p <p>", "choose among the fewest tokens of total probability p", realNumber("--top-p", 0, 1))
    .option("--seed <n>", "of the choices", wholeNumber("--seed", 0), 0)
    .action(execute);
  return withExample(withJson(withThreads(command)), 'upcycle generate runs/small/last --prompt "The Congress of" --seed 1');
}

async function execute(name: string, flags: GenerateFlags): Promise<void> {
  const dir = await modelFolder(name, flags.json);
  const context = openContext({ json: flags.json, stopping: "" });
  const model = await openModel(dir, onnxruntimeBackend, flags.threads ?? defaultThreads());
  try {
    await goOn(model, flags, context);
  } finally {
    await model.close();
  }
}

/** The prompt and what follows on stdout as it comes; or all at the end, as JSON. */
async function goOn(model: RunnableModel, flags: GenerateFlags, { terminal, json, signal }: CommandContext): Promise<void> {
  const { prompt, maxNewTokens, temperature, topK, topP, seed } = flags;
  const tokenizer = await openTokenizer(model.dir);
  const stop = [...model.spec.tokens.eos, ...(tokenizer.eosId === undefined ? [] : [tokenizer.eosId])];
  const ids = await tokenizer.encode(prompt, { addSpecialTokens: true });
  const stream = textStream(tokenizer, ids);
  let text = "";
  let tokens = 0;
  const show = (piece: string): void => {
    text += piece;
    if (!json && piece !== "") terminal.write(piece);
  };
  if (!json) terminal.write(prompt);
  const started = performance.now();
  try {
    for await (const id of generate(model, ids, { maxNewTokens, temperature, topK, topP, seed, stop, signal })) {
      tokens += 1;
      show(await stream.push(id));
    }
    show(await stream.end());
  } finally {
    // Whatever happened, an error or the shell's next prompt begins on a line of its own.
    if (!json) terminal.write("\n");
  }
  if (signal.aborted) throw interruptedError(`stopped after ${tokens} tokens`);
  const tokensPerSecond = (tokens / (performance.now() - started)) * 1000;
  if (json) terminal.out(JSON.stringify({ prompt, text, tokens, tokensPerSecond }));
  else terminal.note(`${tokens} tokens, ${rate(tokensPerSecond)}`);
}
