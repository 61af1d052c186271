/** How long a Hub is waited for, and how much of what it sends is taken. */
import { UpcycleError } from "../../base/errors.js";

/** How long and how much a download may take before it counts as failed. */
export interface HubLimits {
  /** A request that brings no byte for so long has stalled. */
  readonly stallMs: number;
  /** An answer of the API as a whole, each being small; and how often the pace of a file is judged. */
  readonly answerMs: number;
  /** A file that comes more slowly, in bytes per second, counts as stalled. */
  readonly slowest: number;
  /** In a row, of which none brings anything new. */
  readonly attempts: number;
  /** Before the second attempt; each further pause is twice as long. */
  readonly retryMs: number;
  /** The longest pause that a server may ask for (Retry-After). */
  readonly pauseMs: number;
  /** Most bytes of one answer of the API, unpacked: a page lists a thousand files in a few hundred kB. */
  readonly answerBytes: number;
  /** Pages of one list of files, and files in all of them. */
  readonly pages: number;
  readonly files: number;
  readonly redirects: number;
  /** What an attempt has to bring of a file for the count of attempts to start anew. */
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
 * What may go away by itself. `unreachable`: no connection came about; `silent`: nothing came over it; `broken`: the
 * line broke; `busy`: the server says so; `wrong`: what came is not what the Hub had announced, for which a second
 * attempt is enough.
 */
export type TroubleKind = "unreachable" | "silent" | "broken" | "busy" | "wrong";

/** A failure that another attempt may not meet; `failure` is what to throw if there is none. */
export class HubTrouble extends Error {
  constructor(
    readonly kind: TroubleKind,
    readonly failure: UpcycleError,
    /** What the server asks to wait. */
    readonly pauseMs = 0,
  ) {
    super(failure.message, { cause: failure });
  }
}
