/** What every reader of text gives, whatever the file. */

/** One text with the place it was read from. */
export interface CorpusDocument {
  /** File name, or `file:line` for a document of a .jsonl or .parquet file. */
  readonly name: string;
  /** Never empty. */
  readonly text: string;
}
