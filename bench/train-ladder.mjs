/**
 * Measures how the cost of a training step grows with the length of sequences, the number of experts and the size of
 * the model:
 *
 *   npm run build && node bench/train-ladder.mjs [--steps 6] [--threads 2] [--only sequence,experts,size] [--out FILE]
 *
 * Every measurement runs in a process of its own, `--rounds` times, and the fastest counts. The benchmark writes
 * bench/results/DATE-train-ladder.json.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, platform, release, totalmem } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { toolVersion } from "../dist/surgery/convert/version.js";
import { onnxruntimeVersion } from "../dist/engine/onnxruntime/session.js";
import { ladders } from "./sizes.mjs";

const { values: flags } = parseArgs({
  options: {
    steps: { type: "string", default: "6" },
    rounds: { type: "string", default: "2" },
    threads: { type: "string", default: String(availableParallelism()) },
    only: { type: "string", default: Object.keys(ladders).join(",") },
    out: { type: "string" },
  },
});
const here = (path) => fileURLToPath(new URL(path, import.meta.url));

function run(script, ...args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [here(script), ...args], { encoding: "utf8" });
  if (status !== 0) throw new Error(`${script} ${args.join(" ")}: ${stderr.trim().split("\n").at(-1)}`);
  return JSON.parse(stdout.trim().split("\n").at(-1));
}

const results = {};
for (const ladder of flags.only.split(",")) {
  results[ladder] = ladders[ladder].map(([name, , shape], index) => {
    const samples = Array.from({ length: Number(flags.rounds) }, () =>
      run("train-upcycle.mjs", `${ladder}:${index}`, flags.steps, flags.threads),
    );
    const { parameters, minMs: stepMs, peakBytes, openMs } = samples.reduce((a, b) => (b.minMs < a.minMs ? b : a));
    const { gemmMs, flops } = run("gemm.mjs", `${ladder}:${index}`, "4", flags.threads);
    const tokensPerSecond = ((shape.batch * shape.sequence) / stepMs) * 1000;
    console.log(
      `| ${name} | ${(parameters / 1e6).toFixed(1)}M | ${stepMs.toFixed(0)} | ${tokensPerSecond.toFixed(0)} | ` +
        `${((gemmMs / stepMs) * 100).toFixed(0)} % | ${(peakBytes / 1e9).toFixed(2)} |`,
    );
    return {
      name,
      batch: shape.batch,
      sequence: shape.sequence,
      parameters,
      stepMs,
      tokensPerSecond,
      gemmMs,
      flops,
      peakBytes,
      openMs,
    };
  });
}
const began = new Date().toISOString();
const out = flags.out ?? here(`results/${began.slice(0, 10)}-train-ladder.json`);
mkdirSync(here("results"), { recursive: true });
writeFileSync(
  out,
  `${JSON.stringify(
    {
      date: began,
      hardware: {
        cpu: cpus()[0].model.trim(),
        cores: cpus().length,
        memoryBytes: totalmem(),
        system: `${platform()} ${release()}`,
      },
      versions: { upcycle: toolVersion, node: process.versions.node, onnxruntime: onnxruntimeVersion },
      config: { steps: Number(flags.steps), rounds: Number(flags.rounds), threads: Number(flags.threads) },
      results,
    },
    null,
    1,
  )}\n`,
);
console.log(`result: ${out}`);
