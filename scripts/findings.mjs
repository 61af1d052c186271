/**
 * Writes what studies have found into docs/findings: one page for each study, and the table in its README.
 *
 *   node scripts/findings.mjs [RUN...] [--hardware TEXT] [--note TEXT] [--fit] [--origin FILE] [--seconds N]
 *
 * --seconds is how long the study took where its folder does not know, as that of a report of pieces. --origin is what
 * bench/corpus.py has written beside the text: packages, versions, licences.
 *
 * --fit adds the coefficients of the upcycling law fitted to the study's runs, with 90 % intervals by profile
 * likelihood.
 *
 * Each RUN is the folder of a finished study. What a page needs of it is kept in docs/findings/results, so without RUN
 * all pages are written anew. Verdicts are computed from the pairs of runs, as the study's own report computes them.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parse } from "yaml";
import { compact, duration, significant } from "../dist/base/format.js";
import { markdownText } from "../dist/base/markdown.js";
import { answersOf, labelsOf, measureName, publishedCell, signed, verdictWords } from "../dist/report/study/answers.js";
import { markdownTable, resultTables } from "../dist/report/study/result-tables.js";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    hardware: { type: "string" },
    note: { type: "string" },
    fit: { type: "boolean", default: false },
    origin: { type: "string" },
    seconds: { type: "string" },
  },
});
const folder = fileURLToPath(new URL("../docs/findings", import.meta.url));
const kept = join(folder, "results");
mkdirSync(kept, { recursive: true });

const slug = (text) =>
  text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "");

/** The file of a study within the package. */
const fileOf = (name) => {
  const path = `recipes/studies/${name}.yaml`;
  return existsSync(fileURLToPath(new URL(`../${path}`, import.meta.url))) ? path : `recipes/${name}.yaml`;
};

/** The command without folders of the machine that ran it. */
const publicCommand = (command, name) =>
  command.replace(/ --(out|store) \S+/g, "").replace(/(study) \S*?[^/\s]+\.yaml/, `$1 ${fileOf(name)}`);

/** The upcycling law fitted to the runs of a study, by the command that a user would give. */
function fitOf(dir) {
  const main = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
  const words = ["--law", "upcycling", "--loss", "mse", "--profile", "--level", "0.9"];
  const options = ["--compare", "upcycling-no-interaction", "--json"];
  const output = execFileSync(process.execPath, [main, "fit", dir, ...words, ...options], { encoding: "utf8" });
  const { params, intervals, n, warnings } = JSON.parse(output);
  const coefficients = Object.entries(params).map(([name, value]) => {
    const { low, high, lowOpen, highOpen } = intervals[name].profile;
    return { name, value, low: lowOpen ? null : low, high: highOpen ? null : high };
  });
  return { command: `upcycle fit RUN ${[...words, ...options.slice(0, 2)].join(" ")}`, n, coefficients, warnings };
}

/**
 * The place of each parent in a grid: its name without the seed, where parents differ in that alone. Seeds are the last
 * thing that such a study varies.
 */
function placeOf(config) {
  const seeded = Object.entries(config.parents ?? {}).flatMap(([name, { vary = {} }]) =>
    Object.keys(vary).at(-1) === "seed" && vary.seed.length > 1 ? [name] : [],
  );
  return (id) =>
    seeded.some((name) => id === name || id.startsWith(`${name}-`)) ? id.slice(0, id.lastIndexOf("-")) : id;
}

/**
 * Arms of one place as one arm, with the runs behind all of its parents; of those from random weights, whose run is one
 * and the same beside all parents of a size, that run once.
 */
function byPlace(arms, place) {
  const groups = new Map();
  const seen = new Set();
  for (const arm of arms) {
    const paths = arm.runs.map(({ path }) => path);
    if (arm.kind === "scratch" && paths.length > 0 && paths.every((path) => seen.has(path))) continue;
    for (const path of paths) seen.add(path);
    const own = place(arm.parent);
    const key = JSON.stringify([arm.arm, own]);
    const known = groups.get(key);
    if (known === undefined) groups.set(key, { ...arm, label: arm.label.replace(arm.parent, own) });
    else groups.set(key, { ...known, runs: [...known.runs, ...arm.runs] });
  }
  return [...groups.values()];
}

/** What a page needs of a result: the ends of the runs, and the pairs of the questions. */
function essence(dir) {
  const result = JSON.parse(readFileSync(join(dir, "result.json"), "utf8"));
  const { config } = JSON.parse(readFileSync(join(dir, "study.json"), "utf8"));
  const { name, startedAt, seconds, environment, text, parents, arms, questions, commands, seeds } = result;
  const place = placeOf(config);
  return {
    name,
    date: startedAt.slice(0, 10),
    hardware: flags.hardware ?? environment.cpu,
    note: flags.note ?? null,
    scale: config.scale,
    balance: config.continue.routing?.balance ?? "layer",
    seconds: flags.seconds === undefined ? Math.round(seconds) : Number(flags.seconds),
    environment,
    text,
    command: publicCommand(commands[0], name),
    seeds,
    meant: config.seeds.length,
    parents: parents.map(({ id, params, tokens, loss }) => ({ id, place: place(id), params, tokens, loss })),
    arms: byPlace(arms, place).map(({ runs, ...arm }) => ({
      ...arm,
      runs: runs.map(({ seed, finalLoss, points, diverged }) => ({
        seed,
        finalLoss,
        ...(diverged === undefined ? {} : { diverged }),
        points: points.slice(-1),
      })),
    })),
    questions,
    ...(flags.fit ? { fit: fitOf(dir) } : {}),
    ...(flags.origin === undefined ? {} : { origin: JSON.parse(readFileSync(flags.origin, "utf8")) }),
  };
}

for (const dir of positionals) {
  const one = essence(dir);
  writeFileSync(join(kept, `${one.name}-${slug(one.hardware)}-scale-${one.scale}.json`), `${JSON.stringify(one)}\n`);
}

const all = readdirSync(kept)
  .sort()
  .map((file) => JSON.parse(readFileSync(join(kept, file), "utf8"), (_, value) => value));
const groupBy = (list, keyOf) => {
  const groups = new Map();
  for (const one of list) groups.set(keyOf(one), [...(groups.get(keyOf(one)) ?? []), one]);
  return groups;
};
const byName = groupBy(all, ({ name }) => name);

const studyFile = (name) => fileURLToPath(new URL(`../${fileOf(name)}`, import.meta.url));

/** The questions with what is published of them: what the study's file says now, which no run depends on. */
function questionsOf({ name, questions }) {
  const file = studyFile(name);
  const asked = existsSync(file) ? (parse(readFileSync(file, "utf8")).questions ?? []) : [];
  const isSame = (a, b) => ["ask", "compare", "with"].every((key) => a[key] === b[key]);
  return questions.map((question) => {
    const published = asked.find((one) => isSame(one, question))?.published;
    return published === undefined ? question : { ...question, published: { relative: false, ...published } };
  });
}

/** Losses that JSON has no number for, and questions as their file has them. */
const restored = (one) => ({
  ...one,
  questions: questionsOf(one),
  arms: one.arms.map((arm) => ({ ...arm, runs: arm.runs.map((run) => ({ ...run, finalLoss: run.finalLoss ?? NaN })) })),
});

const known = (value, text) => (Number.isFinite(value) ? text(value) : "–");
const percentOf = (value, base) => (Number.isFinite(value / base) ? ` (${signed((100 * value) / base)} %)` : "");

function questionRow(answer, arms) {
  const { question, test, base, detectable, adjusted, pairsNeeded } = answer;
  const relative = question.measure.includes("loss") ? (value) => percentOf(value, base) : () => "";
  const [first, second] = labelsOf(question, arms);
  return [
    `${question.ask} (${first} less ${second}, ${measureName(question.measure)}, ${test.n} pairs)`,
    known(detectable, (value) => `${significant(value, 3)}${relative(value).replace("+", "")}`),
    question.published === null ? "–" : `${publishedCell(answer, signed)} (${question.published.source})`,
    known(
      test.mean,
      (mean) =>
        `${signed(mean)}${relative(mean)}` +
        known(test.low, (low) => `, ${signed(low)} to ${signed(test.high)}`).replace("–", ""),
    ),
    known(adjusted, (p) => (p < 1e-4 ? "< 0.0001" : significant(p, 2))),
    `**${verdictWords(answer)}**`,
    pairsNeeded === null ? "–" : `about ${compact(pairsNeeded)}`,
  ];
}

const row = (cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
const text = (cells) => cells.map((cell, i) => (i === 5 ? cell : markdownText(cell)));

function section(raw) {
  const one = restored(raw);
  const { hardware, date, scale, seconds, environment, text: corpus, command, parents, arms, seeds } = one;
  const answers = answersOf(one.questions);
  const [parent] = parents;
  const sizes = [...new Set(parents.map(({ params }) => compact(params.total)))].join(", ");
  const seen = [...new Set(parents.map(({ tokens }) => (tokens === null ? "?" : compact(tokens))))].join(", ");
  const further = [...new Set(arms.map(({ runs }) => compact(runs[0]?.points.at(-1)?.tokens ?? NaN)))].join(", ");
  const passes = (tokens) => significant(tokens / corpus.trainTokens, 2);
  const places = groupBy(parents, ({ id, place = id }) => place);
  const losses = [...places.values()].map((own) => own.reduce((sum, { loss }) => sum + loss, 0) / own.length);
  const each = parents.length / places.size;
  const most = Math.max(...arms.flatMap(({ runs }) => runs.map(({ points }) => points.at(-1)?.tokens ?? 0)));
  const headings = [
    "Question",
    "Smallest detectable",
    "Published",
    "Measured, 95 % interval",
    "p (Holm)",
    "Verdict",
    "Pairs that would decide",
  ];
  return [
    `## ${hardware}, scale ${scale}, ${date}`,
    "",
    "```sh",
    command,
    "```",
    "",
    `Parents of ${sizes} parameters, ${seen} tokens ` +
      `(${passes(parent.tokens ?? 0)} passes over ${compact(corpus.trainTokens)} ` +
      `tokens of ${markdownText(corpus.sources.map(({ name }) => name).join(", "))}), held-out loss ` +
      `${losses.map((loss) => loss.toFixed(3)).join(", ")}` +
      `${each === 1 ? "" : ` (means of ${each} parents each, which differ in their seeds)`}; ` +
      `${further} further tokens for each arm ` +
      `(up to ${passes(most)} passes); seeds ` +
      `${seeds.join(", ")}. Upcycle ${environment.upcycle}, Node ${environment.node}, trained on ` +
      `${environment.device ?? `ONNX Runtime ${environment.onnxruntime}`}, ${duration(seconds)} in all.`,
    "",
    balanceWords(one.balance),
    ...(one.note === null ? [] : ["", one.note]),
    ...(one.origin === undefined ? [] : ["", originWords(one.origin)]),
    "",
    ...answers.slice(0, 1).flatMap((answer) => [mainComparison(answer, arms, one.meant ?? ENOUGH_PAIRS), ""]),
    row(headings),
    row([":--", "--:", "--:", "--:", "--:", ":--", "--:"]),
    ...answers.map((answer) => row(text(questionRow(answer, arms)))),
    "",
    markdownTable(resultTables({ ...one, questions: [] })[0]),
    ...(one.fit === undefined ? [] : fitLines(one.fit)),
    ...(one.origin === undefined ? [] : originLines(one.origin)),
  ].join("\n");
}

/** What the load-balancing loss was taken over where a file leaves it out, which was all layers once. */
const balanceWords = (balance) =>
  `Load-balancing loss of arms that say nothing else: \`balance: ${balance}\`` +
  (balance === "layer"
    ? "."
    : ", the default of that day; today's is `layer`, with which the command gives other numbers.");

/** Runs of each side of a comparison that a finding is to rest on. */
const ENOUGH_PAIRS = 5;

/** The first question in words: what could be seen, before what was seen. */
function mainComparison(answer, arms, meant) {
  const { question, test, base, detectable } = answer;
  const relative = question.measure.includes("loss") ? (value) => percentOf(value, base) : () => "";
  const [first, second] = labelsOf(question, arms);
  const size = (value) => `${signed(value)}${relative(value)}`;
  const least = known(detectable, (value) => `${significant(value, 3)}${relative(value).replace("+", "")}`);
  const few =
    test.n < ENOUGH_PAIRS
      ? `${test.n < meant ? ` ${meant} were meant; what` : " What"} is said here rests on ${test.n} pairs, ` +
        "whose spread is hardly known."
      : "";
  return (
    `Main comparison, named before anything was trained: ${markdownText(question.ask)} ${markdownText(first)} ` +
    `against ${markdownText(second)}, ${measureName(question.measure)}. ` +
    `Smallest detectable difference with ${test.n} pairs: ${least}. ` +
    `${question.published === null ? "Nothing is published." : `Published: ${publishedCell(answer, size)}.`} ` +
    `Measured: ${known(test.mean, size)}. Verdict: **${verdictWords(answer)}**.${few}`
  );
}

/** Where a text comes from. */
const originWords = ({ origin, packages, bytes }) =>
  `Text: ${significant(bytes / 1e6, 3)} MB of ${packages.length} packages (${origin}), every one free software by ` +
  "Debian's guidelines, made by `bench/corpus.py`; packages, versions and licences are listed below. None of it is " +
  "part of this repository.";

/** The packages of a text with their licences. */
function originLines({ packages }) {
  const most = 6;
  const named = (licences) =>
    licences.slice(0, most).join(", ") + (licences.length > most ? ` and ${licences.length - most} more` : "");
  return [
    "",
    "Origin and licences of the text, as the packages' copyright files name them:",
    "",
    row(["Package", "Version", "MB", "Licences"]),
    row([":--", ":--", "--:", ":--"]),
    ...packages
      .filter(({ bytes }) => bytes > 0)
      .map((one) =>
        row([one.package, one.version, (one.bytes / 1e6).toFixed(2), named(one.licences)].map(markdownText)),
      ),
  ];
}

/** The coefficients of the fitted law with their intervals; what is open has no end. */
function fitLines({ command, n, coefficients, warnings }) {
  const end = (value) => (value === null ? "open" : significant(value, 3));
  return [
    `The upcycling law fitted to ${n} points (\`${command}\`):`,
    "",
    row(["Coefficient", "Value", "90 % interval"]),
    row([":--", "--:", "--:"]),
    ...coefficients.map(({ name, value, low, high }) =>
      row([name, significant(value, 3), `${end(low)} to ${end(high)}`]),
    ),
    "",
    ...warnings.map(({ text: words }) => `- ${markdownText(words)}`),
    "",
  ];
}

/** The remarks at the head of a study file, up to the first that is empty. */
function aboutStudy(name) {
  const file = studyFile(name);
  if (!existsSync(file)) return "";
  const lines = readFileSync(file, "utf8").split("\n").slice(1);
  const end = lines.findIndex((line) => !line.startsWith("# "));
  return lines
    .slice(0, end)
    .map((line) => line.slice(2))
    .join(" ");
}

/** The largest first, then the latest, then that of today's default load-balancing loss, `layer` before `model`. */
const inOrder = (runs) =>
  [...runs].sort((a, b) => b.scale - a.scale || b.date.localeCompare(a.date) || a.balance.localeCompare(b.balance));
/**
 * Whether another result of the same size and hardware stands in the table instead: one with today's default
 * load-balancing loss, else one that rests on more pairs.
 */
const isBetter = (other, one) =>
  other.scale === one.scale &&
  other.hardware === one.hardware &&
  (other.balance === one.balance
    ? (answersOf(other.questions)[0]?.test.n ?? 0) > (answersOf(one.questions)[0]?.test.n ?? 0)
    : other.balance === "layer");

const index = [];
for (const [name, runs] of [...byName].sort(([a], [b]) => (a < b ? -1 : 1))) {
  const page = [
    `# ${name}`,
    "",
    markdownText(aboutStudy(name)),
    "",
    `The study is [${fileOf(name)}](../../${fileOf(name)}). ` +
      "Differences are paired by seed; the smallest detectable difference is what this many pairs find in " +
      "80 % of cases (two-sided, 5 % over all " +
      "questions of the study).",
    "",
    ...inOrder(runs).map(section),
  ];
  writeFileSync(join(folder, `${name}.md`), `${page.join("\n").trimEnd()}\n`);
  const shown = inOrder(runs).map(restored);
  for (const one of shown) {
    const [answer] = answersOf(one.questions);
    if (answer === undefined || shown.some((other) => isBetter(other, one))) continue;
    const relative = answer.question.measure.includes("loss") ? (value) => percentOf(value, answer.base) : () => "";
    const { test, detectable } = answer;
    index.push(
      row([
        `[${name}](${name}.md)`,
        `${markdownText(one.hardware)}, scale ${one.scale}`,
        markdownText(answer.question.ask),
        String(test.n),
        known(detectable, (value) => `${significant(value, 3)}${relative(value).replace("+", "")}`),
        publishedCell(answer, (value) => `${signed(value)}${relative(value)}`),
        known(test.mean, (mean) => `${signed(mean)}${relative(mean)}`),
        `**${verdictWords(answer)}**`,
      ]),
    );
  }
}

const readme = join(folder, "README.md");
const [begin, end] = ["<!-- table by scripts/findings.mjs -->", "<!-- end of the table -->"];
const before = readFileSync(readme, "utf8");
const table = [
  row(["Study", "Where", "Main comparison", "Pairs", "Smallest detectable", "Published", "Measured", "Verdict"]),
  row([":--", ":--", ":--", "--:", "--:", "--:", "--:", ":--"]),
  ...index,
].join("\n");
const missing = readdirSync(fileURLToPath(new URL("../recipes/studies", import.meta.url)))
  .filter((file) => file.endsWith(".yaml") && !byName.has(file.replace(/\.yaml$/, "")))
  .map((file) => `[${file.replace(/\.yaml$/, "")}](../../recipes/studies/${file})`);
const unrun = missing.length === 0 ? "" : `\n\nNot run so far: ${missing.join(", ")}.`;
if (!before.includes(begin)) throw new Error(`${readme} has no line ${begin}`);
const [head] = before.split(begin);
const tail = before.split(end)[1] ?? "";
writeFileSync(readme, `${head}${begin}\n\n${table}${unrun}\n\n${end}${tail}`);
