/**
 * The conversion benchmark: `npm run bench:convert -- [options]`.
 *
 * It upcycles a Llama-shaped model of 542M bfloat16 parameters by the command line. Each conversion takes turns with
 * writing as many bytes raw and flushed, in another order each round, every measurement in a process of its own. The
 * conversion is compared with the faster of O_DIRECT and the page cache, by median; dd is measured too. What is
 * converted was read just before, so that it comes from the page cache and the disk has nothing to do but to write;
 * with `--cold` it is not. A second comparison converts with a LoRA adapter of rank 16 on every linear module merged
 * in, and without. Wall time is from the start to the end of the process; memory is the largest resident set that the
 * system saw. The benchmark prints a table and writes
 * bench/results/DATE-convert.json. With `--format megatron` the conversions write folders of Megatron-Core, beside one
 * that writes a folder of Hugging Face, and a mixture of experts is exported as it is. An export reads as much as it
 * writes, so it is compared with copying the weights too (bench/results/DATE-convert-megatron.json).
 */
import { spawn, spawnSync } from "node:child_process";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { cpus, loadavg, platform, release, tmpdir, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { performance } from "node:perf_hooks";
import { clearInterval, setInterval } from "node:timers";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { randomStream } from "../dist/base/random.js";
import { toolVersion } from "../dist/surgery/convert/version.js";
import { sourceSpec, writeAdapter, writeSource } from "./convert-source.mjs";

const help = `node bench/convert.mjs [options]
  --rounds N     of each measurement, in turns (default 5)
  --folder DIR   on the disk to measure (default: the system's temporary folder);
                 takes 12 GB, with --memory 25 GB, removed at the end
  --threads LIST of the conversion (default 1,2)
  --format WORD  hf (default) or megatron
  --layers N     of the dense model (default 8: 542M parameters, 4.96 GB as E8G1T2)
  --only REGEXP  cases whose names it fits, such as "E8G1T2( with LoRA)?,"; without raw writing there is no ratio to it
  --cold         read nothing before a conversion: what comes from the disk is in the results
  --memory       also: peak memory for more experts, small shards, and a model with an embedding of 4 GB (one run each)
  --out FILE     result file ("-" for none)`;
const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    folder: { type: "string", default: tmpdir() },
    threads: { type: "string", default: "1,2" },
    format: { type: "string", default: "hf" },
    layers: { type: "string", default: "8" },
    only: { type: "string", default: "" },
    cold: { type: "boolean", default: false },
    memory: { type: "boolean", default: false },
    out: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (flags.help) {
  console.log(help);
  process.exit(0);
}
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const folder = mkdtempSync(join(flags.folder, "upcycle-bench-"));
const rounds = Number(flags.rounds);
const isMegatron = flags.format === "megatron";
const threads = flags.threads.split(",");

/** Runs a command to its end: seconds and the largest resident set in bytes. */
function measure(command, args) {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    let peak = 0;
    let [cpuSeconds, readBytes] = [0, 0];
    let err = "";
    const look = () => {
      try {
        peak = Math.max(
          peak,
          1024 * Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1] ?? 0),
        );
        // User and system time, in ticks of 10 ms; and what came from the disk, not from the page cache.
        const times = readFileSync(`/proc/${child.pid}/stat`, "utf8").split(") ")[1].split(" ");
        cpuSeconds = (Number(times[11]) + Number(times[12])) / 100;
        readBytes = Number(/^read_bytes: (\d+)/m.exec(readFileSync(`/proc/${child.pid}/io`, "utf8"))?.[1] ?? 0);
      } catch {
        // It has ended, or this is not Linux.
      }
    };
    const timer = setInterval(look, 10);
    child.stdout.resume();
    child.stderr.on("data", (data) => (err += data));
    child.on("error", reject);
    child.on("close", (code) => {
      clearInterval(timer);
      const seconds = (performance.now() - start) / 1000;
      if (code === 0) resolve({ seconds, peakBytes: peak, cpuSeconds, readBytes, load: loadavg()[0] });
      else reject(new Error(`${command} ${args.join(" ")}: ${err.trim()}`));
    });
  });
}

const cli = here("../bin/upcycle.js");
const moe = join(folder, "moe");
const formatWords = isMegatron ? ["--format", "megatron"] : [];
async function convert(source, args, format = formatWords) {
  const words = ["convert", source, "--out", moe, "--json", ...noReport, ...format, ...args];
  const sample = await measure(process.execPath, [cli, ...words]);
  rmSync(moe, { recursive: true });
  return sample;
}
async function exported(source, args) {
  const sample = await measure(process.execPath, [
    cli,
    "export",
    source,
    "--out",
    moe,
    "--json",
    ...formatWords,
    ...args,
  ]);
  rmSync(moe, { recursive: true });
  return sample;
}
/** Reads the weights of a folder, so that the system has them in memory. */
async function warm(source) {
  if (flags.cold) return;
  for (const name of readdirSync(source))
    if (name.endsWith(".safetensors"))
      await new Promise((/** @type {(value?: unknown) => void} */ resolve, reject) =>
        createReadStream(join(source, name), { highWaterMark: 8 << 20 })
          .on("data", () => undefined)
          .on("end", () => resolve())
          .on("error", reject),
      );
}

async function raw(bytes, how) {
  const path = join(folder, "raw");
  const sample =
    how === "dd"
      ? await measure("dd", [
          "if=/dev/zero",
          `of=${path}`,
          "bs=8M",
          `count=${Math.ceil(bytes / (8 << 20))}`,
          "oflag=direct",
          "conv=fsync",
        ])
      : await measure(process.execPath, [here("convert-raw.mjs"), path, String(bytes), how]);
  rmSync(path);
  return sample;
}

/** Reads files and writes their bytes raw. */
async function copied(source) {
  const path = join(folder, "raw");
  const files = readdirSync(source).filter((name) => name.endsWith(".safetensors"));
  const names = files.map((name) => join(source, name));
  const sample = await measure(process.execPath, [here("convert-raw.mjs"), path, "0", "direct", ...names]);
  rmSync(path);
  return sample;
}

/** The report after a conversion is another matter; older versions have none. */
const noReport = spawnSync(process.execPath, [cli, "convert", "--help"], { encoding: "utf8" }).stdout.includes(
  "--no-report",
)
  ? ["--no-report"]
  : [];
const plannedBytes = (source, recipe) =>
  JSON.parse(
    spawnSync(process.execPath, [cli, "convert", source, "--recipe", recipe, "--dry-run", "--json"], {
      encoding: "utf8",
      maxBuffer: 1 << 28,
    }).stdout,
  ).weightBytes;

const sorted = (samples, key) => samples.map((sample) => sample[key]).sort((a, b) => a - b);
const median = (samples, key) => sorted(samples, key)[samples.length >> 1];
/** Of times, to those of another case, round by round. */
const ratioTo = (all, others) =>
  others === undefined
    ? null
    : summary(
        all.map(({ seconds }, i) => ({ ratio: seconds / others[i].seconds })),
        "ratio",
      );
const summary = (samples, key) => ({
  median: median(samples, key),
  min: sorted(samples, key)[0],
  max: sorted(samples, key).at(-1),
});

/** What is converted, and the largest ratio to raw writing that it should have. */
const conversions = isMegatron
  ? [
      { name: "E8G1T2", recipe: "E8G1T2", adapted: false, target: 1.1 },
      { name: "E8G8T8", recipe: "E8G8T8", adapted: false, target: 1.1 },
      { name: "E8G1T2 for Hugging Face", recipe: "E8G1T2", adapted: false, target: null, format: [] },
      { name: "export of E8G1T2", recipe: null, adapted: false, target: 1.1 },
    ]
  : [
      { name: "E8G1T2", recipe: "E8G1T2", adapted: false, target: 1.15 },
      { name: "E8G8T8", recipe: "E8G8T8", adapted: false, target: 1.3 },
      { name: "E8G1T2 with LoRA", recipe: "E8G1T2", adapted: true, target: null },
    ];
const adapterRank = 16;

/** The items in an order of their own for each round. */
function shuffled(items, round) {
  const random = randomStream(round, "convert");
  return items
    .map((item, i) => ({ item, at: random.uniformAt(i) }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

try {
  const began = new Date();
  const source = join(folder, "dense");
  const spec = sourceSpec({ layers: Number(flags.layers) });
  await writeSource(source, spec);
  const adapter = join(folder, "lora");
  writeAdapter(adapter, spec, adapterRank);
  const whole = join(folder, "whole");
  if (isMegatron)
    await measure(process.execPath, [cli, "convert", source, "--recipe", "E8G1T2", "--out", whole, ...noReport]);
  const bytes = plannedBytes(source, "E8G1T2");
  const cases = [
    ...["direct", "cached", "dd"].map((how) => ({
      name: `raw ${how}`,
      run: () => raw(bytes, how),
      target: null,
      plain: null,
    })),
    ...(isMegatron
      ? [{ name: "raw copy", run: () => warm(whole).then(() => copied(whole)), target: null, plain: null }]
      : []),
    ...conversions.flatMap(({ name, recipe, adapted, target, format }) =>
      threads.map((count) => {
        const onThreads = (what) => `${what}, ${count} thread${count === "1" ? "" : "s"}`;
        const model = adapted ? `${source}+${adapter}` : source;
        return {
          name: onThreads(name),
          run: async () => {
            await warm(recipe === null ? whole : source);
            return recipe === null
              ? exported(whole, ["--threads", count])
              : convert(model, ["--recipe", recipe, "--threads", count], format);
          },
          target,
          plain: adapted ? onThreads(recipe) : null,
        };
      }),
    ),
  ].filter(({ name }) => new RegExp(flags.only).test(name));
  if (cases.length === 0) throw new Error(`--only ${flags.only} fits no case`);
  const samples = Object.fromEntries(cases.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    // None always follows the same one, whose removal the disk may still be at work on.
    for (const { name, run } of shuffled(cases, round)) {
      const sample = await run();
      samples[name].push(sample);
      process.stderr.write(
        `round ${round + 1}  ${name}  ${sample.seconds.toFixed(2)} s  ${(sample.peakBytes / 1e6).toFixed(0)} MB  ` +
          `processors ${sample.cpuSeconds.toFixed(1)} s  from disk ${(sample.readBytes / 1e9).toFixed(2)} GB  ` +
          `load ${sample.load.toFixed(1)}\n`,
      );
    }
  }
  const reference =
    ["raw direct", "raw cached"]
      .filter((name) => samples[name] !== undefined)
      .sort((a, b) => median(samples[a], "seconds") - median(samples[b], "seconds"))[0] ?? null;
  const results = Object.fromEntries(
    cases.map(({ name, target, plain }) => [
      name,
      {
        seconds: summary(samples[name], "seconds"),
        peakBytes: summary(samples[name], "peakBytes"),
        cpuSeconds: summary(samples[name], "cpuSeconds"),
        readBytes: summary(samples[name], "readBytes"),
        ratio: ratioTo(samples[name], samples[reference]),
        ratioOfFastest:
          reference === null ? null : sorted(samples[name], "seconds")[0] / sorted(samples[reference], "seconds")[0],
        target,
        ...(plain === null ? {} : { ratioToPlain: ratioTo(samples[name], samples[plain]) }),
        ...(samples["raw copy"] === undefined ? {} : { ratioToCopy: ratioTo(samples[name], samples["raw copy"]) }),
      },
    ]),
  );

  const memory = {};
  if (flags.memory) {
    const wide = join(folder, "wide");
    await writeSource(
      wide,
      sourceSpec({ layers: 2, vocab: 256_000, hidden: 8192, ffnDim: 4096, heads: 64, kvHeads: 8 }),
    );
    memory["shards of 200 MB"] = await convert(source, ["--recipe", "E8G1T2", "--shard-size", "200MB"]);
    memory["16 experts"] = await convert(source, ["--recipe", "E16G1T2"]);
    memory["128 experts of an eighth"] = await convert(source, ["--recipe", "E16G8T8"]);
    memory["embedding of 4 GB"] = await convert(wide, ["--recipe", "E4G1T2"]);
    memory["embedding of 4 GB to float32, 2 threads"] = await convert(wide, [
      "--recipe",
      "E2G1T2",
      "--dtype",
      "float32",
      "--threads",
      "2",
    ]);
  }

  console.log(
    `${(bytes / 1e9).toFixed(2)} GB; ratios to ${reference ?? "nothing"} and to the conversion without ` +
      "adapter, round by round",
  );
  const columns = ["what", "seconds", "ratio", "target", "to plain", "to a copy", "processors, s", "peak MB"];
  console.log(`| ${columns.join(" | ")} |\n|${columns.map(() => "---").join("|")}|`);
  const range = (found) =>
    found == null ? "" : `${found.median.toFixed(2)} (${found.min.toFixed(2)}-${found.max.toFixed(2)})`;
  for (const [name, one] of Object.entries(results)) {
    const { seconds, ratio, target, ratioToPlain, ratioToCopy, cpuSeconds, peakBytes } = one;
    console.log(
      `| ${name} | ${range(seconds)} | ${range(ratio)} | ${target ?? ""} | ${range(ratioToPlain)} | ` +
        `${range(ratioToCopy)} | ${cpuSeconds.median.toFixed(1)} | ${(peakBytes.max / 1e6).toFixed(0)} |`,
    );
  }
  for (const [name, { seconds, peakBytes }] of Object.entries(memory))
    console.log(`| ${name} | ${seconds.toFixed(2)} | | | | | | ${(peakBytes / 1e6).toFixed(0)} |`);
  const out =
    flags.out ?? here(`results/${began.toISOString().slice(0, 10)}-convert${isMegatron ? "-megatron" : ""}.json`);
  if (out !== "-") {
    const report = {
      date: began.toISOString(),
      hardware: {
        cpu: cpus()[0].model.trim(),
        cores: cpus().length,
        memoryBytes: totalmem(),
        system: `${platform()} ${release()}`,
      },
      versions: { upcycle: toolVersion, node: process.versions.node },
      config: {
        rounds,
        format: flags.format,
        sourceWasRead: !flags.cold,
        layers: Number(flags.layers),
        bytes,
        sourceBytes: statSync(join(source, "model.safetensors")).size,
        adapter: { rank: adapterRank, bytes: statSync(join(adapter, "adapter_model.safetensors")).size },
        reference,
        report: noReport.length === 0 ? "none yet" : "off",
      },
      results,
      memory,
      samples,
    };
    mkdirSync(dirname(out), { recursive: true });
    writeFileSync(out, `${JSON.stringify(report, null, 1)}\n`);
    console.log(`result: ${out}`);
  }
} finally {
  if (existsSync(folder)) rmSync(folder, { recursive: true });
}
