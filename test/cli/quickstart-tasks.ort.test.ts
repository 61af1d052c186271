/** What the models of a study answer to the tasks that come along. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { withTaskScores } from "../../src/cli/quickstart-tasks.js";
import { openTerminal } from "../../src/cli/terminal.js";
import type { StudyResult } from "../../src/model/results/result.js";
import { smallStudy } from "../study/small-study.js";
import { inThread } from "../support/backend.js";

const { root, yaml, config, run } = smallStudy();

describe("the models of a study, asked the tasks that come along", () => {
  it("are scored group by group, and stay so in the result that the studio reads", { timeout: 120_000 }, async () => {
    const dir = join(root, "asked");
    const arms = /\n {2}fine:.*\n {2}soft:.*\n {2}scratch:.*/;
    const small = config(
      yaml().replace(arms, "").replace("seeds: [0, 7]", "seeds: [0]").replace("maxPositions: 64", "maxPositions: 512"),
    );
    const studied = await run({ dir, config: small });
    const said: string[] = [];
    const stream = { write: (text: string) => said.push(text) > 0, isTTY: false };
    const terminal = openTerminal({ stdout: stream, stderr: stream, now: () => performance.now() }, true);
    const options = { dir, backend: inThread, threads: 1, terminal, signal: new AbortController().signal };
    const { tasks = [], ...rest } = await withTaskScores(studied, options);
    expect(rest).toEqual(studied);
    expect(tasks.map(({ task, level, isGroup }) => [task, level, isGroup])).toEqual([
      ["offline_pairs", 0, true],
      ...["plurals", "verbs", "word_order", "wrong_word"].map((name) => [`offline_${name}`, 1, false]),
      ["offline_questions", 0, true],
      ...["definitions", "capitals", "continents"].map((name) => [`offline_${name}`, 1, false]),
    ]);
    expect(tasks.map(({ chance }) => chance)).toEqual([0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]);
    for (const { arms: own } of tasks) expect(own.map(({ id }) => id)).toEqual(["dense", "coarse"]);
    const written = JSON.parse(readFileSync(join(dir, "result.json"), "utf8")) as StudyResult;
    expect(written.tasks).toEqual(tasks);
    expect((await run({ dir, config: small })).tasks).toEqual(tasks);
  });
});
