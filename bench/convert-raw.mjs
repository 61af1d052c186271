/**
 * Writes BYTES bytes to FILE and flushes them; the conversion benchmark (`convert.mjs`) compares its speed with this.
 *
 *   node bench/convert-raw.mjs FILE BYTES HOW
 *
 * HOW is `direct` (O_DIRECT, with 3 writes of 8 MiB in flight) or `cached` (the same writes through the page cache,
 * flushed every 256 MiB).
 */
import { constants, open } from "node:fs/promises";

const [path, size, how] = process.argv.slice(2);
const bytes = Number(size);
const chunk = 8 << 20;
const flush = 256 << 20;
const { buffer } = new globalThis.WebAssembly.Memory({ initial: chunk >> 16, maximum: chunk >> 16 });
const data = new Uint8Array(buffer);
new Uint32Array(buffer).forEach((_, i, words) => (words[i] = (i * 2654435761) >>> 0));

const file = await open(
  path,
  constants.O_CREAT | constants.O_WRONLY | constants.O_TRUNC | (how === "direct" ? constants.O_DIRECT : 0),
);
const tail = how === "direct" ? bytes % 4096 : 0;
let next = 0;
let unflushed = 0;
let flushing = Promise.resolve();
const writer = async () => {
  while (next < bytes - tail) {
    const at = next;
    const count = Math.min(chunk, bytes - tail - at);
    next += count;
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
  await cached.write(data, 0, tail, bytes - tail);
  await cached.close();
}
await file.sync();
await file.close();
