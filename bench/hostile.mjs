/**
 * Replays hostile and clumsy inputs against the built command line (after npm run build):
 *
 *   node bench/hostile.mjs [--only TEXT] [--jobs 2] [--full] [--list] [--cli FILE] [--patience 1] [--keep] [--out FILE]
 *
 * Every case runs one command in a folder of its own. The command must end in time and in bounded memory, with the
 * exit code that the case names: 2 for bad input, 1 for a run that had to stop, 0, or 128 and a signal's number. It
 * may print no stack, no "internal error", no raw control characters and no line of more than 2,000 characters on
 * either stream (the text of a model and JSON on stdout excepted), and may change no file that was there before. A
 * command that fails says so in exactly one line of stderr that begins with "upcycle: ", which is the last; lines
 * before it may be warnings, continued lines and progress, which `hostile/judge.mjs` lists. It leaves no file behind
 * that was not there.
 *
 * The cases are in hostile/cases-*.mjs. The runner makes their inputs in a temporary folder and their servers on
 * 127.0.0.1, and removes them. It prints each failure as it comes, then how many of each kind failed, and ends with 1
 * if there were any. It runs on Linux alone, and writes bench/results/DATE-hostile.json.
 *
 * Some cases are pairs of a file and a kind of strange content. A part of these pairs is run, and all of them with
 * `--full` (some 2,000 cases, an hour). `--only` runs the cases whose names contain TEXT, `--cli` tries another build,
 * `--patience` multiplies all time limits on a slow machine, `--keep` leaves the folders of failed cases.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, realpathSync, writeFileSync } from "node:fs";
import { cpus, platform, release, tmpdir, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { toolVersion } from "../dist/surgery/convert/version.js";
import { Box, makeFixtures } from "./hostile/box.mjs";
import { judge, snapshot } from "./hostile/judge.mjs";
import { endAll, watch } from "./hostile/watch.mjs";
import { cases as argumentCases } from "./hostile/cases-arguments.mjs";
import { cases as fileCases } from "./hostile/cases-files.mjs";
import { cases as formatCases } from "./hostile/cases-formats.mjs";
import { cases as hubCases } from "./hostile/cases-hub.mjs";
import { cases as limitCases } from "./hostile/cases-limits.mjs";
import { cases as outputCases } from "./hostile/cases-outputs.mjs";
import { cases as tableCases } from "./hostile/cases-tables.mjs";
import { cases as textCases } from "./hostile/cases-text.mjs";

const { values: flags } = parseArgs({
  options: {
    only: { type: "string", default: "" },
    jobs: { type: "string", default: "2" },
    cli: { type: "string" },
    patience: { type: "string", default: "1" },
    full: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
    out: { type: "string" },
  },
});
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const main = flags.cli === undefined ? here("../bin/upcycle.js") : resolve(flags.cli);
const DEFAULT_SECONDS = 30;

const all = [
  ...hubCases,
  ...limitCases,
  ...outputCases,
  ...fileCases,
  ...formatCases,
  ...tableCases,
  ...textCases,
  ...argumentCases,
];
const twice = all.find(({ name }, i) => all.findIndex((other) => other.name === name) !== i);
if (twice !== undefined) throw new Error(`two cases are called ${twice.name}`);
const chosen = all.filter(
  ({ name, more = false }) => name.includes(flags.only) && (!more || flags.full || flags.only !== ""),
);
if (flags.list) {
  for (const { name } of chosen) console.log(name);
  process.exit(0);
}

const root = realpathSync(mkdtempSync(join(tmpdir(), "upcycle-hostile-")));
const fixtures = join(root, "fixtures");
/** What the child sees: no credentials, homes or caches of whoever runs this, and no Hub but the case's own. */
const environment = (side) => ({
  PATH: process.env.PATH,
  LANG: "C.UTF-8",
  HOME: join(side, "home"),
  TMPDIR: tmpdir(),
  UPCYCLE_CACHE: join(root, "cache"),
  HF_HOME: join(side, "hf"),
  HF_ENDPOINT: "http://127.0.0.1:65500",
  NODE: process.execPath,
  MAIN: main,
});

/** Nothing may turn to the user's own files because a case's folder is gone. */
const upcycle = async (args, cwd) => {
  const { code, stderr } = await watch({
    command: [process.execPath, main, ...args],
    cwd,
    env: environment(root),
    seconds: 120,
  });
  if (code !== 0) throw new Error(`${args[0]}: ${stderr}`);
};

async function run(one, number) {
  const box = new Box(join(root, `${number}`), join(root, `${number}-side`), fixtures);
  const bad = [];
  let result = { code: null, ms: 0, peakMB: 0 };
  try {
    const made = await one.make(box);
    if (made === null) return { name: one.name, ok: true, skipped: true };
    const { args, sh, cwd = "", env = {}, ...rest } = Array.isArray(made) ? { args: made } : made;
    const whole = { ...one, ...rest, json: one.json ?? args?.includes("--json") };
    // In a script "upcycle" is the last thing that is run, in the script's own process.
    const command =
      sh === undefined
        ? [process.execPath, main, ...args]
        : ["bash", "-c", sh.replace(/\bupcycle /g, 'exec "$NODE" "$MAIN" ')];
    const before = snapshot(box.dir);
    result = await watch({
      command,
      cwd: join(box.dir, cwd),
      env: { ...environment(box.side), ...env },
      stdin: whole.stdin,
      signals: whole.signals,
      seconds: (whole.seconds ?? DEFAULT_SECONDS) * Number(flags.patience),
      grace: (whole.grace ?? 10) * Number(flags.patience),
    });
    bad.push(...judge(whole, result, before, snapshot(box.dir)));
    bad.push(...[await whole.after?.(box, result)].flat().filter((problem) => typeof problem === "string"));
  } catch (error) {
    bad.push(`the case itself failed: ${error instanceof Error ? error.stack : error}`);
  }
  if (!(flags.keep && bad.length > 0))
    await box.close().catch((error) => bad.push(`cannot be cleaned up: ${error.message}`));
  return {
    name: one.name,
    ok: bad.length === 0,
    ...(bad.length > 0 && { problems: bad }),
    code: result.code,
    ms: result.ms,
    peakMB: Math.round(result.peakMB),
  };
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.once(signal, () => {
    endAll();
    execFileSync("rm", ["-rf", root]);
    process.exit(1);
  });
}

const began = new Date();
const start = performance.now();
const results = [];
try {
  await makeFixtures(fixtures, upcycle);
  // Those that may take long come first, so that none is waited for at the end.
  const queue = [...chosen].sort((a, b) => (b.seconds ?? 0) - (a.seconds ?? 0));
  let next = 0;
  const worker = async () => {
    while (next < queue.length) {
      const number = next++;
      const found = await run(queue[number], number);
      results.push(found);
      if (!found.ok) console.error(`FAILS ${found.name}\n${found.problems.map((text) => `      ${text}`).join("\n")}`);
      if (results.length % 50 === 0) console.error(`${results.length} of ${queue.length} cases`);
    }
  };
  await Promise.all(Array.from({ length: Number(flags.jobs) }, worker));
} finally {
  if (!flags.keep) execFileSync("rm", ["-rf", root]);
}

const kindOf = (name) => name.slice(0, name.indexOf(":"));
const kinds = {};
for (const { name, ok } of results) {
  const kind = (kinds[kindOf(name)] ??= { cases: 0, failures: 0 });
  kind.cases++;
  if (!ok) kind.failures++;
}
const order = new Map(all.map(({ name }, i) => [name, i]));
results.sort((a, b) => order.get(a.name) - order.get(b.name));
const failures = results.filter(({ ok }) => !ok).length;
const report = {
  date: began.toISOString(),
  seconds: Math.round((performance.now() - start) / 1000),
  jobs: Number(flags.jobs),
  patience: Number(flags.patience),
  hardware: {
    cpu: cpus()[0].model.trim(),
    cores: cpus().length,
    memoryBytes: totalmem(),
    system: `${platform()} ${release()}`,
  },
  versions: { upcycle: toolVersion, node: process.versions.node },
  cases: results.length,
  failures,
  skipped: results.filter(({ skipped }) => skipped).length,
  kinds,
  results,
};
const width = Math.max(...Object.keys(kinds).map((kind) => kind.length));
for (const [kind, { cases, failures: failed }] of Object.entries(kinds))
  console.log(
    `${kind.padEnd(width)}  ${String(cases).padStart(3)} cases  ${failed === 0 ? "all hold" : `${failed} fail`}`,
  );
console.log(
  `${results.length} cases in ${report.seconds} s: ` +
    `${failures === 0 ? "no failure" : `${failures} fail`}${flags.keep && failures > 0 ? `; kept in ${root}` : ""}`,
);
// A part of the cases is no result.
const file =
  flags.out ??
  (flags.only === "" && !flags.full ? here(`results/${began.toISOString().slice(0, 10)}-hostile.json`) : "-");
if (file !== "-") {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(report, null, 1)}\n`);
}
process.exitCode = failures === 0 ? 0 : 1;
