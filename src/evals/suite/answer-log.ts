/**
 * The log of a model's answers to one task: what is in it need not be computed again, and holds for any number of
 * examples or documents, since each line says which requests it answers.
 */
import { createHash } from "node:crypto";
import { exists } from "../../files/io/atomic.js";
import { openJsonl, readJsonl, type JsonlWriter } from "../../files/io/jsonl.js";
import type { Answered } from "../scoring/model.js";
import type { Sample } from "../tasks/prompt.js";
import type { Response } from "../tasks/sample-results.js";

/** A line: the answers to one sample. Numbers that JSON does not have are texts. */
interface Line {
  /** Hash of the requests. */
  readonly key: string;
  readonly responses: readonly (
    | { readonly kind: "loglikelihood"; readonly logLikelihood: number | string; readonly greedy: boolean }
    | { readonly kind: "rolling"; readonly logLikelihood: number | string }
    | { readonly kind: "generate"; readonly text: string }
  )[];
  readonly truncated: number;
}

/** What the answers to a sample depend on, beside the model: its requests. */
export const requestsKey = ({ requests }: Sample): string =>
  createHash("sha256").update(JSON.stringify(requests)).digest("hex").slice(0, 32);

/** The answers of an earlier run, and where new ones go. */
export interface AnswerLog {
  /** The answers to a sample, by its key; undefined where there are none. */
  get(key: string): Omit<Answered, "sample"> | undefined;
  /** Adds the answers to samples, all of them or, if the process is killed, none or some. */
  add(answers: readonly (Omit<Answered, "sample"> & { readonly key: string })[]): Promise<void>;
  close(): Promise<void>;
}

/** Opens a log, whose last line is left out if it was cut off. Throws inputError for what is no such log. */
export async function openAnswerLog(path: string): Promise<AnswerLog> {
  const known = new Map<string, Omit<Answered, "sample">>();
  if (await exists(path))
    for (const line of (await readJsonl(path)) as readonly Line[])
      known.set(line.key, { truncated: line.truncated, responses: line.responses.map(numberRead) });
  const writer: JsonlWriter = await openJsonl(path);
  return {
    get: (key) => known.get(key),
    async add(answers) {
      for (const { key, responses, truncated } of answers) {
        known.set(key, { responses, truncated });
        await writer.append({ key, responses: responses.map(numberWritten), truncated } satisfies Line);
      }
      await writer.sync();
    },
    close: () => writer.close(),
  };
}

type Written = Line["responses"][number];

const numberWritten = (response: Response): Written =>
  response.kind === "generate" || Number.isFinite(response.logLikelihood)
    ? response
    : { ...response, logLikelihood: String(response.logLikelihood) };

const numberRead = (written: Written): Response =>
  written.kind === "generate" ? written : { ...written, logLikelihood: Number(written.logLikelihood) };
