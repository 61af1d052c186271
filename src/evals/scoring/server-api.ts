/** What servers of every kind are asked for. */
import type { Response as Answer } from "../tasks/sample-results.js";
import type { Sequence } from "./sequences.js";

/** The log-likelihood of a sequence. */
export type LogLikelihood = Extract<Answer, { kind: "loglikelihood" }>;

/** One kind of server, and one model behind it. */
export interface ServerApi {
  /** Most tokens of prompt and answer together, where the server says it. */
  readonly maxLength: number | undefined;
  /** Tokens that have to fit behind the last one of a sequence, because the server generates them. */
  readonly behind: number;
  /** Samples that are best asked at once. */
  readonly together: number;
  /** Most tokens that those may have together, each with its longest sequence; undefined: as many as they have. */
  readonly roomTogether?: number | undefined;
  /** Log-likelihoods of the sequences of one sample. */
  readonly score: (sequences: readonly Sequence[]) => Promise<readonly LogLikelihood[]>;
  /** The likeliest text behind a prompt; it may go on behind a stop string. */
  readonly generate: (prompt: readonly number[], settings: GenerateSettings) => Promise<string>;
}

/** How an answer in words ends. */
export interface GenerateSettings {
  readonly until: readonly string[];
  readonly maxTokens: number;
}

/** The harness's seed of requests, though the likeliest tokens depend on none. */
export const SEED = 1234;
