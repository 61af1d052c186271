/**
 * Why a request failed, in words that a user can act on. Addresses are shown by their host alone: paths and queries may
 * hold signatures.
 */
import { inputError, stopError, type UpcycleError } from "../../base/errors.js";
import { duration } from "../../base/format.js";
import { HubTrouble, type HubLimits, type TroubleKind } from "./limits.js";

/** What a request is about, for the messages: who is asked, for which model, and how. */
export interface RequestSubject {
  /** `hf://org/name@revision`. */
  readonly where: string;
  readonly repo: string;
  readonly revision: string;
  readonly endpoint: string;
  /** Whether there is a token. */
  readonly token: boolean;
  /** The variable that names a proxy, where one is set that Node's fetch does not use. */
  readonly proxy: string | undefined;
  readonly limits: HubLimits;
}

/** Why a request failed, by the code of the failure. */
interface Reason {
  readonly kind: TroubleKind;
  readonly words: string;
  readonly hint?: string;
}

const checkNetwork = "check the network and HF_ENDPOINT, then run the same command to go on";
const checkCertificate =
  "check the clock and HF_ENDPOINT; behind a proxy that inspects TLS, set NODE_EXTRA_CA_CERTS to its certificate";

/** The first pattern that fits a code decides. Codes are those of Node, OpenSSL and undici, which is Node's fetch. */
const reasons: readonly (readonly [RegExp, Reason])[] = [
  [/^(ENOTFOUND|EAI_\w+|ENODATA)$/, { kind: "unreachable", words: "no address is known for this name" }],
  [/^ECONNREFUSED$/, { kind: "unreachable", words: "it refuses connections" }],
  [
    /^(EHOSTUNREACH|ENETUNREACH|EHOSTDOWN|ENETDOWN|EADDRNOTAVAIL)$/,
    { kind: "unreachable", words: "no way leads there" },
  ],
  [/^(UND_ERR_CONNECT_TIMEOUT|ETIMEDOUT)$/, { kind: "unreachable", words: "no connection in time" }],
  [/^(UND_ERR_HEADERS_TIMEOUT|UND_ERR_BODY_TIMEOUT)$/, { kind: "silent", words: "no answer in time" }],
  [
    /^(ERR_SSL_WRONG_VERSION_NUMBER|ERR_SSL_PACKET_LENGTH_TOO_LONG|EPROTO)$/,
    { kind: "unreachable", words: "it does not speak TLS", hint: "check HF_ENDPOINT: is it http:// and not https://?" },
  ],
  [
    /CERT|SIGNATURE|^ERR_(TLS|SSL)_|^(INVALID_CA|PATH_LENGTH_EXCEEDED|HOSTNAME_MISMATCH)$/,
    { kind: "unreachable", words: "its certificate is not accepted", hint: checkCertificate },
  ],
  [
    /^(HPE_\w+|UND_ERR_HEADERS_OVERFLOW|UND_ERR_RES\w*|ERR_HTTP\w*)$/,
    { kind: "broken", words: "its answer is no HTTP", hint: "check HF_ENDPOINT" },
  ],
  [
    /^(Z_\w+|ERR_\w*ZLIB\w*|ERR__ERROR_FORMAT\w*|ERR_BROTLI\w*|ERR_TRAILING_JUNK\w*)$/,
    { kind: "wrong", words: "what it sends cannot be unpacked" },
  ],
  [
    /^(ECONNRESET|ECONNABORTED|EPIPE|UND_ERR_SOCKET|UND_ERR_ABORTED)$/,
    { kind: "broken", words: "the connection broke" },
  ],
];

/** The error for what Node's fetch threw, before (`reached` false) or while (true) an answer came from this address. */
export function networkTrouble(
  cause: unknown,
  address: URL,
  reached: boolean,
  { where, proxy }: RequestSubject,
): HubTrouble {
  const { code, message } = deepest(cause);
  const reason = reasons.find(([pattern]) => pattern.test(code))?.[1];
  const detail = code === "" ? message : code;
  if (reached || reason?.kind === "broken" || reason?.kind === "wrong") {
    const failure = stopError(`${reason?.words ?? "the connection broke"} (${address.host}: ${detail})`, {
      where,
      hint: reason?.hint ?? "run the same command to go on",
    });
    return new HubTrouble(reason?.kind === "wrong" ? "wrong" : "broken", failure);
  }
  const words = reason === undefined ? detail : `${reason.words}, ${detail}`;
  const hint = reason?.hint ?? `${checkNetwork}${besideProxy(proxy)}`;
  return new HubTrouble(
    reason?.kind ?? "unreachable",
    stopError(`cannot reach ${address.origin} (${words})`, { where, hint }),
  );
}

/** Words about a proxy that Node's fetch does not use: whoever has set its variable believes that it is used. */
function besideProxy(proxy: string | undefined): string {
  return proxy === undefined
    ? ""
    : `; ${proxy} is set, which Node's fetch uses from Node 22.21 on with NODE_USE_ENV_PROXY=1 alone`;
}

/** The error of a request that brought nothing for as long as the limits allow. */
export function silence(address: URL, reached: boolean, { where, proxy, limits }: RequestSubject): HubTrouble {
  const hint = `run the same command later to go on${reached ? "" : besideProxy(proxy)}`;
  const failure = stopError(`no answer from ${address.host} for ${duration(limits.stallMs / 1000)}`, { where, hint });
  return new HubTrouble("silent", failure);
}

/** What lies at the bottom of "fetch failed"; where several addresses were tried, of the first. */
function deepest(cause: unknown): { readonly code: string; readonly message: string } {
  let bottom = cause;
  for (let depth = 0; depth < 10 && bottom instanceof Error; depth++) {
    const hasErrors = bottom instanceof AggregateError && (bottom as { code?: unknown }).code === undefined;
    const below: unknown = hasErrors ? (bottom as AggregateError).errors[0] : bottom.cause;
    if (below === undefined) break;
    bottom = below;
  }
  const code = (bottom as { code?: unknown } | null)?.code;
  // Some messages of fetch repeat the address or a header, and with them what is secret.
  const isHarmless =
    bottom instanceof Error && bottom.message.length <= 60 && !/https?:|hf_|bearer/i.test(bottom.message);
  const message = isHarmless ? (bottom as Error).message : "the request failed";
  return { code: typeof code === "string" ? code : "", message };
}

/** Statuses with which servers answer when asked too often, or when something behind them is down. */
const busy = new Set([408, 425, 429, 500, 502, 503, 504]);

/** The error of an answer that is no success: thrown as it is where another attempt would get the same. */
export function refusal(response: Response, address: URL, subject: RequestSubject): UpcycleError | HubTrouble {
  const { status } = response;
  const { where, endpoint } = subject;
  const isHub = address.origin === new URL(endpoint).origin;
  if (busy.has(status)) return busyTrouble(response, isHub ? "the Hub" : address.origin, subject);
  if (isHub) return hubRefusal(status, response.headers.get("x-error-code"), subject);
  const failure = stopError(
    `${address.origin} says ${status}, to which ${new URL(endpoint).origin} sends the request (without the token)`,
    { where, hint: "run the same command later, or check HF_ENDPOINT" },
  );
  // The links to a store of files are signed and expire; the next attempt gets a new one.
  return status === 403 || status === 410 ? new HubTrouble("busy", failure) : failure;
}

function busyTrouble(
  { status, headers }: Response,
  who: string,
  { where, limits }: RequestSubject,
): UpcycleError | HubTrouble {
  const pause = pauseIn(headers);
  const wait = pause <= limits.pauseMs ? "" : `, and asks to wait ${duration(pause / 1000)}`;
  const failure =
    status === 429
      ? stopError(`${who} says 429: too many requests${wait}`, {
          where,
          hint: "wait a while, then run the same command to go on",
        })
      : stopError(`${who} says ${status}${wait}`, { where, hint: "run the same command later to go on" });
  return pause > limits.pauseMs ? failure : new HubTrouble("busy", failure, pause);
}

/** The error of a status with which the Hub itself answers; `code` is its own code for it, if it gives one. */
function hubRefusal(
  status: number,
  code: string | null,
  { where, repo, revision, endpoint, token }: RequestSubject,
): UpcycleError {
  const page = `${endpoint}/${repo}`;
  switch (status) {
    case 401:
      if (token)
        return inputError("the Hub says 401: it does not accept the token, or the model does not exist", {
          where,
          hint: "check the name and HF_TOKEN",
        });
      if (code === "GatedRepo")
        return inputError("the Hub says 401: the model is gated", {
          where,
          hint: `accept its conditions at ${page} and set HF_TOKEN to a token of that account`,
        });
      return inputError("the Hub says 401: the model is private or gated, or does not exist", {
        where,
        hint: "check the name, or set HF_TOKEN to a token that may read it",
      });
    case 403:
      if (token && code !== "GatedRepo")
        return inputError("the Hub says 403: this token may not read the model", {
          where,
          hint: `check what HF_TOKEN may read, or accept the model's conditions at ${page}`,
        });
      return inputError("the Hub says 403: this account may not read the model", {
        where,
        hint: `accept its conditions at ${page}${token ? ", with the account of HF_TOKEN" : " and set HF_TOKEN"}`,
      });
    case 404:
      if (code === "RevisionNotFound")
        return inputError(`the model has no revision ${revision}`, {
          where,
          hint: "check the branch, tag or commit after the @",
        });
      if (code === "EntryNotFound")
        return stopError("a file is listed but not there", { where, hint: "run the same command later" });
      return inputError("the Hub has no such model", {
        where,
        hint: token ? "check the name and revision" : "check the name; a private model needs HF_TOKEN",
      });
    default:
      return stopError(`the Hub says ${status}`, { where, hint: "run the same command later to go on" });
  }
}

/** Milliseconds that Retry-After (seconds or a date) or the Hub's RateLimit header (`"api";r=0;t=55`) ask for. */
export function pauseIn(headers: Headers): number {
  const after = headers.get("retry-after")?.trim() ?? "";
  if (/^\d+$/.test(after)) return Number(after) * 1000;
  const date = Date.parse(after);
  if (Number.isFinite(date)) return Math.max(0, date - Date.now());
  const reset = /;\s*t=(\d+)/.exec(headers.get("ratelimit") ?? "")?.[1];
  return reset === undefined ? 0 : Number(reset) * 1000;
}
