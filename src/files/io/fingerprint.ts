/** A file's content in a few characters: of all of a small file, of samples of a large one. */
import { createHash } from "node:crypto";
import { openRanges } from "./ranges.js";

/** Files up to this size are read whole. */
const WHOLE_BYTES = 32 << 20;
/**
 * How many samples of larger files are read, and how long each is. The first is the beginning, where weight files
 * declare their tensors, the last is the end, and the others lie evenly in between.
 */
const SAMPLES = 128;
const SAMPLE_BYTES = 64 << 10;

/**
 * Size and hash of the content; times do not count, so that a copy has the fingerprint of its original. In a large file
 * a small change between two samples goes unseen; training further, another precision, or more text do not. Throws
 * inputError for what is no regular file.
 */
export async function fileFingerprint(path: string): Promise<string> {
  const file = await openRanges(path);
  try {
    const hash = createHash("sha256");
    if (file.size <= WHOLE_BYTES) hash.update(await file.read(0, file.size));
    else {
      const step = (file.size - SAMPLE_BYTES) / (SAMPLES - 1);
      for (let i = 0; i < SAMPLES; i++) hash.update(await file.read(Math.floor(i * step), SAMPLE_BYTES));
    }
    return `${file.size} bytes, ${hash.digest("hex").slice(0, 16)}`;
  } finally {
    await file.close();
  }
}
