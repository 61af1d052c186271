/** Requests to a server, sent again where the network or the server has trouble. */
import { setTimeout as sleep } from "node:timers/promises";
import { inputError, interruptedError, stopError } from "../../base/errors.js";
import { duration } from "../../base/format.js";
import { ask, SilentServer } from "./server-request.js";

/** How a server is asked. */
export interface ClientSettings {
  /** Sent as a bearer token. */
  readonly key?: string | undefined;
  /** Milliseconds before the first retry; later ones wait twice as long each. */
  readonly retryMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds of silence after which an answer is waited for no longer; an hour if left out. */
  readonly silenceMs?: number | undefined;
}

const ATTEMPTS = 5;
const SILENCE_MS = 3_600_000;

/** Statuses that may be others a little later. */
const isPassing = (status: number): boolean => status >= 500 || status === 429 || status === 408;

/** What an error says: servers put it into JSON, as `error.message` or `message`. */
function messageOf(text: string): string {
  try {
    const { error, message = (error as { message?: unknown } | undefined)?.message } = JSON.parse(text) as {
      readonly error?: unknown;
      readonly message?: unknown;
    };
    return typeof message === "string" ? message : text;
  } catch {
    return text;
  }
}

/** Asks one server. Its methods throw inputError for what the server refuses, and stopError for one that is silent. */
export class Client {
  constructor(
    /** Address that paths are appended to. */
    readonly base: string,
    private readonly settings: ClientSettings,
  ) {}

  get(path: string): Promise<unknown> {
    return this.send(path, undefined);
  }

  post(path: string, body: Readonly<Record<string, unknown>>): Promise<unknown> {
    return this.send(path, body);
  }

  private async send(path: string, body: Readonly<Record<string, unknown>> | undefined): Promise<unknown> {
    const { retryMs = 1000, signal, key, silenceMs = SILENCE_MS } = this.settings;
    const headers: Record<string, string> = { "content-type": "application/json" };
    if (key !== undefined && key !== "") headers["authorization"] = `Bearer ${key}`;
    let trouble = "";
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (attempt > 0)
        await sleep(retryMs * 2 ** (attempt - 1), undefined, signal === undefined ? {} : { signal }).catch(
          () => undefined,
        );
      if (signal?.aborted === true) throw interruptedError("stopped while a server was asked", { where: this.base });
      try {
        const text = body === undefined ? undefined : JSON.stringify(body);
        const answer = await ask(this.base + path, { body: text, headers, signal, silenceMs });
        if (answer.status >= 200 && answer.status < 300) return JSON.parse(answer.text) as unknown;
        trouble = `HTTP ${answer.status}: ${messageOf(answer.text).slice(0, 300)}`;
        if (!isPassing(answer.status))
          throw inputError(`the server refuses ${path} (${trouble})`, { where: this.base });
      } catch (cause) {
        if (cause instanceof Error && cause.name === "UpcycleError") throw cause;
        // It may still be at work on the request: sent again, it would have more to do.
        if (cause instanceof SilentServer)
          throw stopError(`the server has said nothing for ${duration(silenceMs / 1000)} after ${path}`, {
            where: this.base,
            hint: "look whether it works; the same command goes on with what is missing",
          });
        trouble = (cause as Error).message;
      }
    }
    throw stopError(`the server does not answer ${path} (${trouble})`, {
      where: this.base,
      hint: "the same command goes on with what is missing",
    });
  }
}
