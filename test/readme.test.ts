/**
 * Every command of README.md, run as it is written, by bash, one after the other in one folder that has what a reader
 * has: a model, a text, a table of losses. What is not run to its end stands in `interruptedAfter`.
 */
import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { commandEntries } from "../src/cli/commands.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const readme = readFileSync(join(root, "README.md"), "utf8");
const dir = mkdtempSync(join(tmpdir(), "upcycle-readme-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Lines of the shell's blocks, in order. */
const commands = [...readme.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, block = ""]) =>
  block.split("\n").filter((line) => line !== ""),
);

/** Long commands are interrupted with Ctrl-C once they have said this; they save. */
const interruptedAfter: Readonly<Record<string, string>> = {
  "npx upcycle quickstart": "study ",
  "npx upcycle train my-training.yaml": "/500  ETA",
};

/** Not run: it installs from the network and builds, which every run of the tests has behind it. */
const install = "npm ci && npm run build";

/** What each command has printed, without errors and notes, by its line. */
const said = new Map<string, string>();

/** A command without the remark behind it. */
const withoutRemark = (line: string): string => line.replace(/\s+#.*$/, "");

interface Ended {
  readonly code: number | null;
  /** All that it said, errors and notes too. */
  readonly output: string;
  readonly stdout: string;
}

/** Runs a line as a terminal would; with `until`, interrupts the whole group once that was said. */
function run(line: string, until?: string): Promise<Ended> {
  const env = { ...process.env, _: "" };
  const child = spawn("bash", ["-c", line], { cwd: dir, env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let stdout = "";
  let asked = false;
  const heard = (text: string): void => {
    output += text;
    if (until === undefined || asked || !output.includes(until)) return;
    asked = true;
    process.kill(-child.pid!, "SIGINT");
  };
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", heard);
  child.stdout.on("data", (text: string) => (stdout += text));
  return new Promise((resolve, reject) => {
    child.on("error", reject).on("close", (code) => resolve({ code, output, stdout }));
  });
}

/** The training of `upcycle init`, of a model so small that a step takes milliseconds. */
function shrink(): void {
  const file = join(dir, "my-training.yaml");
  const text = readFileSync(file, "utf8");
  const edited = text
    .replace("builtin: [sotu]", "builtin: [moby-dick]")
    .replace(/hidden: \d+/, "hidden: 16")
    .replace(/layers: \d+/, "layers: 1")
    .replace(/heads: \d+/, "heads: 2")
    .replace(/inner: \d+/, "inner: 32")
    .replace(/vocab: \d+/, "vocab: 300")
    .replace(/batch: \d+/, "batch: 2")
    .replace(/sequence: \d+/, "sequence: 32");
  expect(edited).not.toBe(text);
  writeFileSync(file, edited);
}

/** A file of `upcycle init` with a reader's names in it, and a training of seconds. */
function nameBoth(): void {
  const file = join(dir, "my-study.yaml");
  const text = readFileSync(file, "utf8");
  const edited = text
    .replace(/^parent: .*/m, "parent: models/my-dense")
    .replace(/^ {2}files: .*/m, "  files: [data/notes.txt]")
    .replace(/steps: \d+/, "steps: 2")
    .replace(/batch: \d+/, "batch: 1")
    .replace(/sequence: \d+/, "sequence: 32")
    .replace(/accumulate: \d+/, "accumulate: 1")
    .replace(/warmup: \d+, decay: \d+/, "warmup: 1, decay: 1")
    .replace(/tokens: \d+/, "tokens: 128");
  expect(edited).not.toBe(text);
  writeFileSync(file, edited);
}

beforeAll(() => {
  // What `npm ci && npm run build` leaves, as far as `npx upcycle` needs it.
  mkdirSync(join(dir, "node_modules", ".bin"), { recursive: true });
  symlinkSync(join(root, "bin", "upcycle.js"), join(dir, "node_modules", ".bin", "upcycle"));
  writeFileSync(join(dir, "package.json"), "{}");
  cpSync(join(root, "models", "tiny"), join(dir, "models", "my-dense"), { recursive: true });
  mkdirSync(join(dir, "data"));
  const paragraphs = Array.from({ length: 60 }, (_, i) => `The ${i} ships of the navy went to sea in the year 18${i}.`);
  writeFileSync(join(dir, "data", "notes.txt"), paragraphs.join("\n\n"));
  const losses = [1e7, 3e7, 1e8, 3e8].flatMap((n) =>
    [1e9, 3e9, 1e10, 3e10].map((d) => `${n},${d},${1.7 + 400 / n ** 0.34 + 410 / d ** 0.28}`),
  );
  writeFileSync(join(dir, "losses.csv"), ["N,D,loss", ...losses].join("\n"));
});

describe("the commands of README.md", () => {
  it("begin with the installation, whose parts there are", () => {
    expect(commands[0]).toBe(install);
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
      scripts: Record<string, string>;
    };
    expect(scripts).toHaveProperty("build");
    expect(existsSync(join(root, "package-lock.json"))).toBe(true);
  });

  it.each(commands.slice(1).map((line) => [line]))(
    "%s",
    async (line) => {
      const until = interruptedAfter[withoutRemark(line)];
      if (line.includes("upcycle study my-study.yaml")) nameBoth();
      if (line.includes("upcycle train my-training.yaml")) shrink();
      const { code, output, stdout } = await run(line, until);
      said.set(withoutRemark(line), stdout);
      // Ctrl-C reaches the shell as well, which ends by it.
      if (until === undefined) expect([code, code === 0 ? "" : output]).toEqual([0, ""]);
      else expect(output).toMatch(/: stopped after step \d+ of \d+; run the same command again to go on\n$/);
    },
    300_000,
  );

  it("are shortened by name only where they stand there", () => {
    expect(commands.map(withoutRemark)).toEqual(expect.arrayContaining(Object.keys(interruptedAfter)));
  });
});

/** Numbers, paths and what models write depend on the machine; everything else does not. */
const withoutNumbers = (text: string): string => text.replace(/\d[\d.,e-]*( (ms|s|min))?/g, "#").replace(/ +/g, " ");

describe("README.md", () => {
  it("has at most 150 lines, and links to files that there are", () => {
    expect(readme.trimEnd().split("\n").length).toBeLessThanOrEqual(150);
    const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map(([, link]) => link!);
    expect(links.length).toBeGreaterThan(10);
    expect(links.filter((link) => !existsSync(join(root, link)))).toEqual([]);
  });

  it("lists every command, and no other", () => {
    const table = /^\| command .*\n([\s\S]*?)\n\n/m.exec(readme)![1]!;
    const rows = [...table.matchAll(/\| `([\w-]+)[^`]*`/g)].map(([, name]) => name);
    expect(rows.sort()).toEqual(Object.keys(commandEntries).sort());
  });

  it("shows what the demonstration prints today", async () => {
    const shown = /```text\n([\s\S]*?)```/.exec(readme)![1]!;
    const output = said.get("npx upcycle demo") ?? (await run("npx upcycle demo")).stdout;
    const withoutTexts = (text: string): string =>
      withoutNumbers(text.replace(/(parent +\| child\n)[\s\S]*?\n\n/, "$1\n"));
    const [before = "", next = ""] = output.split(/(?=\nNext: )/);
    expect(withoutTexts(before)).toBe(withoutTexts(shown));
    expect(next).toContain("npx upcycle quickstart");
    expect(Math.max(...output.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
  });
});
