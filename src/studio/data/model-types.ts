/** What the server says of models: upcycled ones, those at work, and those that can generate, as plain data. */
import type { RecordedCommand } from "./command-types.js";

/** What was measured of a child against its parent. */
export interface PreservationRow {
  readonly verdict: string;
  readonly words: string;
  readonly tokens: number;
  readonly parentLoss: number;
  readonly childLoss: number;
  /** Largest difference of logits over the largest logit. */
  readonly relative: number;
  readonly klDivergence: number | null;
  readonly topAgreement: number | null;
  readonly layers: readonly { readonly layer: number; readonly relative: number; readonly largest: number }[];
}

/** A model that was upcycled. */
export interface ModelRow {
  readonly name: string;
  readonly recipe: string;
  readonly parent: string;
  readonly preservation: PreservationRow | null;
  /** `exact`, `constant-router` or `approximate`: what its recipe promises. */
  readonly expected: string;
}

/** A model with what every tensor of it is made of. */
export interface ModelDetail extends ModelRow {
  readonly path: string;
  /** Why the recipe keeps the parent's function or not. */
  readonly why: string;
  readonly warnings: readonly string[];
  readonly title: string;
  /** Tensors with their shapes and the expressions that give them; empty where the parent cannot be found. */
  readonly tensors: readonly { readonly name: string; readonly shape: string; readonly made: string }[];
  /** Why there is no plan; null if there is. */
  readonly noPlan: string | null;
  /** The command that makes the model again. */
  readonly command: readonly string[] | null;
}

/**
 * How a conversion is. `silent`: its process is there and says nothing; `stopped`: it has saved and ended; `dead`: it
 * was killed.
 */
export type ConversionState = "working" | "silent" | "stopped" | "dead";

/** A conversion that is at work, or was begun and not finished. */
export interface ConversionRow {
  /** The folder that it makes. */
  readonly name: string;
  readonly state: ConversionState;
  /** What it makes, such as a recipe; null before it is planned. */
  readonly what: string | null;
  /** Names of the models that it reads, the base first. */
  readonly sources: readonly string[];
  readonly phase: "starting" | "measuring" | "writing" | "proving";
  /** The tensor that was worked on last. */
  readonly tensor: string | null;
  /** Bytes of weights in the phase `writing`, layers or sequences in the others. */
  readonly done: number;
  readonly total: number;
  /** Bytes that an earlier attempt had written. */
  readonly found: number;
  readonly bytesPerSecond: number | null;
  readonly secondsLeft: number | null;
  /** Milliseconds since 1970; null where nobody has noted it. */
  readonly started: number | null;
  readonly updated: number;
  /** Why it stopped, where it said so. */
  readonly why: string | null;
  /** The command that goes on with it; null where it was not noted. */
  readonly command: RecordedCommand | null;
}

/** A model that can generate text. */
export interface PlayableModel {
  /** Its folder below the one that is shown; "" for that itself. */
  readonly name: string;
  readonly kind: "dense" | "moe";
  readonly family: string;
  readonly params: number;
  readonly activeParams: number;
  /** Experts of its first layer of experts, and how many of them a token is given to; null for a dense model. */
  readonly experts: number | null;
  readonly topK: number | null;
  /** Bytes of memory that it takes while it generates. */
  readonly memory: number;
  /** The dense model that it was made from, where that lies below the folder too. */
  readonly parent: string | null;
}

/** Models that can generate text. */
export interface CheckpointList {
  readonly models: readonly PlayableModel[];
  /** Model folders that were not looked at, because there are so many. */
  readonly more: number;
  /** Bytes of memory of this machine. */
  readonly memory: number;
  /** Threads that each of two models gets. */
  readonly threads: number;
}
