/** scripts/picture.mjs says why it has made no picture, from whatever folder it is called. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";

const script = fileURLToPath(new URL("../../scripts/picture.mjs", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "upcycle-picture-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
mkdirSync(join(dir, "runs"));
const noBrowser = join(dir, "no-browser");
writeFileSync(noBrowser, "");

const picture = (...args: readonly string[]): readonly [code: number | null, said: string] => {
  const { status, stderr } = spawnSync(process.execPath, [script, ...args], {
    cwd: dir,
    encoding: "utf8",
    env: { ...process.env, CHROMIUM: noBrowser },
    timeout: 60_000,
  });
  return [status, stderr];
};

describe("a picture that cannot be made", () => {
  it.each([
    ["of what is not there", ["nothing", "out.png"], "picture: nothing: there is nothing\n"],
    ["in a folder that is not there", ["runs", "docs/out.png"], `picture: ${join(dir, "docs")}: there is nothing\n`],
  ])("is refused: %s", (_, args, message) => {
    expect(picture(...args)).toEqual([2, message]);
  });

  it("is said to be as it was, in one line, where no browser starts behind the studio", () => {
    const [code, said] = picture("runs", "out.png");
    expect(code).toBe(1);
    expect(said).toMatch(/^picture: [^\n]+; out\.png is as it was\n$/);
    // The studio has started from this folder: what failed is the browser.
    expect(said).toContain("browser");
    expect(existsSync(join(dir, "out.png"))).toBe(false);
  });
});
