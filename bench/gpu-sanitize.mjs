// The tests of the GPU under compute-sanitizer: node bench/gpu-sanitize.mjs [--tools memcheck,racecheck]
//   [--seconds 150] [--only PART,TOOL:PART,..] [--logs DIR] [--list]
// -> a line for each part and tool, then one JSON line; exits with 1 where an error was found, a part did not end in
// its time, or a part had no test that ran on the GPU: nothing found in nothing is no result. Parts run side by side,
// each as one process of vitest (every further process would be slow to start under compute-sanitizer, too), with as
// few random cases as the emulation has (UPCYCLE_CUDA_TESTS=short) and a common cache of compiled kernels. `--only
// backends` stands for all parts whose names begin so. Every test of the suite belongs to one part; see PARTS. `--list`
// shows how many each part has, here, without a sanitizer or a GPU, and exits with 1 where a test is in no part or in
// several, or a part has none.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
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
    list: { type: "boolean", default: false },
    sanitizer: { type: "string", default: "compute-sanitizer" },
  },
});

/**
 * Files of the suite, and a pattern of the names of the tests that are one part. ON is where the tests run: where they
 * find no GPU and would run in the emulation, a part has none.
 */
const PARTS = {
  "primitives-f32": ["cuda/primitives.gpu.test.ts", "^ON, agrees with the float64 interpreter"],
  "primitives-bf16": ["cuda/primitives.gpu.test.ts", "^ON, in bfloat16, the GPU's kernels"],
  "primitives-8.0": ["cuda/primitives.gpu.test.ts", "^ON, in bfloat16, kernels of 8.0"],
  "large-f32": ["cuda/large.gpu.test.ts", "^ON, (agrees with the float64 interpreter|in bfloat16 a router's)"],
  "large-bf16": ["cuda/large.gpu.test.ts", "^ON, in bfloat16, the GPU's kernels"],
  "large-8.0": ["cuda/large.gpu.test.ts", "^ON, in bfloat16, kernels of 8.0"],
  "decoding-products": ["cuda/decoding.gpu.test.ts", "^ON, products of few tokens"],
  "decoding-cache": ["cuda/decoding.gpu.test.ts", "^ON, decoding behind a cache"],
  "decoding-chosen": ["cuda/decoding.gpu.test.ts", "^ON, tokens that are chosen there"],
  golden: ["cuda/golden.gpu.test.ts", "^ON, golden models"],
  "runs-dense": ["cuda/runs.gpu.test.ts", "^ON, a run of a dense model"],
  "runs-mixture": ["cuda/runs.gpu.test.ts", "^ON, a run of a mixture model"],
  evaluation: ["cuda/evaluation.gpu.test.ts", "^ON, (an evaluation|forward programs)"],
  "backends-steps": ["backends.ort.test.ts", "^cuda:0 trains as the reference does"],
  "backends-pytorch": ["backends.ort.test.ts", "^cuda:0 train/"],
  "backends-runtimes": ["backends.ort.test.ts", "^cuda:0 an? (training run|forward runtime|operation runtime)"],
};
/** Parts that a machine without a Hopper GPU, or the emulation, does not have. */
const ON_A_GPU_ALONE = ["primitives-8.0", "large-8.0"];

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "test/engine");
const vitest = join(root, "node_modules/vitest/vitest.mjs");
const files = [...new Set(Object.values(PARTS).map(([file]) => file))];
const missing = readdirSync(join(folder, "cuda")).filter(
  (name) => name.endsWith(".gpu.test.ts") && !files.includes(`cuda/${name}`),
);
if (missing.length > 0) throw new Error(`no part has ${missing.join(", ")}`);
const tools = flags.tools.split(",");

/** Whether a part is what was asked for by its name, by how its name begins, or as TOOL:NAME. */
const isOne = (asked, tool, name) =>
  [name, `${tool}:${name}`].some((own) => own === asked || own.startsWith(`${asked}-`));
const asked = flags.only?.split(",") ?? null;
const isAsked = (tool, name) => asked?.some((one) => isOne(one, tool, name)) ?? true;
for (const one of asked ?? [])
  if (!tools.some((tool) => Object.keys(PARTS).some((name) => isOne(one, tool, name))))
    throw new Error(`--only ${one} is no part of the suite under ${tools.join(" or ")}`);

/** How many tests each part has on this machine; and what is wrong with the parts. */
function listed() {
  const env = { ...process.env };
  // The suite of all backends has the emulation where it is asked for.
  if (!existsSync("/dev/nvidiactl")) env.UPCYCLE_CUDA_TESTS = "cpu";
  const command = [vitest, "list", ...files.map((file) => join(folder, file)), "--json"];
  const { stdout, stderr, status } = spawnSync(process.execPath, command, {
    ...{ cwd: root, env, encoding: "utf8", maxBuffer: 2 ** 28 },
  });
  if (status !== 0) throw new Error(`vitest list failed: ${stderr.slice(-1000)}`);
  const tests = JSON.parse(stdout.slice(stdout.indexOf("[\n"))).map(({ name, file }) => ({
    name: name.replaceAll(" > ", " "),
    file,
  }));
  const counts = Object.fromEntries(Object.keys(PARTS).map((name) => [name, 0]));
  const wrong = [];
  const isGpu = tests.some(({ name }) => name.startsWith("on a GPU"));
  for (const { name, file } of tests) {
    const isOther = file.endsWith("backends.ort.test.ts") && !name.startsWith("cuda:");
    const own = Object.entries(PARTS).filter(
      ([, [of, pattern]]) =>
        file.endsWith(`/${of}`) && new RegExp(pattern.replace("ON", isGpu ? "on a GPU" : "on the CPU")).test(name),
    );
    for (const [part] of own) counts[part]++;
    if (own.length !== (isOther ? 0 : 1))
      wrong.push(`${own.map(([part]) => part).join(" and ") || "no part"}: ${name}`);
  }
  for (const [part, count] of Object.entries(counts))
    if (count === 0 && (isGpu || !ON_A_GPU_ALONE.includes(part))) wrong.push(`${part} has no test`);
  return { counts, wrong };
}

const logs = flags.logs ?? mkdtempSync(join(tmpdir(), "upcycle-sanitize-"));
mkdirSync(logs, { recursive: true });
const cache = join(logs, "kernels");

/** A part under a tool: how many tests passed, and what was found. */
function check(tool, name) {
  const [file, pattern] = PARTS[name];
  const began = performance.now();
  const test = [vitest, "run", join(folder, file), "-t", pattern.replace("ON", "on a GPU")];
  // A thread of the process itself, without a pool of processes.
  const alone = ["--pool=threads", "--maxWorkers=1", "--no-file-parallelism", "--testTimeout=600000"];
  const options = ["--tool", tool, "--error-exitcode", "9", "--print-limit", "200"];
  const child = spawn(flags.sanitizer, [...options, process.execPath, ...test, ...alone], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
    // Products are chosen as in the suite, which has no cache to keep choices in.
    env: { ...process.env, UPCYCLE_CUDA_TESTS: "short", UPCYCLE_TEST_CACHE: cache, UPCYCLE_CUDA_TUNE: "off" },
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (said += data));
  let inTime = true;
  const timer = setTimeout(() => ((inTime = false), child.kill("SIGKILL")), 1000 * Number(flags.seconds));
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
    const clean = status === 0 && passed > 0 && failed === 0 && /^0 (errors|hazards)/.test(summary);
    const ended = inTime ? "" : ", DID NOT END IN ITS TIME";
    const empty = inTime && passed + failed === 0 ? ", NO TEST RAN ON A GPU" : "";
    console.log(
      `${clean ? "clean" : "NOT CLEAN"} ${tool} ${name}: ${passed} passed, ${failed} failed, ${summary}, ` +
        `${seconds} s${ended}${empty}`,
    );
    if (!clean) console.log(`${found.slice(0, 1500)}\n${plain.slice(-1500)}`);
    return { tool, part: name, passed, failed, summary, seconds, inTime, clean };
  });
}

if (flags.list) {
  const { counts, wrong } = listed();
  for (const [part, count] of Object.entries(counts)) console.log(`${part}: ${count}`);
  for (const line of wrong) console.log(`WRONG ${line}`);
  process.exitCode = wrong.length > 0 ? 1 : 0;
} else {
  // Slow ones first.
  const results = await Promise.all(
    tools.toReversed().flatMap((tool) =>
      Object.keys(PARTS)
        .filter((name) => isAsked(tool, name))
        .map((name) => check(tool, name)),
    ),
  );
  const clean = results.length > 0 && results.every((one) => one.clean);
  console.log(JSON.stringify({ date: new Date().toISOString().slice(0, 10), clean, results }));
  process.exitCode = clean ? 0 : 1;
}
if (flags.logs === undefined) rmSync(logs, { recursive: true, force: true });
