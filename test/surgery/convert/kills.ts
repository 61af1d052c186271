/** Conversions in processes of their own, which are killed. */
import { existsSync } from "node:fs";
import { expect } from "vitest";
import { randomStream } from "../../../src/base/random.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { resultOf } from "../../../src/base/events.js";
import { convertCheckpoint, type ConvertOptions } from "../../../src/surgery/convert/convert.js";
import { built, runScript } from "../../support/built.js";
import { hashes } from "./hashes.js";

/** Many chunks, and every few of them flushed and recorded. */
export const pace = { chunkBytes: 512, flushBytes: 20_000 };

/** What to convert and how, as plain data. */
export type ConversionRequest = Omit<ConvertOptions, "out" | "signal">;

/**
 * An ES module: the conversion into the folder that the first argument names, on as many threads as the second says,
 * with code to run after each progress event.
 */
export function conversionScript(options: ConversionRequest, onProgress = ""): string {
  return `
    import * as fs from "node:fs";
    import { convertCheckpoint } from "${built("surgery/convert/convert.js")}";
    const options = ${JSON.stringify(options)};
    const abort = new AbortController();
    process.on("SIGINT", () => abort.abort());
    let count = 0;
    const [, , out, threads = 1] = process.argv;
    try {
      const events = convertCheckpoint({ ...options, out, threads: Number(threads), signal: abort.signal });
      for await (const event of events) {
        if (event.type !== "progress") continue;
        ${onProgress}
      }
    } catch (error) {
      fs.writeSync(1, "failed " + error.kind + ": " + (error.line ?? error.stack) + "\\n");
      process.exit(error.exitCode ?? 70);
    }`;
}

/** Runs a conversion and kills it (SIGKILL) `delayMs` after its `after`th progress event. */
export async function killedAfter(
  options: ConversionRequest,
  out: string,
  after: number,
  { threads = 1, delayMs = 0 } = {},
): Promise<{ readonly code: number | null; readonly killed: boolean; readonly dots: string }> {
  const { process: child, ended } = runScript(conversionScript(options, "fs.writeSync(1, '.\\n');"), [
    out,
    String(threads),
  ]);
  let left = after;
  child.stdout!.on("data", (chunk: Buffer) => {
    left -= chunk.toString().split("\n").length - 1;
    if (left <= 0) setTimeout(() => child.kill("SIGKILL"), delayMs);
  });
  const { code, signal, stdout, stderr } = await ended;
  expect(stderr).toBe("");
  return { code, killed: signal === "SIGKILL", dots: stdout.replaceAll(".\n", ".") };
}

/**
 * Begins the same conversion again and again and kills it at random moments. After each kill there is a complete model
 * or nothing under the final name, and what is left alone at last makes the bytes of one that nobody interrupted:
 * `expected`, its hashes. `fresh` names folders that are not there.
 */
export async function expectKillsHarmless(
  options: ConversionRequest,
  {
    kills,
    expected,
    fresh,
  }: { readonly kills: number; readonly expected: readonly string[]; readonly fresh: () => string },
): Promise<void> {
  const random = randomStream(Date.now(), "kill");
  const log: string[] = [];
  let [killed, out] = [0, fresh()];
  for (let attempt = 0; killed < kills; attempt++) {
    const threads = attempt % 3 === 0 ? 2 : 1;
    const one = await killedAfter(options, out, 1 + Math.floor(random.uniformAt(2 * attempt) * 120), {
      threads,
      delayMs: random.uniformAt(2 * attempt + 1) * 4,
    });
    log.push(`${one.killed ? "killed" : one.code} with ${threads}, ${one.dots}`);
    if (existsSync(out)) expect(hashes(out), log.join("\n")).toEqual(expected);
    if (one.killed) killed++;
    else expect(one.code, log.join("\n")).toBe(0);
    if (existsSync(out)) {
      // Killed behind the rename: the next attempt tidies up, or finds nothing to do.
      const again: unknown = await resultOf(convertCheckpoint({ ...options, out })).then(
        () => null,
        (cause: unknown) => cause,
      );
      if (again !== null)
        expect(again instanceof UpcycleError ? again.line : again, log.join("\n")).toContain("not empty");
      out = fresh();
    }
  }
  const last = await runScript(conversionScript(options), [out]).ended;
  expect(last.code, `${log.join("\n")}\n${last.stdout}`).toBe(0);
  expect(hashes(out)).toEqual(expected);
}
