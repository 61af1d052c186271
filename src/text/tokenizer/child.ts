/**
 * What runs in the process of one tokenizer. The native library ends whatever process it runs in where it fails (a
 * pattern that gives up on a text, a number that does not fit), and a pattern may run for ever; here that costs one
 * tokenizer and not the command. Calls are done in turn.
 *
 * Argument: the process id of the command.
 */
import { Worker } from "node:worker_threads";
import { Tokenizer } from "tokenizers";
import { UpcycleError } from "../../base/errors.js";
import { readText } from "../../files/io/ranges.js";
import {
  guardLimitIndex,
  type GuardData,
  type Methods,
  type Refusal,
  type TokenizerReply,
  type TokenizerRequest,
} from "./calls.js";
import { LARGEST_FILE } from "./limits.js";
import { notJson } from "./special.js";

const limits = new Int32Array(new SharedArrayBuffer(8));
const workerData: GuardData = { limits, parent: Number(process.argv[2]) };
new Worker(new URL("./guard.js", import.meta.url), { workerData });

let tokenizer: Tokenizer;

const methods: {
  readonly [M in keyof Methods]: (
    ...args: Parameters<Methods[M]>
  ) => ReturnType<Methods[M]> | Promise<ReturnType<Methods[M]>>;
} = {
  async load(file) {
    const text = await readText(file, LARGEST_FILE);
    tokenizer = parse(text, file);
    // A file may carry the training run's truncation or padding, which would cut or lengthen documents silently.
    tokenizer.disableTruncation();
    tokenizer.disablePadding();
    let largestId = -1;
    for (const id of Object.values(tokenizer.getVocab(true))) largestId = Math.max(largestId, id);
    return { largestId };
  },
  async encode(texts, addSpecialTokens) {
    const encodings = await tokenizer.encodeBatch([...texts], { addSpecialTokens });
    return encodings.map((encoding) => Int32Array.from(encoding.getIds()));
  },
  decode: (ids, skipSpecialTokens) => tokenizer.decode(Array.from(ids), skipSpecialTokens),
  idToToken: (id) => tokenizer.idToToken(id),
  tokenToId: (token) => tokenizer.tokenToId(token),
};

/** Opens a tokenizer. Throws inputError for what is no JSON: the library's own message says nothing of use then. */
function parse(text: string, file: string): Tokenizer {
  try {
    return Tokenizer.fromString(text);
  } catch (cause) {
    try {
      JSON.parse(text);
    } catch {
      throw notJson(text, file, cause);
    }
    throw cause;
  }
}

async function answer({ id, method, args, budget }: TokenizerRequest): Promise<TokenizerReply> {
  const { user, system } = process.cpuUsage();
  Atomics.store(
    limits,
    guardLimitIndex.processorMs,
    Math.min(2 ** 31 - 1, (user + system) / 1000 + budget.processorMs),
  );
  // Memory that an earlier call needed may not have gone back to the system.
  Atomics.store(
    limits,
    guardLimitIndex.memoryMB,
    Math.max(Atomics.load(limits, guardLimitIndex.memoryMB), budget.memoryMB),
  );
  try {
    return { id, result: await (methods[method] as (...args: readonly unknown[]) => unknown)(...args) };
  } catch (error) {
    return { id, refusal: refusalOf(error) };
  } finally {
    Atomics.store(limits, guardLimitIndex.processorMs, 0);
  }
}

function refusalOf(error: unknown): Refusal {
  if (!(error instanceof UpcycleError)) return { kind: "library", message: (error as Error).message };
  const { kind, message, where, hint } = error;
  return { kind: "ours", failure: { kind, message, where, hint } };
}

let last: Promise<unknown> = Promise.resolve();
process.on("message", (request: TokenizerRequest) => {
  last = last.then(async () => process.send?.(await answer(request)));
});
// The command is gone, or needs this tokenizer no more. An orderly exit would wait for a pattern that runs for ever.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
