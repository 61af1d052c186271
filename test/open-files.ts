/**
 * Runs around every test file: what it opened must be closed at its end. A handle that is left to the garbage collector
 * is closed some time or never, with a warning (DEP0137) that names neither the file nor the test.
 */
import { readdirSync, readlinkSync, realpathSync } from "node:fs";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";

/**
 * Threads that are being started have the project's modules open for a moment; a clone of it may lie in the temporary
 * folder.
 */
const project = `${realpathSync(fileURLToPath(new URL("..", import.meta.url)))}/`;
const temporary = `${realpathSync(tmpdir())}/`;
/** Where tests read and write models. */
const isWatched = (path: string): boolean =>
  path.startsWith(`${project}test/golden/`) || (path.startsWith(temporary) && !path.startsWith(project));
/** onnxruntime's library keeps a log of its own open, and compute-sanitizer its pipes. */
const foreign = /\/mat-debug-\d+\.log$|\/NVIDIA-treetracker-/;

/** Open files of this process and its threads, where the system lists them. */
function openFiles(): string[] {
  if (process.platform !== "linux") return [];
  return readdirSync("/proc/self/fd")
    .flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)];
      } catch {
        // The listing itself is closed by now.
        return [];
      }
    })
    .filter((path) => isWatched(path) && !foreign.test(path));
}

const collected: string[] = [];
const collect = ({ message }: Error): void => void (/on garbage collection/.test(message) && collected.push(message));
process.on("warning", collect);

afterAll(async () => {
  // Warnings come in a turn of their own.
  await new Promise(setImmediate);
  process.off("warning", collect);
  const left = [...openFiles(), ...collected];
  if (left.length > 0) throw new Error(`left open by the tests: ${[...new Set(left)].join(", ")}`);
});
