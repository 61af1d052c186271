/** What the server says of commands, as plain data. */

/** A command line, and the folder in which it was given. */
export interface RecordedCommand {
  readonly words: readonly string[];
  readonly folder: string;
}

/** A command that the studio has started. */
export interface StartedAction {
  readonly id: number;
  readonly words: readonly string[];
  /** The folder in which it was given. */
  readonly folder: string;
  readonly state: "running" | "stopping" | "ended";
  readonly exitCode: number | null;
  /** Milliseconds since 1970. */
  readonly started: number;
  readonly ended: number | null;
  /** Last lines of what it said. */
  readonly lines: readonly string[];
}
