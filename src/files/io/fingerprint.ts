/** A file's content in a few characters: all of a small file, parts of a large one. */
import { createHash } from "node:crypto";
import { openRanges } from "./ranges.js";

/** Files up to this size are read whole. */
const WHOLE_BYTES = 32 << 20;
/**
 * Of larger ones: the beginning, where weight files declare their tensors, the end, and as many pieces in between,
 * evenly.
 */
const PIECES = 128;
const PIECE_BYTES = 64 << 10;

/**
 * Size and hash of the content; times do not count, so that a copy has the fingerprint of its original. Of a large file
 * a change that is small in a place that is not looked at goes unseen; training further, another precision, or more
 * text do not. Throws inputError for what is no regular file.
 */
export async function fileFingerprint(path: string): Promise<string> {
  const file = await openRanges(path);
  try {
    const hash = createHash("sha256");
    if (file.size <= WHOLE_BYTES) hash.update(await file.read(0, file.size));
    else {
      const step = (file.size - PIECE_BYTES) / (PIECES - 1);
      for (let i = 0; i < PIECES; i++) hash.update(await file.read(Math.floor(i * step), PIECE_BYTES));
    }
    return `${file.size} bytes, ${hash.digest("hex").slice(0, 16)}`;
  } finally {
    await file.close();
  }
}
