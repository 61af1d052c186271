/** The studies that come along: what each would run, as `upcycle study --dry-run` plans it. Nothing is trained. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { parseStudyConfig, type StudyConfig } from "../../src/base/schemas/index.js";
import { countParams } from "../../src/model/cost/params.js";
import { outlookOf, type StudyOutlook } from "../../src/study/run.js";
import { inThread } from "../support/backend.js";

const folder = fileURLToPath(new URL("../../recipes/studies", import.meta.url));
const files = readdirSync(folder).filter((name) => name.endsWith(".yaml"));
const configOf = (name: string): StudyConfig => parseStudyConfig(readFileSync(join(folder, name), "utf8"), name);

const planned = new Map<string, Promise<StudyOutlook>>();
/** What a file would run; planned once. */
function outlook(name: string, scale = 1): Promise<StudyOutlook> {
  const config = { ...configOf(name), scale };
  const dir = join(folder, "nothing-here");
  const options = { config, dir, backends: [inThread] as const, threads: 1, jobs: 2, command: "" };
  const found = planned.get(`${name} ${scale}`) ?? outlookOf(options);
  planned.set(`${name} ${scale}`, found);
  return found;
}

describe("the studies that come along", () => {
  it("are twelve, numbered, each named as its file", () => {
    expect(files.map((name) => Number(name.slice(0, 2)))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    for (const name of files) expect(`${configOf(name).name}.yaml`).toBe(name);
  });

  it.each(files)("%s names its main comparison, five seeds, and fits two cores", async (name) => {
    const config = configOf(name);
    // A study of several parents has five seeds of each.
    if (config.parents === undefined) expect(config.seeds.length).toBeGreaterThanOrEqual(5);
    const { compare, with: other } = at(config.questions, 0);
    const { plan, schedule } = await outlook(name);
    const pairs = (arm: string): number => plan.runs.filter((run) => run.arm.arm === arm).length;
    expect([pairs(compare) >= 5, pairs(other)]).toEqual([true, pairs(compare)]);
    // Two threads at 25 GFLOP/s, the first guess of a study: minutes, of the grid less than two hours.
    expect(schedule.flops / 50e9).toBeLessThan((name.startsWith("09") ? 110 : 20) * 60);
    expect(schedule.bytes).toBeLessThan(8e9);
    // A training from scratch is one and the same beside every parent of a size.
    const behindParents = plan.runs.filter(({ arm }) => arm.kind !== "scratch" || plan.parents.length === 1);
    expect(new Set(behindParents.map(({ key }) => key)).size).toBe(behindParents.length);
  });

  it("name the arms of the file where a piece is none of a grid's hundreds", async () => {
    const options = { config: configOf("09-interaction.yaml"), dir: join(folder, "x"), backends: [inThread] as const };
    await expect(
      outlookOf({ ...options, threads: 1, jobs: 2, command: "", only: ["further-26"] }),
    ).rejects.toMatchObject({
      hint:
        "write ARM, ARM@PARENT, ARM@PARENT/SEED or the name of a parent that is trained: arms further-25, " +
        "further-140, further-800, scratch-25, scratch-140, scratch-800; seeds 0",
    });
  });

  it.each(files)("%s grows by one number, its sizes and its tokens alike", async (name) => {
    const [small, large] = [await outlook(name), await outlook(name, 4)];
    const { arms } = configOf(name);
    // Questions name arms by the values in the file, at any scale.
    const ids = ({ plan }: StudyOutlook): string[] => plan.runs.map(({ arm, seed }) => `${arm.id} ${seed}`);
    expect(ids(large)).toEqual(ids(small));
    const named = configOf(name).questions.flatMap(({ compare, with: other }) => [compare, other]);
    expect(named.filter((one) => !large.plan.arms.some(({ arm }) => arm === one))).toEqual([]);
    for (const [i, { arm }] of large.plan.runs.entries()) {
      const before = at(small.plan.runs, i).arm;
      expect(arm.training.lr.peak).toBeCloseTo(before.training.lr.peak / 2, 12);
      const tokens = (of: typeof arm): number => of.training.steps * of.training.batch;
      // An arm that matches another one's FLOPs has as many steps as those give; attention's share of them falls.
      if (arms[arm.arm]?.match === undefined) expect(tokens(arm) / tokens(before), arm.id).toBe(16);
      const body = (of: typeof arm): number => countParams(of.spec).total - of.spec.vocab * of.spec.hidden;
      expect(body(arm) / body(before), arm.id).toBeGreaterThan(13);
      expect(body(arm) / body(before), arm.id).toBeLessThan(16.1);
    }
  });

  it("share their parents: eleven of them start from one", async () => {
    const keys = new Set<string>();
    for (const name of files) {
      if (name.startsWith("09")) continue;
      for (const { key } of (await outlook(name)).plan.parents) keys.add(key);
    }
    expect(keys.size).toBe(1);
  });
});
