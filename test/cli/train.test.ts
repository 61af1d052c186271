/**
 * `upcycle train` as a user meets it: runs, resumption, signals and refusals. The file is long because its cases share
 * a small trained run.
 */
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { writeCheckpoint } from "../../src/files/checkpoint/write.js";
import { specFromConfig } from "../../src/model/decoder/config.js";
import { freshTensor } from "../../src/train/init.js";
import { readMetrics } from "../../src/train/records.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { writeText, writeTrainFile } from "./tiny.js";
import { copyModel, start, upcycle, upcycleJson, type Running } from "./upcycle.js";

const dir = temporaryFolder();
writeText(dir);
const run = join(dir, "run");
const last = join(run, "last");

/** All that a run measured, without times. */
async function measured(folder: string): Promise<unknown> {
  const { steps, evals } = await readMetrics(folder);
  return { steps: steps.map((step) => ({ ...step, ms: 0 })), evals };
}

describe("train, then use what was trained", () => {
  beforeAll(async () => {
    const { code, stdout, stderr } = await upcycle("train", writeTrainFile(dir, "train.yaml"));
    expect(code, stderr).toBe(0);
    expect(stderr).toContain("train  step 20/20  held-out loss");
    expect(stdout.trimEnd().split("\n").at(-1)).toBe(`model: ${last}`);
  });

  it("gives the result of a finished run again, as JSON too", async () => {
    const summary = await upcycleJson("train", join(dir, "train.yaml"));
    expect(Object.keys(summary)).toEqual([
      "alreadyFinished",
      "model",
      "best",
      "steps",
      "ended",
      "tokens",
      "finalLoss",
      "bestLoss",
      "evals",
      "tokensPerSecond",
      "mfu",
      "peakRssBytes",
    ]);
    expect(summary).toMatchObject({
      alreadyFinished: true,
      model: last,
      best: join(run, "best"),
      steps: 20,
      tokens: 640,
    });
    expect((summary.evals as { step: number }[]).map(({ step }) => step)).toEqual([0, 10, 20]);
    expect(readdirSync(last)).toEqual(
      expect.arrayContaining(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]),
    );
  });

  it("says that a finished run is finished, and where its result lies", async () => {
    const { stdout } = await upcycle("train", join(dir, "train.yaml"));
    expect(stdout.split("\n")[0]).toBe("already finished, nothing was trained");
    expect(stdout).toMatch(/\n20 steps took [^\n]*\n.*\nmodel: [^\n]*last\n$/);
  });

  it("refuses to go on from a parent that was changed in place, not from a copy of it", async () => {
    const parent = copyModel(last, join(dir, "parent"));
    const file = writeTrainFile(dir, "child.yaml", {
      model: parent,
      tokenizer: undefined,
      out: join(dir, "child"),
      training: { steps: 2 },
    });
    expect(await upcycleJson("train", file)).toMatchObject({ alreadyFinished: false });
    const weights = join(parent, "model.safetensors");
    const bytes = readFileSync(weights);
    rmSync(parent, { recursive: true });
    copyModel(last, parent);
    utimesSync(weights, 1, 1);
    expect(await upcycleJson("train", file)).toMatchObject({ alreadyFinished: true });
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(weights, bytes);
    const { code, stderr } = await upcycle("train", file, "--json");
    expect([code, stderr.split("\n").length]).toEqual([2, 2]);
    expect(
      stderr.startsWith(`upcycle: ${weights}: changed since this run began: the file had ${bytes.length} bytes, `),
      stderr,
    ).toBe(true);
  });

  it("goes on with a model folder, in another run folder", async () => {
    const file = writeTrainFile(dir, "further.yaml", {
      model: last,
      tokenizer: undefined,
      out: join(dir, "unused"),
      training: { steps: 5 },
    });
    const { evals, model } = await upcycleJson("train", file, "--out", join(dir, "further"));
    expect(model).toBe(join(dir, "further", "last"));
    const before = await upcycleJson("train", join(dir, "train.yaml"));
    expect((evals as { loss: number }[])[0]?.loss).toBe(before.finalLoss);
    expect(existsSync(join(dir, "unused"))).toBe(false);
  });

  it("trains on a data mix, whose held-out loss is the weighted mean of its parts'", async () => {
    const mix = [
      { path: join(dir, "text.txt"), weight: 3 },
      { builtin: "moby-dick", weight: 1 },
    ];
    const file = writeTrainFile(dir, "mix.yaml", {
      model: last,
      tokenizer: undefined,
      out: join(dir, "mixed"),
      text: { mix },
      training: { steps: 4 },
    });
    const { code, stderr } = await upcycle("train", file);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(
      /\n {2}part +share +training tokens +held out +epochs\n {2}-.*\n {2}text.txt +75 % .*\n {2}moby-dick +25 % /,
    );
    const { evals } = await upcycleJson("train", file);
    const end = (evals as { loss: number; parts: Record<string, number> }[]).at(-1);
    const part = (name: string): number => end?.parts[name] ?? NaN;
    expect(end?.loss).toBeCloseTo(0.75 * part("text.txt") + 0.25 * part("moby-dick"), 12);
  });

  it("refuses a folder that holds another run", async () => {
    const file = writeTrainFile(dir, "other.yaml", { training: { steps: 30 } });
    const { code, stderr } = await upcycle("train", file, "--json");
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(
        /^upcycle: .*run\.json: training\.steps was 20 and is 30; of the 20 steps that are done, step 2 would have had another learning rate .*\n$/,
      ),
    ]);
  });

  it("measures an upcycled model on text and generates from it", async () => {
    const moe = join(dir, "moe");
    await upcycleJson("convert", last, "--recipe", "E2G2T2", "--out", moe);
    const report = await upcycleJson(
      "verify",
      last,
      moe,
      "--text",
      join(dir, "text.txt"),
      "--tokens",
      "128",
      "--threads",
      "1",
    );
    expect(report).toMatchObject({ tokens: 128, source: "text.txt" });
    expect(report.relative).toBeLessThanOrEqual(1e-5);
    expect(await upcycleJson("verify", last, moe, "--tokens", "64", "--threads", "1")).toMatchObject({
      source: "State of the Union addresses",
    });

    const options = [
      "generate",
      moe,
      "--prompt",
      "the whale 🐋",
      "--max-new-tokens",
      "24",
      "--seed",
      "5",
      "--threads",
      "1",
    ];
    const json = await upcycleJson(...options);
    expect(Object.keys(json)).toEqual(["prompt", "text", "tokens", "tokensPerSecond", "promptTokensPerSecond"]);
    const plain = await upcycle(...options);
    expect(plain).toMatchObject({ code: 0, stdout: `the whale 🐋${json.text as string}\n` });
    expect((await upcycle("generate", moe, "--prompt", "", "--json")).stderr).toBe(
      "upcycle: the prompt has no tokens; give some text to go on from\n",
    );

    // The same text again, token by token, with what else there is to say.
    const streamed = await upcycle(...options, "--json", "--stream", "--alternatives", "3", "--experts");
    const lines = streamed.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const [prompt, ...rest] = lines;
    expect(prompt).toMatchObject({ type: "prompt", row: 0, layers: [{ layer: 0, experts: 4, topK: 2 }] });
    const read = prompt!["tokens"] as { text: string }[];
    expect(read.map(({ text }) => text).join("")).toBe("the whale 🐋");
    const tokens = rest.filter(({ type }) => type === "token");
    // What is left is the beginning of a character that never came.
    const shown = tokens.map(({ text }) => text).join("");
    expect((json.text as string).startsWith(shown)).toBe(true);
    expect((json.text as string).slice(shown.length)).toMatch(/^\uFFFD*$/);
    expect(tokens.map(({ place }) => place)).toEqual(tokens.map((_, i) => read.length + i));
    for (const { logProbability, alternatives } of tokens) {
      const others = alternatives as { logProbability: number }[];
      expect(others).toHaveLength(3);
      expect(logProbability).toBeLessThanOrEqual(others[0]!.logProbability);
    }
    const experts = rest.filter(({ type }) => type === "experts");
    expect(experts.map(({ place }) => place)).toEqual([...Array(read.length + tokens.length).keys()]);
    expect(rest.at(-1)).toMatchObject({ type: "done", text: json.text, tokens: tokens.length });
    expect((await upcycle(...options, "--experts")).stderr).toBe(
      "upcycle: --experts: goes with --json; add --json, or leave it out\n",
    );
  });

  it("learns no tokenizer over somebody else's", async () => {
    const theirs = join(dir, "theirs");
    mkdirSync(join(theirs, "tokenizer"), { recursive: true });
    writeFileSync(join(theirs, "tokenizer", "tokenizer.json"), "mine");
    const line =
      `upcycle: ${join(theirs, "tokenizer", "tokenizer.json")}: there is another tokenizer than this training ` +
      "learns; choose another run folder, or move the tokenizer away\n";
    const { code, stderr } = await upcycle("train", join(dir, "train.yaml"), "--out", theirs);
    expect([code, stderr.slice(-line.length)]).toEqual([2, line]);
    expect(readdirSync(theirs, { recursive: true }).sort()).toEqual(["tokenizer", join("tokenizer", "tokenizer.json")]);
    expect(readFileSync(join(theirs, "tokenizer", "tokenizer.json"), "utf8")).toBe("mine");
  });

  it("trains an upcycled model further, which has a card and can still be merged", async () => {
    const moe = join(dir, "moe");
    const file = writeTrainFile(dir, "moe.yaml", {
      model: moe,
      tokenizer: undefined,
      out: join(dir, "moe-run"),
      training: { steps: 2 },
    });
    const { model, best } = await upcycleJson("train", file);
    const { evals } = await readMetrics(join(dir, "moe-run"));
    for (const { coactivation, load } of evals) {
      const [pairs = []] = coactivation ?? [];
      expect(pairs).toHaveLength(6);
      // With two experts per token the shares of all pairs come to 1, and those of an expert to twice its load.
      expect(pairs.reduce((sum, [, , share]) => sum + share, 0)).toBeCloseTo(1, 3);
      for (const [expert, share] of load[0]!.entries())
        expect(pairs.reduce((sum, [a, b, both]) => sum + (a === expert || b === expert ? both : 0), 0)).toBeCloseTo(
          2 * share,
          3,
        );
    }
    for (const folder of [model, best] as string[]) {
      const card = readFileSync(join(folder, "README.md"), "utf8");
      expect(card).toContain("# last E2G2T2, trained further\n");
      expect(card).toContain("| recipe | E2G2T2, of a llama model |");
      expect(await upcycleJson("merge", folder, "--dry-run")).toMatchObject({
        record: true,
        how: expect.stringContaining("2 experts, each put together from 2 parts") as string,
      });
    }
  });

  it("generates from several prompts at once", async () => {
    writeFileSync(join(dir, "prompts.txt"), "the whale\nship and sea and wind\n\n");
    const options = ["generate", last, "--max-new-tokens", "6", "--temperature", "0", "--threads", "1"];
    const several = await upcycleJson(...options, "--prompts", join(dir, "prompts.txt"));
    const texts = several.texts as { prompt: string; text: string; tokens: number }[];
    expect(texts.map(({ prompt }) => prompt)).toEqual(["the whale", "ship and sea and wind"]);
    for (const { prompt, text } of texts) expect((await upcycleJson(...options, "--prompt", prompt)).text).toBe(text);
    const prompts = texts.flatMap(({ prompt }) => ["--prompt", prompt]);
    const { stdout } = await upcycle(...options, ...prompts);
    expect(stdout).toBe(texts.map(({ prompt, text }) => `${prompt}${text}\n\n`).join(""));
    expect((await upcycle("generate", last)).stderr).toBe(
      "upcycle: --prompt: no prompt is given; give --prompt TEXT, --prompt-file FILE (- for standard input), " +
        "or --prompts FILE with one per line\n",
    );
    expect((await upcycle("generate", last, "--prompt", "a", "--prompts", "b")).stderr).toBe(
      "upcycle: --prompt, --prompts: prompts are given twice; leave all but one of them out\n",
    );
  });

  it("takes prompts and text from standard input", async () => {
    const generating = ["generate", last, "--max-new-tokens", "4", "--temperature", "0", "--threads", "1", "--json"];
    const whole = await start([...generating, "--prompt-file", "-"], undefined, { input: "the whale\nand the sea\n" })
      .outcome;
    expect((JSON.parse(whole.stdout) as { prompt: string }).prompt).toBe("the whale\nand the sea");
    const lines = await start([...generating, "--prompts", "-"], undefined, {
      input: "the whale\r\n\r\nand the sea\r\n",
    }).outcome;
    expect((JSON.parse(lines.stdout) as { texts: { prompt: string }[] }).texts.map(({ prompt }) => prompt)).toEqual([
      "the whale",
      "and the sea",
    ]);
    for (const name of ["--prompt-file", "--prompts"]) {
      expect((await start([...generating, name, "-"], undefined, { input: "" }).outcome).stderr).toMatch(
        /^upcycle: standard input: .*prompt.*\n$/,
      );
    }
    const measuring = (file: string): Promise<string> =>
      start(["perplexity", last, file, "--sequence", "16", "--threads", "1"], undefined, {
        input: readFileSync(join(dir, "text.txt"), "utf8"),
      }).outcome.then(({ stdout }) => stdout);
    expect(await measuring("-")).toBe(await measuring(join(dir, "text.txt")));
  });

  it("measures perplexity on text of several windows", async () => {
    const result = await upcycleJson(
      "perplexity",
      last,
      join(dir, "text.txt"),
      "--sequence",
      "16",
      "--stride",
      "8",
      "--threads",
      "1",
    );
    expect(Object.keys(result)).toEqual([
      "perplexity",
      "loss",
      "bitsPerByte",
      "tokens",
      "sequence",
      "stride",
      "tokensPerSecond",
    ]);
    expect(result.perplexity).toBeCloseTo(Math.exp(result.loss as number), 9);
    expect(result.bitsPerByte).toBeCloseTo(
      ((result.loss as number) * (result.tokens as number)) / Math.LN2 / readFileSync(join(dir, "text.txt")).length,
      9,
    );
    const { code, stdout } = await upcycle(
      "perplexity",
      last,
      join(dir, "text.txt"),
      "--sequence",
      "16",
      "--stride",
      "8",
      "--threads",
      "1",
    );
    expect([code, stdout]).toEqual([
      0,
      `perplexity ${(result.perplexity as number).toPrecision(6)}, loss ${(result.loss as number).toFixed(4)} ` +
        `nats per token, ${(result.bitsPerByte as number).toFixed(4)} bits per byte\n`,
    ]);
    expect((await upcycle("perplexity", last, join(dir, "text.txt"), "--sequence", "65")).stderr).toMatch(
      /: a window of 65 tokens, expected 2 to the model's 64 positions\n$/,
    );
  });
});

describe("a train file that cannot be run is one line and exit 2", () => {
  it.each<[string, Parameters<typeof writeTrainFile>[2], string]>([
    [
      "unknown key",
      { sede: 1 },
      'FILE:33 (sede): unknown key "sede"; did you mean "seed"? valid keys: out, seed, threads, model, ' +
        "tokenizer, text, training, evaluation",
    ],
    ["too little text", { training: { batch: 2000 } }, "text: too little text: "],
    [
      "folder under a file",
      { out: join(dir, "text.txt", "run") },
      `${join(dir, "text.txt", "run", "run.json")}: cannot look up path: a part of this path is a file, ` +
        "expected a folder",
    ],
    [
      "missing text",
      { text: { files: [join(dir, "none.txt")] } },
      `${join(dir, "none.txt")}: cannot read text: no such file or folder`,
    ],
    ["long sequence", { training: { sequence: 65 } }, "FILE:"],
  ])("named in the line: %s", async (name, changes, line) => {
    const file = writeTrainFile(dir, "bad.yaml", { out: join(dir, "bad", name), ...changes });
    const { code, stdout, stderr } = await upcycle("train", file, "--json");
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr.split("\n")).toHaveLength(2);
    expect(stderr.startsWith(`upcycle: ${line.replace("FILE", file)}`), stderr).toBe(true);
  });

  it("says of a train file that is not there that it is not", async () => {
    expect(await upcycle("train", join(dir, "none.yaml"))).toEqual({
      code: 2,
      stdout: "",
      stderr: `upcycle: ${join(dir, "none.yaml")}: cannot open file: no such file or folder\n`,
    });
  });
});

describe("a run that has to stop", () => {
  it("keeps the last good checkpoint when numbers explode, and exits with 1", async () => {
    // 1 - lr * decay is -99: weights leave float32 within some twenty steps.
    const training = {
      steps: 60,
      saveEvery: 2,
      lr: { peak: 10, schedule: "constant" },
      optimizer: { weightDecay: 10 },
    };
    const folder = join(dir, "exploding");
    const { code, stdout, stderr } = await upcycle(
      "train",
      writeTrainFile(dir, "exploding.yaml", { out: folder, training }),
      "--json",
    );
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(/^upcycle: [^\n]*the last good checkpoint \(step \d+\) is kept[^\n]*\n$/);
    expect((await upcycleJson("inspect", join(folder, "last"))).dir).toBe(join(folder, "last"));
  });

  // Windows cannot send the signal of Ctrl-C to a child process.
  it.skipIf(process.platform === "win32")(
    "goes on after kill -9, Ctrl-C, SIGHUP and SIGTERM as if nothing had happened",
    async () => {
      const training = { steps: 600, saveEvery: 20, evalEvery: 150 };
      const file = writeTrainFile(dir, "long.yaml", { out: join(dir, "whole"), training });
      const whole = upcycle("train", file, "--json");
      expect(await whole).toMatchObject({ code: 0, stderr: "" });

      const folder = join(dir, "stopped");
      const first = start(["train", file, "--out", folder]);
      await first.saw("step 150/600  held-out");
      first.process.kill("SIGKILL");
      expect((await first.outcome).code).toBeNull();

      let before = 0;
      for (const [name, expected] of [
        ["SIGINT", 130],
        ["SIGHUP", 129],
        ["SIGTERM", 143],
      ] as const) {
        const next = start(["train", file, "--out", folder]);
        await next.saw("/600  ETA");
        next.process.kill(name);
        const { code, stdout, stderr } = await next.outcome;
        expect([code, stdout], name).toEqual([expected, ""]);
        // The step in hand may end with a line of progress.
        const [, after = ""] = stderr.split(
          "\nstopping: finishing the step in hand and saving (once more to stop at once)\n",
        );
        const lines = after.trimEnd().split("\n");
        expect(lines.pop(), stderr).toMatch(
          /^upcycle: .*stopped: stopped after step \d+ of 600; run the same command again to go on$/,
        );
        for (const line of lines) expect(line).toMatch(/^train {2}step \d+\/600 /);
        const { step } = JSON.parse(readFileSync(join(folder, "last", "training.json"), "utf8")) as { step: number };
        expect(step).toBeGreaterThan(before);
        before = step;
      }

      const { model, steps } = await upcycleJson("train", file, "--out", folder);
      expect(steps).toBe(600);
      expect(await measured(folder)).toEqual(await measured(join(dir, "whole")));
      expect(readFileSync(join(model as string, "model.safetensors"))).toEqual(
        readFileSync(join(dir, "whole", "last", "model.safetensors")),
      );
    },
  );

  it.skipIf(process.platform === "win32")(
    "leaves no folder of an interrupted conversion, only what the same command goes on from",
    async () => {
      const out = join(dir, "interrupted", "moe");
      mkdirSync(join(dir, "interrupted"));
      writeFileSync(join(dir, "interrupted", "other"), "");
      const running = start(["convert", last, "--recipe", "E2000G1T2", "--out", out]);
      await running.saw("converting");
      running.process.kill("SIGINT");
      const { code, stdout, stderr } = await running.outcome;
      expect([code, stdout]).toEqual([130, ""]);
      expect(stderr.trimEnd().split("\n").at(-1)).toMatch(
        /stopped with [\d.]+ % written; the same command goes on from there$/,
      );
      expect(stderr).toContain(`upcycle: ${out}: stopped`);
      expect(readdirSync(join(dir, "interrupted"))).toEqual([".moe.progress.json", ".moe.unfinished", "other"]);
      expect(JSON.parse(readFileSync(join(dir, "interrupted", ".moe.progress.json"), "utf8"))).toMatchObject({
        command: { words: ["upcycle", "convert", last, "--recipe", "E2000G1T2", "--out", out] },
        name: "E2000G1T2",
        phase: "writing",
        ended: expect.stringMatching(/stopped with [\d.]+ % written; the same command goes on from there$/),
      });
    },
  );

  describe.skipIf(process.platform === "win32")("while the engine computes", () => {
    const large = join(dir, "large");
    const generating = (): Running =>
      start(["generate", large, "--prompt", "the sea", "--max-new-tokens", "100000", "--threads", "1"]);
    // Each token takes some time, so that something is under way at any moment.
    beforeAll(async () => {
      const config = JSON.parse(readFileSync(join(last, "config.json"), "utf8")) as Record<string, unknown>;
      const sizes = {
        hidden_size: 512,
        head_dim: 256,
        intermediate_size: 2048,
        num_hidden_layers: 6,
        max_position_embeddings: 100_000,
        eos_token_id: null,
      };
      const spec = specFromConfig({ ...config, ...sizes }, "config.json");
      await writeCheckpoint({
        dir: large,
        spec,
        dtype: "F32",
        weights: (slot) => Promise.resolve(freshTensor(spec, slot, 0)),
        carry: last,
      });
    });

    it("ends at once when asked twice", async () => {
      const { process: child, outcome, saw } = generating();
      await saw("the sea");
      child.kill("SIGINT");
      child.kill("SIGTERM");
      const { code, stderr } = await outcome;
      expect([code, stderr]).toEqual([null, ""]);
      expect(["SIGINT", "SIGTERM"]).toContain(child.signalCode);
    });

    it("ends quietly when the reader of its output has gone", async () => {
      const { process: child, outcome } = generating();
      child.stdout?.once("data", () => child.stdout?.destroy());
      const { code, stderr } = await outcome;
      expect([code, stderr]).toEqual([0, ""]);
    });
  });

  it.skipIf(process.platform === "win32")("ends the line of a text that is interrupted", async () => {
    const running = start(["generate", last, "--prompt", "the sea", "--max-new-tokens", "100000", "--threads", "1"]);
    await running.saw("the sea");
    // The handler is there before the prompt is shown.
    running.process.kill("SIGINT");
    const { code, stdout, stderr } = await running.outcome;
    expect(code).toBe(130);
    expect(stdout.endsWith("\n")).toBe(true);
    expect(stderr).toMatch(/^upcycle: stopped after \d+ tokens\n$/);
  });
});
