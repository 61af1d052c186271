/** Programs of a cluster, run to their end. */
import { execFile } from "node:child_process";
import { inputError, stopError } from "../../base/errors.js";

/** What a program prints. Throws inputError where it is not installed, stopError where it fails. */
export function runProgram(program: string, words: readonly string[]): Promise<string> {
  return new Promise((done, failed) => {
    execFile(program, [...words], { timeout: 120_000, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      if (error === null) return done(stdout);
      if ((error as NodeJS.ErrnoException).code === "ENOENT")
        return failed(inputError(`${program} is not installed here`, { hint: "see the scripts with --dry-run" }));
      const said = (stderr.trim() || error.message).split("\n")[0]!;
      failed(stopError(`${program} failed: ${said}`, { where: words.at(-1) ?? program }));
    });
  });
}
