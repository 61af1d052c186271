/**
 * What a sweep on several GPUs found (`sweep.mjs`), line by line of what was to hold.
 *
 *   node bench/megatron/analyse.mjs OUT... [--result FILE.json] [--markdown FILE.md]
 *
 * OUT: folders that sweep.py filled, the later over the earlier. A line holds, does not hold, or was not run; the
 * script ends with 1 unless all hold. Losses, times and problems are read out of Megatron-LM's logs by the parser of
 * `upcycle watch`. Needs no GPU.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parseLine } from "../../dist/files/formats/megatron-log.js";
import { specFromConfig } from "../../dist/model/decoder/config.js";
import { compared, failures, median, plannerOf } from "./planner.mjs";
import { batchOf, modelsOf, recipes } from "./sweep-models.mjs";

/** First losses of a layout and of one GPU in bfloat16, and a checkpoint's losses in two layouts, differ by at most. */
const wantedLoss = 1e-2;
/** Steps that are not timed: processes warm up. */
const warmUp = 3;

/** What the log of one run says. */
export function readRun(text) {
  const events = text.split("\n").flatMap((line) => parseLine(line) ?? []);
  const of = (type) => events.filter((event) => event.type === type);
  const iterations = of("iteration");
  const memory = [...text.matchAll(/peak memory of rank (\d+): allocated (\d+) reserved (\d+) device (\d+)/g)];
  const device = Math.max(0, ...memory.map(([, , , , bytes]) => Number(bytes)));
  const times = iterations.flatMap(({ milliseconds }) => (milliseconds === null ? [] : [milliseconds]));
  return {
    losses: iterations.map(({ loss }) => loss),
    iteration: iterations.at(-1)?.iteration ?? 0,
    skipped: iterations.reduce((sum, { skipped, nan }) => sum + skipped + nan, 0),
    validation: of("validation").find(({ set }) => /^validation/.test(set))?.losses["lm loss"] ?? null,
    loaded: of("loaded").length > 0,
    problems: of("problem").map(({ message }) => message),
    seconds: times.length > warmUp ? median(times.slice(warmUp)) / 1000 : null,
    // Processors tell none.
    bytes: device > 0 ? device : null,
  };
}

/** Everything that sweep.py left in a folder. */
function readFolder(folder) {
  const summary = JSON.parse(readFileSync(join(folder, "summary.json"), "utf8"));
  const unpacked = mkdtempSync(join(tmpdir(), "upcycle-sweep-"));
  try {
    execFileSync("tar", ["-xJf", join(folder, "logs.tar.xz"), "-C", unpacked]);
    const files = readdirSync(unpacked);
    const texts = (ending) =>
      Object.fromEntries(
        files
          .filter((name) => name.endsWith(ending))
          .map((name) => [name.slice(0, -ending.length), readFileSync(join(unpacked, name), "utf8")]),
      );
    return { summary, logs: texts(".log"), records: texts(".json") };
  } finally {
    rmSync(unpacked, { recursive: true });
  }
}

/** A line of the verdict: what was to hold, whether it does, and what was found. */
const line = (what, found, wrong, missing) => ({
  what,
  verdict: wrong.length > 0 ? "does not hold" : missing.length > 0 ? "not run" : "holds",
  found,
  wrong,
  missing,
});

const digits = (value, count = 7) => (value == null ? "none" : value.toPrecision(count));

/** Verdict, and the planner beside what was measured. */
export async function analysed(folders) {
  const plan = folders.at(-1).summary.plan;
  const { sequence, sequences } = batchOf(plan.tiny);
  const specs = Object.fromEntries(
    Object.entries(modelsOf(plan.tiny)).map(([model, config]) => [model, specFromConfig(config, model)]),
  );
  const merged = (key) => Object.assign({}, ...folders.map((one) => one[key]));
  const [logs, records] = [merged("logs"), merged("records")];
  const codes = Object.assign(
    {},
    ...folders.map(({ summary }) => Object.fromEntries(summary.runs.map((r) => [r.name, r]))),
  );
  const runs = plan.runs
    .filter(({ kind }) => kind !== "command")
    .map((run) => ({
      ...run,
      code: codes[run.name]?.code ?? null,
      ...(logs[run.name] === undefined ? {} : { read: readRun(logs[run.name]) }),
    }));
  const ran = (run) => run?.code === 0 && run.read !== undefined;
  const missingOf = (list) => list.filter((run) => run.code === null || run.code === 124).map(({ name }) => name);
  const failedOf = (list) =>
    list
      .filter((run) => run.code !== null && run.code !== 0 && run.code !== 124)
      .map(
        ({ name, code, read }) => `${name} ended with code ${code}${read?.problems[0] ? `: ${read.problems[0]}` : ""}`,
      );
  const forms = Object.keys(recipes);
  const lines = forms.flatMap((form) => {
    const own = runs.filter((run) => run.model === form && run.kind === "training");
    const single = own.filter(({ gpus }) => gpus === 1);
    const reference = single.find(ran);
    const layouts = own.filter(({ gpus, name }) => gpus > 1 && !name.includes("-planned-"));
    const long = layouts.filter(({ steps }) => steps === Math.max(...layouts.map((one) => one.steps)));
    const first = (run) => run.read.losses[0];
    const starts = long.filter(ran);
    const again = runs.filter((run) => run.model === form && run.kind === "evaluation");
    const saver = long.find(({ makes }) => makes !== undefined);
    const equal = records[`equal-${form}`] === undefined ? null : JSON.parse(records[`equal-${form}`]);
    return [
      line(
        `${form}: every layout starts with the first loss of one GPU, within ${wantedLoss}`,
        [reference, ...starts].flatMap((run) => (ran(run) ? [`${run.name} ${digits(first(run))}`] : [])),
        [
          ...failedOf([...long, ...single]),
          ...starts.flatMap((run) => [
            ...(run.read.loaded ? [] : [`${run.name}: no checkpoint was loaded`]),
            ...run.read.problems.map((problem) => `${run.name}: ${problem}`),
            ...(reference === undefined || Math.abs(first(run) - first(reference)) <= wantedLoss
              ? []
              : [`${run.name}: ${digits(first(run))}, one GPU ${digits(first(reference))}`]),
          ]),
        ],
        [...missingOf(long), ...(reference === undefined ? ["a run on one GPU"] : [])],
      ),
      line(
        `${form}: every layout trains ${long[0]?.steps} steps`,
        starts.map(({ name, read }) => `${name} ${digits(read.losses[0], 5)} to ${digits(read.losses.at(-1), 5)}`),
        [
          ...failedOf(long),
          ...starts.flatMap(({ name, steps, read }) => [
            ...(read.iteration === steps && read.losses.length === steps
              ? []
              : [`${name}: ${read.losses.length} steps, the last one ${read.iteration}`]),
            ...(read.losses.every(Number.isFinite) && read.skipped === 0
              ? []
              : [`${name}: steps skipped or not finite`]),
            ...(read.losses.at(-1) < read.losses[0] ? [] : [`${name}: the loss does not fall`]),
          ]),
        ],
        missingOf(long),
      ),
      line(
        `${form}: what ${saver?.name} saves loads in other layouts to the same loss, within ${wantedLoss}`,
        [saver, ...again].flatMap((run) => (ran(run) ? [`${run.name} ${digits(run.read.validation)}`] : [])),
        [
          ...failedOf(again),
          ...again
            .filter(ran)
            .flatMap(({ name, read }) => [
              ...(read.loaded ? [] : [`${name}: no checkpoint was loaded`]),
              ...read.problems.map((problem) => `${name}: ${problem}`),
              ...(!ran(saver) || Math.abs(read.validation - saver.read.validation) <= wantedLoss
                ? []
                : [`${name}: ${digits(read.validation)}, saved with ${digits(saver.read.validation)}`]),
            ]),
        ],
        missingOf([saver, ...again].filter((run) => run !== undefined)),
      ),
      line(
        `${form}: the import equals what was saved, bit for bit`,
        equal === null ? [] : [`${equal.tensors} tensors, ${equal.values} values`],
        equal === null ? [] : [...equal.differing, ...(equal.tensors > 0 ? [] : ["no tensor was compared"])],
        equal === null ? [`equal-${form}`] : [],
      ),
    ];
  });

  const timed = runs
    .filter((run) => ran(run) && run.kind === "training" && run.read.seconds !== null && run.read.bytes !== null)
    .filter(({ name }) => name !== "dense");
  const measured = timed.map(({ name, model, gpus, layout, read }) => ({
    ...{ name, model, gpus, layout, sequence, sequences, spec: specs[model] },
    ...{ seconds: read.seconds, bytes: read.bytes },
  }));
  const planner = compared(measured, await plannerOf("h200-sxm"));
  const wrong = failures(planner).filter((words) => words !== "no run on several GPUs");
  const several = runs.filter(({ kind, gpus, name }) => kind === "training" && gpus > 1 && name !== "dense");
  const calibrating = runs.filter(({ kind, gpus }) => kind === "training" && gpus === 1);
  const missing = missingOf([...calibrating, ...several]);
  const aspect = (what, has, found) => line(what, found, wrong.filter(has), missing);
  lines.push(
    aspect(
      "step times within 20 % of the planner's, whose constants one GPU set",
      (words) => words.includes("step time"),
      worst(planner.rows, "offTime"),
    ),
    aspect(
      "memory within 10 % of the planner's",
      (words) => words.includes("memory"),
      worst(planner.rows, "offMemory"),
    ),
    aspect(
      "the planner's choice within 10 % of the best measured",
      (words) => words.startsWith("the planner's"),
      Object.entries(planner.best).map(
        ([where, { planner: chosen, measured: best, slower }]) => `${where}: ${chosen}, best ${best} (${slower})`,
      ),
    ),
  );
  return { gpus: plan.gpus, machine: folders.at(-1).summary.machine, lines, ...planner };
}

/** The run that is furthest off. */
function worst(rows, key) {
  const several = rows.filter(({ calibrates }) => !calibrates);
  const [first] = several.toSorted((a, b) => Math.abs(b[key]) - Math.abs(a[key]));
  return first === undefined ? [] : [`${several.length} runs, the furthest ${first.run} by ${first[key]}`];
}

const placesOf = ({ gpus, machine }) =>
  machine.gpus.length > 0 ? `${gpus} GPUs` : `${gpus} ranks on processors, small models, not timed`;

/** The verdict as a page. */
export function markdownOf({ gpus, machine, lines, rows, constants, example }) {
  const table = (head, body) => [
    `| ${head.join(" | ")} |`,
    `| ${head.map(() => "---").join(" | ")} |`,
    ...body.map((cells) => `| ${cells.join(" | ")} |`),
  ];
  return [
    `# Megatron-Core on ${placesOf({ gpus, machine })}`,
    "",
    ...(example ? ["**This is an example of the analysis, not a measurement: its logs were made up.**", ""] : []),
    `${[...new Set(machine.gpus)].join(", ") || "no GPU"}, PyTorch ${machine.torch || "none"}.`,
    "",
    ...table(
      ["what was to hold", "verdict", "found"],
      lines.map(({ what, verdict, found, wrong, missing }) => [
        what,
        verdict,
        [...wrong, ...(missing.length > 0 ? [`not run: ${missing.join(", ")}`] : []), ...found].join("; "),
      ]),
    ),
    "",
    "Constants, set by the runs on one GPU and then frozen:",
    "",
    "```json",
    JSON.stringify(constants, null, 1),
    "```",
    "",
    ...table(
      ["run", "step, ms", "predicted", "off", "GB", "predicted", "off", "tokens/s", "MFU"],
      rows.map((row) => [
        `${row.run}${row.calibrates ? " (calibrates)" : ""}`,
        ...[row.milliseconds, row.predicted, row.offTime, row.GB, row.predictedGB, row.offMemory],
        ...[row.tokensPerSecond, row.mfu],
      ]),
    ),
    "",
  ].join("\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values: flags, positionals } = parseArgs({
    allowPositionals: true,
    options: { result: { type: "string" }, markdown: { type: "string" }, example: { type: "boolean", default: false } },
  });
  if (positionals.length === 0 || !positionals.every((folder) => existsSync(join(folder, "summary.json"))))
    throw new Error("analyse.mjs OUT...: folders with the summary.json of sweep.py");
  const found = await analysed(positionals.map(readFolder));
  /** @type {any} */
  const result = {
    what: `Megatron-LM on ${placesOf(found)} by bench/megatron/sweep.mjs, beside the planner`,
    ...(flags.example ? { example: true } : {}),
    date: new Date().toISOString().slice(0, 10),
    ...found,
  };
  const page = markdownOf(result);
  process.stdout.write(page);
  if (flags.result !== undefined) writeFileSync(flags.result, `${JSON.stringify(result, null, 1)}\n`);
  if (flags.markdown !== undefined) writeFileSync(flags.markdown, page);
  if (found.lines.some(({ verdict }) => verdict !== "holds")) process.exitCode = 1;
}
