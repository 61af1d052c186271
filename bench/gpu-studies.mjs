/**
 * The twelve studies on one GPU, several runs at once, in the order of what they are worth: the comparison that each
 * names first with all seeds, then the other arms.
 *
 *   node bench/gpu-studies.mjs --work FOLDER --text prose.jsonl [--seconds S] [--at-once 5] [--scale 2]
 *     [--device cuda] [--precision bf16] [--pack FILE.tar.gz]
 *
 * The shipped files are made into ones that fill the tiles of tensor cores: heads of 64, hidden sizes and FFNs by which
 * experts of an eighth have 48 units before scaling; and TEXT (bench/prose.py) stands beside the texts that come along.
 * After S seconds the runs that go on are stopped, and what is finished is reported. The same command goes on there.
 *
 * FILE holds of every run its record, log and measured beginning, of every study its result and its tables: enough for
 * `upcycle study --report` and for scripts/findings.mjs, without weights, figures and pages.
 */
import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { clearTimeout, setTimeout } from "node:timers";
import { parseArgs } from "node:util";

const begun = performance.now();
const { values } = parseArgs({
  options: {
    work: { type: "string" },
    text: { type: "string" },
    seconds: { type: "string", default: "Infinity" },
    "at-once": { type: "string", default: "5" },
    scale: { type: "string", default: "2" },
    device: { type: "string", default: "cuda" },
    precision: { type: "string", default: "bf16" },
    pack: { type: "string" },
    only: { type: "string" },
  },
});
if (values.work === undefined || values.text === undefined) throw new Error("give --work FOLDER and --text FILE");
const root = fileURLToPath(new URL("..", import.meta.url));
const work = resolve(values.work);
const [files, runs] = [join(work, "files"), join(work, "runs")];
for (const folder of [files, runs]) mkdirSync(folder, { recursive: true });
const text = join(files, basename(values.text));
copyFileSync(values.text, text);

/**
 * Studies with the arms that are trained by one command, most telling first. Runs that studies have in common, and the
 * first weights that arms share (E8G8T8 and E8G1T2 as study 1 has them), come before what needs them.
 */
const first = [
  ["01-upcycled-or-dense", "fine"],
  ["01-upcycled-or-dense", "coarse"],
  ["01-upcycled-or-dense", "dense"],
  ["05-router-order", "unscaled"],
  ["05-router-order", "paper"],
  ["04-auxiliary-loss", "pooled"],
  ["04-auxiliary-loss", "aux-0"],
  ["10-capacity", "capacity-1"],
  ["06-granularity", "parts-e8g1t1"],
  ["11-broken-beginnings", "unscaled"],
  ["08-experts-made-different", "dropped"],
  ["07-top-k", "top-e8g1t1"],
  ["07-top-k", "top-e8g1t2"],
  ["02-learning-rate", "rewarmed-0.004"],
  ["02-learning-rate", "constant"],
  ["12-router-rows", "prompts"],
  ["03-batch-size", "batch-8"],
];
const further = [
  ["01-upcycled-or-dense", "coarse-equal"],
  ["05-router-order", "soft"],
  ["05-router-order", "hard"],
  ["11-broken-beginnings", "ungrouped"],
  ["12-router-rows", "centroids"],
  ["04-auxiliary-loss", "aux-0.1"],
  ["10-capacity", "capacity-2"],
  ["05-router-order", "calibrated"],
  ["11-broken-beginnings", "uneven"],
  ["07-top-k", "equal"],
  ["08-experts-made-different", "shared"],
  ["08-experts-made-different", "noisy"],
  ["08-experts-made-different", "permuted"],
  ["06-granularity", "copies-e32g8t8"],
  ["12-router-rows", "small"],
  ["12-router-rows", "large"],
  ["01-upcycled-or-dense", "scratch"],
  ["11-broken-beginnings", "random"],
  ["11-broken-beginnings", "cut"],
  ["11-broken-beginnings", "clustered"],
  ["03-batch-size", "batch-64"],
];
/** What a study still has, whatever it is; study 9 has its own parents and its own size. */
const rest = [
  "02-learning-rate",
  "03-batch-size",
  "04-auxiliary-loss",
  "05-router-order",
  "06-granularity",
  "07-top-k",
  "10-capacity",
  "11-broken-beginnings",
  "12-router-rows",
];
const grid = "09-interaction";
const isChosen = (name) => values.only === undefined || values.only.split(",").some((one) => name.startsWith(one));
const names = [...new Set([...first.map(([name]) => name), grid])].sort().filter(isChosen);

/** A shipped file with `[from, to]` replaced; what is not there any more is an error. */
function tensorCoreFile(name) {
  const changes = [
    [
      "hidden: 96, layers: 3, heads: 4, kvHeads: 2, inner: 256",
      "hidden: 128, layers: 3, heads: 2, kvHeads: 1, inner: 384",
    ],
    ["  builtin: [sotu, moby-dick]\n", `  builtin: [sotu, moby-dick]\n  files: [${JSON.stringify(text)}]\n`],
    ...(name === grid
      ? [["hidden: 48, inner: 128, heads: 2, kvHeads: 1", "hidden: 64, inner: 192, heads: 1, kvHeads: 1"]]
      : []),
    // A quarter of the FFN.
    ...(name.startsWith("08") || name.startsWith("11") ? [["shared: 64", "shared: 96"]] : []),
  ];
  let content = readFileSync(join(root, "recipes/studies", `${name}.yaml`), "utf8");
  for (const [from, to] of changes) {
    if (!content.includes(from)) throw new Error(`${name}.yaml has no "${from.trim()}"`);
    content = content.replaceAll(from, to);
  }
  const file = join(files, `${name}.yaml`);
  writeFileSync(file, content);
  return file;
}
const fileOf = Object.fromEntries(names.map((name) => [name, tensorCoreFile(name)]));

const onDevice = ["--device", values.device, ...(values.device === "cpu" ? [] : ["--precision", values.precision])];
const storeOf = (name) => join(work, name === grid ? "grid" : "store");
const argsOf = (name, out, more) => [
  join(root, "bin/upcycle.js"),
  ...["study", fileOf[name], "--store", storeOf(name), "--out", out],
  ...[
    "--scale",
    name === grid ? String(Number(values.scale) / 2) : values.scale,
    "--threads",
    "1",
    ...onDevice,
    ...more,
  ],
];

const going = new Set();
const seconds = () => (performance.now() - begun) / 1000;
const isOver = () => seconds() >= Number(values.seconds);
/** Runs a command; its exit code, and what it said last. */
const run = (args) =>
  new Promise((done) => {
    const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
    going.add(child);
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (more) => (said = (said + more).slice(-2000)));
    child.on("close", (code) => {
      going.delete(child);
      done({ code, said: said.trim().split("\n").at(-1) });
    });
  });

/** Weights of finished runs of arms, from which nothing else starts here: they would fill the disk. */
function dropWeights(name, arm) {
  const own = join(storeOf(name), "arms", arm);
  for (const folder of existsSync(own) ? readdirSync(own) : [])
    for (const part of ["last", "best"]) rmSync(join(own, folder, part), { recursive: true, force: true });
}

/** A command of pieces in a folder of its own; null where the time is over. */
async function piece(name, only, more = []) {
  if (isOver()) return null;
  const started = seconds();
  const label = `${name} ${only ?? "whole"}`;
  const out = join(work, "pieces", label.replace(" ", "-"));
  const { code, said } = await run(argsOf(name, out, [...(only === null ? [] : ["--only", only]), ...more]));
  console.log(
    `${label}: ${code === 0 ? "there" : `${code} ${said}`}, ${started.toFixed(0)} to ${seconds().toFixed(0)} s`,
  );
  if (code === 0 && only !== null) dropWeights(name, only);
  return code;
}

/** Takes pieces from the queue. What another command is making, a study waits for by itself. */
async function worker(queue) {
  while (queue.length > 0 && !isOver()) await piece(...queue.shift());
}

const timer = setTimeout(
  () => {
    for (const child of going) child.kill("SIGINT");
  },
  Math.min(2 ** 31 - 1, Math.max(0, Number(values.seconds) * 1000)),
);
const atOnce = Number(values["at-once"]);
const others = names.filter((name) => name !== grid);
const queue = [...first, ...further, ...rest.map((name) => [name, null])].filter(([name]) => isChosen(name));
// The grid's parents differ from the others' one, which has to be there before any of their arms.
const aside = names.includes(grid) ? piece(grid, null, ["--jobs", "3"]) : null;
if (others.length > 0 && (await piece(others[0], "parent")) !== 0) queue.length = 0;
await Promise.all(Array.from({ length: atOnce }, () => worker(queue)));
await aside;
clearTimeout(timer);
console.log(`trained for ${seconds().toFixed(0)} s`);
await Promise.all(
  names.map(async (name) => {
    const { code, said } = await run(argsOf(name, join(runs, name), ["--report"]));
    if (code !== 0) console.log(`${name}: ${code} ${said}`);
  }),
);
if (values.pack !== undefined) {
  const kept = [
    "run.json",
    "metrics.jsonl",
    "preservation.json",
    "study.json",
    "result.json",
    "report.md",
    "command.json",
  ];
  const found = spawnSync(
    "find",
    [
      ...["files", "runs", "store", "grid", "-type", "f"],
      ...[
        "(",
        ...kept.flatMap((name, i) => [...(i === 0 ? [] : ["-o"]), "-name", name]),
        "-o",
        "-path",
        "*/tokenizers/*",
      ],
      ...["-o", "-path", "files/*.yaml", ")"],
    ],
    { cwd: work, encoding: "utf8" },
  );
  writeFileSync(join(work, "packed.txt"), found.stdout);
  spawnSync("tar", ["-czf", resolve(values.pack), "-C", work, "-T", join(work, "packed.txt")], { stdio: "inherit" });
}
console.log(`${seconds().toFixed(0)} s in all`);
