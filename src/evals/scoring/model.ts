/** A model that answers samples: one whose weights are here, or (`server.ts`) one behind an address. */
import type { TextTokenizer } from "../../text/tokenizer/load.js";
import type { TextModel } from "../model.js";
import type { Response } from "../tasks/sample-results.js";
import type { Sample } from "../tasks/prompt.js";
import { generateBatches, planGeneration } from "./generate-until.js";
import { planScoring, scoreBatches, type Score } from "./score.js";
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
  /** Prepares the samples of a task; `where` names the task in errors. Throws inputError for what does not fit. */
  prepare(samples: readonly Sample[], where: string): Promise<Questions>;
  close(): Promise<void>;
}

/**
 * A model whose weights are in memory. `maxLength` is the number of its positions when left out. It closes model and
 * tokenizer.
 */
export async function localModel(
  model: TextModel,
  tokenizer: TextTokenizer,
  maxLength = model.spec.maxPositions,
): Promise<AnsweringModel> {
  const encoder = await encoderOf(tokenizer, maxLength, model.dir);
  return {
    maxLength,
    async prepare(samples, where) {
      if (samples[0]?.requests[0]?.kind === "generate") {
        const plan = await planGeneration(samples, encoder, where);
        const prompts = plan.batches.flat().sort((a, b) => a.sample - b.sample);
        return {
          tokens: prompts.map(({ ids, request }) => ids.length + request.maxTokens),
          async *answers(isDone, signal) {
            for await (const batch of generateBatches(model, encoder, plan, isDone, signal))
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
      const plan = planScoring(sequences, model.spec, { rolling });
      return {
        tokens: plan.tokens,
        async *answers(isDone, signal) {
          const empty = sequences.flatMap((own, sample) => (own.length === 0 && !isDone(sample) ? [sample] : []));
          if (empty.length > 0)
            yield empty.map((sample) => ({ sample, responses: [rollingResponse([])], truncated: 0 }));
          for await (const batch of scoreBatches(model, plan, isDone, signal))
            yield batch.map(({ sample, scores }) => ({
              sample,
              responses: rolling ? [rollingResponse(scores)] : scores.map(response),
              truncated: sequences[sample]!.filter(({ truncated }) => truncated).length,
            }));
        },
      };
    },
    async close() {
      await Promise.all([model.close(), tokenizer.close()]);
    },
  };
}

const response = ({ logLikelihood, greedy }: Score): Response => ({ kind: "loglikelihood", logLikelihood, greedy });

const rollingResponse = (scores: readonly Score[]): Response => ({
  kind: "rolling",
  logLikelihood: scores.reduce((sum, { logLikelihood }) => sum + logLikelihood, 0),
});
