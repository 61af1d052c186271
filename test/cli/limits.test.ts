/** Commands where the system gives little: they work with less, or end in one line. */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { golden } from "../support/golden.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { copyModel, editHeader } from "./upcycle.js";
import { writeText, writeTrainFile } from "./tiny.js";

const root = temporaryFolder();
const main = fileURLToPath(new URL("../../bin/upcycle.js", import.meta.url));
const llama = golden("dense/llama");

/**
 * Behind a shell that lowers a limit of this process alone. The signal is one that no command hears, in case one waits
 * for ever.
 */
function limited(
  limit: string,
  ...args: readonly string[]
): { readonly code: number | null; readonly stdout: string; readonly stderr: string } {
  const { status, stdout, stderr } = spawnSync(
    "sh",
    ["-c", `${limit} && exec "$0" "$@"`, process.execPath, main, ...args],
    {
      encoding: "utf8",
      timeout: 120_000,
      killSignal: "SIGKILL",
    },
  );
  return { code: status, stdout, stderr };
}

const linesOf = (text: string): string[] => text.split("\n").filter((line) => line !== "");
const haveLimits = process.platform === "linux";

describe.skipIf(!haveLimits)("with 64 files open at most", () => {
  it("convert writes and reads more shards than that, measures, and makes the same bytes", () => {
    const [few, many] = [join(root, "few"), join(root, "many")];
    const options = ["convert", llama, "--recipe", "E16G1T2", "--shard-size", "10KB", "--threads", "8"];
    const conversion = limited("ulimit -n 64", ...options, "--out", few);
    expect({ code: conversion.code, stderr: conversion.stderr }).toMatchObject({
      code: 0,
      stderr: expect.not.stringMatching(/EMFILE|warning|internal/) as string,
    });
    expect(conversion.stdout).toContain("same function");
    expect(limited("true", ...options, "--no-report", "--out", many).code).toBe(0);
    const shards = readdirSync(many).filter((name) => name.endsWith(".safetensors"));
    expect(shards.length).toBeGreaterThan(64);
    for (const name of shards)
      expect(readFileSync(join(few, name)).equals(readFileSync(join(many, name))), name).toBe(true);
  });

  it("inspect lists the first of many unused tensors and counts the others", () => {
    const model = copyModel(llama, join(root, "empties"));
    editHeader(join(model, "model.safetensors"), (header) => {
      const end = Math.max(
        ...Object.values(header as Record<string, { data_offsets?: number[] }>).flatMap(
          ({ data_offsets }) => data_offsets ?? [],
        ),
      );
      for (let i = 0; i < 3000; i++)
        header[`empty.${i}`] = { dtype: "F32", shape: [0], data_offsets: [end, end] } as never;
    });
    const { code, stdout, stderr } = limited("ulimit -n 64", "inspect", model);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout.replace(/\s+/g, " ")).toContain("unused 3000 tensors: empty.0, ");
    expect(stdout.replace(/\s+/g, " ")).toMatch(/, and 2980 more/);
  });
});

it.skipIf(!haveLimits)("with too few files for a thread, verify says so in one line", () => {
  const { code, stderr } = limited("ulimit -n 36", "verify", llama, llama, "--tokens", "10");
  expect(code).toBe(1);
  expect(linesOf(stderr).at(-1)).toMatch(
    /^upcycle: .*too many open files.*the limit is 36; raise it with ulimit -n 1024$/,
  );
  expect(stderr).not.toMatch(/internal error|\n {4}at /);
});

describe.skipIf(!haveLimits)("with few addresses", () => {
  it("convert does with plain memory and without further threads what it cannot do with more", () => {
    const out = join(root, "narrow");
    const { code, stderr } = limited(
      "ulimit -v 2200000",
      "convert",
      llama,
      "--recipe",
      "E4G1T2",
      "--out",
      out,
      "--no-report",
      "--threads",
      "8",
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.not.stringContaining("error") as string });
    expect(readdirSync(out)).toContain("model.safetensors");
  });

  it("train says in one line what it could not have, and what to do", () => {
    const folder = join(root, "train");
    mkdirSync(folder);
    writeText(folder);
    const { code, stderr } = limited("ulimit -v 6000000", "train", writeTrainFile(folder, "train.yaml"));
    expect(code).toBe(1);
    expect(linesOf(stderr).at(-1)).toMatch(
      /^upcycle: cannot get .* of memory for weights .*ulimit -v.*NODE_OPTIONS=--disable-wasm-trap-handler/,
    );
    expect(stderr).not.toMatch(/internal error|\n {4}at /);
  });

  it("too few to start with are refused before V8 ends the process", () => {
    const { code, stderr } = limited("ulimit -v 1200000", "inspect", llama);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^upcycle: cannot start: .* of addresses are needed, .* are left; the limit is .* \(ulimit -v\).*\n$/,
    );
  });
});

it.skipIf(!haveLimits)("a file beyond ulimit -f ends a conversion in one line that names it", () => {
  const { code, stderr } = limited(
    "ulimit -f 16",
    "convert",
    llama,
    "--recipe",
    "E4G1T2",
    "--out",
    join(root, "large"),
    "--no-report",
  );
  expect(code).toBe(1);
  expect(linesOf(stderr).at(-1)).toMatch(
    /^upcycle: .*model.safetensors: cannot create file: the file would be larger than the system allows; .*ulimit -f/,
  );
});
