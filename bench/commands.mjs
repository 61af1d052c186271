/**
 * Measures how long commands take that have hardly anything to do, from the bundle as users start them and from the
 * modules of dist/ one by one (`--debug`), in turns:
 *
 *   npm run build && node bench/commands.mjs [--out FILE] [--rounds 9]
 *
 * Times are of whole processes, `node` is one without a program. The benchmark prints medians and writes
 * bench/results/DATE-commands.json.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { dirname } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const main = here("../bin/upcycle.js");
const commands = [
  ["--version"],
  ["inspect", here("../models/tiny")],
  ["convert", "--help"],
  ["train", "--help"],
  ["plan", "--help"],
];
const { values: flags } = parseArgs({
  options: { out: { type: "string" }, rounds: { type: "string", default: "9" } },
});

/** Milliseconds of a process with these arguments; one that fails ends the benchmark. */
function timed(args) {
  const start = performance.now();
  const { status, stderr } = spawnSync(process.execPath, args, {
    encoding: "utf8",
    stdio: ["ignore", "ignore", "pipe"],
  });
  if (status !== 0) throw new Error(`${args.join(" ")}: exit ${status}: ${stderr}`);
  return performance.now() - start;
}

function summary(samples) {
  const sorted = [...samples].sort((a, b) => a - b);
  return { median: sorted[sorted.length >> 1], least: sorted[0], samples };
}

const loadBefore = loadavg()[0];
const measured = [
  { name: "node", ways: { node: ["-e", ""] } },
  ...commands.map((args) => ({
    name: [args[0], ...args.slice(1).map((arg) => arg.replace(/^.*(?=models\/)/, ""))].join(" "),
    ways: { modules: [main, ...args, "--debug"], bundle: [main, ...args] },
  })),
].map(({ name, ways }) => {
  const times = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
  for (let round = 0; round < Number(flags.rounds); round++)
    for (const [way, args] of Object.entries(ways)) times[way].push(timed(args));
  return { name, times: Object.fromEntries(Object.entries(times).map(([way, samples]) => [way, summary(samples)])) };
});

console.log(`milliseconds, medians of ${flags.rounds}; load before ${loadBefore.toFixed(2)}`);
for (const { name, times } of measured)
  console.log(
    `${name.padEnd(22)} ${Object.entries(times)
      .map(([way, { median, least }]) => `${way} ${median.toFixed(0)} (least ${least.toFixed(0)})`)
      .join(", ")}`,
  );
const date = new Date().toISOString();
const out = flags.out ?? here(`results/${date.slice(0, 10)}-commands.json`);
const hardware = {
  cpu: cpus()[0]?.model,
  cores: cpus().length,
  memoryBytes: totalmem(),
  system: `${process.platform} ${release()}`,
  loadBefore,
};
mkdirSync(dirname(out), { recursive: true });
writeFileSync(
  out,
  `${JSON.stringify({ date, hardware, versions: { node: process.versions.node }, measured }, null, 1)}\n`,
);
