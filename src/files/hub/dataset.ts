/**
 * Splits of data sets of the Hugging Face Hub as Parquet files in the cache that Python's huggingface_hub uses as well.
 * Files are those of the branch `refs/convert/parquet`, in which the Hub keeps every data set as
 * `CONFIG/SPLIT/0000.parquet`, or those that a task names itself.
 */
import type { FetchOptions } from "./fetch.js";

/** A split, and the files of it if they are known. */
export interface DatasetSplit {
  readonly path: string;
  readonly name: string | null;
  readonly split: string;
  readonly files: readonly string[];
}

/** To be written. */
export function fetchSplit(split: DatasetSplit, _: Pick<FetchOptions, "signal" | "onEvent">): Promise<readonly string[]> {
  return Promise.reject(new Error(`${split.path} is not fetched yet`));
}
