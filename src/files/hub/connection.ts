/**
 * A Hub and one model of it: answers of its API for the library, bytes of its files for ourselves, each tried again
 * where that may help. Every request is one of `requests.ts`, so the library never has the token, and what is true
 * there of redirects, silence and Ctrl-C is true of all.
 *
 * Files are not fetched by the library: it asks for a range before it downloads, which not all servers have, hides
 * which part came, and for files stored as Xet chunks speaks to further servers in ways of its own. The plain way
 * serves all files, and can be taken up again anywhere.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { UpcycleError, inputError, stopError } from "../../base/errors.js";
import { bytes, duration } from "../../base/format.js";
import type { RequestSubject } from "./failures.js";
import { HubTrouble, hubLimits, type HubLimits, type TroubleKind } from "./limits.js";
import type { HubReference } from "./reference.js";
import { interrupted, request, requireOpen, type Answer, type RequestContext } from "./requests.js";
import type { HubSettings } from "./settings.js";

interface ConnectionOptions {
  readonly signal?: AbortSignal | undefined;
  readonly limits?: Partial<HubLimits> | undefined;
  /** Called with what a user waits for. */
  readonly onNote?: ((text: string) => void) | undefined;
}

/** Which bytes of a file at a commit: from `start` to before `end`. */
export interface ByteRange {
  readonly path: string;
  readonly commit: string;
  readonly size: number;
  readonly start: number;
  readonly end: number;
}

/** Requests to one Hub, with its token and its limits. */
export interface Connection {
  readonly limits: HubLimits;
  readonly signal: AbortSignal | undefined;
  /**
   * A `fetch` for one call of the library: answers are whole, small, successes, and from the Hub's own address.
   * `giveUpOn`: what is not tried again.
   */
  api(giveUpOn: ReadonlySet<TroubleKind>): typeof fetch;
  /**
   * Exactly the bytes of the range; `onWhole` is called where the server sends the file from its beginning instead.
   * Throws HubTrouble; see `retried`.
   */
  bytes(range: ByteRange, onWhole?: (host: string) => void): AsyncGenerator<Uint8Array>;
  /**
   * Runs until there is no HubTrouble, or too many; then throws its failure. Attempts count anew after one that
   * `gained` something.
   */
  retried<T>(
    run: () => Promise<T>,
    options?: { readonly gained?: () => boolean; readonly giveUpOn?: ReadonlySet<TroubleKind> },
  ): Promise<T>;
  /** Whether `retried` threw this because the Hub could not be subject; a refusal is an answer. */
  isOutage(cause: unknown): boolean;
  /** Throws interruptedError after Ctrl-C. */
  requireOpen(): void;
  /** Tells the user something. */
  note(text: string): void;
}

/** Attempts at an answer that was wrong: a second one shows whether it was an accident. */
const wrongAttempts = 2;

/** Opens a connection; asks nothing yet. Throws inputError for an endpoint that is no address, or has a password. */
export function connectionTo(
  { repo, revision }: HubReference,
  settings: HubSettings,
  options: ConnectionOptions,
): Connection {
  const { endpoint, token, stallMs } = settings;
  const home = endpointAddress(endpoint);
  const limits = { ...hubLimits, ...(stallMs === undefined ? {} : { stallMs }), ...options.limits };
  const subject: RequestSubject = {
    where: `hf://${repo}${revision === "main" ? "" : `@${revision}`}`,
    repo,
    revision,
    endpoint,
    token: token !== undefined,
    proxy: settings.unusedProxy,
    limits,
  };
  const { signal } = options;
  const context: RequestContext = { subject, token, signal };
  const note = (text: string): void => options.onNote?.(text);
  if (token !== undefined && home.protocol === "http:" && !isThisMachine(home.hostname)) {
    note(`warning: the token goes to ${home.host} unencrypted, because HF_ENDPOINT begins with http://`);
  }
  const { retried, isOutage } = openRetries(context, note);
  return {
    limits,
    signal,
    retried,
    isOutage,
    note,
    requireOpen: () => requireOpen(context),
    api: (giveUpOn) => apiFetch(context, (run) => retried(run, { giveUpOn })),
    bytes: fileReader(context),
  };
}

function openRetries(context: RequestContext, note: (text: string) => void): Pick<Connection, "retried" | "isOutage"> {
  const { subject, signal } = context;
  const { limits } = subject;
  const outages = new WeakSet<UpcycleError>();
  const pause = async (ms: number): Promise<void> => {
    await sleep(ms, undefined, signal === undefined ? {} : { signal }).catch(() =>
      Promise.reject(interrupted(subject)),
    );
  };
  return {
    isOutage: (cause) => cause instanceof UpcycleError && outages.has(cause),
    async retried(run, { gained = () => false, giveUpOn = new Set() } = {}) {
      let wrongAnswers = 0;
      for (let attempt = 1; ; attempt++) {
        try {
          requireOpen(context);
          return await run();
        } catch (cause) {
          if (!(cause instanceof HubTrouble)) throw cause;
          if (gained()) attempt = 1;
          const isWrong = cause.kind === "wrong";
          const [tries, most] = isWrong ? [++wrongAnswers, wrongAttempts] : [attempt, limits.attempts];
          if (giveUpOn.has(cause.kind) || tries >= most) {
            if (cause.kind !== "busy" && !isWrong) outages.add(cause.failure);
            throw cause.failure;
          }
          const wait = Math.max(cause.pauseMs, limits.retryMs * 2 ** (attempt - 1));
          const when = wait < 5000 ? "" : ` in ${duration(wait / 1000)}`;
          note(`${cause.message}, trying again${when}: ${tries + 1} of ${most}`);
          await pause(wait);
        }
      }
    },
  };
}

/** A `fetch` for one call of the library, which may ask for several pages. */
function apiFetch(context: RequestContext, retried: (run: () => Promise<Response>) => Promise<Response>): typeof fetch {
  const { where, endpoint, limits } = context.subject;
  const pages = new Set<string>();
  return async (input) => {
    const address = new URL(input instanceof Request ? input.url : input);
    // Pages may name one another, or always one more.
    if (pages.has(address.href) || pages.size >= limits.pages) {
      throw stopError(`${new URL(endpoint).host} lists files without end (${pages.size} pages)`, {
        where,
        hint: "check HF_ENDPOINT",
      });
    }
    pages.add(address.href);
    return retried(() => wholeAnswer(address, context));
  };
}

/** Reads bytes of files; it remembers whether the server can send parts of them. */
function fileReader(context: RequestContext): Connection["bytes"] {
  const { where, endpoint, repo } = context.subject;
  // A server that once sent another part than the one asked for is asked for whole files.
  let sendsParts = true;
  return async function* bytesOf({ path, commit, size, start, end }, onWhole) {
    const address = new URL(
      `${endpoint}/${repo}/resolve/${commit}/${path.split("/").map(encodeURIComponent).join("/")}`,
    );
    const ask = (asPart: boolean): Promise<Answer> => {
      const headers = { "accept-encoding": "identity" };
      return request(address, asPart ? { ...headers, range: `bytes=${start}-${end - 1}` } : headers, context);
    };
    const isPartial = start > 0 || end < size;
    let answer = await ask(isPartial && sendsParts);
    if (answer.status === 206 && !isPart(answer, start)) {
      answer.drop();
      sendsParts = false;
      answer = await ask(false);
    }
    const total = totalOf(answer);
    if (total !== null && total !== size) {
      answer.drop();
      const failure = stopError(`${path} has ${total} bytes, the Hub announced ${size}`, {
        where,
        hint: "run the same command later",
      });
      throw new HubTrouble("wrong", failure);
    }
    const isWhole = answer.status !== 206;
    if (isWhole && start > 0) onWhole?.(answer.address.host);
    yield* cut(answer, isWhole ? start : 0, isWhole ? end : end - start, context.subject, path);
  };
}

/**
 * Bytes `from` to before `to` of a body, however long it is. Throws HubTrouble for a body that ends before, or comes
 * too slowly.
 */
async function* cut(
  answer: Answer,
  from: number,
  to: number,
  { where, limits }: RequestSubject,
  path: string,
): AsyncGenerator<Uint8Array> {
  const { host } = answer.address;
  const hint = "run the same command to go on";
  let at = 0;
  let window = { began: performance.now(), at };
  for await (const chunk of answer.chunks()) {
    const part = chunk.subarray(Math.max(0, from - at), Math.max(0, to - at));
    at += chunk.byteLength;
    if (part.byteLength > 0) yield part;
    if (at >= to) return;
    const seconds = (performance.now() - window.began) / 1000;
    if (seconds * 1000 < limits.answerMs) continue;
    if (at - window.at < limits.slowest * seconds) {
      const message = `${host} sends less than ${bytes(limits.slowest)} a second of ${path}`;
      throw new HubTrouble("silent", stopError(message, { where, hint }));
    }
    window = { began: performance.now(), at };
  }
  if (at >= to) return;
  const failure = stopError(`${host} sent ${bytes(at)} of ${bytes(to)} of ${path}`, { where, hint });
  throw new HubTrouble("broken", failure);
}

/** Whether a 206 is the part that begins where it should, unpacked. */
function isPart({ headers }: Answer, start: number): boolean {
  const begin = /^bytes (\d+)-\d+\/(?:\d+|\*)$/.exec(headers.get("content-range") ?? "")?.[1];
  return begin !== undefined && Number(begin) === start && isPlain(headers);
}

/** The size of the file, where the answer says so. */
function totalOf({ status, headers }: Answer): number | null {
  const range = headers.get("content-range") ?? "";
  const length = isPlain(headers) ? (headers.get("content-length") ?? "") : "";
  const text = status === 206 ? (/\/(\d+)$/.exec(range)?.[1] ?? "") : length;
  return /^\d+$/.test(text) ? Number(text) : null;
}

const isPlain = (headers: Headers): boolean => /^(identity)?$/i.test(headers.get("content-encoding") ?? "");

/**
 * Reads an answer of the API into memory. Throws stopError for one above the limit, also where it is sent packed and
 * small, and HubTrouble for one that takes too long.
 */
async function wholeAnswer(address: URL, context: RequestContext): Promise<Response> {
  const { subject } = context;
  const { where, limits } = subject;
  requireHome(address, subject);
  const answer = await request(address, { accept: "application/json" }, context);
  const began = performance.now();
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of answer.chunks()) {
    parts.push(part);
    length += part.byteLength;
    const { host } = answer.address;
    if (length > limits.answerBytes)
      throw stopError(`${host} answers with more than ${bytes(limits.answerBytes)}`, {
        where,
        hint: "check HF_ENDPOINT",
      });
    if (performance.now() - began > limits.answerMs) {
      throw new HubTrouble(
        "silent",
        stopError(`${host} takes more than ${duration(limits.answerMs / 1000)} for one answer`, {
          where,
          hint: "run the same command later",
        }),
      );
    }
  }
  const next = nextPage(answer, address, subject);
  return new Response(Buffer.concat(parts), { headers: next === null ? {} : { link: `<${next}>; rel="next"` } });
}

/** The address of the next page of a list, which the library will ask for; null where there is none. */
function nextPage({ headers }: Answer, address: URL, subject: RequestSubject): string | null {
  const reference = /<([^<>]*)>[^<>]*;\s*rel="?next"?\s*(?:[,;]|$)/i.exec(headers.get("link") ?? "")?.[1];
  if (reference === undefined) return null;
  if (!URL.canParse(reference, address.href))
    throw stopError(`${address.host} names a next page that is no address`, {
      where: subject.where,
      hint: "check HF_ENDPOINT",
    });
  const next = new URL(reference, address);
  requireHome(next, subject);
  return next.href;
}

/**
 * Throws stopError for an address that is not the Hub's own: a list of files that goes on elsewhere is not followed,
 * with or without the token.
 */
function requireHome(address: URL, { where, endpoint }: RequestSubject): void {
  const home = new URL(endpoint);
  if (address.origin === home.origin && address.username === "" && address.password === "") return;
  throw stopError(
    `${home.host} continues its list of files at another address (${address.origin}), which is not followed`,
    { where, hint: "check HF_ENDPOINT" },
  );
}

/** The Hub's address. Throws inputError for one that is none, or has a user name or password in it. */
function endpointAddress(endpoint: string): URL {
  const hint = "write one such as https://huggingface.co, or leave it out";
  // A password must not come into a message, whatever else is wrong with the address.
  if (/^[^/]*(\/\/)?[^/]*@/.test(endpoint))
    throw inputError("the address has a user name or password in it, which would go to every server behind it", {
      where: "HF_ENDPOINT",
      hint: "leave it out; HF_TOKEN says who asks",
    });
  if (!/^https?:\/\/[^/]/.test(endpoint) || !URL.canParse(endpoint) || /[?#]/.test(endpoint))
    throw inputError(`"${endpoint}" is no address`, { where: "HF_ENDPOINT", hint });
  return new URL(endpoint);
}

function isThisMachine(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
}

/**
 * What a call of the library threw, as an error for users. Answers are whole by then: what is left to fail is their
 * content.
 */
export function apiFailure(cause: unknown, endpoint: string, where: string): unknown {
  if (cause instanceof SyntaxError || cause instanceof TypeError || cause instanceof RangeError) {
    return stopError(`${new URL(endpoint).host} answers with something else than a Hub does`, {
      where,
      hint: "check HF_ENDPOINT; some networks answer with a login page",
    });
  }
  return cause;
}
