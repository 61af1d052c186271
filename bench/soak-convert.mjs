/**
 * Kills conversions and checks that the same command resumes each to the right bytes:
 * `node bench/soak-convert.mjs [--kills 200] [--format megatron] [--out FILE]` (after npm run build).
 *
 * A child process converts a small model in many chunks and prints a line after each. It is killed (SIGKILL)
 *
 * - before and behind every call that changes the disk, from the last weights on: further files, journal, flushes, the
 *   rename of the folder, the tracker (`soak/calls.mjs`), where the name is free and where an older model has it;
 * - at random moments: while it starts, after some chunks, from other numbers of threads.
 *
 * The same conversion is then started again, mostly to be killed again, until one finishes. After every kill the model
 * folder must be absent or complete with the right bytes, or with those of the older model. At the end it must be
 * complete, and no other file may be left beside it. With `--format megatron` a folder of saves is written: its
 * tracker, by which Megatron-Core finds the model, may be there only when the model is complete, or its replacement
 * under way. The log of one whole conversion must be in an order that a power cut cannot break (`faultsOf`). The
 * script writes bench/results/DATE-soak-convert[-megatron].json.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { cpus, platform, release, tmpdir, totalmem } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { randomStream } from "../dist/base/random.js";
import { resultOf } from "../dist/base/events.js";
import { trackerFile } from "../dist/files/checkpoint/open-megatron.js";
import { convertCheckpoint } from "../dist/surgery/convert/convert.js";
import { nameRelease, releaseFolder } from "../dist/surgery/convert/release.js";
import { toolVersion } from "../dist/surgery/convert/version.js";
import { faultsOf } from "./soak/calls.mjs";
import { upcycleRecipe } from "../dist/surgery/planning/recipe.js";
import { sourceSpec, writeSource } from "./convert-source.mjs";

const { values: flags } = parseArgs({
  options: {
    kills: { type: "string", default: "200" },
    seed: { type: "string", default: String(Date.now()) },
    format: { type: "string", default: "hf" },
    out: { type: "string" },
  },
});
const isMegatron = flags.format === "megatron";
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "upcycle-soak-"));
const source = join(folder, "dense");
const random = randomStream(flags.seed, "soak");
let drawn = 0;
const draw = () => random.uniformAt(drawn++);

// Large enough for direct writes, small enough for a run of half a second.
const options = {
  source,
  recipe: upcycleRecipe("E4G2T4", { seed: 3 }),
  maxShardBytes: 4_000_000,
  pace: { chunkBytes: 100_000, flushBytes: 1_000_000 },
  ...(isMegatron ? { format: "torch_dist" } : {}),
};
/** Where the model of a conversion stands, and its tracker where there is one. */
const modelOf = (out) => (isMegatron ? releaseFolder(out) : out);
const trackerOf = (out) => join(out, trackerFile);
const script = `
  import { writeSync } from "node:fs";
  import { convertCheckpoint } from ${JSON.stringify(
    new URL("../dist/surgery/convert/convert.js", import.meta.url).href,
  )};
  import { isUnnamed, nameRelease } from ${JSON.stringify(
    new URL("../dist/surgery/convert/release.js", import.meta.url).href,
  )};
  const [, saves, out, threads, overwrite, flushBytes] = process.argv.slice(1);
  try {
    const acceptFinished = ${isMegatron} && (await isUnnamed(saves));
    const given = { out, threads: Number(threads), overwrite: overwrite === "true", acceptFinished };
    const options = { ...${JSON.stringify(options)}, ...given };
    options.pace.flushBytes = Number(flushBytes);
    for await (const { type, done, total } of convertCheckpoint(options))
      writeSync(1, type === "progress" ? (done >= total ? "!" : ".") : type[0]);
    if (${isMegatron}) await nameRelease(saves);
    writeSync(1, "N");
    // A kill may fall behind it.
    await new Promise((resolve) => setTimeout(resolve, 5));
  } catch (error) {
    writeSync(1, "\\n" + (error.line ?? error.stack));
    process.exit(error.exitCode ?? 70);
  }`;

const hashes = (dir) =>
  readdirSync(dir)
    .sort()
    // Says when and where it was written.
    .filter((name) => name !== "upcycle.json" || !isMegatron)
    .map(
      (name) =>
        `${name} ${createHash("sha256")
          .update(readFileSync(join(dir, name)))
          .digest("hex")}`,
    )
    .join("\n");

/**
 * Runs the conversion. `lines`: how many to wait for before a kill that comes `delay` ms later; "end": for the last
 * chunk, "named": for all work to be done. `environment`: what `soak/calls.mjs` shall log or kill, in place of that.
 *
 * @param {string} out
 * @param {{ threads?: number, overwrite?: boolean, lines?: any, delay?: number, environment?: any }} how
 */
function attempt(out, { threads = 1, overwrite = false, lines = Infinity, delay = 0, environment = null }) {
  return new Promise((resolve) => {
    const watched = environment === null ? [] : ["--import", new URL("soak/calls.mjs", import.meta.url).href];
    // Calls that are counted must not depend on when a flush is due.
    const flushBytes = environment === null ? options.pace.flushBytes : 1e12;
    const words = ["script", out, modelOf(out), String(threads), String(overwrite), String(flushBytes)];
    const child = spawn(process.execPath, [...watched, "--input-type=module", "-e", script, ...words], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, ...environment },
    });
    let text = "";
    const kill = () => setTimeout(() => child.kill("SIGKILL"), delay);
    let killed = lines === 0;
    if (killed) kill();
    const isTime = () =>
      lines === "end" ? text.includes("!") : lines === "named" ? text.includes("N") : text.length >= lines;
    child.stdout.on("data", (data) => {
      text += data;
      if (killed || !isTime()) return;
      killed = true;
      kill();
    });
    child.on("close", (code, signal) => resolve({ code, signal, text }));
  });
}

const began = new Date();
const counts = {
  kills: 0,
  atLateCalls: 0,
  conversions: 0,
  replacing: 0,
  resumed: 0,
  killedWhileStarting: 0,
  killedBetweenFolderAndTracker: 0,
  killedAfterTheRename: 0,
  killedWithTracker: 0,
  killedWhileReplacing: 0,
};

/** Throws where something stands under a final name that is not right. */
function inspect(out, { code, signal, text }, allowed) {
  const model = modelOf(out);
  const found = existsSync(model) && readdirSync(model).length > 0 ? hashes(model) : null;
  const at = `${out} after ${signal ?? code}: ${text}`;
  if (found !== null && !allowed.has(found)) throw new Error(`wrong bytes in ${at}`);
  const isReplacing = existsSync(join(dirname(model), `.${basename(model)}.previous`));
  const hasTracker = isMegatron && existsSync(trackerOf(out));
  if (hasTracker && found === null && !isReplacing) throw new Error(`a tracker without its model in ${at}`);
  if (hasTracker && readFileSync(trackerOf(out), "utf8").trim() !== "release")
    throw new Error(`half a tracker in ${at}`);
  return { found, isReplacing, hasTracker };
}

try {
  await writeSource(source, sourceSpec({ layers: 2, hidden: 256, ffnDim: 704, vocab: 2048, heads: 4, kvHeads: 2 }));
  const made = async (name, more = {}) => {
    const out = join(folder, name);
    /** @type {any} */
    const asked = { ...options, ...more, out: modelOf(out) };
    await resultOf(convertCheckpoint(asked));
    if (isMegatron) await nameRelease(out);
    return out;
  };
  const expected = hashes(modelOf(await made("reference")));
  // Of an older model, whose name the new one takes.
  const older = await made("older", { recipe: upcycleRecipe("E2G1T1", { seed: 5 }) });
  const old = hashes(modelOf(older));

  const isName = (path) => ["release", trackerFile, "counted"].includes(basename(path));
  /** The calls of one whole conversion, of which those from the last weights on are late. */
  const lateCalls = async (overwrite) => {
    const out = join(folder, "counted");
    const log = join(folder, "calls.jsonl");
    if (overwrite) cpSync(older, out, { recursive: true });
    const { code, text } = await attempt(out, { overwrite, environment: { CALLS_LOG: log } });
    if (code !== 0) throw new Error(`exit ${code}: ${text}`);
    const entries = readFileSync(log, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    const faults = faultsOf(entries, isName);
    if (faults.length > 0) throw new Error(`a power cut could lose something:\n${faults.join("\n")}`);
    if (entries.filter(({ call, other, begins }) => call === "rename" && begins && isName(other)).length < 1)
      throw new Error("no rename was seen");
    rmSync(out, { recursive: true });
    rmSync(log);
    const isWeights = ({ call, path }) => call === "datasync" && /\.(distcp|safetensors)$/.test(path);
    const last = entries.findLast(isWeights).number;
    return {
      chunks: text.length,
      late: [...new Set(entries.map(({ number }) => number))].filter((number) => number >= last),
    };
  };
  const free = await lateCalls(false);
  const taken = await lateCalls(true);
  const { chunks } = free;
  /** Every late call twice: killed before it and behind it. */
  const points = [free, taken].flatMap(({ late }, overwrite) =>
    late.flatMap((number) => [number, number + 0.5].map((at) => ({ overwrite: overwrite === 1, at }))),
  );
  for (let i = points.length - 1; i > 0; i--) {
    const j = Math.floor(draw() * (i + 1));
    [points[i], points[j]] = [points[j], points[i]];
  }
  const nextAttempt = (point, isFirst) => {
    if (isFirst && point !== undefined) return { environment: { CALLS_KILL: String(point.at) } };
    const starting = draw() < 0.1;
    const late = draw();
    const last = late < 0.2 ? "end" : late < 0.25 ? "named" : null;
    return {
      starting,
      threads: 1 + Math.floor(draw() * 3),
      lines: starting ? 0 : (last ?? 1 + Math.floor(draw() * chunks * 0.7)),
      delay: draw() * (starting ? 400 : last === "end" ? 60 : last === "named" ? 3 : 15),
    };
  };

  while (counts.kills < Number(flags.kills) || points.length > 0) {
    const point = points.pop();
    const overwrite = point?.overwrite ?? draw() < 0.3;
    const out = join(folder, `out${counts.conversions++}`);
    if (overwrite) {
      cpSync(older, out, { recursive: true });
      counts.replacing++;
    }
    const allowed = new Set(overwrite ? [expected, old] : [expected]);
    for (let attempts = 0; ; attempts++) {
      // Behind a late kill the next one goes through, so that what it left is what is resumed.
      const isWhole = point !== undefined && attempts > 0;
      const how = isWhole ? { threads: 1 + Math.floor(draw() * 3) } : nextAttempt(point, attempts === 0);
      const run = await attempt(out, { ...how, overwrite });
      const { code, signal, text } = run;
      if (text.includes("r")) counts.resumed++;
      const { found, isReplacing, hasTracker } = inspect(out, run, allowed);
      if (signal === "SIGKILL") {
        counts.kills++;
        counts.atLateCalls += how.environment === undefined ? 0 : 1;
        counts.killedWhileStarting += how.starting === true ? 1 : 0;
        counts.killedAfterTheRename += found === expected ? 1 : 0;
        counts.killedBetweenFolderAndTracker += isMegatron && found === expected && !hasTracker ? 1 : 0;
        counts.killedWithTracker += hasTracker && found === expected ? 1 : 0;
        counts.killedWhileReplacing += isReplacing ? 1 : 0;
      } else if (code !== 0 && !(code === 2 && text.includes("not empty") && found === expected)) {
        throw new Error(`exit ${code} in ${out}: ${text}`);
      } else if (found === expected) break;
      else throw new Error(`ended without its model in ${out}: ${text}`);
    }
    if (isMegatron && !existsSync(trackerOf(out))) throw new Error(`no tracker in ${out} at the end`);
    const beside = readdirSync(isMegatron ? out : folder).filter(
      (name) => name.startsWith(".") && !name.includes("unfinished"),
    );
    if (beside.length > 0) throw new Error(`left beside: ${beside.join(", ")}`);
    rmSync(out, { recursive: true });
    rmSync(join(folder, `.${basename(out)}.unfinished`), { recursive: true, force: true });
    process.stderr.write(`${counts.kills} kills, ${counts.conversions} conversions, ${points.length} points left\n`);
  }
  const report = {
    date: began.toISOString(),
    seconds: (Date.now() - began.getTime()) / 1000,
    seed: flags.seed,
    hardware: {
      cpu: cpus()[0].model.trim(),
      cores: cpus().length,
      memoryBytes: totalmem(),
      system: `${platform()} ${release()}`,
    },
    versions: { upcycle: toolVersion, node: process.versions.node },
    chunks: chunks - 1,
    lateCalls: free.late.length,
    lateCallsOfAReplacement: taken.late.length,
    ...counts,
    wrong: 0,
    lostByAPowerCut: 0,
  };
  console.log(JSON.stringify(report, null, 1));
  const file =
    flags.out ?? here(`results/${began.toISOString().slice(0, 10)}-soak-convert${isMegatron ? "-megatron" : ""}.json`);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(report, null, 1)}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
