import { describe, expect, it } from "vitest";
import { armColumns, lineNames, shortNames } from "../../../src/studio/data/names.js";
import { row } from "./row.js";

describe("short names", () => {
  it("leave out the key that a study puts behind a run, where the rest is the name of no other", () => {
    const names = [
      "s/arms/a/seed-0-0123456789abcdef",
      "s/arms/a/seed-1-0123456789abcdef",
      "s/arms/a/seed-1-fedcba9876543210",
    ];
    const others = ["alone", "run-abc", "s/parents/parent-0123456789abcdef/last"];
    expect([...shortNames([...names, ...others]).values()]).toEqual([
      "s/arms/a/seed-0",
      names[1],
      names[2],
      "alone",
      "run-abc",
      "s/parents/parent/last",
    ]);
  });
});

const run = (study: string | null, arm: string, seed: number, key = "0123456789abcdef") =>
  row({ name: study === null ? arm : `${study}/arms/${arm}/seed-${seed}-${key}`, study, arm, seed });

describe("names of lines", () => {
  it("are arm and seed of the runs of one study", () => {
    const names = lineNames([run("s", "a", 0), run("s", "a", 1), run("s", "b", 0)]);
    expect([...names.values()]).toEqual(["a, seed 0", "a, seed 1", "b, seed 0"]);
  });

  it.each([
    ["of several studies", [run("s", "a", 0), run("t", "a", 0)], ["s/arms/a/seed-0", "t/arms/a/seed-0"]],
    ["of runs of their own", [run(null, "x/one", 0), run(null, "x/two", 0)], ["x/one", "x/two"]],
    [
      "where two runs have the same arm and seed",
      [run("s", "a", 0), run("s", "a", 0, "fedcba9876543210"), run("s", "b", 1)],
      ["s/arms/a/seed-0-0123456789abcdef", "s/arms/a/seed-0-fedcba9876543210", "s/arms/b/seed-1"],
    ],
    ["of no run", [], []],
  ])("are the runs' names %s", (_, runs, wanted) => {
    expect([...lineNames(runs).values()]).toEqual(wanted);
  });
});

describe("columns of runs", () => {
  it("are arms where their runs differ in their seeds", () => {
    expect(armColumns([run("s", "a", 0), run("s", "b", 0), run("s", "a", 1)])).toEqual([
      { label: "a (2 seeds)", places: [0, 2] },
      { label: "b, seed 0", places: [1] },
    ]);
  });

  it("name the study of an arm where there are several", () => {
    const runs = [run("s", "a", 0), run("s", "a", 1), run("t", "a", 0)];
    expect(armColumns(runs).map(({ label }) => label)).toEqual(["s: a (2 seeds)", "t/arms/a/seed-0"]);
  });

  it("are runs where there is one arm alone, and where an arm has a seed twice", () => {
    expect(armColumns([run("s", "a", 0), run("s", "a", 1)]).map(({ places }) => places)).toEqual([[0], [1]]);
    const twice = [run("s", "a", 0), run("s", "a", 0, "fedcba9876543210"), run("s", "b", 0)];
    expect(armColumns(twice).map(({ places }) => places)).toEqual([[0], [1], [2]]);
  });
});
