/** What is wrong with how a child ended: sentences, none if all is well. */
import { lstatSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";

const LONGEST_LINE = 2000;
/** Problems of one file that are shown. */
const MOST_PROBLEMS = 50;
/**
 * Marks of an error that nobody meant to show: stacks of JavaScript, panics of Rust, aborts of V8, warnings of Node.
 */
const defects = [
  [/internal error|this is a defect/, "an internal error"],
  [/^\s+at .+[:(]\d+:\d+\)?$/m, "a stack"],
  [/node:internal/, "a stack of Node"],
  [/panicked at|RUST_BACKTRACE|thread '.*' /, "a panic of Rust"],
  [/FATAL ERROR|heap out of memory|Segmentation fault|core dumped/, "an abort"],
  [/^\(node:\d+\)/m, "a warning of Node"],
  [/Uncaught|UnhandledPromise/, "an uncaught error"],
  [/\[object \w+\]|\bundefined\b/, "a value that is none"],
];
/**
 * Newline and tab are what a line may hold; bidirectional overrides make a terminal show another text than is there.
 */
// eslint-disable-next-line no-control-regex -- these characters are what is looked for
const raw = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;
/**
 * Lines on stderr before the one that says what failed: warnings, continued lines, and what long commands say of their
 * progress.
 */
const aside = new RegExp(
  `^(${[
    "warning: ",
    " ",
    "reading ",
    "learning ",
    "converting ",
    "merging ",
    "measuring",
    "writing ",
    "downloading",
    "hf://",
    "stopping: ",
    "starts ",
    "bootstrap ",
    "profile ",
    "comparison ",
    "going on",
    "train",
    "an unfinished conversion",
    "multiplying",
    "comparing",
    "opening",
    "upcycled ",
    "planning",
    "no network",
    "[^:]+: \\d+ steps",
    "[^:]+ {2}step ",
    "note: ",
    "waiting",
    "[\\d.e+-]+ % of \\S+",
    "[\\d.e+-]+ % {2}",
    "step \\d+/\\d+ {2}",
    "no answer from \\S+ for \\d+ s, trying again(?: in \\S+ \\S+)?: \\d+ of \\d+$",
    "the connection broke \\(.+\\), trying again(?: in \\S+ \\S+)?: \\d+ of \\d+$",
    "\\d+ trainings of .+ in all: about .+, as a first guess$",
    "the Hub says \\d+, trying again(?: in \\S+ \\S+)?: \\d+ of \\d+$",
    "\\S+ has \\d+ bytes, the Hub announced \\d+, trying again(?: in \\S+ \\S+)?: \\d+ of \\d+$",
    "\\S+ arrived damaged \\(.+, trying again(?: in \\S+ \\S+)?: \\d+ of \\d+$",
    "[^:]+: no such folder, so taken as hf://",
  ].join("|")})`,
);

const hashOf = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Every path below a folder with what it is; contents by hash where they are small. */
export function snapshot(dir) {
  const found = new Map();
  // Names are bytes: some are no UTF-8.
  const walk = (folder, below) => {
    for (const name of readdirSync(folder, { encoding: "buffer" })) {
      const place = Buffer.concat([folder, Buffer.from("/"), name]);
      const path = join(below, name.toString());
      const status = lstatSync(place);
      if (status.isSymbolicLink()) found.set(path, `link to ${readlinkSync(place)}`);
      else if (status.isDirectory()) {
        found.set(path, "folder");
        walk(place, path);
      } else if (status.isFile()) {
        const large = status.size > 1e6;
        found.set(
          path,
          large ? `file of ${status.size} bytes, ${status.mtimeMs}` : `file ${hashOf(readFileSync(place))}`,
        );
      } else found.set(path, "special file");
    }
  };
  walk(Buffer.from(dir), "");
  return found;
}

/** What must not have happened to the files: nothing that was there has changed, and a failure leaves nothing new. */
function fileProblems(before, after, { may, failed }) {
  const free = (path) => may !== undefined && may.test(path);
  const lost = [...before]
    .filter(([path, what]) => !free(path) && after.get(path) !== what)
    .map(([path]) => `${path} is ${after.has(path) ? "changed" : "gone"}`);
  const left = failed
    ? [...after.keys()].filter((path) => !before.has(path) && !free(path)).map((path) => `${path} is left behind`)
    : [];
  return [...lost.slice(0, 5), ...left.slice(0, 3)];
}

function streamProblems(name, text, { data, json }) {
  const problems = [];
  const bad = data ? null : raw.exec(text);
  if (bad !== null)
    problems.push(
      `raw ${JSON.stringify(bad[0])} on ${name}: ` +
        `${JSON.stringify(text.slice(Math.max(0, bad.index - 40), bad.index + 40))}`,
    );
  const longest =
    data || json ? "" : text.split("\n").reduce((most, line) => (line.length > most.length ? line : most), "");
  if (longest.length > LONGEST_LINE)
    problems.push(`a line of ${longest.length} characters on ${name}: ${JSON.stringify(longest.slice(0, 80))}...`);
  return problems;
}

function failureProblems({ code, stderr, signal }) {
  const lines = stderr.split("\n").filter((line) => line !== "");
  const said = lines.filter((line) => line.startsWith("upcycle: "));
  if (code === 0) return said.length === 0 ? [] : [`exit 0, and yet: ${said[0].slice(0, 200)}`];
  // A process that a signal has ended by the signal's own default says nothing.
  if (signal !== null) return [];
  if (said.length !== 1) return [`${said.length} lines say what failed: ${JSON.stringify(stderr.slice(-300))}`];
  const listed = lines.slice(lines.indexOf(said[0]) + 1);
  const problems = /: (\d+) problems$/.exec(said[0])?.[1];
  if (problems !== undefined) return [...listProblems(Number(problems), listed), ...strangeLines(lines, said[0])];
  if (lines.at(-1) !== said[0]) return [`lines after the failure: ${JSON.stringify(lines.at(-1).slice(0, 200))}`];
  return strangeLines(lines, said[0]);
}

/** Several problems of one file are a line each below the one that counts them, in the file's order. */
function listProblems(count, listed) {
  const shown = Math.min(count, MOST_PROBLEMS);
  const wanted = shown + (count > shown ? 1 : 0);
  if (listed.length !== wanted) return [`${listed.length} lines below "${count} problems", expected ${wanted}`];
  const strange = listed.find((line) => !/^ {2}\S/.test(line));
  if (strange !== undefined) return [`a line that is no problem: ${JSON.stringify(strange.slice(0, 200))}`];
  const places = listed.slice(0, shown).map((line) => Number(/:(\d+)[: ]/.exec(line)?.[1]));
  return places.every((line, i) => i === 0 || !(line < places[i - 1])) ? [] : ["problems are not in the file's order"];
}

function strangeLines(lines, failure) {
  const strange = lines.slice(0, lines.indexOf(failure)).find((line) => !aside.test(line));
  return strange === undefined
    ? []
    : [`a line that is neither the failure nor a warning nor progress: ${JSON.stringify(strange.slice(0, 200))}`];
}

/**
 * `expect`: exit codes, a death by signal as 128 and its number. `silent`: the streams were closed or full, so nothing
 * can be read.
 */
export function judge(one, result, before, after) {
  const { expect, memory = 600, data = false, json = false, silent = false, says, shows, never, may } = one;
  const { code, stdout, stderr, hung, endless, peakMB, bytes } = result;
  const problems = [];
  if (hung)
    problems.push(
      result.signalled === null
        ? `hangs: ended after ${(result.ms / 1000).toFixed(0)} s`
        : `deaf to ${result.signalled}`,
    );
  else if (!expect.includes(code))
    problems.push(`exit ${code}, expected ${expect.join(" or ")}: ${JSON.stringify((stderr || stdout).slice(-300))}`);
  if (endless) problems.push(`endless output: ${bytes.stdout + bytes.stderr} bytes`);
  if (peakMB > memory) problems.push(`${peakMB.toFixed(0)} MB of memory, limit ${memory}`);
  for (const [pattern, what] of defects) {
    const found = pattern.exec(stderr) ?? (data || json ? null : pattern.exec(stdout));
    if (found !== null)
      problems.push(`${what}: ${JSON.stringify(found.input.slice(Math.max(0, found.index - 60), found.index + 120))}`);
  }
  problems.push(
    ...streamProblems("stderr", stderr, { data: false, json: false }),
    ...streamProblems("stdout", stdout, { data, json }),
  );
  if (!hung && !silent) problems.push(...failureProblems(result));
  if (json && code === 0 && !silent) {
    try {
      JSON.parse(stdout);
    } catch {
      problems.push(`--json printed what is no JSON: ${JSON.stringify(stdout.slice(0, 80))}`);
    }
  }
  if (says !== undefined && !hung && !says.test(stderr))
    problems.push(`stderr does not say ${says}: ${JSON.stringify(stderr.slice(-300))}`);
  if (shows !== undefined && !hung && !shows.test(stdout))
    problems.push(`stdout does not show ${shows}: ${JSON.stringify(stdout.slice(0, 300))}`);
  if (never !== undefined && never.test(stdout + stderr)) problems.push(`shows ${never}`);
  problems.push(...fileProblems(before, after, { may, failed: code !== 0 }));
  return problems;
}
