/**
 * Kills conversions at random moments and checks that the same command resumes each to the right bytes:
 * `node bench/soak-convert.mjs [--kills 200] [--format megatron] [--out FILE]` (after npm run build).
 *
 * A child process converts a small model in many chunks and prints a line after each. It is killed (SIGKILL) after a
 * random number of lines and some milliseconds, or while it starts. The same conversion is then started again with
 * another number of threads, until one finishes. After every kill the model folder must either be absent or be complete
 * with the right bytes. At the end it must be complete, and no other file may be left beside it. With
 * `--format megatron` a folder of saves is written: its tracker, by which Megatron-Core finds the model, may be there
 * only when the model is complete. The script writes bench/results/DATE-soak-convert[-megatron].json.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { cpus, platform, release, tmpdir, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { randomStream } from "../dist/base/random.js";
import { resultOf } from "../dist/base/events.js";
import { trackerFile } from "../dist/files/checkpoint/open-megatron.js";
import { convertCheckpoint } from "../dist/surgery/convert/convert.js";
import { releaseFolder } from "../dist/surgery/convert/release.js";
import { toolVersion } from "../dist/surgery/convert/version.js";
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
  const [, saves, out, threads] = process.argv.slice(1);
  try {
    const acceptFinished = ${isMegatron} && (await isUnnamed(saves));
    const options = { ...${JSON.stringify(options)}, out, threads: Number(threads), acceptFinished };
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

/** `lines`: how many to wait for before the kill; "end": for the last chunk, "named": for all work to be done. */
function attempt(out, threads, lines, delay) {
  return new Promise((resolve) => {
    const child = spawn(
      process.execPath,
      ["--input-type=module", "-e", script, "script", out, modelOf(out), String(threads)],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    let text = "";
    const kill = () => setTimeout(() => child.kill("SIGKILL"), delay);
    if (lines === 0) kill();
    let killed = lines === 0;
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
  conversions: 0,
  resumed: 0,
  killedWhileStarting: 0,
  killedAfterTheRename: 0,
  killedWithTracker: 0,
};
try {
  await writeSource(source, sourceSpec({ layers: 2, hidden: 256, ffnDim: 704, vocab: 2048, heads: 4, kvHeads: 2 }));
  const reference = join(folder, "reference");
  await resultOf(convertCheckpoint({ ...options, out: modelOf(reference) }));
  const expected = hashes(modelOf(reference));
  const chunks = (await attempt(join(folder, "count"), 1, Infinity, 0)).text.length;
  while (counts.kills < Number(flags.kills)) {
    const out = join(folder, `out${counts.conversions++}`);
    for (;;) {
      const starting = draw() < 0.1;
      // Some kills fall behind the last chunk: into the last files, the rename, the tracker, the tidying up.
      const late = draw();
      const last = late < 0.2 ? "end" : late < 0.25 ? "named" : null;
      const { code, signal, text } = await attempt(
        out,
        1 + Math.floor(draw() * 3),
        starting ? 0 : (last ?? 1 + Math.floor(draw() * chunks * 0.7)),
        draw() * (starting ? 400 : last === "end" ? 60 : last === "named" ? 3 : 15),
      );
      if (text.includes("r")) counts.resumed++;
      const isComplete = existsSync(modelOf(out));
      if (isComplete && hashes(modelOf(out)) !== expected)
        throw new Error(`wrong bytes in ${out} after ${signal ?? code}: ${text}`);
      if (isMegatron && existsSync(trackerOf(out))) {
        if (!isComplete) throw new Error(`a tracker without its model in ${out} after ${signal ?? code}`);
        if (readFileSync(trackerOf(out), "utf8").trim() !== "release") throw new Error(`half a tracker in ${out}`);
        counts.killedWithTracker += signal === "SIGKILL" ? 1 : 0;
      }
      if (signal === "SIGKILL") {
        counts.kills++;
        if (starting) counts.killedWhileStarting++;
        if (isComplete) counts.killedAfterTheRename++;
      } else if (code !== 0 && !(code === 2 && text.includes("not empty") && isComplete)) {
        throw new Error(`exit ${code}: ${text}`);
      } else if (isComplete) break;
    }
    if (isMegatron && !existsSync(trackerOf(out))) throw new Error(`no tracker in ${out} at the end`);
    const beside = readdirSync(isMegatron ? out : folder).filter(
      (name) => name.startsWith(".") && !name.includes("unfinished"),
    );
    if (beside.length > 0) throw new Error(`left beside: ${beside.join(", ")}`);
    rmSync(out, { recursive: true });
    rmSync(join(folder, `.out${counts.conversions - 1}.unfinished`), { recursive: true, force: true });
    process.stderr.write(`${counts.kills} kills, ${counts.conversions} conversions\n`);
  }
  const report = {
    date: began.toISOString(),
    seconds: (Date.now() - began) / 1000,
    seed: flags.seed,
    hardware: {
      cpu: cpus()[0].model.trim(),
      cores: cpus().length,
      memoryBytes: totalmem(),
      system: `${platform()} ${release()}`,
    },
    versions: { upcycle: toolVersion, node: process.versions.node },
    chunks: chunks - 1,
    ...counts,
    wrong: 0,
  };
  console.log(JSON.stringify(report, null, 1));
  const file =
    flags.out ?? here(`results/${began.toISOString().slice(0, 10)}-soak-convert${isMegatron ? "-megatron" : ""}.json`);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(report, null, 1)}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
