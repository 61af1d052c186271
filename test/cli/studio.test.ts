/** `upcycle studio` as a user starts it; what it answers is tested in test/studio. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { temporaryFolder } from "../files/io/temporary.js";
import { writeStudy } from "../studio/folder.js";
import { start, upcycle, upcycleJson } from "./upcycle.js";

const root = temporaryFolder();
const dir = join(root, "runs");
writeStudy(dir);

describe("upcycle studio", () => {
  it("prints its address, answers whoever opens it, and ends at Ctrl-C", async () => {
    const running = start(["studio", dir, "--no-open"]);
    let said = "";
    running.process.stdout?.on("data", (text: string) => (said += text));
    await running.saw("Ctrl-C ends it");
    const [, url = "", port = ""] = /^(http:\/\/127\.0\.0\.1:(\d+)\/\?token=[\w-]{32})$/m.exec(said) ?? [];
    const welcome = await fetch(url, { redirect: "manual" });
    const cookie = welcome.headers.get("set-cookie")?.split(";")[0] ?? "";
    const page = await fetch(`http://127.0.0.1:${port}/`, { headers: { cookie } });
    expect([page.status, await page.text()]).toEqual([200, expect.stringContaining(`${dir} · Upcycle studio`)]);
    expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(401);
    running.process.kill("SIGINT");
    expect((await running.outcome).code).toBe(0);
  });

  it("prints what the page gets, and says which paths there are", async () => {
    expect(await upcycleJson("studio", dir, "--print", "/api/run?name=alone")).toMatchObject({
      row: { name: "alone", step: 12 },
    });
    const { code, stderr, stdout } = await upcycle("studio", dir, "--print", "/api/run?name=../alone");
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(
      /^upcycle: --print \/api\/run\?name=\.\.\/alone: there is nothing of this name; paths are \/api\/overview, .*\n$/,
    );
  });

  it("writes the page as one file, and replaces no other file", async () => {
    const file = join(root, "studio.html");
    expect(await upcycleJson("studio", dir, "--export", file)).toMatchObject({ file, runs: 8 });
    const text = readFileSync(file, "utf8");
    expect(text).toContain("default-src 'none'");
    expect(text).not.toMatch(/(src|href)="(?!data:)/);
    const mine = join(root, "mine.html");
    writeFileSync(mine, "mine");
    expect((await upcycle("studio", dir, "--export", mine)).code).toBe(2);
    expect([readFileSync(mine, "utf8"), existsSync(file)]).toEqual(["mine", true]);
  });

  it("says what is no folder, no port and no address of the web", async () => {
    for (const [args, words] of [
      [[join(root, "nowhere")], /nowhere: .*no such/i],
      [[dir, "--port", "99999"], /--port: "99999" is not a whole number/],
      [[dir, "--webhook", "file:///etc/passwd"], /--webhook: this is no address of the web/],
    ] as const) {
      const { code, stderr } = await upcycle("studio", ...args);
      expect(code).toBe(2);
      expect(stderr).toMatch(words);
      expect(stderr.trim().split("\n")).toHaveLength(1);
    }
  });
});
