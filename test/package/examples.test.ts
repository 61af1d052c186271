/** The programs of examples/, compiled against the package's declarations and run as a user would. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "upcycle-examples-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const dense = join(root, "models", "tiny");
const text = join(dir, "text.txt");

/** Compiled where the checkout's own name resolves to it. */
const example = (name: string, ...args: readonly string[]): string =>
  execFileSync(process.execPath, [join(root, "examples", "build", `${name}.js`), ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });

beforeAll(() => {
  const tsc = join(dirname(fileURLToPath(import.meta.resolve("typescript/package.json"))), "bin", "tsc");
  const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", join(root, "examples")], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  expect([status, stdout]).toEqual([0, ""]);
  const speech = "The people of the United States have a government of laws, and the sea is wide.";
  writeFileSync(text, Array.from({ length: 40 }, (_, i) => `${i}. ${speech}`).join("\n\n"));
});

describe("examples", () => {
  it("upcycle: the child's loss is the parent's, and both go on alike", () => {
    const lines = example("upcycle", dense, join(dir, "moe"), text).trimEnd().split("\n");
    expect(lines[0]).toMatch(/^mixtral: \d+ parameters, \d+ active, 1 weight file\(s\)$/);
    const [, parent, child] = /^losses ([\d.]+) and ([\d.]+) nats$/.exec(lines[1] ?? "") ?? [];
    expect(Number(parent)).toBeLessThan(6);
    expect(child).toBe(parent);
    const texts = lines
      .slice(3)
      .join("\n")
      .split(/^(?=The people)/m);
    expect(texts).toHaveLength(2);
    expect(texts[0]!.trim()).toBe(texts[1]!.trim());
  });

  it("study: three arms over two seeds, with a finding", () => {
    const lines = example("study", dense, join(dir, "run"), text).trimEnd().split("\n");
    expect(lines.filter((line) => line.includes("step 6, held-out loss"))).toHaveLength(6);
    expect(lines.slice(-5)).toEqual([
      expect.stringMatching(/^parent \d\.\d{3}$/),
      expect.stringMatching(/^continued dense \d\.\d{3}$/),
      expect.stringMatching(/^upcycled E4G1T2 \d\.\d{3}$/),
      expect.stringMatching(/^E4G1T2 from scratch \d\.\d{3}$/),
      expect.stringMatching(/at equal tokens.*held-out loss/),
    ]);
  });

  it("a mistake of the caller is one line and exit code 2", () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      [join(root, "examples", "build", "upcycle.js"), "nowhere", join(dir, "x"), text],
      { encoding: "utf8" },
    );
    expect([status, stderr]).toEqual([2, expect.stringMatching(/^nowhere: .*\n$/)]);
  });
});
