/**
 * Runs around every test file: what it opened must be closed at its end. A handle that is left to the garbage collector is closed some time or never, with a
 * warning (DEP0137) that names neither the file nor the test.
 */
import { readdirSync, readlinkSync, realpathSync } from "node:fs";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";

/** Where tests read and write models. */
const watched = [`${realpathSync(tmpdir())}/`, fileURLToPath(new URL("golden/", import.meta.url))];
/** onnxruntime's library keeps a log of its own open. */
const foreign = /\/mat-debug-\d+\.log$/;

/** Open files of this process and its threads, where the system lists them. */
function openFiles(): string[] {
  if (process.platform !== "linux") return [];
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      // The listing itself is closed by now.
      return [];
    }
  }).filter((path) => watched.some((place) => path.startsWith(place)) && !foreign.test(path));
}

const collected: string[] = [];
process.on("warning", ({ message }) => void (/on garbage collection/.test(message) && collected.push(message)));

afterAll(async () => {
  // Warnings come in a turn of their own.
  await new Promise(setImmediate);
  const left = [...openFiles(), ...collected];
  if (left.length > 0) throw new Error(`left open by the tests: ${[...new Set(left)].join(", ")}`);
});
