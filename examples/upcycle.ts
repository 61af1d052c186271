/**
 * Upcycles a dense model, measures on text of your own what was kept, and lets parent and child write:
 *
 *     node upcycle.js DENSE OUT TEXT
 */
import { readFile } from "node:fs/promises";
import {
  UpcycleError,
  compareModels,
  convertCheckpoint,
  countParams,
  generate,
  onnxruntimeBackend,
  openModel,
  openTokenizer,
  resultOf,
  textStream,
  upcycleRecipe,
  type TextModel,
  type TextTokenizer,
} from "upcycle";

const threads = 2;

/** Converts with progress, and says how large the child has become. */
async function convert(dense: string, out: string): Promise<void> {
  const conversion = convertCheckpoint({ source: dense, recipe: upcycleRecipe("E8G1T2", { seed: 1 }), out });
  const { plan, weightFiles } = await resultOf(conversion, (event) => {
    if (event.type === "progress") process.stderr.write(`\r${event.done} of ${event.total} bytes`);
  });
  process.stderr.write("\n");
  const { total, active } = countParams(plan.target);
  console.log(`${plan.target.family}: ${total} parameters, ${active} active, ${weightFiles.length} weight file(s)`);
}

/** Up to 40 tokens, the likeliest each time. */
async function continued(model: TextModel, tokenizer: TextTokenizer, prompt: string): Promise<string> {
  const ids = await tokenizer.encode(prompt, { addSpecialTokens: true });
  const stream = textStream(tokenizer, ids);
  let text = prompt;
  const settings = { maxNewTokens: 40, temperature: 0, seed: 0, stop: model.spec.tokens.eos };
  for await (const id of generate(model, ids, settings)) text += await stream.push(id);
  return text + (await stream.end());
}

async function main([dense, out, file]: readonly string[]): Promise<void> {
  if (dense === undefined || out === undefined || file === undefined) throw new Error("DENSE, OUT and TEXT are needed");
  await convert(dense, out);
  const tokenizer = await openTokenizer(dense);
  const [parent, child] = await Promise.all([
    openModel(dense, onnxruntimeBackend, threads),
    openModel(out, onnxruntimeBackend, threads),
  ]);
  try {
    const tokens = await tokenizer.encode(await readFile(file, "utf8"));
    const found = await compareModels(parent, child, tokens, { sequence: 64, limitTokens: 512 });
    console.log(`losses ${found.parentLoss.toFixed(4)} and ${found.childLoss.toFixed(4)} nats`);
    console.log(`largest logit difference ${found.maxAbsLogitDiff} of ${found.maxAbsLogit}`);
    for (const model of [parent, child]) console.log(await continued(model, tokenizer, "The people"));
  } finally {
    await Promise.all([parent.close(), child.close(), tokenizer.close()]);
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  // What a caller can mend is one line; anything else is a defect with its stack.
  if (!(error instanceof UpcycleError)) throw error;
  console.error(error.line);
  process.exitCode = error.exitCode;
}
