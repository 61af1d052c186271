/**
 * Counts the calls of node:fs/promises that change something on disk, and can kill the process at any of them. It is
 * loaded before a program: `CALLS_LOG=FILE CALLS_KILL=12.5 node --import ./bench/soak/calls.mjs PROGRAM`.
 *
 *   CALLS_LOG    a file that gets a line of JSON when a call begins, and one when it has returned
 *   CALLS_KILL   N: SIGKILL before call N (from 0); N.5: behind it, before the program hears of it
 *
 * `faultsOf` reads such a log as a power cut would: what was not flushed is lost.
 */
import { appendFileSync } from "node:fs";
import promises from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { dirname, resolve } from "node:path";

const { CALLS_LOG: log, CALLS_KILL: kill } = process.env;
let calls = 0;

/** Runs a call between its two moments. */
async function counted(call, path, other, run) {
  const number = calls++;
  const say = (more) =>
    log === undefined ? undefined : appendFileSync(log, `${JSON.stringify({ number, call, path, other, ...more })}\n`);
  if (Number(kill) === number) process.kill(process.pid, "SIGKILL");
  say({ begins: true });
  const result = await run();
  if (Number(kill) === number + 0.5) process.kill(process.pid, "SIGKILL");
  say({ begins: false });
  return result;
}

/** Calls of an open file that change it or flush it. */
const ofHandles = ["write", "writev", "writeFile", "appendFile", "truncate", "sync", "datasync"];
/** Calls that change names; `rename` and `copyFile` have two paths. */
const ofNames = ["rename", "mkdir", "rmdir", "rm", "unlink", "copyFile", "link", "symlink", "writeFile", "truncate"];

function watch() {
  const { open } = promises;
  promises.open = async (path, ...rest) => {
    const flags = rest[0] ?? "r";
    const makes = typeof flags === "string" ? /^[wa]/.test(flags) : (flags & promises.constants.O_CREAT) !== 0;
    const place = resolve(String(path));
    const handle = makes
      ? await counted("create", place, undefined, () => open(path, ...rest))
      : await open(path, ...rest);
    for (const name of ofHandles) {
      const plain = handle[name].bind(handle);
      handle[name] = (...given) => counted(name, place, undefined, () => plain(...given));
    }
    return handle;
  };
  for (const name of ofNames) {
    const plain = promises[name];
    promises[name] = (path, ...rest) =>
      counted(name, resolve(String(path)), name === "rename" ? resolve(String(rest[0])) : undefined, () =>
        plain(path, ...rest),
      );
  }
  syncBuiltinESMExports();
}

if (log !== undefined || kill !== undefined) watch();

/** Changes of a file, or of the names in a folder, of which some may not be on disk. */
class Changes {
  #underWay = 0;
  /** How many are done, and how many of the first ones are on disk. */
  done = 0;
  flushed = 0;

  begin() {
    this.#underWay++;
  }
  end() {
    this.#underWay--;
    this.done++;
  }
  get isLost() {
    return this.#underWay > 0 || this.flushed < this.done;
  }
}

/** Calls that change what is in a file; all others change names in a folder. */
const ofContent = new Set(["write", "writev", "writeFile", "appendFile", "truncate"]);

/**
 * What a power cut could lose although a later step relies on it, in words; `entries` are the lines of a log. A rename
 * that gives its name to a file or folder (`isName` of the new path) needs all of it on disk, and so do later ones the
 * name itself. The last name must be on disk at the end.
 */
export function faultsOf(entries, isName) {
  const changes = new Map();
  const of = (path) => {
    if (!changes.has(path)) changes.set(path, new Changes());
    return changes.get(path);
  };
  const flushes = new Map();
  const names = [];
  const faults = [];
  const requireNames = (when) => {
    for (const { path, count } of names)
      if (of(dirname(path)).flushed < count) faults.push(`the name ${path} is not on disk when ${when}`);
  };
  for (const { number, call, path, other, begins } of entries) {
    if (call === "sync" || call === "datasync") {
      if (begins) flushes.set(number, of(path).done);
      else of(path).flushed = Math.max(of(path).flushed, flushes.get(number));
      continue;
    }
    const changed = of(ofContent.has(call) ? path : dirname(other ?? path));
    if (begins) changed.begin();
    else changed.end();
    if (call !== "rename") continue;
    const moved = [...changes.keys()].filter((inside) => inside === path || inside.startsWith(`${path}/`));
    if (begins && isName(other)) {
      for (const inside of moved)
        if (of(inside).isLost) faults.push(`${inside} is not on disk when ${other} gets its name`);
      requireNames(`${other} gets its own`);
    }
    if (begins) continue;
    for (const inside of moved) changes.delete(inside);
    if (isName(other)) names.push({ path: other, count: of(dirname(other)).done });
  }
  requireNames("all is done");
  return faults;
}
