/** Several commands that train pieces of one study at the same time, in one store. */
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { lockName } from "../../src/files/io/lock.js";
import type { StudyResult } from "../../src/model/results/result.js";
import { start } from "../cli/upcycle.js";
import { fail, failure, smallStudy } from "./small-study.js";

const { root, yaml, run } = smallStudy();

describe("pieces of a study at the same time", () => {
  it("share one parent and one converted model: whoever comes second waits for the first", async () => {
    const [file, store] = [join(root, "study.yaml"), join(root, "store")];
    writeFileSync(file, yaml());
    const study = async (out: string, ...args: readonly string[]): Promise<string> => {
      const place = ["--store", store, "--out", join(root, out), "--threads", "1", "--device", "cpu"];
      const { code, stderr } = await start(["study", file, ...place, ...args], root).outcome;
      return code === 0 ? "" : stderr;
    };
    const pieces = ["dense/0", "coarse/0", "coarse/7", "fine/0"];
    const ended = pieces.map((only) => study(only.replace("/", "-"), "--only", only));
    expect(await Promise.all(ended)).toEqual(["", "", "", ""]);
    expect(await study("merged", "--report")).toBe("");
    const { parents, arms } = JSON.parse(readFileSync(join(root, "merged", "result.json"), "utf8")) as StudyResult;
    expect(parents).toHaveLength(1);
    expect(arms.map(({ id, runs }) => [id, runs.map(({ seed }) => seed)])).toEqual([
      ["dense", [0]],
      ["coarse", [0, 7]],
      ["fine", [0]],
    ]);
    expect(readdirSync(join(store, "parents"))).toHaveLength(1);
  });

  it("say once which process they wait for, and go on when it has ended or they are stopped", async () => {
    const store = join(root, "held");
    await run({ dir: join(root, "first"), store, only: ["parent"] });
    const [parent] = readdirSync(join(store, "parents"));
    rmSync(join(store, "parents", parent ?? fail(), "metrics.jsonl"));
    rmSync(join(store, "parents", parent ?? fail(), "last"), { recursive: true });
    const holder = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" });
    const gone = new Promise((resolve) => holder.on("close", resolve));
    mkdirSync(join(store, "parents"), { recursive: true });
    writeFileSync(join(store, "parents", parent ?? fail(), lockName), String(holder.pid));

    const stop = new AbortController();
    const notes: string[] = [];
    const stopped = await failure(
      run({ dir: join(root, "second"), store, only: ["dense/0"], signal: stop.signal }, (event) => {
        if (event.type !== "note" || !event.text.includes("waits")) return;
        notes.push(event.text);
        stop.abort();
      }),
    );
    expect(notes).toEqual([`dense parent: waits for another command (process ${holder.pid})`]);
    expect([stopped.kind, stopped.line]).toEqual([
      "interrupted",
      expect.stringContaining("another command works in this folder; run the same command again"),
    ]);

    const { arms } = await run({ dir: join(root, "second"), store, only: ["dense/0"] }, (event) => {
      if (event.type === "note" && event.text.includes("waits")) holder.kill();
    });
    await gone;
    expect(arms.map(({ id }) => id)).toEqual(["dense"]);
  });
});
