/** A model that answers samples: one whose weights are here, or (`server.ts`) one behind an address. */
import type { TextTokenizer } from "../../text/tokenizer/load.js";
import type { TextModel } from "../model.js";
import type { Response } from "../tasks/sample-results.js";
import type { Sample } from "../tasks/prompt.js";
import { generationChanges } from "./generation-config.js";
import { generateBatches, planGeneration } from "./generate-until.js";
import { planScoring, scoringTokens } from "./plan.js";
import { scoreBatches, type Score } from "./score.js";
import { encoderOf, sequencesOf } from "./sequences.js";

/** What a model answers to one sample. */
export interface Answered {
  /** Place of the sample among those that were asked. */
  readonly sample: number;
  readonly responses: readonly Response[];
  /** Requests whose context was cut off in front. */
  readonly truncated: number;
}

/** The samples of one task, ready to be asked. */
export interface Questions {
  /** Work of each sample, in tokens. */
  readonly tokens: readonly number[];
  /** Answers to all samples that are not done, in batches, of which each is whole. */
  readonly answers: (isDone: (sample: number) => boolean, signal?: AbortSignal) => AsyncGenerator<readonly Answered[]>;
}

/** What answers. */
export interface AnsweringModel {
  /** Most tokens that it sees. */
  readonly maxLength: number;
  /** Settings of the model's folder that the likeliest texts are made without. */
  readonly generationChanges?: readonly string[];
  /** Prepares the samples of a task; `where` names the task in errors. Throws inputError for what does not fit. */
  prepare(samples: readonly Sample[], where: string): Promise<Questions>;
  close(): Promise<void>;
}

/** A model whose weights may still be on their way: prompts are prepared in the meantime. */
export interface OpeningModel extends Pick<TextModel, "dir" | "spec"> {
  readonly opened: Promise<TextModel>;
}

/**
 * A model whose weights are in memory, or will be. `maxLength` is the number of its positions when left out. It closes
 * model and tokenizer.
 */
export async function localModel(
  model: TextModel | OpeningModel,
  tokenizer: TextTokenizer,
  maxLength = model.spec.maxPositions,
): Promise<AnsweringModel> {
  const { dir, spec } = model;
  const opened = "opened" in model ? model.opened : Promise.resolve(model);
  // A failure is met by the first question.
  opened.catch(() => undefined);
  const encoder = await encoderOf(tokenizer, maxLength, dir);
  return {
    maxLength,
    generationChanges: await generationChanges(dir),
    async prepare(samples, where) {
      if (samples[0]?.requests[0]?.kind === "generate") {
        const plan = await planGeneration(samples, encoder, where);
        const prompts = plan.batches.flat().sort((a, b) => a.sample - b.sample);
        return {
          tokens: prompts.map(({ ids, request }) => ids.length + request.maxTokens),
          async *answers(isDone, signal) {
            for await (const batch of generateBatches(await opened, encoder, plan, isDone, signal))
              yield batch.map(({ sample, text, truncated }) => ({
                sample,
                responses: [{ kind: "generate" as const, text }],
                truncated: truncated ? 1 : 0,
              }));
          },
        };
      }
      const rolling = samples[0]?.requests[0]?.kind === "rolling";
      const sequences = await sequencesOf(samples, encoder, where);
      return {
        tokens: scoringTokens(sequences, spec, { rolling }),
        async *answers(isDone, signal) {
          const empty = sequences.flatMap((own, sample) => (own.length === 0 && !isDone(sample) ? [sample] : []));
          if (empty.length > 0)
            yield empty.map((sample) => ({ sample, responses: [rollingResponse([])], truncated: 0 }));
          const ready = await opened;
          const { tokensAtOnce } = ready;
          const plan = planScoring(sequences, spec, { rolling, tokensAtOnce });
          for await (const batch of scoreBatches(ready, plan, isDone, signal))
            yield batch.map(({ sample, scores }) => ({
              sample,
              responses: rolling ? [rollingResponse(scores)] : scores.map(response),
              truncated: sequences[sample]!.filter(({ truncated }) => truncated).length,
            }));
        },
      };
    },
    async close() {
      const ready = await opened.catch(() => null);
      await Promise.all([ready?.close(), tokenizer.close()]);
    },
  };
}

const response = ({ logLikelihood, greedy }: Score): Response => ({ kind: "loglikelihood", logLikelihood, greedy });

const rollingResponse = (scores: readonly Score[]): Response => ({
  kind: "rolling",
  logLikelihood: scores.reduce((sum, { logLikelihood }) => sum + logLikelihood, 0),
});
