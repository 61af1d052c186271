import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at, valueAt } from "../../src/base/at.js";
import { publishedById } from "../../src/laws/forms/published.js";
import { dataFile, haveData, law, simulated, together, upcyclingGrid } from "../laws/data.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { fitCommand } from "../../src/cli/fit.js";
import { planCommand } from "../../src/cli/plan.js";
import { jsonInProcess } from "./in-process.js";
import { upcycle, upcycleJson } from "./upcycle.js";

const dir = temporaryFolder();
const truth = publishedById("liew-upcycled")?.params ?? {};
const write = (name: string, noise: number): string => {
  const { columns, loss } = simulated(law("upcycling"), truth, upcyclingGrid, noise, 1);
  const path = join(dir, name);
  const cell = (column: string, i: number): number => at(valueAt(columns, column), i);
  const rows = Array.from(loss, (value, i) => [cell("N", i), cell("D1", i), cell("D2", i) / 1e9, value].join(","));
  writeFileSync(path, ["N,D1,D2 (billions),loss", ...rows].join("\n"));
  return path;
};

const fitted = (...args: readonly string[]): Promise<Record<string, unknown>> => jsonInProcess(fitCommand(), ...args);

describe("upcycle fit", () => {
  const exact = write("exact.csv", 0);
  const noisy = write("noisy.csv", 0.005);
  const columns = ["--columns", "D2=D2 (billions)*1e9"];

  it("prints the parameters as JSON and nothing else", async () => {
    const fit = await upcycleJson("fit", exact, "--law", "upcycling", ...columns);
    expect(Object.keys(fit).slice(0, 7)).toEqual([
      "law",
      "formula",
      "source",
      "params",
      "intervals",
      "objective",
      "status",
    ]);
    expect(fit).toMatchObject({
      law: "upcycling",
      status: "converged",
      n: 64,
      dropped: [],
      columns: { D2: "D2 (billions)*1e9" },
      intervals: {},
    });
    const params = fit.params as Record<string, number>;
    expect(Object.keys(params).sort()).toEqual(["A", "B", "E", "alpha1", "alpha2", "alpha3", "beta"]);
    expect(Object.keys(truth)).toHaveLength(7);
    for (const [name, value] of Object.entries(truth)) expect((params[name] ?? NaN) / value).toBeCloseTo(1, 8);
  });

  it("gives intervals, predictions and comparisons, the same for any number of threads", async () => {
    const options = [
      "fit",
      noisy,
      "--law",
      "upcycling",
      ...columns,
      "--loss",
      "mse",
      "--bootstrap",
      "250",
      "--profile",
      "--level",
      "0.9",
      "--predict",
      "N=7e9,D1=3e11,D2=1e11",
      "--compare",
      "upcycling-no-interaction,upcycling-total",
    ];
    const [one, two] = await Promise.all([
      upcycleJson(...options, "--threads", "1"),
      upcycleJson(...options, "--threads", "2"),
    ]);
    expect(two).toEqual(one);
    expect(one).toMatchObject({
      intervals: {
        alpha3: { bootstrap: { level: 0.9 }, profile: { level: 0.9, lowOpen: false } },
        E: { profile: { lowOpen: true } },
      },
      predictions: [
        { at: { N: 7e9 }, warnings: [{ kind: "extrapolation" }, { kind: "extrapolation" }, { kind: "extrapolation" }] },
      ],
      comparison: [{ law: "upcycling" }, { law: "upcycling-no-interaction" }, { law: "upcycling-total" }],
    });
  });

  it("tells people the same in 80 columns", async () => {
    const { code, stdout, stderr } = await upcycle(
      "fit",
      noisy,
      "--law",
      "upcycling",
      ...columns,
      "--bootstrap",
      "50",
      "--profile",
      "--compare",
      "upcycling-additive",
      "--predict",
      "N=7e9,D1=3e11,D2=1e11",
    );
    expect(code).toBe(0);
    // Nothing but how far it has come, where the machine is slow.
    expect(stderr).toMatch(/^((starts|bootstrap|profile|comparison) +\d+\/\d+\n)*$/);
    expect(Math.max(...stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(stdout).toMatch(/^law +upcycling: L\(D1, D2, N\) = A D1\^-alpha1/m);
    expect(stdout).toMatch(/^points +64 of 64 in\s/m);
    expect(stdout).toMatch(/^fit +converged; 8 of 8 starts ended here/m);
    expect(stdout).toMatch(/^alpha3 +0\.00\d+ /m);
    expect(stdout).toMatch(/^prediction +L = 1\.\d{4} nats at N = 7\.00B, D1 = 300B, D2 = 100B; /m);
    expect(stdout).toMatch(/^upcycling-additive +7 /m);
    expect(stdout).toMatch(/^warning +E is not bounded from below/m);
  });

  it("gives a plan coefficients with draws and ranges, and predicts by group", async () => {
    const { columns: pointColumns, loss, group = [] } = together(0.003);
    const table = join(dir, "together.csv");
    const cell = (value: number | undefined): string =>
      value === undefined || Number.isNaN(value) ? "" : String(value);
    writeFileSync(
      table,
      [
        "group,N,D,D1,D2,loss",
        ...group.map((name, i) =>
          [name, ...["N", "D", "D1", "D2"].map((column) => cell(pointColumns[column]?.[i])), loss[i]].join(","),
        ),
      ].join("\n"),
    );
    const fit = await fitted(
      "fit",
      table,
      "--law",
      "upcycling-shared",
      "--loss",
      "mse",
      "--bootstrap",
      "60",
      "--draws",
      "--predict",
      "group=upcycled,N=1e9,D1=5e10,D2=1e10",
    );
    expect(fit).toMatchObject({
      law: "upcycling-shared",
      predictions: [{ group: "upcycled", at: { D1: 5e10 } }],
      ranges: { N: [1e8, 1.1e9], D: [1e9, 1e11] },
    });
    expect((fit.draws as Record<string, number[]>)["upcycled.alpha3"]).toHaveLength(60);
    const file = join(dir, "together.json");
    writeFileSync(file, JSON.stringify(fit));
    const plan = await jsonInProcess(
      planCommand(),
      "plan",
      "--preset",
      "llama-3.2-1b",
      "--d1",
      "50B",
      "--tokens",
      "10B",
      "--coefficients",
      file,
      "--fitted-recipe",
      "E8G1T2",
    );
    expect(plan).toMatchObject({
      coefficients: { published: false, uncertainty: "draws", recipe: "E8G1T2", ranges: { tokens: [0.9e9, 1e11] } },
      draws: 60,
    });
    // Close to Table 2, from which the points were made.
    const arms = plan.arms as { loss: number; interval: { low: number; high: number } }[];
    const reference = await jsonInProcess(
      planCommand(),
      "plan",
      "--preset",
      "llama-3.2-1b",
      "--d1",
      "50B",
      "--tokens",
      "10B",
    );
    for (const [i, { loss: expected }] of (reference.arms as { loss: number }[]).slice(0, 3).entries())
      expect(Math.abs(at(arms, i).loss / expected - 1)).toBeLessThan(0.01);
    for (const { loss: value, interval } of arms) expect(interval.low < value && value < interval.high).toBe(true);
  });

  it("takes a formula over columns in place of a law", async () => {
    const fit = await fitted(
      "fit",
      exact,
      "--law",
      "A*D1^-a*(1e9*H)^-b + B*N^-c",
      "--columns",
      "H=D2 (billions)",
      "--start",
      "A=10,a=0.05,b=0.05,B=8,c=0.1",
      "--loss",
      "mse",
    );
    expect(fit).toMatchObject({
      law: "expression",
      formula: "L(D1, H, N) = A*D1^-a*(1e9*H)^-b + B*N^-c",
      status: "converged",
    });
  });

  it("says where a parameter of a formula is called as a column of the file is", async () => {
    const table = join(dir, "dropout.csv");
    const rows = [1, 2, 3, 4, 5, 6].map((k) => `${k}e8,${(k % 2) / 10},${2 + 1 / k + (k % 2) / 20}`);
    writeFileSync(table, ["N,dropout,loss", ...rows].join("\n"));
    const options = ["fit", table, "--law", "A*N^-1 + C*dropout + 2", "--loss", "mse"];
    expect((await fitted(...options)).notes).toContainEqual(
      "dropout is a parameter of the formula here, although the file has a column of that name: to take the column, " +
        "write --columns dropout=dropout.",
    );
    const { notes, params } = await fitted(...options, "--columns", "dropout=dropout");
    expect(notes).not.toContainEqual(expect.stringContaining("although"));
    expect((params as Record<string, number>).C).toBeCloseTo(0.5, 6);
  });

  it.skipIf(!haveData)("reproduces Chinchilla from the raw columns of the file", async () => {
    const file = dataFile("epoch-chinchilla", "svg_extracted_data.csv");
    const options = [
      "fit",
      file,
      "--law",
      "chinchilla",
      "--columns",
      "N=Model Size,D=Training FLOP/(6*N)",
      "--max-loss",
      "3.44",
    ];
    const fit = await fitted(...options);
    expect(fit).toMatchObject({ n: 240, rows: 245, status: "converged" });
    expect(fit.objective).toBeLessThanOrEqual(0.00101827401781);
    expect(fit.quality).toMatchObject({
      rmse: expect.closeTo(0.02182, 5),
      mae: expect.closeTo(0.01257, 5),
      r2: expect.closeTo(0.99421, 5),
      logRmse: expect.closeTo(0.00755, 5),
    });
    const absolute = await fitted(...options, "--loss", "lad");
    expect(absolute.objective).toBeLessThanOrEqual(1.1294948);
  });

  it.each<[string, string[], string]>([
    ["a wrong law", ["fit", exact, "--law", "upcyling"], '--law: "upcyling" is not a law; did you mean upcycling?'],
    [
      "a column that is not there",
      ["fit", exact, "--law", "upcycling"],
      `${exact}: no column for D2 (tokens the upcycled model was trained on since); name it: --columns ` +
        "D2=COLUMN; columns of the file: N, D1, D2 (billions), loss",
    ],
    [
      "units off",
      ["fit", exact, "--law", "upcycling", "--columns", "D2=D2 (billions)"],
      `${exact}: D2 goes from 0.900 to 37.0, expected raw counts; if it is in billions, write --columns ` +
        "D2=YOUR_COLUMN*1e9",
    ],
    [
      "a bad start",
      ["fit", exact, "--law", "A*N^-a", "--start", "A=x"],
      '--start: "x" is not a number between -1.7e308 and 1.7e308',
    ],
    [
      "draws for nothing",
      ["fit", exact, "--law", "upcycling", ...columns, "--draws"],
      "--draws: needs --bootstrap and --json; for example --bootstrap 400 --draws --json",
    ],
    [
      "no such file",
      ["fit", join(dir, "none.csv"), "--law", "chinchilla"],
      `${join(dir, "none.csv")}: cannot open: no such file or folder`,
    ],
  ])("%s is refused in one line", async (_, args, line) => {
    await expect(fitCommand().exitOverride().parseAsync(args.slice(1), { from: "user" })).rejects.toMatchObject({
      kind: "input",
      line,
    });
  });

  it("exits with 2 after such a line", async () => {
    expect(await upcycle("fit", exact)).toEqual({
      code: 2,
      stdout: "",
      stderr: "upcycle: required option '--law <law>' not specified; see upcycle fit --help\n",
    });
  });

  it("has a help with an example, in 80 columns", async () => {
    const { stdout } = await upcycle("fit", "--help");
    expect(stdout.trimEnd().split("\n").at(-1)).toBe(
      "  $ upcycle fit runs.csv --law chinchilla --bootstrap 1000 --profile",
    );
    expect(Math.max(...stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
    for (const id of ["chinchilla", "upcycling", "ludziejewski"]) expect(stdout).toContain(id);
  });
});
