/**
 * The training benchmark: `npm run bench:train -- [options]`.
 *
 * It measures the embedded engine on the sizes of `sizes.mjs`. If a Python with PyTorch is found, PyTorch is measured
 * on the same weights and tokens, in turns with our engine. Every measurement runs in a process of its own. The step's
 * matrix products alone (`gemm.mjs`) are measured as a lower bound. The benchmark prints a table and writes
 * bench/results/DATE-train.json.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, platform, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { toolVersion } from "../dist/surgery/convert/version.js";
import { onnxruntimeVersion } from "../dist/engine/onnxruntime/session.js";
import { shape, specs } from "./sizes.mjs";
import { optimizer, writeStart } from "./start.mjs";

const help = `node bench/train.mjs [options]
  --rounds N      measurements of each engine and size, in turns (default 5)
  --steps N       training steps of one measurement, the first two left out (default 12)
  --sizes LIST    of ${Object.keys(specs).join(",")} (default all)
  --threads N     of every engine (default: all cores)
  --python PATH   Python with torch (default: python3, if it has torch)
  --no-python     leave PyTorch out
  --torch-env K=V environment of PyTorch beside the defaults; may be repeated
  --setting NAME  only this way to run PyTorch instead of all that are known; may be repeated
  --compile       also try torch.compile (needs a C++ compiler)
  --check         only compare the first losses of both engines; exit code 1 if they differ
  --busy SHARE    largest share of the cores that other processes may take during a measurement; else it is made again,
                  five times at most (default 0.05)
  --wait SECONDS  before each measurement, wait at most this long for other processes to leave the cores (default 0)
  --out FILE      result file ("-" for none)`;

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    steps: { type: "string", default: "12" },
    sizes: { type: "string", default: Object.keys(specs).join(",") },
    threads: { type: "string", default: String(availableParallelism()) },
    python: { type: "string" },
    "no-python": { type: "boolean", default: false },
    "torch-env": { type: "string", multiple: true, default: [] },
    setting: { type: "string", multiple: true, default: [] },
    compile: { type: "boolean", default: false },
    check: { type: "boolean", default: false },
    busy: { type: "string", default: "0.05" },
    wait: { type: "string", default: "0" },
    out: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
const RETRIES = 5;
/** Largest difference of the first losses: float32 sums in another order. */
const SAME_LOSS = 1e-4;
const CHECKED_STEPS = 3;

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const sizes = flags.sizes.split(",");
const rounds = Number(flags.rounds);
const { steps, threads } = flags;

/**
 * Ways to run PyTorch. Each size is measured once with each, and the fastest is what we compare with. `malloc` keeps
 * freed memory instead of giving it back to the system in every step.
 */
const keep = { MALLOC_MMAP_MAX_: "0", MALLOC_TRIM_THRESHOLD_: "-1", MALLOC_TOP_PAD_: "67108864" };
const variants = [
  { name: "sdpa, fused AdamW, loop over experts", args: [] },
  { name: "plain attention", args: ["--attention", "plain"] },
  { name: "foreach AdamW", args: ["--optimizer", "foreach"] },
  { name: "q, k, v and gate, up joined", args: ["--joined"] },
  { name: "malloc keeps memory", args: [], env: keep },
  { name: "passive waiting", args: [], env: { OMP_WAIT_POLICY: "passive" } },
  { name: "joined, malloc", args: ["--joined"], env: keep },
  { name: "plain, joined, malloc", args: ["--attention", "plain", "--joined"], env: keep },
  { name: "sorted experts", moe: true, args: ["--experts", "sorted"] },
  { name: "sorted, malloc", moe: true, args: ["--experts", "sorted"], env: keep },
  { name: "sorted, joined, malloc", moe: true, args: ["--experts", "sorted", "--joined"], env: keep },
  { name: "grouped_mm", moe: true, args: ["--experts", "grouped"] },
  { name: "grouped_mm, joined, malloc", moe: true, args: ["--experts", "grouped", "--joined"], env: keep },
  { name: "compiled", compiled: true, args: ["--compile"] },
  { name: "compiled, joined, malloc", compiled: true, args: ["--compile", "--joined"], env: keep },
];

function variantsFor(size) {
  const asked = ({ name }) => flags.setting.length === 0 || flags.setting.includes(name);
  return variants.filter(
    (variant) =>
      asked(variant) && (size !== "dense" || variant.moe !== true) && (flags.compile || variant.compiled !== true),
  );
}

/** Milliseconds that all cores together have worked since boot. */
function coresBusy() {
  return cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0);
}

function exec(command, args, env) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
    let out = "";
    let err = "";
    child.stdout.on("data", (data) => (out += data));
    child.stderr.on("data", (data) => (err += data));
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve(JSON.parse(out.trim().split("\n").at(-1)));
      else reject(new Error(`${command} ${args.join(" ")} failed: ${err.trim().split("\n").at(-1)}`));
    });
  });
}

/** Returns when the cores have been idle for a second, or after the longest wait. */
async function idleCores() {
  const end = performance.now() + Number(flags.wait) * 1000;
  for (let quiet = 0; quiet < 4 && performance.now() < end;) {
    const wall = performance.now();
    const busy = coresBusy();
    await sleep(250);
    const share = (coresBusy() - busy) / (performance.now() - wall) / cpus().length;
    quiet = share <= Number(flags.busy) ? quiet + 1 : 0;
  }
}

/**
 * One process; made again while others were taking the cores, and then the attempt they disturbed least. `others` is
 * their share.
 */
async function measure(command, args, env) {
  const attempts = [];
  for (;;) {
    await idleCores();
    const wall = performance.now();
    const busy = coresBusy();
    const sample = await exec(command, args, env);
    const total = (performance.now() - wall) * cpus().length;
    attempts.push({ ...sample, others: Math.max(0, Number(((coresBusy() - busy - sample.cpuMs) / total).toFixed(3))) });
    const best = attempts.reduce((a, b) => (b.others < a.others ? b : a));
    if (flags.check || best.others <= Number(flags.busy) || attempts.length > RETRIES)
      return { ...best, attempts: attempts.length };
  }
}

const upcycle = (size, count = steps) =>
  measure(process.execPath, [here("train-upcycle.mjs"), size, count, threads], {});
const gemm = (size) => measure(process.execPath, [here("gemm.mjs"), size, "8", threads], {});

function torch(python, start, size, { args, env = {} }, count = steps) {
  const own = Object.fromEntries(
    flags["torch-env"].map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]),
  );
  return measure(python, [here("torch/train.py"), size, count, threads, "--start", start[size], ...args], {
    OMP_NUM_THREADS: threads,
    ...env,
    ...own,
  });
}

/** The Python to use, or null with a word on stderr. */
function findPython() {
  if (flags["no-python"]) return null;
  const python = flags.python ?? "python3";
  const found = spawnSync(python, ["-c", "import torch; print(torch.__version__)"], { encoding: "utf8" });
  if (found.status === 0) return python;
  console.error(
    `${python} has no torch: measuring without ` +
      `PyTorch${flags.python === undefined ? " (--python PATH names another)" : ""}`,
  );
  if (flags.python !== undefined) process.exit(2);
  return null;
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const note = (text) => console.error(text);

function largestLossDifference(ours, theirs) {
  return Math.max(...ours.losses.slice(0, CHECKED_STEPS).map((loss, i) => Math.abs(loss - theirs.losses[i])));
}

/** Median, smallest and largest of one number over the rounds. */
function summary(samples, key) {
  const values = samples.map((sample) => sample[key]);
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/** The fastest way to run PyTorch on this size, and what each took. */
async function chooseVariant(python, start, size) {
  /** @type {any[]} */
  const tried = [];
  for (const variant of variantsFor(size)) {
    try {
      const { stepMs, minMs, peakBytes, others } = await torch(python, start, size, variant);
      tried.push({ ...variant, stepMs, minMs, peakBytes, others });
      note(`${size}: PyTorch, ${variant.name}: ${stepMs.toFixed(0)} ms`);
    } catch (error) {
      tried.push({ ...variant, failed: error.message });
      note(`${size}: PyTorch, ${variant.name}: ${error.message}`);
    }
  }
  const best = tried.filter(({ failed }) => failed === undefined).reduce((a, b) => (b.stepMs < a.stepMs ? b : a));
  return { best, tried };
}

async function check(python, start) {
  let worst = 0;
  for (const size of sizes) {
    const ours = await upcycle(size, "3");
    for (const variant of variantsFor(size)) {
      const theirs = await torch(python, start, size, variant, "3");
      const difference = largestLossDifference(ours, theirs);
      worst = Math.max(worst, difference);
      const same =
        ours.parameters === theirs.parameters ? "" : `, ${ours.parameters} and ${theirs.parameters} parameters`;
      if (same !== "") worst = Infinity;
      console.log(
        `${size}, PyTorch with ${variant.name}: first losses differ by ${difference.toExponential(1)}${same}`,
      );
    }
  }
  console.log(
    worst <= SAME_LOSS ? "both engines train the same model" : `the engines differ by more than ${SAME_LOSS}`,
  );
  process.exitCode = worst <= SAME_LOSS ? 0 : 1;
}

async function bench(python, start) {
  const chosen = {};
  if (python !== null) for (const size of sizes) chosen[size] = await chooseVariant(python, start, size);
  const samples = Object.fromEntries(sizes.map((size) => [size, { upcycle: [], torch: [], gemm: [] }]));
  for (let round = 0; round < rounds; round++) {
    for (const size of sizes) {
      const turns = [
        async () => samples[size].upcycle.push(await upcycle(size)),
        async () => samples[size].gemm.push(await gemm(size)),
        async () => python !== null && samples[size].torch.push(await torch(python, start, size, chosen[size].best)),
      ];
      // Every other round the other way round, so that a machine that slows down hits both alike.
      for (const turn of round % 2 === 0 ? turns : turns.reverse()) await turn();
      const last = samples[size];
      const theirs = python === null ? "" : `, PyTorch ${last.torch.at(-1).stepMs.toFixed(0)} ms`;
      note(
        `round ${round + 1}, ${size}: ${last.upcycle.at(-1).stepMs.toFixed(0)} ms, products ` +
          `${last.gemm.at(-1).gemmMs.toFixed(0)} ms${theirs}`,
      );
    }
  }
  return { samples, chosen };
}

/** What the samples of one size say. */
function resultOf({ upcycle: ours, torch: theirs, gemm: products }, chosen) {
  const result = {
    parameters: ours[0].parameters,
    upcycle: {
      stepMs: summary(ours, "stepMs"),
      tokensPerSecond: summary(ours, "tokensPerSecond"),
      peakBytes: summary(ours, "peakBytes"),
    },
    gemm: {
      ms: summary(products, "gemmMs"),
      flops: products[0].flops,
      gflops: summary(products, "gflops"),
      largeGflops: summary(products, "largeGflops"),
    },
    shareOfGemmPeak: summary(products, "gemmMs").median / summary(ours, "stepMs").median,
    disturbed: [...ours, ...theirs, ...products].filter(({ others }) => others > Number(flags.busy)).length,
  };
  if (theirs.length === 0) return result;
  const ratios = ours.map(({ stepMs }, i) => ({ ratio: theirs[i].stepMs / stepMs }));
  const fastest = (samples) => Math.min(...samples.map(({ minMs }) => minMs));
  return {
    ...result,
    torch: {
      setting: chosen.best.name,
      args: chosen.best.args,
      env: chosen.best.env ?? {},
      tried: chosen.tried,
      stepMs: summary(theirs, "stepMs"),
      tokensPerSecond: summary(theirs, "tokensPerSecond"),
      peakBytes: summary(theirs, "peakBytes"),
    },
    ratio: summary(ratios, "ratio"),
    ratioOfFastestSteps: fastest(theirs) / fastest(ours),
    firstLossesDiffer: Math.max(...theirs.map((sample) => largestLossDifference(ours[0], sample))),
  };
}

function print(results) {
  const range = ({ median: middle, min, max }, digits = 0) =>
    `${middle.toFixed(digits)} (${min.toFixed(digits)}-${max.toFixed(digits)})`;
  const mib = ({ median: bytes }) => `${(bytes / 2 ** 20).toFixed(0)}`;
  console.log(
    "| size | parameters | ms/step | tokens/s | peak MiB | share of GEMM peak | PyTorch ms/step | tokens/s | " +
      "peak MiB | ratio |",
  );
  console.log("|---|---|---|---|---|---|---|---|---|---|");
  for (const [size, { parameters, upcycle: ours, shareOfGemmPeak, torch: theirs, ratio }] of Object.entries(results)) {
    const own = [
      size,
      `${(parameters / 1e6).toFixed(1)}M`,
      range(ours.stepMs),
      range(ours.tokensPerSecond),
      mib(ours.peakBytes),
      `${(shareOfGemmPeak * 100).toFixed(0)} %`,
    ];
    const other =
      theirs === undefined
        ? ["", "", "", ""]
        : [range(theirs.stepMs), range(theirs.tokensPerSecond), mib(theirs.peakBytes), range(ratio, 2)];
    console.log(`| ${[...own, ...other].join(" | ")} |`);
  }
  for (const [size, { gemm: products, torch: theirs }] of Object.entries(results)) {
    const setting = theirs === undefined ? "" : `; PyTorch fastest with: ${theirs.setting}`;
    console.log(
      `${size}: matrix products ${range(products.ms)} ms, ${range(products.gflops)} GFLOP/s; one of 2048^3: ` +
        `${range(products.largeGflops)}${setting}`,
    );
  }
  console.log("Medians over the rounds (smallest-largest); ratio: PyTorch's time over ours, round by round.");
  const disturbed = Object.values(results).reduce((sum, result) => sum + result.disturbed, 0);
  if (disturbed > 0)
    console.log(`Other processes disturbed ${disturbed} measurements: repeat this on an idle machine.`);
}

if (flags.help) {
  console.log(help);
  process.exit(0);
}
const unknown = sizes.filter((size) => !Object.hasOwn(specs, size));
if (unknown.length > 0) {
  console.error(`unknown size ${unknown.join(", ")}: known are ${Object.keys(specs).join(", ")}`);
  process.exit(2);
}
const unheard = flags.setting.filter((name) => !variants.some((variant) => variant.name === name));
if (unheard.length > 0) {
  console.error(`unknown setting ${unheard.join(", ")}: known are ${variants.map(({ name }) => name).join("; ")}`);
  process.exit(2);
}
const python = findPython();
const folder = await mkdtemp(join(tmpdir(), "upcycle-bench-"));
try {
  const start = Object.fromEntries(sizes.map((size) => [size, join(folder, `${size}.safetensors`)]));
  if (python !== null) for (const size of sizes) await writeStart(specs[size], start[size]);
  if (flags.check) {
    if (python === null) throw new Error("--check needs PyTorch");
    await check(python, start);
  } else {
    const began = new Date();
    const { samples, chosen } = await bench(python, start);
    const results = Object.fromEntries(sizes.map((size) => [size, resultOf(samples[size], chosen[size])]));
    print(results);
    const date = began.toISOString().slice(0, 10);
    const out = flags.out ?? here(`results/${date}-train.json`);
    const report = {
      date: began.toISOString(),
      hardware: {
        cpu: cpus()[0].model.trim(),
        cores: cpus().length,
        memoryBytes: totalmem(),
        system: `${platform()} ${release()}`,
      },
      versions: {
        upcycle: toolVersion,
        node: process.versions.node,
        onnxruntime: onnxruntimeVersion,
        ...(python === null
          ? {}
          : { torch: samples[sizes[0]].torch[0].engine, python: samples[sizes[0]].torch[0].python }),
      },
      config: {
        rounds,
        steps: Number(steps),
        threads: Number(threads),
        ...shape,
        optimizer: { ...optimizer, learningRate: 1e-3 },
        torchEnv: flags["torch-env"],
        busy: Number(flags.busy),
      },
      ratio: Object.fromEntries(sizes.map((size) => [size, results[size].ratio?.median ?? null])),
      results,
      samples,
    };
    if (out !== "-") {
      await mkdir(here("results"), { recursive: true });
      await writeFile(out, `${JSON.stringify(report, null, 1)}\n`);
      console.log(`result: ${out}`);
    }
  }
} finally {
  await rm(folder, { recursive: true });
}
