/** Requests to the Hub, and their failures as errors a user can act on. */
import { setTimeout as sleep } from "node:timers/promises";
import { HubApiError } from "@huggingface/hub";
import { UpcycleError, inputError, interruptedError, stopError } from "../base/errors.js";
import type { HubReference } from "./reference.js";
import type { HubSettings } from "./settings.js";

export interface Connection {
  /** For the library: obeys `signal` and keeps what the library's errors leave out. */
  readonly fetch: typeof fetch;
  /** Any failure of a request as an UpcycleError. */
  failure(cause: unknown): UpcycleError;
  /** Whether another attempt may succeed: the line broke, or the server is busy. */
  mayPass(cause: unknown): boolean;
  /** Whether any answer has come. */
  reached(): boolean;
  /** Waits; throws like a request if it is stopped meanwhile. */
  pause(ms: number): Promise<void>;
}

/** Servers answer these when asked too often or when something behind them is down. */
const passing = new Set([408, 429, 500, 502, 503, 504]);

/** Throws inputError for an endpoint that is no address. */
export function connectionTo({ repo, revision }: HubReference, { endpoint, token }: HubSettings, signal: AbortSignal | undefined): Connection {
  if (!/^https?:\/\/./.test(endpoint) || !URL.canParse(endpoint)) throw inputError(`"${endpoint}" is no address`, { where: "HF_ENDPOINT", hint: "write one such as https://huggingface.co, or leave it out" });
  const where = `hf://${repo}${revision === "main" ? "" : `@${revision}`}`;
  // The last answer that was not a success; streams lose the error they broke with.
  let answered = false;
  let refused: { readonly status: number; readonly code: string | null } | null = null;
  const failure = (cause: unknown): UpcycleError => {
    if (cause instanceof UpcycleError) return cause;
    if (signal?.aborted === true) return interruptedError("download stopped", { where, hint: "run the same command to go on" });
    const status = cause instanceof HubApiError ? cause.statusCode : refused?.status;
    const hint = (words: string): { where: string; hint: string; cause: unknown } => ({ where, hint: words, cause });
    switch (status) {
      case undefined:
        break;
      case 401:
        if (token === undefined) return inputError("the Hub says 401: the model is private or gated, or does not exist", hint("check the name, or set HF_TOKEN to a token that may read it"));
        return inputError("the Hub says 401: it does not accept the token, or the model does not exist", hint("check the name and HF_TOKEN"));
      case 403:
        return inputError("the Hub says 403: this account may not read the model", hint(`accept its conditions at ${endpoint}/${repo}${token === undefined ? " and set HF_TOKEN" : ", with the account of HF_TOKEN"}`));
      case 404:
        if (refused?.code === "RevisionNotFound") return inputError(`the model has no revision ${revision}`, hint("check the branch, tag or commit after the @"));
        return inputError("the Hub has no such model", hint(token === undefined ? "check the name; a private model needs HF_TOKEN" : "check the name and revision"));
      case 429:
        return stopError("the Hub says 429: too many requests", hint("wait a while, then run the same command to go on"));
      default:
        return stopError(`the Hub says ${status}`, hint("run the same command later to go on"));
    }
    return stopError(`cannot reach ${endpoint} (${reason(cause)})`, hint("check the network and HF_ENDPOINT, then run the same command to go on"));
  };
  return {
    failure,
    reached: () => answered,
    pause: (ms) => sleep(ms, undefined, { ref: true, ...(signal === undefined ? {} : { signal }) }).catch((cause: unknown) => Promise.reject(failure(cause))),
    mayPass: (cause) => signal?.aborted !== true && !(cause instanceof UpcycleError) && (refused === null || passing.has(refused.status)),
    fetch: async (input, init) => {
      const response = await fetch(input, { ...init, ...(signal === undefined ? {} : { signal }) });
      answered = true;
      refused = response.ok ? null : { status: response.status, code: response.headers.get("x-error-code") };
      const range = /^bytes=([1-9]\d*)-/.exec(new Headers(init?.headers).get("range") ?? "");
      // Appending a whole file to a part of it would only show at the checksum.
      if (range !== null && response.status === 200) {
        await response.body?.cancel();
        throw stopError("the server sends whole files only, the part that is here cannot be completed", { where, hint: "run the same command with another HF_ENDPOINT" });
      }
      return response;
    },
  };
}

/** What lies at the bottom of "fetch failed". */
function reason(cause: unknown): string {
  let deepest = cause;
  while (deepest instanceof Error && deepest.cause !== undefined) deepest = deepest.cause;
  const code = (deepest as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : deepest instanceof Error ? deepest.message : String(deepest);
}
