/** What every reader of points gives. */

/** A table of text cells. */
export interface Table {
  readonly headers: readonly string[];
  /** Cells by row; an absent value is "". */
  readonly rows: readonly (readonly string[])[];
  /** Line of the file each row stands on, from 1. */
  readonly lines: readonly number[];
}
