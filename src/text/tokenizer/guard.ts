/**
 * Watches the process of a tokenizer from a thread of its own, because the library's work may block every other one for
 * ever: ends the process where a call takes more than its budget, and where the command is gone, so that nothing
 * outlives it.
 */
import { writeSync } from "node:fs";
import { workerData } from "node:worker_threads";
import { guardLimitIndex, guardMarks, type GuardData } from "./calls.js";

/** Time between two looks. Memory is filled at some GB per second, so a process exceeds its limit by some 100 MB. */
const EVERY_MS = 50;

const { limits, parent } = workerData as GuardData;

/** Ends the process by SIGKILL, because an orderly exit would wait for the threads that never end. */
function end(mark?: string): void {
  try {
    if (mark !== undefined) writeSync(2, `\n${mark}\n`);
  } finally {
    process.kill(process.pid, "SIGKILL");
  }
}

function look(): void {
  if (process.ppid !== parent) return end();
  const { user, system } = process.cpuUsage();
  const [processorMs, memoryMB] = [
    Atomics.load(limits, guardLimitIndex.processorMs),
    Atomics.load(limits, guardLimitIndex.memoryMB),
  ];
  if (processorMs !== 0 && (user + system) / 1000 > processorMs) end(guardMarks.processorMs);
  if (memoryMB !== 0 && process.memoryUsage.rss() / 1e6 > memoryMB) end(guardMarks.memoryMB);
}

setInterval(look, EVERY_MS);
