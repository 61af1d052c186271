/** The same command again: what is there is found, what is missing is trained, and the numbers are the same. */
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import type { StudyConfig } from "../../src/base/schemas/index.js";
import type { StudyResult } from "../../src/model/results/result.js";
import type { StudyEvent } from "../../src/study/run.js";
import { failure, smallStudy, timeless } from "./small-study.js";

const { root, yaml, config, run } = smallStudy();
const whole = join(root, "whole");
let result: StudyResult;
beforeAll(async () => {
  result = await run({ dir: whole, jobs: 3 });
});

describe("the same command again", () => {
  it("on a finished study trains nothing and finds the same", async () => {
    const heard: StudyEvent[] = [];
    expect(await run({ dir: whole }, (event) => void heard.push(event))).toEqual(result);
    expect(heard).toEqual([{ type: "phase", label: "already finished, nothing was trained" }]);
  });

  it("says of the numbers of a finished study what this version says of them", async () => {
    const file = join(whole, "result.json");
    const written = readFileSync(file, "utf8");
    writeFileSync(file, JSON.stringify({ ...JSON.parse(written), findings: ["words of an earlier version"] }));
    expect((await run({ dir: whole })).findings).toEqual(result.findings);
    writeFileSync(file, written);
  });

  it("after being stopped, here and there, ends as with several trainings at once and no stop", async () => {
    const dir = join(root, "stopped");
    const stops = [5, 9, 23, 40];
    for (const stop of stops) {
      const controller = new AbortController();
      let count = 0;
      const error = await failure(
        run(
          { dir, signal: controller.signal },
          (event) => void (event.type === "train" && ++count === stop && controller.abort()),
        ),
      );
      expect(error.kind).toBe("interrupted");
    }
    const { seconds } = JSON.parse(readFileSync(join(dir, "study.json"), "utf8")) as { seconds: number };
    expect(seconds).toBeGreaterThan(0.05);
    const resumed = await run({ dir });
    expect(timeless(resumed)).toEqual(timeless(result));
    expect(resumed.seconds).toBeGreaterThan(seconds);
  });

  it("takes no folder that holds something by the names it gives", async () => {
    for (const [name, message] of [
      ["parents", "holds parents, which would be replaced"],
      ["result.json", "holds result.json"],
      ["study.json", "this is not the record of a study"],
    ] as const) {
      const dir = join(root, `taken-${name}`);
      mkdirSync(dir);
      writeFileSync(join(dir, name), "{}");
      expect((await failure(run({ dir }))).line).toContain(message);
      expect(readdirSync(dir)).toEqual([name]);
      expect(readFileSync(join(dir, name), "utf8")).toBe("{}");
    }
  });

  it.each(["reading text", "learning the tokenizer"])("stopped while %s, ends before any training", async (label) => {
    const dir = join(root, `early-${label}`);
    const controller = new AbortController();
    const heard: string[] = [];
    const error = await failure(
      run({ dir, signal: controller.signal }, (event) => {
        heard.push(event.type === "phase" ? event.label : event.type);
        if (event.type === "phase" && event.label === label) controller.abort();
      }),
    );
    expect([error.kind, error.where, error.hint]).toEqual(["interrupted", dir, "run the same command again to go on"]);
    expect(heard.at(-1)).toBe(label);
    expect(existsSync(join(dir, "tokenizers"))).toBe(false);
  });

  it("with other settings makes only the runs that those change, and finds the others", async () => {
    const dir = join(root, "changing-arms");
    cpSync(whole, dir, { recursive: true });
    const trained = async (text: string): Promise<string[]> => {
      const names = new Set<string>();
      await run({ dir, config: config(text) }, (event) => {
        if (event.type === "train" && event.event.type === "step") names.add(event.run);
      });
      return [...names];
    };
    expect(await trained(yaml())).toEqual([]);
    // A new arm costs its seeds, a new seed one run of each arm, a changed arm itself.
    expect(await trained(yaml("  more: {kind: upcycled, recipe: E2G1T1}"))).toEqual([
      "upcycled E2G1T1, seed 0",
      "upcycled E2G1T1, seed 7",
    ]);
    expect(await trained(yaml().replace("routerStd: 1", "routerStd: 2"))).toEqual([
      "upcycled E4G4T4, seed 0",
      "upcycled E4G4T4, seed 7",
    ]);
    expect(
      await trained(
        yaml()
          .replace("[0, 7]", "[0, 7, 8]")
          .replace(/ {2}(fine|soft|scratch).*\n/g, ""),
      ),
    ).toEqual(["continued dense, seed 8", "whole copies, seed 8"]);
    // The load-balancing loss is nothing to a dense model, a name and the order of arms nothing to any.
    const renamed = yaml().replace("  coarse:", "  copies:").replace("like: coarse", "like: copies");
    expect(await trained(renamed)).toEqual([]);
    const aux = yaml()
      .replace("continue: {", "continue: {auxLoss: 0.5, ")
      .replace(/ {2}(fine|soft|scratch).*\n/g, "");
    expect(await trained(aux)).toEqual(["whole copies, seed 0", "whole copies, seed 7"]);
    // Back at the first file nothing is left to do, and the result is what it was.
    const events: StudyEvent[] = [];
    const again = await run({ dir }, (event) => void events.push(event));
    expect(timeless(again)).toEqual(timeless(result));
    expect(events.every((event) => event.type !== "train" || event.event.type !== "step")).toBe(true);
  });

  it("in a folder of another study is refused, by both names", async () => {
    const error = await failure(run({ dir: whole, config: config(yaml().replace("name: tiny", "name: other")) }));
    expect([error.kind, error.message]).toEqual(["input", "this folder holds the study tiny, not other"]);
    const earlier = join(root, "earlier");
    mkdirSync(join(earlier, "arms"), { recursive: true });
    writeFileSync(join(earlier, "study.json"), JSON.stringify({ config: {}, startedAt: "2026-11-01", seconds: 1 }));
    expect((await failure(run({ dir: earlier }))).message).toMatch(/^this study was begun by an earlier version/);
  });

  it("shares runs with other studies through a store", async () => {
    const store = join(root, "store");
    const first = await run({ dir: join(root, "one"), store });
    const heard: StudyEvent[] = [];
    const second = await run(
      { dir: join(root, "two"), store, config: config(yaml().replace("name: tiny", "name: two")) },
      (event) => void heard.push(event),
    );
    expect(heard.filter((event) => event.type === "train" && event.event.type === "step")).toEqual([]);
    expect(second.arms.map(({ runs }) => runs.map(({ finalLoss }) => finalLoss))).toEqual(
      first.arms.map(({ runs }) => runs.map(({ finalLoss }) => finalLoss)),
    );
    expect(at(second.arms, 0).runs[0]?.path).toMatch(/^\.\.\/store\/arms\/dense\/seed-0-/);
  });
});

describe("a study whose rates do not depend on its length", () => {
  const steady = (steps: number): StudyConfig =>
    config(
      yaml()
        .replaceAll("schedule: cosine", "schedule: constant")
        .replace("steps: 6", `steps: ${steps}`)
        .replace("seeds: [0, 7]", "seeds: [0]")
        .replace(/ {2}(fine|soft|scratch).*\n/g, ""),
    );

  it("resumes when its trainings are to be longer, in finished, begun and new arms, to the same result", async () => {
    const dir = join(root, "longer");
    const controller = new AbortController();
    let steps = 0;
    const watch = (event: StudyEvent): void =>
      void (
        event.type === "train" &&
        event.run.startsWith("whole") &&
        event.event.type === "step" &&
        ++steps === 2 &&
        controller.abort()
      );
    await failure(run({ dir, config: steady(12), signal: controller.signal }, watch));
    const resumed = await run({ dir, config: steady(15) });
    expect(timeless(resumed)).toEqual(timeless(await run({ dir: join(root, "straight"), config: steady(15) })));
  });
});
