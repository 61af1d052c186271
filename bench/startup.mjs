/**
 * Measures how long it takes until a training can make its first step, at the reference sizes:
 *
 *   npm run build && node bench/startup.mjs [--out FILE] [--rounds 5]
 *
 * Each round runs in a process of its own. It times two parts, `program` (from the decoder description to a verified
 * graph with its backward pass) and `session` (ONNX bytes and onnxruntime's session), and then the whole as a caller
 * waits for it, `open` (program, worker thread, state, session). Each size is measured without the cache of lowered
 * graphs (`off`), with an empty one (`cold`, which includes filling it) and with a filled one (`warm`), in a temporary
 * folder. `session` and `open` compile different graphs, because `open` computes embedding gradients outside the graph;
 * so in a cold round neither finds the other's. The benchmark prints a table and writes
 * bench/results/DATE-startup.json.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, tmpdir, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { shape, specs } from "./sizes.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const phases = ["program", "session", "open"];
const target = 1000;
const { values: flags } = parseArgs({
  options: {
    one: { type: "string" },
    out: { type: "string" },
    rounds: { type: "string", default: "5" },
    threads: { type: "string", default: "2" },
  },
});
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

if (flags.one !== undefined) {
  const [{ trainProgram }, { openSession }, { onnxruntimeBackend }] = await Promise.all(
    ["graph/programs/programs", "engine/onnxruntime/session", "engine/onnxruntime/backend"].map(
      (name) => import(`../dist/${name}.js`),
    ),
  );
  const spec = specs[flags.one];
  const threads = Number(flags.threads);
  const times = {};
  const timed = async (name, work) => {
    const start = performance.now();
    const result = await work();
    times[name] = performance.now() - start;
    return result;
  };
  const program = await timed("program", () => trainProgram(spec, shape));
  const session = await timed("session", () => openSession(program.graph, { threads }));
  await session.close();
  const runtime = await timed("open", () =>
    onnxruntimeBackend.openTrain(trainProgram(spec, shape), { threads, accumulate: false }),
  );
  await runtime.close();
  console.log(JSON.stringify({ times, nodes: program.graph.nodes.length, parameters: program.params.length }));
} else {
  const loadBefore = loadavg()[0];
  const folder = mkdtempSync(join(tmpdir(), "startup-"));
  const one = (size, cache) =>
    JSON.parse(
      spawnSync(process.execPath, [here("startup.mjs"), "--one", size, "--threads", flags.threads], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "inherit"],
        env: { ...process.env, UPCYCLE_CACHE: cache },
      }).stdout,
    );
  const results = [];
  try {
    for (const size of Object.keys(specs)) {
      const runs = { off: [], cold: [], warm: [] };
      for (let round = 0; round < Number(flags.rounds); round++) {
        runs.off.push(one(size, "off"));
        for (const name of readdirSync(folder)) rmSync(join(folder, name));
        runs.cold.push(one(size, folder));
        runs.warm.push(one(size, folder));
      }
      for (const [cache, samples] of Object.entries(runs)) {
        const medians = Object.fromEntries(
          phases.map((phase) => [phase, median(samples.map(({ times }) => times[phase]))]),
        );
        const total = median(samples.map(({ times: { program, session } }) => program + session));
        const [{ nodes, parameters }] = samples;
        results.push({ size, cache, nodes, parameters, medians, total, samples: samples.map(({ times }) => times) });
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  console.log(`milliseconds, medians of ${flags.rounds}; load before ${loadBefore.toFixed(2)}`);
  for (const { size, cache, medians, total } of results) {
    const parts = phases.map((phase) => `${phase} ${medians[phase].toFixed(0)}`).join(", ");
    console.log(
      `${size.padEnd(6)} ${cache.padEnd(5)} program + session ${total.toFixed(0)} (target ${target}: ` +
        `${total <= target ? "met" : "MISSED"}); ${parts}`,
    );
  }
  const date = new Date().toISOString();
  const out = flags.out ?? here(`results/${date.slice(0, 10)}-startup.json`);
  const { onnxruntimeVersion } = await import("../dist/engine/onnxruntime/session.js");
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(
    out,
    `${JSON.stringify(
      {
        date,
        hardware: {
          cpu: cpus()[0]?.model,
          cores: cpus().length,
          memoryBytes: totalmem(),
          system: `${process.platform} ${release()}`,
          loadBefore,
        },
        versions: { node: process.versions.node, onnxruntime: onnxruntimeVersion },
        threads: Number(flags.threads),
        target,
        results,
      },
      null,
      1,
    )}\n`,
  );
}
