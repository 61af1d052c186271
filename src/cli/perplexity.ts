/** `upcycle perplexity`: a model's perplexity on a text. */
import { Command } from "commander";
import { interruptedError } from "../base/errors.js";
import { resultOf } from "../base/events.js";
import { percent, rate } from "../base/format.js";
import { modelFolderOf } from "../files/checkpoint/model-source.js";
import { openModel } from "../evals/model.js";
import { slidingPerplexity } from "../evals/perplexity.js";
import { utf8Length } from "../text/tokens/split.js";
import { withTokenizer } from "../text/tokenizer/load.js";
import { warnOfDamage } from "./damage.js";
import { openContext, type CommandContext } from "./context.js";
import { chosenBackend, withPrecision, type PrecisionFlags } from "./device.js";
import { inputText, orStandardInput } from "./input.js";
import { modelSource, orAdapted } from "./model-folder.js";
import { defaultThreads, wholeNumber, withExample, withJson, withThreads, type CommonFlags } from "./options.js";

interface PerplexityFlags extends CommonFlags, PrecisionFlags {
  readonly stride?: number;
  readonly sequence?: number;
}

/** Without `--sequence` a window has at most so many tokens, however many positions the model has. */
const LONGEST_DEFAULT = 1024;

/** The command with its options and its help. */
export function perplexityCommand(): Command {
  const command = new Command("perplexity")
    .description("measure a model's perplexity on long text, by a window that slides in strides")
    .argument("<model>", `model folder with a tokenizer.json, ${orAdapted}`)
    .argument("<file>", `text file (UTF-8); ${orStandardInput}`)
    .option(
      "--sequence <n>",
      `tokens that the model sees at once (default: its positions, at most ${LONGEST_DEFAULT})`,
      wholeNumber("--sequence", 2),
    )
    .option(
      "--stride <n>",
      "tokens by which the window moves on (default: half of --sequence)",
      wholeNumber("--stride", 1),
    )
    .action(execute);
  return withExample(
    withJson(withThreads(withPrecision(command))),
    "upcycle perplexity runs/small/last data/notes.txt --stride 64",
  );
}

async function execute(name: string, file: string, flags: PerplexityFlags): Promise<void> {
  const text = await inputText(file, flags.json);
  const source = await modelSource(name, flags.json);
  const context = openContext({ json: flags.json, stopping: "" });
  const { terminal, signal } = context;
  const tokens = await withTokenizer(modelFolderOf(source), { signal }, (tokenizer) =>
    tokenizer.encode(text, { addSpecialTokens: true }),
  );
  const backend = await chosenBackend(flags.device, terminal, flags.precision);
  const model = await openModel(source, backend, flags.threads ?? defaultThreads());
  warnOfDamage(terminal, model);
  try {
    const sequence = flags.sequence ?? Math.min(model.spec.maxPositions, LONGEST_DEFAULT);
    const stride = flags.stride ?? Math.max(1, Math.floor(sequence / 2));
    const start = performance.now();
    const result = await resultOf(slidingPerplexity(model, tokens, { sequence, stride, signal }), (state) =>
      terminal.progress(
        `${percent(state.tokens / (tokens.length - 1), 3)} of ${tokens.length} tokens  perplexity ` +
          `${Math.exp(state.loss).toPrecision(5)}`,
      ),
    );
    if (signal.aborted) throw interruptedError(`stopped after ${result.tokens} tokens`);
    show(context, {
      perplexity: Math.exp(result.loss),
      loss: result.loss,
      bitsPerByte: (result.loss * result.tokens) / Math.LN2 / utf8Length(text),
      tokens: result.tokens,
      sequence,
      stride,
      tokensPerSecond: (result.tokens / (performance.now() - start)) * 1000,
    });
  } finally {
    await model.close();
  }
}

/** The keys of `--json`. */
interface PerplexityResult {
  readonly perplexity: number;
  readonly loss: number;
  readonly bitsPerByte: number;
  readonly tokens: number;
  readonly sequence: number;
  readonly stride: number;
  readonly tokensPerSecond: number;
}

function show({ terminal, json }: CommandContext, result: PerplexityResult): void {
  if (json) return terminal.json(result);
  const { perplexity, loss, bitsPerByte, tokens, sequence, stride, tokensPerSecond } = result;
  terminal.out(
    `perplexity ${perplexity.toPrecision(6)}, loss ${loss.toFixed(4)} nats per token, ` +
      `${bitsPerByte.toFixed(4)} bits per byte`,
  );
  terminal.note(`${tokens} tokens, windows of ${sequence}, stride ${stride}, ${rate(tokensPerSecond)}`);
}
