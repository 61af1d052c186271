/**
 * Writes BYTES bytes to FILE and flushes them; the conversion benchmark (`convert.mjs`) compares its speed with this.
 *
 *   node bench/convert-raw.mjs FILE BYTES HOW [SOURCE ...]
 *
 * HOW is `direct` (O_DIRECT, with 3 writes of 8 MiB in flight) or `cached` (the same writes through the page cache,
 * flushed every 256 MiB). With sources their bytes are written in place of BYTES of a pattern: each write waits for
 * its read.
 */
import { constants, open } from "node:fs/promises";

const [path, size, how, ...sources] = process.argv.slice(2);
const opened = await Promise.all(
  sources.map(async (source) => {
    const handle = await open(source);
    return { handle, bytes: (await handle.stat()).size };
  }),
);
const bytes = opened.length === 0 ? Number(size) : opened.reduce((sum, one) => sum + one.bytes, 0);
const chunk = 8 << 20;
const flush = 256 << 20;
/** Memory that begins at a page, with a pattern. */
function pages() {
  const { buffer } = new globalThis.WebAssembly.Memory({ initial: chunk >> 16, maximum: chunk >> 16 });
  new Uint32Array(buffer).forEach((_, i, words) => (words[i] = (i * 2654435761) >>> 0));
  return new Uint8Array(buffer);
}

/** Reads the bytes of the sources, one behind the other. */
async function fill(data, at, count) {
  let begin = 0;
  for (const { handle, bytes: size } of opened) {
    const [from, to] = [Math.max(at, begin), Math.min(at + count, begin + size)];
    if (from < to) await handle.read(data, from - at, to - from, from - begin);
    begin += size;
  }
}

const file = await open(
  path,
  constants.O_CREAT | constants.O_WRONLY | constants.O_TRUNC | (how === "direct" ? constants.O_DIRECT : 0),
);
const tail = how === "direct" ? bytes % 4096 : 0;
let next = 0;
let unflushed = 0;
let flushing = Promise.resolve();
const shared = pages();
const writer = async () => {
  const data = opened.length === 0 ? shared : pages();
  while (next < bytes - tail) {
    const at = next;
    const count = Math.min(chunk, bytes - tail - at);
    next += count;
    await fill(data, at, count);
    for (let done = 0; done < count;) done += (await file.write(data, done, count - done, at + done)).bytesWritten;
    unflushed += count;
    if (how === "cached" && unflushed >= flush) {
      unflushed = 0;
      await flushing;
      flushing = file.datasync();
    }
  }
};
await Promise.all([writer(), writer(), writer()]);
await flushing;
if (tail > 0) {
  const cached = await open(path, "r+");
  await fill(shared, bytes - tail, tail);
  await cached.write(shared, 0, tail, bytes - tail);
  await cached.close();
}
await file.sync();
await file.close();
