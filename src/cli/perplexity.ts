/** `upcycle perplexity` */
import { Command } from "commander";
import { interruptedError } from "../base/errors.js";
import { percent, rate } from "../base/format.js";
import { modelFolderOf } from "../files/checkpoint/model-source.js";
import { openModel } from "../evals/model.js";
import { slidingPerplexity } from "../evals/perplexity.js";
import { utf8Length } from "../text/tokens/split.js";
import { withTokenizer } from "../text/tokenizer/load.js";
import { openContext } from "./context.js";
import { chosenBackend, withDevice, type DeviceFlags } from "./device.js";
import { inputText, orStandardInput } from "./input.js";
import { modelSource, orAdapted } from "./model-folder.js";
import { defaultThreads, wholeNumber, withExample, withJson, withThreads, type CommonFlags } from "./options.js";

interface PerplexityFlags extends CommonFlags, DeviceFlags {
  readonly stride?: number;
  readonly sequence?: number;
}

/** Windows are no longer than this unless asked for, however many positions a model has. */
const LONGEST_DEFAULT = 1024;

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
    withJson(withThreads(withDevice(command))),
    "upcycle perplexity runs/small/last data/notes.txt --stride 64",
  );
}

async function execute(name: string, file: string, flags: PerplexityFlags): Promise<void> {
  const text = await inputText(file, flags.json);
  const source = await modelSource(name, flags.json);
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: "" });
  const tokens = await withTokenizer(modelFolderOf(source), { signal }, (tokenizer) =>
    tokenizer.encode(text, { addSpecialTokens: true }),
  );
  const backend = await chosenBackend(flags.device, terminal);
  const model = await openModel(source, backend, flags.threads ?? defaultThreads());
  try {
    const sequence = flags.sequence ?? Math.min(model.spec.maxPositions, LONGEST_DEFAULT);
    const stride = flags.stride ?? Math.max(1, Math.floor(sequence / 2));
    const started = performance.now();
    const windows = slidingPerplexity(model, tokens, { sequence, stride, signal });
    let next = await windows.next();
    for (; next.done !== true; next = await windows.next()) {
      terminal.progress(
        `${percent(next.value.tokens / (tokens.length - 1), 3)} of ${tokens.length} tokens  perplexity ` +
          `${Math.exp(next.value.loss).toPrecision(5)}`,
      );
    }
    const { loss, tokens: predicted } = next.value;
    if (signal.aborted) throw interruptedError(`stopped after ${predicted} tokens`);
    const tokensPerSecond = (predicted / (performance.now() - started)) * 1000;
    const bitsPerByte = (loss * predicted) / Math.LN2 / utf8Length(text);
    if (json)
      terminal.json({
        perplexity: Math.exp(loss),
        loss,
        bitsPerByte,
        tokens: predicted,
        sequence,
        stride,
        tokensPerSecond,
      });
    else {
      terminal.out(
        `perplexity ${Math.exp(loss).toPrecision(6)}, loss ${loss.toFixed(4)} nats per token, ` +
          `${bitsPerByte.toFixed(4)} bits per byte`,
      );
      terminal.note(`${predicted} tokens, windows of ${sequence}, stride ${stride}, ${rate(tokensPerSecond)}`);
    }
  } finally {
    await model.close();
  }
}
