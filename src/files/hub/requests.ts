/**
 * One request to the Hub and wherever it sends on. The token goes to the endpoint's own origin (scheme, host and port)
 * and to no other, whoever names the address; silence ends a request; the caller's signal ends everything.
 */
import { interruptedError, stopError, type UpcycleError } from "../../base/errors.js";
import { networkTrouble, refusal, silence, type RequestSubject } from "./failures.js";
import { HubTrouble } from "./limits.js";

/** What every request of a download shares. */
export interface RequestContext {
  readonly subject: RequestSubject;
  /** Goes to the endpoint's own origin alone. */
  readonly token: string | undefined;
  readonly signal: AbortSignal | undefined;
}

/** A success (2xx) whose body has not been read. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** Who sent it, behind all redirects. */
  readonly address: URL;
  /**
   * The body, once. Throws HubTrouble for a broken line or silence, interruptedError. To leave off reading ends the
   * connection.
   */
  chunks(): AsyncGenerator<Uint8Array>;
  /** Ends the connection of an answer that is not read. */
  drop(): void;
}

/**
 * Sends one request, and follows it wherever it is redirected. Throws HubTrouble, or UpcycleError where another attempt
 * would not help.
 */
export async function request(
  start: URL,
  headers: Readonly<Record<string, string>>,
  context: RequestContext,
): Promise<Answer> {
  const { subject, token } = context;
  const home = new URL(subject.endpoint).origin;
  let address = start;
  let trusted = true;
  for (let hop = 0; hop <= subject.limits.redirects; hop++) {
    // Once led elsewhere, a request is a stranger's even where it leads back.
    trusted &&= address.origin === home;
    const allHeaders = trusted && token !== undefined ? { ...headers, authorization: `Bearer ${token}` } : headers;
    const { response, watch } = await send(address, allHeaders, context);
    if (![301, 302, 303, 307, 308].includes(response.status)) return answer(response, address, watch, context);
    discard(response);
    address = redirectTarget(response, address, subject);
  }
  throw stopError(`${address.host} sends the request from one address to the next, ${subject.limits.redirects} times`, {
    where: subject.where,
    hint: "check HF_ENDPOINT",
  });
}

async function send(
  address: URL,
  headers: Readonly<Record<string, string>>,
  context: RequestContext,
): Promise<{ response: Response; watch: Watch }> {
  requireOpen(context);
  const watch = new Watch(context.subject.limits.stallMs, context.signal);
  try {
    // Redirects are followed here, so that it is here that the token stops.
    const response = await watch.during(() =>
      fetch(address, { headers, redirect: "manual", credentials: "omit", signal: watch.signal }),
    );
    return { response, watch };
  } catch (cause) {
    throw requestFailure(cause, address, watch, false, context);
  }
}

function answer(response: Response, address: URL, watch: Watch, context: RequestContext): Answer {
  if (!response.ok) {
    discard(response);
    throw refusal(response, address, context.subject);
  }
  return {
    status: response.status,
    headers: response.headers,
    address,
    drop: () => discard(response),
    async *chunks() {
      const reader = (response.body as ReadableStream<Uint8Array> | null)?.getReader();
      if (reader === undefined) return;
      try {
        for (;;) {
          const { done, value } = await watch
            .during(() => reader.read())
            .catch((cause: unknown) => Promise.reject(requestFailure(cause, address, watch, true, context)));
          if (done) return;
          yield value;
        }
      } finally {
        void reader.cancel().catch(() => undefined);
      }
    },
  };
}

/** Where a redirect leads. Throws stopError for what a careful client does not follow. */
function redirectTarget(response: Response, from: URL, { where }: RequestSubject): URL {
  const location = response.headers.get("location") ?? "";
  const refuse = (words: string): UpcycleError =>
    stopError(`${from.host} ${words}`, { where, hint: "check HF_ENDPOINT" });
  if (location === "" || !URL.canParse(location, from.href))
    throw refuse("sends the request to an address that is none");
  const to = new URL(location, from);
  if (to.protocol !== "https:" && to.protocol !== from.protocol)
    throw refuse(`sends the request from ${from.protocol}// to ${to.protocol}//, which is not followed`);
  if (to.username !== "" || to.password !== "")
    throw refuse("sends the request to an address with a password in it, which is not followed");
  return to;
}

/** The error for what fetch threw, `reached` or not by an answer: Ctrl-C, silence, or trouble on the network. */
function requestFailure(
  cause: unknown,
  address: URL,
  watch: Watch,
  reached: boolean,
  context: RequestContext,
): UpcycleError | HubTrouble {
  if (context.signal?.aborted === true) return interrupted(context.subject);
  return watch.expired
    ? silence(address, reached, context.subject)
    : networkTrouble(cause, address, reached, context.subject);
}

/** Throws interruptedError after Ctrl-C. */
export function requireOpen({ signal, subject }: RequestContext): void {
  if (signal?.aborted === true) throw interrupted(subject);
}

/** The error of a download that was stopped by its signal. */
export function interrupted({ where }: RequestSubject): UpcycleError {
  return interruptedError("download stopped", { where, hint: "run the same command to go on" });
}

function discard(response: Response): void {
  void response.body?.cancel().catch(() => undefined);
}

/** Ends a request whose next byte does not come; what the caller does between two bytes does not count. */
class Watch {
  readonly #silent = new AbortController();
  readonly #ms: number;
  readonly signal: AbortSignal;

  constructor(ms: number, signal: AbortSignal | undefined) {
    this.#ms = ms;
    this.signal = signal === undefined ? this.#silent.signal : AbortSignal.any([signal, this.#silent.signal]);
  }

  get expired(): boolean {
    return this.#silent.signal.aborted;
  }

  async during<T>(wait: () => Promise<T>): Promise<T> {
    const timer = setTimeout(() => this.#silent.abort(), this.#ms);
    try {
      return await wait();
    } finally {
      clearTimeout(timer);
    }
  }
}
