import { gzipSync } from "node:zlib";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { countParams } from "../../../src/model/cost/params.js";
import { parseMapping } from "../../../src/laws/points/columns.js";
import { readPoints, type ReadOptions } from "../../../src/laws/points/points.js";
import { ofStudy } from "../../../src/laws/points/runs.js";
import { parseCsv } from "../../../src/laws/points/table.js";
import { studyResultOf } from "../../../src/model/results/earlier-result.js";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import { law } from "../data.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { golden } from "../../support/golden.js";
import { at } from "../../../src/base/at.js";

const dir = temporaryFolder();
const file = (name: string, data: string | Uint8Array): string => {
  const path = join(dir, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, data);
  return path;
};
const read = async (path: string, columns = "", options: Partial<ReadOptions> = {}, id = "chinchilla") =>
  readPoints(path, law(id), { mapping: columns === "" ? new Map() : parseMapping(columns), ...options });
const refusal = (reading: Promise<unknown>): Promise<string> =>
  reading.then(
    () => "",
    (error: unknown) => (error instanceof UpcycleError ? error.line : Promise.reject(error as Error)),
  );

describe("tables", () => {
  it("are read with quotes, other separators and a byte order mark", () => {
    expect(parseCsv('\ufeffname;loss\n"a;b ""c""";2\n\nd;3\r\n', "x")).toEqual({
      headers: ["name", "loss"],
      rows: [
        ['a;b "c"', "2"],
        ["d", "3"],
      ],
      lines: [2, 4],
    });
    expect(parseCsv("a\tb\n1\t2", "x").rows).toEqual([["1", "2"]]);
    expect(parseCsv('a,b\n"1\n2",3', "x")).toMatchObject({ rows: [["1\n2", "3"]], lines: [2] });
  });

  it.each([
    [
      "a,b\n1,2,3\n",
      'x:2: 3 cells, the heading has 2; the cells: 1 | 2 | 3; if a number has commas in it, put it in quotes ("1,000"), or separate columns with semicolons',
    ],
    ["a,a\n1,2\n", 'x:1: two columns are called "a"; give one of them another name'],
    ['a,b\n"1,2\n', "x:2: a quoted cell is not closed"],
    ["a,b\n", "x: expected a line of column names and lines of values"],
  ])("%j is refused", (text, line) => {
    expect(() => parseCsv(text, "x")).toThrow(expect.objectContaining({ line }) as Error);
  });
});

describe("points", () => {
  it("are found by usual names", async () => {
    const { points, columns, stated, dropped } = await read(
      file("usual.csv", "params,tokens,final_loss\n1e8,2e9,3.1\n2e8,4e9,2.9\n"),
    );
    expect(points).toEqual({
      n: 2,
      columns: { N: Float64Array.of(1e8, 2e8), D: Float64Array.of(2e9, 4e9) },
      loss: Float64Array.of(3.1, 2.9),
    });
    expect([columns, stated, dropped]).toEqual([{ N: "params", D: "tokens", loss: "final_loss" }, [], []]);
  });

  it("are mapped, scaled and computed", async () => {
    const path = file("mapped.csv", "Model Size (B),Training FLOP,l_val,run\n0.1,6e18,3.1,a\n0.2,1.2e19,2.9,a\n");
    const { points, stated } = await read(path, "N=Model Size (B)*1e9,D=Training FLOP/(6*N),loss=l_val", {
      cluster: "run",
    });
    expect(points.columns).toEqual({ N: Float64Array.of(1e8, 2e8), D: Float64Array.of(1e10, 1e10) });
    expect([points.cluster, stated]).toEqual([
      ["a", "a"],
      ["N", "D"],
    ]);
    const helped = await read(path, "M=Model Size (B)*1e9,N=M,D=Training FLOP/(6*M),loss=l_val");
    expect(helped.points.columns).toEqual(points.columns);
  });

  it("come from JSON lines, a JSON list and gzip too", async () => {
    const rows = [
      { N: 1e8, D: 2e9, loss: 3.1, nested: {} },
      { N: 2e8, D: 4e9, loss: 2.9 },
    ];
    const lines = rows.map((row) => JSON.stringify(row)).join("\n");
    for (const path of [
      file("a.jsonl", lines),
      file("a.json", JSON.stringify(rows)),
      file("a.jsonl.gz", gzipSync(lines)),
    ]) {
      expect((await read(path)).points.columns.D).toEqual(Float64Array.of(2e9, 4e9));
    }
  });

  it("come from Parquet", async () => {
    // N (64-bit integers), D, loss (the second is null) and run of two rows, written by hyparquet-writer.
    const bytes = Buffer.from(
      [
        "UEFSMRUGFSQVKFwVBBUAFQQVABUEFQAAAAMDEDwA4fUFAAAAAADKmjsAAAAAFQYVJBUoXBUEFQAVBBUAFQQVAAAAAwMQPAAAAABl",
        "zd1BAAAAAGXN7UEVBhUUFRhcFQQVAhUEFQAVBBUA",
        "AAADAQgcAAAAAAAACkAVBhUYFRxcFQQVABUEFQAVBBUAAAADAwokAQAAAGEBAAAAYhUEGVxIBHJvb3QVCAAVBCUCGAFOABUKJQIY",
        "AUQAFQolAhgEbG9zcwAVDCUCGANydW4lAAAWBBkc",
        "GUwmCBwVBBkVABkYAU4VAhYEFk4WUiYIPDYAKAgAypo7AAAAABgIAOH1BQAAAAAAGRwVBhUAFQIAAAAmWhwVChkVABkYAUQVAhYE",
        "Fk4WUiZaPDYAKAgAAAAAZc3tQRgIAAAAAGXN3UE2",
        "AAAZHBUGFQAVAgAAACasARwVChkVABkYBGxvc3MVAhYEFj4WQiasATw2AigIAAAAAAAACkAYCAAAAAAAAApANgAAGRwVBhUAFQIA",
        "AAAm7gEcFQwZFQAZGANydW4VAhYEFkIWRibuATw2",
        "ACgBYhgBYQAZHBUGFQAVAgAAABacAhYENqwCACgJaHlwYXJxdWV0GUwcAAAcAAAcAAAcAAAAQAEAAFBBUjE=",
      ].join(""),
      "base64",
    );
    const { points, dropped } = await read(file("two.parquet", bytes), "", { cluster: "run" });
    expect(points).toEqual({
      n: 1,
      columns: { N: Float64Array.of(1e8), D: Float64Array.of(2e9) },
      loss: Float64Array.of(3.25),
      cluster: ["a"],
    });
    expect(dropped).toEqual([{ line: 2, reason: "loss is missing" }]);
  });

  it("that lack something are left out with the reason", async () => {
    const path = file(
      "gaps.csv",
      "N,D,loss\n1e8,2e9,3.1\n,2e9,3\n1e8,x,3\n1e8,2e9,NaN\n1e8,2e9,Infinity\n0,2e9,3\n1e8,2e9,9\n",
    );
    const { points, dropped, rows } = await read(path, "", { maxLoss: 5 });
    expect([points.n, rows]).toEqual([1, 7]);
    expect(dropped).toEqual([
      { line: 3, reason: "N is missing" },
      { line: 4, reason: 'D is "x", which is no number' },
      { line: 5, reason: "loss is missing" },
      { line: 6, reason: "loss is infinite" },
      { line: 7, reason: "N is 0" },
      { line: 8, reason: "loss is above 5" },
    ]);
  });

  it.each<[string, () => Promise<unknown>, string | RegExp]>([
    [
      "a negative loss",
      () => read(file("negative.csv", "N,D,loss\n1e8,2e9,-1.1\n")),
      /negative\.csv:2: loss is -1\.1; a cross entropy is positive; is the column a logarithm or a difference\?$/,
    ],
    [
      "nothing usable",
      () => read(file("nan.csv", "N,D,loss\n1e8,2e9,NaN\n")),
      /nan\.csv: none of 1 rows can be used; line 2: loss is missing$/,
    ],
    [
      "no column",
      () => read(file("short.csv", "N,loss\n1e8,2\n")),
      new RegExp(
        "short\\.csv: no column for D \\(training tokens seen\\); name it: --columns D=COLUMN; " +
          "columns of the file: N, loss$",
      ),
    ],
    [
      "an unknown column",
      () => read(file("short2.csv", "N,loss\n1e8,2\n"), "D=Tokens*2"),
      "--columns: D=Tokens*2: there is no column Tokens; columns of the file: N, loss",
    ],
    [
      "a name that every object has",
      () => read(file("short6.csv", "N,loss\n1e8,2\n"), "D=toString*2"),
      "--columns: D=toString*2: there is no column toString; columns of the file: N, loss",
    ],
    [
      "such a name for a column",
      () => read(file("short7.csv", "N,loss\n1e8,2\n"), "constructor=N"),
      /^--columns: "constructor" is not allowed as the name of a column; /,
    ],
    [
      "a bad mapping",
      () => read(file("short3.csv", "N,loss\n1e8,2\n"), "D"),
      '--columns: "D" is not NAME=COLUMN; write for example N=params,D=tokens*1e9,loss=final_loss',
    ],
    [
      "a broken formula",
      () => read(file("short4.csv", "N,loss\n1e8,2\n"), "D=N*"),
      "--columns: cannot read D=N*; columns of the file: N, loss",
    ],
    [
      "no such run column",
      () => read(file("short5.csv", "N,D,loss\n1e8,1e9,2\n"), "", { cluster: "run" }),
      "--cluster: there is no column run; columns of the file: N, D, loss",
    ],
    [
      "broken Parquet",
      () => read(file("x.parquet", "PAR1....")),
      new RegExp(
        "x\\.parquet: this Parquet file cannot be read \\(.*\\); compress it with Snappy or not at all, " +
          "or export it as CSV$",
      ),
    ],
    [
      "bytes",
      () => read(file("x.bin", Uint8Array.of(0xff, 0x41))),
      /x\.bin: file is not UTF-8 text, nor such text compressed with gzip$/,
    ],
    [
      "zero bytes",
      () => read(file("zero.csv", "N\0,D")),
      /zero\.csv: this is no text: byte 1 is zero; expected CSV, JSON lines, or Parquet$/,
    ],
    [
      "UTF-16",
      () => read(file("utf16.csv", Buffer.from("\ufeffN,D", "utf16le"))),
      /utf16\.csv: this is UTF-16 text, expected UTF-8; convert it first/,
    ],
    [
      "much text in few bytes",
      () => read(file("bomb.csv.gz", gzipSync(Buffer.alloc(17e6, "1,")))),
      /bomb\.csv\.gz: unpacked, file has more than 16 MB, the limit for this is 16 MB; is this the right file\?$/,
    ],
    ["nothing", () => read(file("empty.csv", " \n")), /empty\.csv: the file is empty$/],
    [
      "broken JSON",
      () => read(file("broken.jsonl", '{"N":1}\n{"N":')),
      /broken\.jsonl:2: this line is not JSON; expected one object per line$/,
    ],
    ["a missing file", () => read(join(dir, "none.csv")), /none\.csv: cannot open: no such file or folder$/],
    ["a folder without runs", () => read(dir), /no finished run in this folder; expected result\.json of a study/],
  ])("%s is one line that helps", async (_, reading, line) => {
    expect(await refusal(reading())).toMatch(line);
  });
});

describe("runs of the tool", () => {
  const params = (total: number) => ({ total, active: total });
  const points = (tokens: number, loss: number) => [
    { step: 0, tokens: 0, flops: 0, loss: 9 },
    { step: 1, tokens, flops: 1, loss },
  ];
  const arm = (id: string, kind: string, total: number, tokens: number, finalLoss: number) => ({
    id,
    kind,
    params: params(total),
    runs: [{ path: `arms/${id}/seed-1`, points: points(tokens, finalLoss), finalLoss }],
  });
  const study = studyResultOf({
    version: 1,
    parent: { tokens: 4e6, params: params(1e6), loss: 4 },
    arms: [
      arm("dense", "dense", 1e6, 2e6, 3.8),
      arm("coarse", "upcycled", 5e6, 2e6, 3.7),
      arm("scratch", "scratch", 5e6, 2e6, 4.1),
    ],
  });

  it("give one point for each finished model of a study", () => {
    expect(ofStudy(study, "s").map(({ run, group, N, D, D1, D2, loss }) => [run, group, N, D, D1, D2, loss])).toEqual([
      [join("s", "parent"), "dense", 1e6, 4e6, null, null, 4],
      [join("s", "arms/dense/seed-1"), "dense", 1e6, 6e6, null, null, 3.8],
      [join("s", "arms/coarse/seed-1"), "upcycled", 1e6, null, 4e6, 2e6, 3.7],
      [join("s", "arms/scratch/seed-1"), "moe", 1e6, 2e6, null, null, 4.1],
    ]);
  });

  it("of single trainings count their last evaluation, once they are done", async () => {
    const spec = specFromConfig(JSON.parse(readFileSync(golden("dense/llama", "config.json"), "utf8")), "config.json");
    const evals = [
      { type: "eval", step: 0, tokens: 0, loss: 9 },
      { type: "step", step: 1 },
      { type: "eval", step: 5, tokens: 5000, loss: 4.5 },
    ];
    const lines = (records: object[]): string => records.map((record) => `${JSON.stringify(record)}\n`).join("");
    for (const [name, records] of [
      ["done", [...evals, { type: "done", step: 5 }]],
      ["stopped", evals],
    ] as const) {
      file(`trained/${name}/run.json`, JSON.stringify({ spec }));
      file(`trained/${name}/metrics.jsonl`, lines([...records]));
    }
    const { points } = await read(join(dir, "trained"), "", { cluster: "run" });
    expect(points).toEqual({
      n: 1,
      columns: { N: Float64Array.of(countParams(spec).total), D: Float64Array.of(5000) },
      loss: Float64Array.of(4.5),
      cluster: ["done"],
    });
  });

  it("are found beside and below files of other programs that are called alike", async () => {
    const root = join(dir, "mixed");
    file("mixed/result.json", '{"accuracy":0.5}');
    file("mixed/run.json", '{"id":"x1"}');
    file("mixed/metrics.jsonl", "1\nnull\n");
    file("mixed/other/result.json", "null");
    file("mixed/other/run.json", "[]");
    file("mixed/other/metrics.jsonl", "null\n");
    file("mixed/begun/trainer_state.json", '{\n"log_history": []\n}');
    file("mixed/theirs/trainer_state.json", '{"epoch":1}');
    file("mixed/study/result.json", JSON.stringify(study));
    expect((await read(root)).points.n).toBe(3);
  });

  it("are found in folders, those a law is about", async () => {
    const root = join(dir, "runs");
    file("runs/one/result.json", JSON.stringify(study));
    file("runs/two/run.json", JSON.stringify({}));
    file("runs/two/metrics.jsonl", "");
    expect((await read(root, "", {}, "upcycling")).points).toMatchObject({
      n: 1,
      columns: { N: Float64Array.of(1e6), D1: Float64Array.of(4e6), D2: Float64Array.of(2e6) },
    });
    expect((await read(root, "", { cluster: "run" })).points).toMatchObject({
      n: 3,
      cluster: ["one/parent", "one/arms/dense/seed-1", "one/arms/scratch/seed-1"].map((path) =>
        path.replaceAll("/", at(join("a", "b"), 1)),
      ),
    });
    expect((await read(root, "", {}, "upcycling-shared")).points).toMatchObject({
      n: 4,
      group: ["dense", "dense", "upcycled", "moe"],
    });
  });
});
