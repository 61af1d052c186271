/**
 * Measures memory and time of proving a conversion, in two cases: one layer of a 70B-shaped model (hidden 8192, FFN
 * 28672, 64 query heads on 8 key and value heads) and its E8G1T2 child, verified with streamed weights; and the 542M
 * model, whose conversion ends with a report. Peak memory is that of the process itself (maxRSS).
 *
 *   npm run build && node bench/verify.mjs [--cases 70b,542m] [--dir FOLDER]
 *
 * The script needs about 14 GB of free disk and removes what it has made. It prints JSON.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { sourceSpec, writeSource } from "./convert-source.mjs";

const { values } = parseArgs({
  options: { cases: { type: "string", default: "70b,542m" }, dir: { type: "string", default: tmpdir() } },
});
const main = fileURLToPath(new URL("../bin/upcycle.js", import.meta.url));
const atExit =
  'data:text/javascript,process.on("exit",()=>process.stderr.write("maxRSS "+process.resourceUsage().maxRSS+"\\n"))';

/** Runs a command in a process of its own; its JSON, seconds and peak memory. */
function upcycle(...args) {
  const began = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--import", atExit, main, ...args, "--json"], {
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(`upcycle ${args.join(" ")}: exit ${status}: ${stderr}`);
  const peakRssBytes = 1024 * Number(/maxRSS (\d+)/.exec(stderr)[1]);
  return { result: JSON.parse(stdout), seconds: (performance.now() - began) / 1000, peakRssBytes };
}

const cases = {
  async "70b"(dir) {
    const spec = sourceSpec({ layers: 1, hidden: 8192, ffnDim: 28672, vocab: 4096, heads: 64, kvHeads: 8 });
    await writeSource(join(dir, "parent"), spec);
    const made = upcycle(
      "convert",
      join(dir, "parent"),
      "--recipe",
      "E8G1T2",
      "--out",
      join(dir, "child"),
      "--no-report",
    );
    const { result, seconds, peakRssBytes } = upcycle(
      "verify",
      join(dir, "parent"),
      join(dir, "child"),
      "--memory",
      "4GB",
      "--tokens",
      "512",
    );
    const { tokens, relative, streamed, layers, verdict } = result;
    return {
      params: made.result.params,
      weightBytes: made.result.weightBytes,
      tokens,
      streamed,
      seconds,
      peakRssBytes,
      limitBytes: 4e9,
      relative,
      layers,
      verdict: verdict.words,
    };
  },
  async "542m"(dir) {
    await writeSource(join(dir, "parent"), sourceSpec());
    const { result, seconds, peakRssBytes } = upcycle(
      "convert",
      join(dir, "parent"),
      "--recipe",
      "E8G1T2",
      "--out",
      join(dir, "child"),
    );
    const { relative, streamed, layers, verdict, tokens } = result.preservation;
    return {
      params: result.params,
      weightBytes: result.weightBytes,
      tokens,
      streamed,
      seconds,
      convertSeconds: result.seconds,
      reportSeconds: result.reportSeconds,
      peakRssBytes,
      limitBytes: 2e9,
      relative,
      worstLayer: Math.max(...layers.map((layer) => layer.relative)),
      verdict: verdict.words,
    };
  },
};

const results = {};
for (const name of values.cases.split(",")) {
  const dir = mkdtempSync(join(values.dir, "upcycle-verify-"));
  try {
    results[name] = await cases[name](dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
const hardware = { cpu: cpus()[0].model, cores: cpus().length, memoryBytes: totalmem(), node: process.version };
console.log(JSON.stringify({ date: new Date().toISOString().slice(0, 10), hardware, cases: results }, null, 2));
