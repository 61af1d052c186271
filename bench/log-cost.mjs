/**
 * What a training's log costs: bytes of a step and of a measurement on held-out text, how many of them are routing and
 * co-activation, and how long writing them takes, as a share of the training's own time:
 *
 *   npm run build && node bench/log-cost.mjs RUN... [--conversion-seconds N] [--out FILE]
 *
 * RUN is a folder of `upcycle train` or of a run of `upcycle study`. Its log is written again, line by line, by the
 * function that trainings write with; each step's time is in the log itself. What notes of a conversion cost is
 * measured too: one is written twice a second at most. The result is written to bench/results/DATE-log-cost.json.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { openJsonl } from "../dist/files/io/jsonl.js";
import { ProgressRecord, progressFile } from "../dist/surgery/convert/progress-record.js";

const { values: flags, positionals: runs } = parseArgs({
  allowPositionals: true,
  options: {
    "conversion-seconds": { type: "string", default: "10" },
    out: { type: "string", default: `bench/results/${new Date().toISOString().slice(0, 10)}-log-cost.json` },
  },
});
if (runs.length === 0) throw new Error("name the folder of a run");

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
const bytesOf = (record) => Buffer.byteLength(`${JSON.stringify(record)}\n`);
const without = (record, ...keys) => Object.fromEntries(Object.entries(record).filter(([key]) => !keys.includes(key)));
const round = (value, digits = 3) => Number(value.toPrecision(digits));

let logs = 0;

/** Milliseconds that writing the records takes, one after the other. */
async function writingMs(records, folder) {
  const log = await openJsonl(join(folder, `${++logs}.jsonl`));
  const started = performance.now();
  for (const record of records) await log.append(record);
  const took = performance.now() - started;
  await log.close();
  return took;
}

/** What the log of one run costs. */
async function costOf(run, folder) {
  const records = readFileSync(join(run, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const steps = records.filter(({ type }) => type === "step");
  const evals = records.filter(({ type }) => type === "eval");
  const trainingMs = steps.reduce((sum, { ms }) => sum + ms, 0);
  const stepsMs = await writingMs(steps, folder);
  const evalsMs = await writingMs(evals, folder);
  return {
    run: `${basename(dirname(run))}/${basename(run)}`.replace(/-[0-9a-f]{12,}$/, ""),
    steps: steps.length,
    msPerStep: round(trainingMs / steps.length),
    bytesPerStep: round(mean(steps.map(bytesOf))),
    ofThemRouting: round(mean(steps.map((one) => bytesOf(one) - bytesOf(without(one, "routing"))))),
    writingPercentOfStep: round((100 * stepsMs) / trainingMs),
    bytesPerMeasurement: round(mean(evals.map(bytesOf))),
    ofThemCoactivation: round(mean(evals.map((one) => bytesOf(one) - bytesOf(without(one, "coactivation"))))),
    ofThemSimilarity: round(mean(evals.map((one) => bytesOf(one) - bytesOf(without(one, "expertSimilarity"))))),
    writingMsPerMeasurement: round(evalsMs / Math.max(1, evals.length)),
  };
}

/** Percent of a core that telling of a tensor every ten milliseconds takes; `tell` is called with the number. */
async function percentOfCore(seconds, tell) {
  const before = process.cpuUsage();
  const started = performance.now();
  for (let told = 0; performance.now() - started < 1000 * seconds; told++) {
    tell(told);
    await new Promise((done) => setTimeout(done, 10));
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e4 / seconds;
}

/** What notes of a conversion cost, less what telling takes where nobody notes it. */
async function conversionCost(folder, seconds) {
  const out = join(folder, "moe");
  const alone = await percentOfCore(seconds, () => undefined);
  const record = new ProgressRecord(out, { command: null, sources: ["dense"] });
  const noted = await percentOfCore(seconds, (told) => {
    const tensor = `model.layers.${told % 32}.mlp.experts.7.up_proj.weight`;
    record.take({ type: "progress", tensor, done: told, total: 1e6, bytesPerSecond: 1e8 });
  });
  const bytes = readFileSync(progressFile(out)).length;
  await record.end();
  return { seconds, bytes, percentOfOneCore: round(noted - alone), ofTellingAlone: round(alone) };
}

const folder = mkdtempSync(join(tmpdir(), "upcycle-log-cost-"));
try {
  const costs = [];
  for (const run of runs) costs.push(await costOf(run, folder));
  const conversion = await conversionCost(folder, Number(flags["conversion-seconds"]));
  const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version };
  console.table(costs);
  console.log("notes of a conversion", conversion);
  writeFileSync(
    flags.out,
    `${JSON.stringify({ date: new Date().toISOString().slice(0, 10), machine, logs: costs, conversion }, null, 2)}\n`,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
