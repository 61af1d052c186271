/**
 * One child process under watch: its time, its largest resident set and that of its own children, its signal or exit
 * code, and what it wrote. Every child leads a process group of its own, so that ending it ends what it started, and
 * nothing else.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { performance } from "node:perf_hooks";
import { clearInterval, clearTimeout, setInterval, setTimeout } from "node:timers";

/** What is kept of one stream; more is counted and dropped. */
const KEPT = 4_000_000;
/** A stream that is longer than this is endless. */
const ENDLESS = 100_000_000;
const SAMPLE_MS = 50;

const processFile = (pid, name) => {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "utf8");
  } catch {
    return ""; // It has ended meanwhile.
  }
};

/** Largest VmHWM of a process and of those below it, in MB. */
function peakOf(pid) {
  const own = Number(/^VmHWM:\s+(\d+) kB/m.exec(processFile(pid, "status"))?.[1] ?? 0) / 1000;
  const below = processFile(pid, `task/${pid}/children`).trim().split(" ").filter(Boolean);
  return below.reduce((peak, child) => Math.max(peak, peakOf(child)), own);
}

const end = (child, signal) => {
  try {
    process.kill(-child.pid, signal);
  } catch {
    // The group has ended.
  }
};

const living = new Set();

/** Ends every child that is still watched. */
export function endAll() {
  for (const child of living) end(child, "SIGKILL");
}

/**
 * Runs `command` until it ends or `seconds` have passed. `signals`: [{ when: RegExp of its output, or milliseconds;
 * signal }]. `stdin`: text, "open" for a stream on which nothing ever comes, or nothing.
 */
export function watch({ command, cwd, env, stdin, signals = [], seconds, grace = 15 }) {
  const began = performance.now();
  const child = spawn(command[0], command.slice(1), {
    cwd,
    env,
    detached: true,
    stdio: [stdin === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  });
  living.add(child);
  const result = {
    stdout: "",
    stderr: "",
    bytes: { stdout: 0, stderr: 0 },
    peakMB: 0,
    hung: false,
    endless: false,
    signalled: null,
  };
  const waiting = [...signals];
  let timer = setTimeout(hang, seconds * 1000);
  function hang() {
    result.hung = true;
    end(child, "SIGKILL");
  }
  const send = ({ signal }) => {
    result.signalled = signal;
    // To the process alone, as kill does; what it started is its own business.
    child.kill(signal);
    clearTimeout(timer);
    timer = setTimeout(hang, grace * 1000);
  };
  for (const one of waiting) if (typeof one.when === "number") setTimeout(() => send(one), one.when).unref();
  const patterns = waiting.filter(({ when }) => typeof when !== "number");
  for (const name of ["stdout", "stderr"]) {
    child[name].setEncoding("latin1").on("data", (text) => {
      result.bytes[name] += text.length;
      if (result[name].length < KEPT) result[name] += text;
      if (result.bytes[name] > ENDLESS && !result.endless) {
        result.endless = true;
        end(child, "SIGKILL");
      }
      while (patterns.length > 0 && patterns[0].when.test(result.stdout + result.stderr)) send(patterns.shift());
    });
  }
  if (stdin !== undefined) {
    child.stdin.on("error", () => undefined);
    if (stdin !== "open") child.stdin.end(stdin);
  }
  const sampler = setInterval(() => (result.peakMB = Math.max(result.peakMB, peakOf(child.pid))), SAMPLE_MS);
  return new Promise((resolve) => {
    const finish = (code, signal) => {
      living.delete(child);
      clearTimeout(timer);
      clearInterval(sampler);
      // What it may have left running.
      end(child, "SIGKILL");
      for (const name of ["stdout", "stderr"]) result[name] = Buffer.from(result[name], "latin1").toString("utf8");
      resolve({
        ...result,
        signal,
        code: signal === null ? code : 128 + constants.signals[signal],
        ms: Math.round(performance.now() - began),
      });
    };
    child.on("error", (error) => {
      result.stderr += String(error);
      finish(127, null);
    });
    child.on("close", finish);
  });
}
