// The tests of the GPU under compute-sanitizer: node bench/gpu-sanitize.mjs [--tools memcheck,racecheck]
//   [--seconds 150] [--only PART,TOOL:PART,..] [--logs DIR]
// -> a line for each part and tool, then one JSON line; exits with 1 where an error was found or a part did not end in
// its time. Parts run side by side, each as one process of vitest (every further process would be slow to start under
// compute-sanitizer, too), with as few random cases as the emulation has (UPCYCLE_CUDA_TESTS=short) and a common cache
// of compiled kernels. Every file of the suite belongs to a part; see PARTS.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { clearTimeout, setTimeout } from "node:timers";
import { fileURLToPath } from "node:url";
import { parseArgs, stripVTControlCharacters } from "node:util";

const { values: flags } = parseArgs({
  options: {
    tools: { type: "string", default: "memcheck,racecheck" },
    seconds: { type: "string", default: "150" },
    only: { type: "string" },
    logs: { type: "string" },
    sanitizer: { type: "string", default: "compute-sanitizer" },
  },
});

/** Files of the suite, and the tests of each that are a part of their own: a pattern of their names. */
const PARTS = {
  "primitives-f32": ["cuda/primitives.gpu.test.ts", "agrees with the float64 interpreter"],
  "primitives-bf16": ["cuda/primitives.gpu.test.ts", "in bfloat16, the GPU's kernels"],
  "primitives-8.0": ["cuda/primitives.gpu.test.ts", "in bfloat16, kernels of 8.0"],
  "large-f32": ["cuda/large.gpu.test.ts", "^(?!.*(GPU's kernels|kernels of 8.0))"],
  "large-bf16": ["cuda/large.gpu.test.ts", "GPU's kernels"],
  "large-8.0": ["cuda/large.gpu.test.ts", "kernels of 8.0"],
  "decoding-products": ["cuda/decoding.gpu.test.ts", "products of few tokens"],
  "decoding-cache": ["cuda/decoding.gpu.test.ts", "decoding behind a cache"],
  "decoding-chosen": ["cuda/decoding.gpu.test.ts", "tokens that are chosen there"],
  golden: ["cuda/golden.gpu.test.ts", ""],
  "runs-dense": ["cuda/runs.gpu.test.ts", "a run of a dense model"],
  "runs-mixture": ["cuda/runs.gpu.test.ts", "a run of a mixture model"],
  evaluation: ["cuda/evaluation.gpu.test.ts", ""],
  backends: ["backends.ort.test.ts", ""],
};

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "test/engine");
const covered = new Set(Object.values(PARTS).map(([file]) => file));
const missing = readdirSync(join(folder, "cuda")).filter(
  (name) => name.endsWith(".gpu.test.ts") && !covered.has(`cuda/${name}`),
);
if (missing.length > 0) throw new Error(`no part has ${missing.join(", ")}`);

const logs = flags.logs ?? mkdtempSync(join(tmpdir(), "upcycle-sanitize-"));
mkdirSync(logs, { recursive: true });
const cache = join(logs, "kernels");
/** What is asked for by its name, or as TOOL:NAME. */
const isAsked = (tool, name) => flags.only?.split(",").some((one) => one === name || one === `${tool}:${name}`) ?? true;

/** A part under a tool: how many tests passed, and what was found. */
function check(tool, name) {
  const [file, pattern] = PARTS[name];
  const began = performance.now();
  const test = [join(root, "node_modules/vitest/vitest.mjs"), "run", join(folder, file)];
  // A thread of the process itself, without a pool of processes.
  const alone = ["--pool=threads", "--maxWorkers=1", "--no-file-parallelism", "--testTimeout=600000"];
  const named = pattern === "" ? [] : ["-t", pattern];
  const options = ["--tool", tool, "--error-exitcode", "9", "--print-limit", "200"];
  const child = spawn(flags.sanitizer, [...options, process.execPath, ...test, ...alone, ...named], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, UPCYCLE_CUDA_TESTS: "short", UPCYCLE_TEST_CACHE: cache, UPCYCLE_CUDA_TUNE: "off" },
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (said += data));
  const timer = setTimeout(() => child.kill("SIGKILL"), 1000 * Number(flags.seconds));
  return new Promise((resolve) => {
    child.on("error", (cause) => ((said += String(cause)), resolve({ status: 1 })));
    child.on("close", (status) => resolve({ status }));
  }).then(({ status }) => {
    clearTimeout(timer);
    const seconds = Math.round((performance.now() - began) / 1000);
    const plain = stripVTControlCharacters(said);
    const passed = Number(/Tests .*?(\d+) passed/.exec(plain)?.[1] ?? 0);
    const failed = Number(/Tests .*?(\d+) failed/.exec(plain)?.[1] ?? 0);
    const found = plain
      .split("\n")
      .filter((line) => line.startsWith("========="))
      .join("\n");
    writeFileSync(join(logs, `${tool}-${name}.txt`), plain);
    const summary = /(?:ERROR|RACECHECK) SUMMARY: (.*)/.exec(found)?.[1] ?? "no summary";
    const clean = status === 0 && passed > 0 && /^0 (errors|hazards)/.test(summary);
    console.log(
      `${clean ? "clean" : "NOT CLEAN"} ${tool} ${name}: ${passed} passed, ${failed} failed, ${summary}, ${seconds} s`,
    );
    if (!clean) console.log(`${found.slice(0, 1500)}\n${plain.slice(-1500)}`);
    return { tool, part: name, passed, failed, summary, seconds, clean };
  });
}

const tools = flags.tools.split(",");
// Slow ones first.
const results = await Promise.all(
  tools.toReversed().flatMap((tool) =>
    Object.keys(PARTS)
      .filter((name) => isAsked(tool, name))
      .map((name) => check(tool, name)),
  ),
);
if (flags.logs === undefined) rmSync(logs, { recursive: true, force: true });
console.log(
  JSON.stringify({ date: new Date().toISOString().slice(0, 10), clean: results.every(({ clean }) => clean), results }),
);
process.exitCode = results.every(({ clean }) => clean) ? 0 : 1;
