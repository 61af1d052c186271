/** Tables as spreadsheets, trackers and trainers write them. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readPoints } from "../../../src/laws/points/points.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { law } from "../data.js";

const dir = temporaryFolder();
let files = 0;
function read(text: string, form = "chinchilla", mapping: Record<string, string> = {}, name = "runs.csv") {
  const path = join(dir, `${files++}-${name}`);
  writeFileSync(path, text);
  return readPoints(path, law(form), { mapping: new Map(Object.entries(mapping)) });
}
const columnOf = async (text: string, name: string): Promise<number[]> => {
  const { points } = await read(text);
  return [...(name === "loss" ? points.loss : (points.columns[name] ?? []))];
};

it("parameters that a token uses have the table's decimal sign", async () => {
  const { active } = await read("N;D;loss;active\n7.000.000.000;1,4e12;1,9;1.300.000.000\n7e7;2e10;2,9;1,5e7");
  expect([...(active ?? [])]).toEqual([1.3e9, 1.5e7]);
});

describe("what Python writes for numbers that JSON does not have", () => {
  const state = (log: string): string => `{\n  "log_history": [\n${log}\n  ],\n  "num_input_tokens_seen": 5000\n}\n`;
  const logged = (loss: string, step: number): string =>
    `{"grad_norm": NaN, "num_input_tokens_seen": ${1000 * step}, "loss": ${loss}, "step": ${step}}`;

  it("makes no point of its row in a trainer's state", async () => {
    const log = [logged("3.5", 1), logged("NaN", 2), logged("-Infinity", 3), logged("3.1", 4)].join(",\n");
    const { points, dropped } = await read(state(log), "chinchilla", { N: "1e8" }, "trainer_state.json");
    expect([...points.loss]).toEqual([3.5, 3.1]);
    expect(dropped.map(({ reason }) => reason)).toEqual(["loss is missing", "loss is infinite"]);
  });

  it.each([
    ["lines", '{"N": 1e8, "D": 1e9, "loss": 3.5}\n{"N": 1e8, "D": 2e9, "loss": NaN}\n'],
    ["a list", '[{"N": 1e8, "D": 1e9, "loss": 3.5}, {"N": 1e8, "D": 2e9, "loss":NaN}]'],
  ])("makes no point of its row in %s of JSON", async (_, text) => {
    const { points, dropped } = await read(text, "chinchilla", {}, "runs.json");
    expect([points.n, dropped.length]).toEqual([1, 1]);
  });

  it("does not excuse what is no JSON", async () => {
    await expect(read('{"N": NaN, "D": }', "chinchilla", {}, "runs.jsonl")).rejects.toThrow("this line is not JSON");
  });

  it("does not hide that a trainer's state has no loss", async () => {
    await expect(read(state(""), "chinchilla", {}, "trainer_state.json")).rejects.toThrow("this log holds no loss");
  });
});

it("columns that are called as numbers do not change the numbers of a formula", async () => {
  const { points } = await read("0,9,params,tokens,loss\n5,6,7,1.4,1.9\n5,6,0.07,0.02,2.9", "chinchilla", {
    N: "params*1e9",
    D: "tokens*10*1e11",
  });
  expect(points.columns).toEqual({ N: Float64Array.of(7e9, 0.07 * 1e9), D: Float64Array.of(1.4e12, 0.02 * 10 * 1e11) });
});

describe("tables", () => {
  it.each([
    ["suffixes", "N,D,loss\n7B,1.4T,1.9\n70M,20b,2.9"],
    [
      "groups of digits in quotes",
      'N,D,loss\n"7,000,000,000","1,400,000,000,000",1.9\n"70,000,000","20,000,000,000",2.9',
    ],
    ["decimal commas", "N;D;loss\n7000000000;1,4e12;1,9\n70.000.000;20.000.000.000;2,9"],
    ["a stated separator", "sep=;\nN;D;loss\n7B;1.4T;1.9\n70M;20B;2.9"],
    ["comments", '# exported, with a " quote\nN,D,loss\n# another\n7B,1.4T,1.9\n70M,20B,2.9\n# end'],
    ["a heading in a comment, as NumPy writes it", "# N,D,loss\n7e9,1.4e12,1.9\n7e7,2e10,2.9"],
    ["bars, as in Markdown", "| N | D | loss |\n|---|:--|---:|\n| 7B | 1.4T | 1.9 |\n| 70M | 20B | 2.9 |"],
    ["spaces alone", "  N   D loss\n7e9 1.4e12  1.9\n7e7   2e10 2.9 "],
    ["spaces alone and a heading in a comment, as NumPy writes it", "# N D loss\n7e9 1.4e12 1.9\n7e7 2e10 2.9"],
    ["carriage returns alone", "N,D,loss\r7B,1.4T,1.9\r70M,20B,2.9\r"],
    ["names in words with the law's units", "N (params),Tokens,Val Loss [nats]\n7B,1.4T,1.9\n70M,20B,2.9"],
    [
      "spaces that do not break",
      "N;D;loss\n7\u00a0000\u00a0000\u00a0000;1400\u00a0000\u00a0000\u00a0000;1.9\n70\u00a0000\u00a0000;2e10;2.9",
    ],
  ])("with %s are read", async (_, text) => {
    expect(await columnOf(text, "N")).toEqual([7e9, 7e7]);
    expect(await columnOf(text, "D")).toEqual([1.4e12, 2e10]);
    expect(await columnOf(text, "loss")).toEqual([1.9, 2.9]);
  });

  it.each([
    [
      "N,D,loss\n7Q,1T,1.9\n1B,1T,2",
      /:2: N is "7Q", which is no number \(1 of 2 rows are like it\); numbers can be written as 7B/,
    ],
    ["N,D,loss\n7B,1T,1,9", /:2: 4 cells, the heading has 3; the cells: 7B \| 1T \| 1 \| 9; if a number has commas/],
    [
      "N;D;loss\n7B;1T;1,95\n7B;1T;1.95",
      /a decimal point and a decimal comma: loss is "1.95" in row 2, loss is "1,95" in row 1/,
    ],
    ["N,D,val/ppl\n7B,1T,7", /no column for loss .*: --columns "loss=ln\(val\/ppl\)"/],
    ["N,D,loss (bits)\n7B,1T,3", /no column for loss .*columns of the file: N, D, loss \(bits\)/],
    ["7e9,1e12,2\n1e9,1e12,3", /:1: the first line has numbers in place of names: 7e9, 1e12, 2; write the names/],
    ["N,step,loss\n7B,100,2", /no column for D .*--columns D=step\*TOKENS/],
  ])("%j is refused with the cell and what to write", async (text, words) => {
    await expect(read(text)).rejects.toHaveProperty("line", expect.stringMatching(words));
  });

  it("leave single rows out by their cell", async () => {
    const rows = Array.from({ length: 9 }, (_, i) => `${i + 1}B,1T,${2 + i / 10}`);
    const { dropped } = await read(["N,D,loss", ...rows, "12Q,1T,2"].join("\n"));
    expect(dropped).toEqual([{ line: 11, reason: 'N is "12Q", which is no number' }]);
  });

  it("name unknown groups", async () => {
    const text = "group,N,D,D1,D2,loss\nDense,1B,1B,,,3\nsparse,1B,1B,,,3\nsparse,1B,2B,,,3";
    await expect(read(text, "upcycling-shared")).rejects.toHaveProperty(
      "line",
      expect.stringMatching(/unknown group "sparse" \(2 rows, first on line 3\); groups are dense, moe, upcycled/),
    );
  });

  it("take a column of runs whose points are checkpoints, and no other column of names", async () => {
    const runs = await read("run,N,D,loss\na,1B,1B,3\na,1B,2B,2.9\nb,2B,1B,2.8\nb,2B,2B,2.7");
    expect([runs.runs, runs.points.cluster]).toEqual(["run", ["a", "a", "b", "b"]]);
    const single = await read("run,N,D,loss\na,1B,1B,3\nb,1B,2B,2.9");
    const sets = await read("name,N,D,loss\nc4,1B,1B,3\nc4,2B,2B,2.9\npile,1B,1B,3\npile,2B,2B,2.9");
    expect([single.runs, sets.runs]).toEqual([null, null]);
  });

  it("of a chart exported from Weights & Biases have their runs in rows", async () => {
    const header =
      '"Step","a - eval/loss","a - eval/loss__MIN","a - eval/loss__MAX","b - eval/loss","b - eval/loss__MIN","b - eval/loss__MAX"';
    const text = `${header}\n"100","3.5","3.5","3.5","3.4","3.4","3.4"\n"200","3.2","3.2","3.2","","",""`;
    const { points } = await read(text, "chinchilla", { N: "1e9", D: "Step*1e6" });
    expect([[...(points.columns.D ?? [])], [...points.loss], points.cluster]).toEqual([
      [1e8, 2e8, 1e8],
      [3.5, 3.2, 3.4],
      ["a", "a", "b"],
    ]);
  });
});

describe("training logs", () => {
  const state = (losses: readonly number[]): string =>
    JSON.stringify(
      {
        total_flos: 6e18,
        log_history: [
          { step: 10, loss: 4.2, learning_rate: 1e-4 },
          ...losses.map((loss, i) => ({
            step: 100 * (i + 1),
            epoch: i + 1,
            eval_loss: loss,
            num_input_tokens_seen: 1e9 * (i + 1),
          })),
          { step: 200, train_loss: 3.3 },
        ],
      },
      null,
      2,
    );

  it("of Hugging Face's Trainer give a row for each evaluation", async () => {
    const { points } = await read(state([3.5, 3.2]), "chinchilla", { N: "1e9" }, "trainer_state.json");
    expect([[...(points.columns.D ?? [])], [...points.loss]]).toEqual([
      [1e9, 2e9],
      [3.5, 3.2],
    ]);
  });

  it("in a folder give the last evaluation of each run", async () => {
    const root = join(dir, "trainer");
    for (const [run, losses] of [
      ["a", [3.5, 3.2]],
      ["b", [3.4, 3.1]],
    ] as const)
      for (const step of [100, 200]) {
        const place = join(root, run, `checkpoint-${step}`);
        mkdirSync(place, { recursive: true });
        writeFileSync(join(place, "trainer_state.json"), state(losses.slice(0, step / 100)));
      }
    const { points } = await readPoints(root, law("chinchilla"), { mapping: new Map([["N", "1e9"]]) });
    expect([[...(points.columns.D ?? [])], [...points.loss], points.cluster]).toEqual([
      [2e9, 2e9],
      [3.2, 3.1],
      undefined,
    ]);
  });

  it("of Megatron-LM give tokens and parameters where they print them", async () => {
    const lines = [
      "  seq_length ...................................... 4096",
      " > number of parameters on (tensor, pipeline) model parallel rank (0, 0): 600000000",
      " > number of parameters on (tensor, pipeline) model parallel rank (1, 0): 600000000",
      " [2026-03-01 10:00:01] iteration      100/  500 | consumed samples:        25600 | elapsed time per iteration (ms): 812.3 | learning rate: 1.5E-05 | global batch size:   256 | lm loss: 7.432110E+00 | loss scale: 1.0 | grad norm: 2.112 |",
      " [2026-03-01 10:02:01] iteration      200/  500 | consumed samples:        51200 | elapsed time per iteration (ms): 810.3 | learning rate: 3.0E-05 | global batch size:   256 | lm loss: 6.432110E+00 | loss scale: 1.0 | grad norm: 1.112 |",
    ];
    const { points } = await read(lines.join("\n"), "chinchilla", {}, "megatron.log");
    expect([[...(points.columns.N ?? [])], [...(points.columns.D ?? [])], [...points.loss]]).toEqual([
      [1.2e9, 1.2e9],
      [25600 * 4096, 51200 * 4096],
      [7.43211, 6.43211],
    ]);
    await expect(read(lines.slice(3).join("\n"), "chinchilla", {}, "megatron.log")).rejects.toHaveProperty(
      "line",
      expect.stringMatching(/no column for N .*N=COLUMN or N=1.3e9/),
    );
  });
});
