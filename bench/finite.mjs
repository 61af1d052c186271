/**
 * What looking for NaN and infinite weights costs, beside what a conversion does with the same bytes anyway: reading
 * and writing a file of them.
 *
 *   npm run build && node bench/finite.mjs [--mb 512] [--rounds 5] [--dir FOLDER] [--out FILE]
 *
 * GB/s of CPU time (user and system), which other processes on the machine disturb least: medians of the rounds. The
 * benchmark writes bench/results/DATE-finite.json.
 */
import { mkdirSync, openSync, closeSync, readSync, writeSync, fsyncSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, platform, release, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { crc32 } from "node:zlib";
import { countNonFinite } from "../dist/files/numeric/finite.js";

const { values: flags } = parseArgs({
  options: {
    mb: { type: "string", default: "512" },
    rounds: { type: "string", default: "5" },
    dir: { type: "string", default: tmpdir() },
    out: { type: "string" },
  },
});
const load = loadavg()[0];
const total = Number(flags.mb) * 2 ** 20;
const chunk = 8 << 20;
const file = join(flags.dir, `upcycle-finite-${process.pid}`);

/** A chunk of finite bfloat16 values. */
const bytes = new Uint8Array(chunk);
for (let i = 0; i < chunk; i += 2) [bytes[i], bytes[i + 1]] = [(i * 7) & 0xff, 0x3f];

/** GB/s of CPU time of `work`, which goes through `total` bytes. */
function speed(work) {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return total / (1000 * (user + system));
}

const each = (use) => () => {
  for (let done = 0; done < total; done += chunk) use();
};
const write = () => {
  const handle = openSync(file, "w");
  each(() => writeSync(handle, bytes))();
  fsyncSync(handle);
  closeSync(handle);
};
const read = () => {
  const handle = openSync(file, "r");
  const into = new Uint8Array(chunk);
  each(() => readSync(handle, into))();
  closeSync(handle);
};
const forms = {
  write,
  read,
  "look for non-finite BF16": each(() => countNonFinite("BF16", bytes)),
  "look for non-finite F32": each(() => countNonFinite("F32", bytes)),
  "CRC-32, for comparison": each(() => crc32(bytes)),
};
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
const times = Object.fromEntries(Object.keys(forms).map((name) => [name, []]));
try {
  for (let round = 0; round <= Number(flags.rounds); round++)
    for (const [name, work] of Object.entries(forms)) {
      const gbPerSecond = speed(work);
      // The first round compiles.
      if (round > 0) times[name].push(gbPerSecond);
    }
} finally {
  rmSync(file, { force: true });
}
const gbPerCpuSecond = Object.fromEntries(Object.entries(times).map(([name, all]) => [name, median(all)]));
for (const [name, value] of Object.entries(gbPerCpuSecond))
  console.log(`${name.padEnd(28)} ${value.toFixed(2)} GB/s of CPU time`);

const result = {
  date: new Date().toISOString().slice(0, 10),
  machine: { cpu: cpus()[0].model, cores: cpus().length, os: `${platform()} ${release()}`, load },
  node: process.version,
  megabytes: Number(flags.mb),
  rounds: Number(flags.rounds),
  gbPerCpuSecond,
};
const out = flags.out ?? fileURLToPath(new URL(`results/${result.date}-finite.json`, import.meta.url));
mkdirSync(fileURLToPath(new URL("results/", import.meta.url)), { recursive: true });
writeFileSync(out, `${JSON.stringify(result, null, 2)}\n`);
