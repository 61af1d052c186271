/** The order in which conversions bring things to disk, and kills between their last calls (bench/soak/calls.mjs). */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { golden } from "../../support/golden.js";
import { hashes } from "./hashes.js";

interface Call {
  readonly number: number;
  readonly call: string;
  readonly path: string;
  readonly other?: string;
  readonly begins: boolean;
}
type FaultsOf = (entries: readonly Call[], isName: (path: string) => boolean) => string[];

const calls = new URL("../../../bench/soak/calls.mjs", import.meta.url).href;
const cli = fileURLToPath(new URL("../../../bin/upcycle.js", import.meta.url));
let faultsOf: FaultsOf;
beforeAll(async () => {
  ({ faultsOf } = (await import(calls)) as { faultsOf: FaultsOf });
});

const root = mkdtempSync(join(tmpdir(), "upcycle-power-"));
afterAll(() => rmSync(root, { recursive: true }));
/** Of all files but the record, which says when it was written. */
const hashesOf = (dir: string): string[] => hashes(dir).filter((line) => !line.startsWith("upcycle.json"));
const tracker = "latest_checkpointed_iteration.txt";

/** Runs the command with its calls logged, or killed at one of them. */
function convert(
  out: string,
  environment: Readonly<Record<string, string>>,
  more: readonly string[] = [],
): number | null {
  const words = ["convert", golden("dense/llama"), "--recipe", "E4G2T4", "--out", join(root, out), "--no-report"];
  const { status, stderr } = spawnSync(
    process.execPath,
    ["--import", calls, cli, ...words, "--threads", "1", ...more],
    {
      encoding: "utf8",
      env: { ...process.env, ...environment },
    },
  );
  if (status !== null) expect(stderr).not.toContain("Error");
  return status;
}

const logged = (name: string): Call[] =>
  readFileSync(join(root, name), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Call);

describe("a power cut at any moment", () => {
  it.each([
    ["a model folder", [], ["model"]],
    ["a folder of saves, whose tracker comes last", ["--format", "megatron"], ["release", tracker]],
  ])("leaves of %s what has its name, or nothing", (_, more, expected) => {
    const [out, log] = more.length > 0 ? ["saves", "saves.jsonl"] : ["model", "model.jsonl"];
    expect(convert(out, { CALLS_LOG: join(root, log) }, more)).toBe(0);
    const entries = logged(log);
    const isName = (path: string): boolean => expected.some((name) => path.endsWith(`/${name}`));
    const named = entries.filter(({ call, other, begins }) => call === "rename" && begins && isName(other ?? ""));
    expect(named.map(({ other }) => other!.split("/").at(-1))).toEqual(expected);
    expect(faultsOf(entries, isName)).toEqual([]);
    // Without its flushes the same order would lose something.
    const unflushed = entries.filter(({ call }) => call !== "sync" && call !== "datasync");
    expect(faultsOf(unflushed, isName).length).toBeGreaterThan(5);
  });
});

describe("a kill between the last calls", () => {
  it("leaves no tracker without its model, and the same command goes on", () => {
    const entries = logged("saves.jsonl");
    const renames = entries.filter(({ call, begins }) => call === "rename" && begins);
    const [folder, named] = [renames.at(-2)!.number, renames.at(-1)!.number];
    const expected = hashesOf(join(root, "saves", "release"));
    // All others are those of bench/soak-convert.mjs.
    for (const [i, at] of [folder + 0.5, named].entries()) {
      const out = join(root, `killed${i}`);
      expect(convert(`killed${i}`, { CALLS_KILL: String(at) }, ["--format", "megatron"])).toBe(null);
      expect(hashesOf(join(out, "release"))).toEqual(expected);
      expect(existsSync(join(out, tracker))).toBe(false);
      expect(convert(`killed${i}`, {}, ["--format", "megatron"])).toBe(0);
      expect(hashesOf(join(out, "release"))).toEqual(expected);
      expect(readFileSync(join(out, tracker), "utf8")).toBe("release");
    }
  });
});

describe("what a log says of a power cut", () => {
  const call = (name: string, path: string, other?: string): Call[] => {
    const number = next++;
    const one = { number, call: name, path, ...(other === undefined ? {} : { other }) };
    return [
      { ...one, begins: true },
      { ...one, begins: false },
    ];
  };
  let next = 0;
  const isName = (path: string): boolean => path === "/a/final";
  const write = () => [...call("create", "/a/part"), ...call("write", "/a/part")];

  it("is a fault where a file, its folder or its name is not on disk", () => {
    const rename = () => call("rename", "/a/part", "/a/final");
    const sound = [...write(), ...call("sync", "/a/part"), ...rename(), ...call("sync", "/a")];
    expect(faultsOf(sound, isName)).toEqual([]);
    expect(faultsOf([...write(), ...rename(), ...call("sync", "/a")], isName)).toEqual([
      "/a/part is not on disk when /a/final gets its name",
    ]);
    expect(faultsOf([...write(), ...call("sync", "/a/part"), ...rename()], isName)).toEqual([
      "the name /a/final is not on disk when all is done",
    ]);
    // A write that is under way while the file is flushed may be lost.
    const late = call("write", "/a/part");
    const crossing = [...call("create", "/a/part"), late[0]!, ...call("sync", "/a/part"), late[1]!, ...rename()];
    expect(faultsOf([...crossing, ...call("sync", "/a")], isName).length).toBe(1);
  });
});
