/** How long a Hub is waited for, and how much of what it sends is taken. */
import { UpcycleError } from "../../base/errors.js";

/** How long and how much a download may take before it counts as failed. */
export interface HubLimits {
  /** Milliseconds; a request that brings no byte for so long has stalled. */
  readonly stallMs: number;
  /** Milliseconds for an answer of the API as a whole, each being small; so often the pace of a file is judged too. */
  readonly answerMs: number;
  /** Bytes per second; a file that comes more slowly counts as stalled. */
  readonly slowest: number;
  /** Most attempts in a row of which none brings anything new. */
  readonly attempts: number;
  /** Milliseconds before the second attempt; each further pause is twice as long. */
  readonly retryMs: number;
  /** The longest pause in milliseconds that a server may ask for (Retry-After). */
  readonly pauseMs: number;
  /** Most bytes of one answer of the API, unpacked: a page lists a thousand files in a few hundred kB. */
  readonly answerBytes: number;
  /** Most pages of one list of files. */
  readonly pages: number;
  /** Most files in all pages of a list. */
  readonly files: number;
  /** Most redirects of one request. */
  readonly redirects: number;
  /** Bytes that an attempt has to bring of a file for the count of attempts to start anew. */
  readonly gainBytes: number;
}

/** The limits of every download. */
export const hubLimits: HubLimits = {
  stallMs: 20_000,
  answerMs: 120_000,
  slowest: 100,
  attempts: 5,
  retryMs: 1000,
  pauseMs: 120_000,
  answerBytes: 4e6,
  pages: 100,
  files: 100_000,
  redirects: 10,
  gainBytes: 1e6,
};

/**
 * Kinds of trouble that may go away by itself. `unreachable`: no connection came about; `silent`: nothing came over it;
 * `broken`: the line broke; `busy`: the server says so; `wrong`: what came is not what the Hub had announced, for which
 * a second attempt is enough.
 */
export type TroubleKind = "unreachable" | "silent" | "broken" | "busy" | "wrong";

/** A failure that another attempt may not meet; `failure` is what to throw if there is none. */
export class HubTrouble extends Error {
  constructor(
    readonly kind: TroubleKind,
    readonly failure: UpcycleError,
    /** Milliseconds that the server asks to wait. */
    readonly pauseMs = 0,
  ) {
    super(failure.message, { cause: failure });
  }
}
