/** What lies in the cache: links are not written through, and what is not what its name says is not used. */
import { linkSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import type { UpcycleError } from "../../../src/base/errors.js";
import {
  cacheDir,
  expectWhole,
  failure,
  get,
  hub,
  newCache,
  notes,
  partial,
  repoDir,
  root,
  weightsChecksum,
  useHostileHub,
} from "./hostile-hub.js";
import { commit } from "./server.js";

useHostileHub();

describe("the cache", () => {
  it.runIf(process.platform !== "win32")("is not left through links that someone put there", async () => {
    const thesis = join(root, "thesis.txt");
    const elsewhere = join(root, "elsewhere");
    const untouched = (): void => {
      expect(readFileSync(thesis, "utf8")).toBe("thesis");
      expect(readdirSync(elsewhere)).toEqual([]);
    };
    writeFileSync(thesis, "thesis");
    mkdirSync(elsewhere);
    for (const link of [symlinkSync, linkSync]) {
      newCache();
      mkdirSync(join(repoDir(), "blobs"), { recursive: true });
      link(thesis, partial());
      expect((await failure(get())).line).toContain(`expected a part of a download; remove it`);
      untouched();
    }
    for (const folder of ["blobs", "refs", "snapshots", `snapshots/${commit}`, "headers"]) {
      newCache();
      mkdirSync(dirname(join(repoDir(), folder)), { recursive: true });
      symlinkSync(elsewhere, join(repoDir(), folder));
      expect((await failure(get())).line, folder).toContain("this is a link that leads out of the cache");
      untouched();
    }
  });

  it.runIf(process.platform !== "win32")(
    "may itself lie behind a link, and a link to another file is made anew",
    async () => {
      const disk = join(root, "disk");
      mkdirSync(join(disk, "snapshots", commit), { recursive: true });
      mkdirSync(cacheDir);
      symlinkSync(disk, repoDir());
      writeFileSync(join(root, "other.json"), "something else");
      symlinkSync(join(root, "other.json"), join(disk, "snapshots", commit, "config.json"));
      symlinkSync(join(root, "nowhere"), join(disk, "snapshots", commit, "tokenizer.json"));
      expectWhole(await get());
      expect(readFileSync(join(root, "other.json"), "utf8")).toBe("something else");
    },
  );

  it("with a file that is not what its name says is not used, and not replaced", async () => {
    mkdirSync(join(repoDir(), "blobs"), { recursive: true });
    writeFileSync(join(repoDir(), "blobs", weightsChecksum), "short");
    const error = await failure(get());
    expect([error.kind, error.line]).toEqual([
      "input",
      expect.stringContaining(
        "this is not model.safetensors as the Hub has it: 5 bytes instead of 200000; remove it",
      ) as string,
    ]);
    expect(readFileSync(join(repoDir(), "blobs", weightsChecksum), "utf8")).toBe("short");
  });

  it("is one download's at a time, and a branch whose name is taken is no failure", async () => {
    hub.trouble.slow = true;
    const controller = new AbortController();
    let second: Promise<UpcycleError> | undefined;
    const first = failure(
      get({
        signal: controller.signal,
        onEvent: (event) => {
          if (event.type !== "progress" || event.file !== "model.safetensors" || event.done < 50_000) return;
          second ??= failure(get()).finally(() => controller.abort());
        },
      }),
    );
    expect((await first).kind).toBe("interrupted");
    expect((await second)?.line).toContain(`another command (process ${process.pid}) is working in this folder`);
    hub.trouble.slow = false;
    mkdirSync(join(repoDir(), "refs", "main"), { recursive: true });
    expectWhole(await get());
    expect(notes).toEqual([
      expect.stringMatching(
        /^warning: which commit main is could not be kept \(.*\); without a network ask for @[0-9a-f]{40}$/,
      ),
    ]);
  });
});
