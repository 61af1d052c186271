/** `upcycle forward`: logits of token ids. Letters of shapes: `B` sequences, `T` tokens of each, `V` vocabulary. */
import { Command } from "commander";
import { readInputIds, requireLogitsPlace, writeLogits } from "../evals/forward.js";
import { openModel } from "../evals/model.js";
import { warnOfDamage } from "./damage.js";
import { openContext, shownPath } from "./context.js";
import { chosenBackend, withPrecision, type PrecisionFlags } from "./device.js";
import { modelSource, orAdapted } from "./model-folder.js";
import { defaultThreads, withExample, withJson, withThreads, type CommonFlags } from "./options.js";

interface ForwardFlags extends CommonFlags, PrecisionFlags {
  readonly inputIds: string;
  readonly output: string;
}

/** The command with its options and its help. */
export function forwardCommand(): Command {
  const command = new Command("forward")
    .description("compute the logits of given token ids, file to file")
    .argument("<model>", `model folder (Hugging Face: config.json, weights), ${orAdapted}`)
    .requiredOption("--input-ids <file>", "safetensors file with input_ids [B, T], int32 or int64")
    .requiredOption("--output <file>", "safetensors file to write, with logits [B, T, V] in float32")
    .action(execute);
  return withExample(
    withJson(withThreads(withPrecision(command))),
    "upcycle forward moe --input-ids in.safetensors --output out.safetensors",
  );
}

async function execute(
  name: string,
  { inputIds, output, threads, device, precision, json: asJson }: ForwardFlags,
): Promise<void> {
  await requireLogitsPlace(output);
  const input = await readInputIds(inputIds);
  const source = await modelSource(name, asJson);
  const { terminal, json, signal } = openContext({ json: asJson, stopping: "removing what was begun" });
  const backend = await chosenBackend(device, terminal, precision);
  const model = await openModel(source, backend, threads ?? defaultThreads());
  warnOfDamage(terminal, model);
  try {
    const start = performance.now();
    const { shape } = await writeLogits(model, input, output, signal);
    const seconds = (performance.now() - start) / 1000;
    if (json) terminal.json({ output, shape, seconds });
    else terminal.out(`logits: ${shownPath(output)} [${shape.join(", ")}]`);
  } finally {
    await model.close();
  }
}
