/** Where a command's input is a pipe, and where its output cannot be written. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { hasSpecialFiles, makeFifo, writer } from "../files/io/special.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { golden } from "../support/golden.js";
import { shell, start, upcycle } from "./upcycle.js";

const dir = temporaryFolder();
const llama = golden("dense/llama");
const full =
  "upcycle: standard output: cannot write results: the disk is full; free some space or write to another disk, " +
  "then run again\n";

describe.skipIf(process.platform !== "linux")("results that cannot be written", () => {
  it("are one line on stderr and exit code 1, help too", async () => {
    for (const line of ['upcycle inspect "$1"', 'upcycle inspect "$1" --json', "upcycle --help"]) {
      expect(await shell(`${line} > /dev/full`, llama)).toEqual({ code: 1, stdout: "", stderr: full });
    }
    expect(await shell('upcycle inspect "$1" > /dev/full 2> /dev/full', llama)).toEqual({
      code: 1,
      stdout: "",
      stderr: "",
    });
  });

  it("are never written in part without a word", async () => {
    const file = join(dir, "tensors");
    const { code, stderr } = await shell('ulimit -f 1; upcycle inspect "$1" --tensors > "$2"', llama, file);
    expect([code, stderr]).toEqual([
      1,
      "upcycle: standard output: cannot write results: the file would be larger than the system allows; raise " +
        "the limit of file sizes (ulimit -f), or use smaller shards (--shard-size)\n",
    ]);
    const whole = (await upcycle("inspect", llama, "--tensors")).stdout;
    expect(whole.length).toBeGreaterThan(1024);
    expect(whole.startsWith(readFileSync(file, "utf8"))).toBe(true);
  });

  it("where words on stderr cannot be, the command goes on and says so by its own exit code", async () => {
    expect(await shell("upcycle inspect nowhere 2> /dev/full")).toEqual({ code: 2, stdout: "", stderr: "" });
    expect(
      await shell('upcycle convert "$1" --recipe E2G1T2 --no-report --out "$2" 2> /dev/full', llama, join(dir, "moe")),
    ).toMatchObject({ code: 0, stderr: "" });
    expect(await shell("upcycle inspect nowhere >&- 2>&-")).toEqual({ code: 2, stdout: "", stderr: "" });
  });
});

describe.skipIf(!hasSpecialFiles)("a fit", () => {
  const table = join(dir, "runs.csv");
  writeFileSync(
    table,
    "N,D,loss\n1e8,1e9,3.5\n2e8,2e9,3.2\n4e8,4e9,2.9\n8e8,8e9,2.7\n1e9,3e10,2.5\n2e9,1e10,2.6\n3e8,6e10,2.75\n",
  );
  const fitting = (file: string): string[] => ["fit", file, "--law", "chinchilla", "--threads", "1", "--json"];

  it("takes its table from standard input and from a pipe of the shell", async () => {
    const { stdout } = await upcycle(...fitting(table));
    expect((JSON.parse(stdout) as { n: number }).n).toBe(7);
    expect((await start(fitting("-"), undefined, { input: readFileSync(table, "utf8") }).outcome).stdout).toBe(stdout);
    expect((await shell('upcycle fit <(cat "$1") --law chinchilla --threads 1 --json', table)).stdout).toBe(stdout);
  });

  it("ends at a device and at what is no text, although its pipe stays open", async () => {
    expect(await upcycle("fit", "/dev/zero", "--law", "chinchilla")).toEqual({
      code: 2,
      stdout: "",
      stderr: "upcycle: /dev/zero: this is a device, expected a file or a pipe\n",
    });
    const fifo = makeFifo(join(dir, "table"));
    writer("printf 'N\\000'; sleep 60", fifo);
    expect(await upcycle("fit", fifo, "--law", "chinchilla")).toMatchObject({
      code: 2,
      stderr: `upcycle: ${fifo}: this is no text: byte 1 is zero; expected CSV, JSON lines, or Parquet\n`,
    });
    expect(await shell('upcycle fit - --law chinchilla < "$1"', dir)).toMatchObject({
      code: 2,
      stderr: "upcycle: standard input: this is a folder, expected a file or a pipe\n",
    });
  });

  it("that waits for a pipe says so, and Ctrl-C ends it", async () => {
    const running = start(["fit", makeFifo(join(dir, "silent")), "--law", "chinchilla"]);
    await running.saw("silent to its end\n");
    running.process.kill("SIGINT");
    expect((await running.outcome).stdout).toBe("");
    expect(running.process.signalCode).toBe("SIGINT");
  });

  it.each(["fit", "plan"])("or a plan has no page in the place of a stream (%s)", async (name) => {
    const args = name === "fit" ? fitting(table) : ["plan", "--preset", "llama-2-7b", "--money", "50K", "--gpus", "64"];
    expect(await upcycle(...args, "--html", "/dev/null")).toEqual({
      code: 2,
      stdout: "",
      stderr:
        "upcycle: /dev/null: this is a device, expected a file; name a file to be made; results on stdout can " +
        "be redirected\n",
    });
  });
});
