/** Where the page's answers come from: the server that sent it, or the file that it stands in. */
import { signal } from "@preact/signals";
import { answerAddress, curveAddress } from "../data/addresses.js";
import type { Metric } from "../data/types.js";

interface Embedded {
  /** The day on which the file was made. */
  readonly made: string;
  readonly answers: Readonly<Record<string, unknown>>;
}

const element = document.getElementById("studio-answers");

/** The answers in this file; null on a server. */
export const embedded: Embedded | null = element === null ? null : (JSON.parse(element.textContent ?? "") as Embedded);

/** Whether the server answers; always so in a file. */
export const isConnected = signal(true);

/** What the page's head asks for while its script is on its way. */
const askedAhead = "/api/runs";

/** An answer. Throws an Error with the server's words where there is none. */
export async function ask<T>(address: string, abort?: AbortSignal): Promise<T> {
  if (embedded !== null) return fromFile<T>(address);
  // A browser that may keep answers holds a question back while one for the same address that was given up still is in
  // its hands: seconds, where one leaves a view and comes back. What the page itself has asked for ahead is taken.
  const cache = address === askedAhead ? "default" : "no-store";
  const response = await fetch(address, {
    headers: { accept: "application/json" },
    cache,
    ...(abort && { signal: abort }),
  });
  const answer: unknown = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer as T;
  throw new Error((answer as { readonly error?: string } | null)?.error ?? `the server answers ${response.status}`);
}

interface Question {
  readonly address: string;
  readonly done: (answer: unknown) => void;
  readonly failed: (cause: unknown) => void;
}

/** Milliseconds within which questions are sent as one: charts of a view that grow are due at the same time. */
const togetherMs = 8;
/** Longest address of several questions; servers read 16,384 characters. */
const longestTogether = 12_000;
const waiting: Question[] = [];

/**
 * An answer, asked for together with others: a server that has to answer every question of its own takes several times
 * as much from a training on the same machine. Throws an Error with the server's words where there is none.
 */
export function askTogether<T>(address: string): Promise<T> {
  return new Promise<unknown>((done, failed) => {
    if (waiting.length === 0) setTimeout(() => sendTogether(waiting.splice(0)), togetherMs);
    waiting.push({ address, done, failed });
  }) as Promise<T>;
}

function sendTogether(questions: readonly Question[]): void {
  let [batch, length] = [[] as Question[], 0];
  for (const question of questions) {
    const more = encodeURIComponent(question.address).length + 5;
    if (length + more > longestTogether && batch.length > 0) {
      void sendBatch(batch);
      [batch, length] = [[], 0];
    }
    batch.push(question);
    length += more;
  }
  void sendBatch(batch);
}

async function sendBatch(batch: readonly Question[]): Promise<void> {
  const [only] = batch;
  try {
    if (only !== undefined && batch.length === 1) return only.done(await ask(only.address));
    const asked = batch.map(({ address }) => `ask=${encodeURIComponent(address)}`).join("&");
    const answers = await ask<readonly unknown[]>(`/api/several?${asked}`);
    batch.forEach(({ done, failed }, i) => {
      const error = (answers[i] as { readonly error?: string } | undefined)?.error;
      if (error === undefined) done(answers[i]);
      else failed(new Error(error));
    });
  } catch (cause) {
    for (const { failed } of batch) failed(cause);
  }
}

function fromFile<T>(address: string): T {
  const answers = embedded?.answers ?? {};
  const [path, query = ""] = address.split("?", 2);
  const settings = new URLSearchParams(query);
  // A file keeps one answer for every set of runs, whatever their order and the columns of the screen.
  const names = settings.getAll("run").sort();
  const key =
    path === "/api/curves"
      ? curveAddress(names, settings.get("metric") as Metric)
      : path === "/api/compare"
        ? answerAddress(
            path,
            names.map((name) => ["run", name] as const),
          )
        : address;
  if (Object.hasOwn(answers, key) && answers[key] !== null) return answers[key] as T;
  throw new Error("this is not in the file: open the folder with upcycle studio");
}

/** Sends something that acts. Throws an Error with the server's words. */
export async function act<T>(address: string, body: unknown): Promise<T> {
  const response = await fetch(address, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer: unknown = await response.json().catch(() => null);
  if (response.ok) return answer as T;
  throw new Error((answer as { readonly error?: string } | null)?.error ?? `the server answers ${response.status}`);
}

/**
 * Sends something that acts and answers line by line; each line is JSON. Throws an Error with the server's words, also
 * where the answer breaks off.
 */
export async function actLines(
  address: string,
  body: unknown,
  take: (line: unknown) => void,
  abort: AbortSignal,
): Promise<void> {
  const response = await fetch(address, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: abort,
  });
  if (!response.ok || response.body === null) {
    const answer: unknown = await response.json().catch(() => null);
    throw new Error((answer as { readonly error?: string } | null)?.error ?? `the server answers ${response.status}`);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "") take(JSON.parse(line));
    if (done) return;
  }
}
