/**
 * All that a change has to pass: build, format, lint, unused code, types, API docs, then the tests (none with
 * `--no-tests`). Two steps run side by side, because each is of one thread; what a step says is shown when it has
 * ended. The first that fails ends the others.
 *
 * The build here checks no types: `typecheck` does so for the same files, with the same options.
 */
import { spawn } from "node:child_process";
import { performance } from "node:perf_hooks";

/** In the order in which they begin; some read what the build writes. */
const steps = [
  { name: "build", line: "npx tsc -p tsconfig.json --noCheck && npm run bundle", after: [] },
  { name: "lint", line: "npm run lint", after: ["build"] },
  { name: "typecheck", line: "npm run typecheck", after: ["build"] },
  { name: "docs", line: "npm run docs", after: [] },
  { name: "format:check", line: "npm run format:check", after: [] },
  { name: "unused", line: "npm run unused", after: ["build"] },
];
const sideBySide = 2;

const running = new Set();
const done = new Set();
const began = performance.now();
const seconds = (since) => ((performance.now() - since) / 1000).toFixed(0);

/** Runs a line of the shell; resolves to its exit code and what it said. */
function run(line, stdio) {
  return new Promise((resolve, reject) => {
    const child = spawn(line, { shell: true, stdio, detached: process.platform !== "win32" });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding("utf8").on("data", (text) => (output += text));
    running.add(child);
    child.on("error", reject).on("close", (code) => {
      running.delete(child);
      resolve({ code, output });
    });
  });
}

/** Ends what still runs, with the processes that it has started. */
function endOthers() {
  for (const child of running)
    try {
      if (process.platform === "win32") child.kill();
      else process.kill(-child.pid, "SIGTERM");
    } catch (error) {
      // It has ended, and only its last words are still to come.
      if (error.code !== "ESRCH") throw error;
    }
}

function fail(name, code) {
  endOthers();
  console.error(`verify: ${name} failed`);
  process.exit(code || 1);
}

async function runStep({ name, line }) {
  const start = performance.now();
  const { code, output } = await run(line, ["ignore", "pipe", "pipe"]);
  console.log(`\n== ${name}, ${seconds(start)} s\n${output.trimEnd()}`);
  if (code !== 0) fail(name, code);
  done.add(name);
}

for (const signal of ["SIGINT", "SIGTERM"])
  process.on(signal, () => {
    endOthers();
    process.exit(130);
  });

const waiting = [...steps];
const lanes = new Set();
while (waiting.length > 0 || lanes.size > 0) {
  const at = waiting.findIndex(({ after }) => after.every((name) => done.has(name)));
  if (at >= 0 && lanes.size < sideBySide) {
    const lane = runStep(...waiting.splice(at, 1)).finally(() => lanes.delete(lane));
    lanes.add(lane);
  } else await Promise.race(lanes);
}
console.log(`\n== all but the tests, ${seconds(began)} s`);
if (!process.argv.includes("--no-tests")) {
  const { code } = await run("npm run test", "inherit");
  if (code !== 0) fail("test", code);
  console.log(`\n== verified, ${seconds(began)} s`);
}
