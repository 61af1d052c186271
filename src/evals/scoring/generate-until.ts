/** Answers in words, as the LM Evaluation Harness generates them: the likeliest tokens until a stop string. */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { startDecoding, type Decoding } from "../decoding.js";
import type { TextModel } from "../model.js";
import type { TextTokenizer } from "../../text/tokenizer/load.js";
import type { Request, Sample } from "../tasks/prompt.js";
import type { Encoder } from "./sequences.js";

type GenerateRequest = Extract<Request, { kind: "generate" }>;

/** The prompt of one sample in tokens. */
export interface Prompt {
  readonly sample: number;
  readonly request: GenerateRequest;
  readonly ids: Int32Array;
  readonly truncated: boolean;
}

/** Most prompts side by side, and most of their tokens together. */
const MOST_ROWS = 16;
const MOST_TOKENS = 4096;

/** Prompts that are continued together; they depend on all samples alone, so that a resumed evaluation has the same. */
export interface GenerationPlan {
  readonly batches: readonly (readonly Prompt[])[];
}

/**
 * The prompts of a task's samples, in no particular order. A prompt leaves room for its answer: what is too long is cut
 * off in front. Throws inputError where an answer may be as long as the model's positions.
 */
export async function generationPrompts(
  samples: readonly Sample[],
  encoder: Encoder,
  where: string,
): Promise<Prompt[]> {
  const requests = samples.map(({ requests: [request] }) => request as GenerateRequest);
  const bySpecial = new Map<boolean, number[]>([
    [true, []],
    [false, []],
  ]);
  requests.forEach(({ context }, i) => bySpecial.get(!context.startsWith(encoder.prefixText))!.push(i));
  const prompts: Prompt[] = [];
  for (const [addSpecialTokens, members] of bySpecial) {
    const texts = members.map((i) => requests[i]!.context);
    let place = 0;
    for await (const ids of encoder.tokenizer.encodeAll(texts, { addSpecialTokens })) {
      const sample = members[place++]!;
      prompts.push(promptOf(sample, requests[sample]!, ids, encoder, where));
    }
  }
  return prompts;
}

/** Plans the generation of a task's samples. Throws inputError as `generationPrompts` does. */
export async function planGeneration(
  samples: readonly Sample[],
  encoder: Encoder,
  where: string,
): Promise<GenerationPlan> {
  const prompts = await generationPrompts(samples, encoder, where);
  prompts.sort((a, b) => b.ids.length - a.ids.length || a.sample - b.sample);
  const batches: Prompt[][] = [];
  let rows = 0;
  for (const prompt of prompts) {
    const last = batches.at(-1);
    if (last !== undefined && last.length < rows) {
      last.push(prompt);
      continue;
    }
    batches.push([prompt]);
    rows = Math.max(1, Math.min(MOST_ROWS, Math.floor(MOST_TOKENS / (prompt.ids.length + prompt.request.maxTokens))));
  }
  return { batches };
}

function promptOf(
  sample: number,
  request: GenerateRequest,
  ids: Int32Array,
  { maxLength, prefixId }: Encoder,
  where: string,
): Prompt {
  const room = maxLength - request.maxTokens;
  if (room < 1)
    throw inputError(`answers of up to ${request.maxTokens} tokens leave no room among ${maxLength} positions`, {
      where,
      hint: "lower max_gen_toks in generation_kwargs",
    });
  const kept = ids.length === 0 ? Int32Array.of(prefixId) : ids.subarray(Math.max(0, ids.length - room));
  return { sample, request, ids: kept, truncated: ids.length > room };
}

/** The answer to one sample. */
export interface GeneratedAnswer {
  readonly sample: number;
  readonly text: string;
  readonly truncated: boolean;
}

/** Generates the batches of a plan that are not done; see `scoreBatches`. */
export async function* generateBatches(
  model: TextModel,
  encoder: Encoder,
  plan: GenerationPlan,
  isDone: (sample: number) => boolean,
  signal?: AbortSignal,
): AsyncGenerator<readonly GeneratedAnswer[]> {
  const stops = new Set([
    ...model.spec.tokens.eos,
    ...(encoder.tokenizer.eosId === undefined ? [] : [encoder.tokenizer.eosId]),
  ]);
  const endText = await endTextOf(encoder.tokenizer);
  for (const batch of plan.batches) {
    if (batch.every(({ sample }) => isDone(sample))) continue;
    const texts = await continueBatch(model, encoder, batch, { stops, endText, signal });
    if (signal?.aborted === true) return;
    yield batch.map(({ sample, truncated }, i) => ({ sample, truncated, text: at(texts, i) }));
  }
}

interface EndSettings {
  /** Ids that end a text. */
  readonly stops: ReadonlySet<number>;
  /** How the end token is written, which also ends a text where a model writes it out. */
  readonly endText: string;
  readonly signal: AbortSignal | undefined;
}

async function continueBatch(
  model: TextModel,
  { tokenizer }: Encoder,
  batch: readonly Prompt[],
  { stops, endText, signal }: EndSettings,
): Promise<readonly string[]> {
  const { vocab } = model.spec;
  const answers = batch.map(() => ({ ids: [] as number[], text: "", open: true }));
  const longest = Math.max(...batch.map(({ request }) => request.maxTokens));
  const prompts = batch.map(({ ids }) => [...ids]);
  let decoding: Decoding = await startDecoding(model, prompts, { expected: longest, signal });
  for (let step = 0; answers.some(({ open }) => open) && signal?.aborted !== true; step++) {
    const next = answers.map((answer, row) => {
      if (!answer.open) return null;
      const id = likeliest(decoding.logits.subarray(row * vocab, (row + 1) * vocab));
      if (stops.has(id)) answer.open = false;
      else answer.ids.push(id);
      return answer.open ? id : null;
    });
    await Promise.all(
      answers.map(async (answer, row) => {
        if (next[row] === null) return;
        const { until, maxTokens } = at(batch, row).request;
        answer.text = await tokenizer.decode(answer.ids, { skipSpecialTokens: true });
        const isOver =
          answer.ids.length >= maxTokens ||
          [...until, endText].some((stop) => stop !== "" && answer.text.includes(stop));
        if (isOver) {
          answer.open = false;
          next[row] = null;
        }
      }),
    );
    if (next.some((id) => id !== null)) decoding = await decoding.next(next);
  }
  return answers.map(({ text }, row) => cutAt([...at(batch, row).request.until, endText], text));
}

/** How the end of a text is written, which ends an answer where a model writes it out; empty without such a token. */
export const endTextOf = async (tokenizer: TextTokenizer): Promise<string> =>
  tokenizer.eosId === undefined ? "" : tokenizer.decode([tokenizer.eosId]);

/** The text before each stop string in turn. */
export const cutAt = (stops: readonly string[], text: string): string =>
  stops.reduce((rest, stop) => (stop === "" ? rest : rest.split(stop)[0]!), text);

function likeliest(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  return best;
}
