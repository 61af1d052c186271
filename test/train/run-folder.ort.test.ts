/** The folder of a training run: whose it is, what it was made from, and what is damaged in it. */
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { readMetrics } from "../../src/train/records.js";
import { block, denseSpec, failure, finish, remains, runOptions, stopAfter } from "../support/runs.js";
import { referenceRun } from "./reference-run.js";

const { root, whole, fresh, expected } = referenceRun();

describe("a folder without run.json", () => {
  it("is refused when it holds something by a name that a run gives, and stays as it is", async () => {
    for (const name of ["last", "best", "average", "metrics.jsonl"]) {
      const dir = fresh();
      mkdirSync(join(dir, name), { recursive: true });
      writeFileSync(join(dir, name, "thesis.txt"), "mine");
      const { line, exitCode } = await failure(finish(runOptions(dir)));
      expect([line, exitCode]).toEqual([
        `${dir}: the folder has no run.json of a run, but holds ${name}, which would be replaced or taken for ` +
          "this one's; choose another folder, or move that away first",
        2,
      ]);
      expect(readdirSync(dir, { recursive: true }).sort()).toEqual([name, join(name, "thesis.txt")]);
    }
  });
});

describe("the sources of a run", () => {
  const sources = { "models/a/model.safetensors": "10 bytes, aa", "notes.txt": "3 bytes, bb" };

  it.each([
    [
      { ...sources, "models/a/model.safetensors": "10 bytes, cc" },
      "models/a/model.safetensors: changed since this run began: the file had 10 bytes, aa, and has 10 bytes, cc; ",
    ],
    [
      { "notes.txt": "4 bytes, bb" },
      "models/a/model.safetensors: changed since this run began: the file is gone (and 1 more file); ",
    ],
    [{ ...sources, "more.txt": "4 bytes, bb" }, "more.txt: changed since this run began: the file is new; "],
  ])("are refused when a file has changed in place, is gone or is new (%j)", async (now, line) => {
    const dir = fresh();
    await finish(runOptions(dir, { sources, block: { ...block, steps: 2 } }));
    const error = await failure(finish(runOptions(dir, { sources: now, block: { ...block, steps: 2 } })));
    expect(error.line).toBe(`${line}put it back to go on, or begin a run of its own in another folder`);
    expect(error.exitCode).toBe(2);
  });

  it("are refused when the text gives other tokens", async () => {
    const { heldOut, train } = runOptions("").text;
    for (const changed of [
      { train: train.with(700, 1 + at(train, 700)), heldOut },
      { train, heldOut: heldOut.with(3, 1 + at(heldOut, 3)) },
    ]) {
      expect((await failure(finish(runOptions(whole, { text: changed })))).line).toMatch(
        /^text: the text gives other tokens than when this run began; has the tokenizer changed/,
      );
    }
  });

  it("are recorded when a run resumes that an earlier version began without them", async () => {
    const dir = fresh();
    await stopAfter(runOptions(dir), 6);
    const path = join(dir, "run.json");
    const record = JSON.parse(readFileSync(path, "utf8")) as { training: object };
    writeFileSync(
      path,
      JSON.stringify({ ...record, sources: undefined, training: { ...record.training, budget: { tokens: 768 } } }),
    );
    await finish(runOptions(dir, { sources }));
    expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({ sources });
    expect((await remains(dir)).metrics).toEqual(expected().metrics);
  });
});

it("goes on with the balance loss of earlier versions only where the file says balance: model", async () => {
  const dir = fresh();
  const pooled = { block: { ...block, routing: { balance: "model" as const } } };
  await stopAfter(runOptions(dir, pooled), 6);
  const path = join(dir, "run.json");
  const record = JSON.parse(readFileSync(path, "utf8")) as { readonly training: object };
  writeFileSync(path, JSON.stringify({ ...record, training: { ...record.training, routing: undefined } }));
  expect((await failure(finish(runOptions(dir)))).message).toBe(
    'this folder holds another run: training.routing.balance was "model" and is "layer"',
  );
  await finish(runOptions(dir, pooled));
  expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({ training: { routing: { balance: "model" } } });
});

describe("the folder of a run", () => {
  it.each([
    ["seed was 4 and is 5", { seed: 5 }],
    [
      "training.batch was 2 and is 4, training.evalEvery was 4 and is 6",
      { block: { ...block, batch: 4, evalEvery: 6 } },
    ],
    ['spec.family was "mixtral" and is "llama", spec.layers was ', { spec: denseSpec }],
    ["evaluation.tokens was 100 and is 99", { evaluationTokens: 99 }],
    ["threads was 1 and is 2", { threads: 2 }],
    ['model was "tiny" and is "other"', { identity: { model: "other" } }],
    ['parent is new ("new")', { identity: { model: "tiny", parent: "new" } }],
    [
      'training.guard is new ({"window":8,"deviations":6,"patience":3})',
      { block: { ...block, guard: { window: 8, deviations: 6, patience: 3 } } },
    ],
  ])("is refused to another run, naming what differs: %s", async (what, changes) => {
    const error = await failure(finish(runOptions(whole, changes)));
    expect(
      error.line.replace(root, "ROOT").startsWith(`ROOT/whole/run.json: this folder holds another run: ${what}`),
      error.line,
    ).toBe(true);
    expect(error.hint).toBe("put it back to go on, choose another folder, or remove this one to start again");
    expect(error.exitCode).toBe(2);
    expect(await remains(whole)).toEqual(expected());
  });

  it("is bad input when it cannot be made", async () => {
    writeFileSync(join(root, "file"), "");
    expect((await failure(finish(runOptions(join(root, "file", "run"))))).kind).toBe("input");
  });

  it("resumes when its log ends in half a line or in zeros", async () => {
    for (const torn of ['{"type":"step","step":7,"to', '{"type":"step"', "\u0000\u0000\u0000\n"]) {
      const dir = fresh();
      await stopAfter(runOptions(dir), 6);
      appendFileSync(join(dir, "metrics.jsonl"), torn);
      await finish(runOptions(dir));
      expect(await remains(dir)).toEqual(expected());
    }
  });

  it("is refused when its last checkpoint is damaged, naming the file", async () => {
    const dir = fresh();
    await stopAfter(runOptions(dir), 6);
    const path = join(dir, "last/optimizer.safetensors");
    writeFileSync(path, readFileSync(path).subarray(0, 5000));
    const error = await failure(finish(runOptions(dir)));
    expect(error.kind).toBe("input");
    expect(error.line).toContain("optimizer.safetensors");
    writeFileSync(join(dir, "last/training.json"), "{}");
    expect((await failure(finish(runOptions(dir)))).message).toBe("this is not the progress of a run");
  });

  it("gets the old checkpoint back when the power went while it was replaced", async () => {
    const dir = fresh();
    await stopAfter(runOptions(dir), 6);
    renameSync(join(dir, "last"), join(dir, ".last.previous"));
    const opened: number[] = [];
    await finish(runOptions(dir), (event) => void (event.type === "open" && opened.push(event.step)));
    expect(opened).toEqual([6]);
    expect(await remains(dir)).toEqual(expected());
    expect(existsSync(join(dir, ".last.previous"))).toBe(false);
  });

  it("starts again when its checkpoints are gone, and counts each step once", async () => {
    const dir = fresh();
    await stopAfter(runOptions(dir), 6);
    rmSync(join(dir, "last"), { recursive: true });
    await finish(runOptions(dir));
    expect(await remains(dir)).toEqual(expected());
    expect((await readMetrics(dir)).steps.length).toBe(12);
  });

  it("holds float32 weights that anyone can open", async () => {
    const checkpoint = await openCheckpoint(join(whole, "last"));
    expect(checkpoint.unused).toEqual([]);
    expect(checkpoint.dtype).toBe("F32");
    await checkpoint.close();
  });
});
