import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { temporaryFolder } from "../files/io/temporary.js";
import { writeQuiz, type QuizDocument } from "../support/quiz.js";
import { copyModel, start, upcycle, upcycleJson } from "./upcycle.js";

const root = temporaryFolder();
const tiny = fileURLToPath(new URL("../../models/tiny", import.meta.url));
const taskFile = join(root, "quiz.yaml");
const words = ["whale", "ship", "sea", "captain", "harpoon", "wind", "boat", "deck"];

beforeAll(() => {
  const docs = Array.from({ length: 60 }, (_, i) => ({
    question: `Which ${words[i % 8]!} of the ${words[(i * 3) % 8]!} is it, number ${i}?`,
    choices: [0, 1, 2].map((k) => `the ${words[(i + k) % 8]!} ${words[(i * k + 1) % 8]!}`),
    answer: i % 3,
  }));
  writeQuiz(root, docs);
});

interface Results {
  readonly models: readonly {
    readonly results: { readonly quiz: Readonly<Record<string, number>> };
    readonly knownSamples: number;
    readonly files: { readonly results: string; readonly samples: readonly string[] };
  }[];
  readonly differences: readonly {
    readonly tasks: readonly { readonly differences: readonly { readonly better: number; readonly worse: number }[] }[];
  }[];
}

/** A line of the samples. */
interface SampleLine {
  readonly doc: QuizDocument;
  readonly target: string;
  readonly arguments: Readonly<Record<string, { readonly arg_0: string; readonly arg_1: string }>>;
  readonly resps: readonly unknown[];
  readonly doc_hash: string;
  readonly prompt_hash: string;
  readonly target_hash: string;
  readonly acc: number;
}

const evaluate = async (out: string, ...args: readonly string[]): Promise<Results> =>
  (await upcycleJson(
    "eval",
    ...args,
    "--tasks",
    taskFile,
    "--out",
    join(root, out),
    "--threads",
    "1",
  )) as unknown as Results;

/** Samples as they were written, whenever that was. */
const samplesOf = ({ models: [model] }: Results): string => readFileSync(model!.files.samples[0]!, "utf8");

describe("upcycle eval", () => {
  it("refuses a task, model, document or setting that is not there, before a model is opened", async () => {
    const refusals: readonly (readonly [readonly string[], RegExp])[] = [
      [["--tasks", "arc_easy"], /no model is named/],
      [[tiny], /no task is named/],
      [[tiny, "--tasks", "arc_eazy"], /no task, group or tag "arc_eazy"; did you mean "arc_easy"\?/],
      [[join(root, "missing"), "--tasks", taskFile], /missing/],
      [[tiny, "--tasks", "arc_easy", "--data", join(root, "nowhere")], /nowhere: no such folder/],
      [[tiny, "--tasks", taskFile, "--num-fewshot", "100"], /100 examples are asked for, and there are 60/],
      [["http://localhost:1/v1", "--tasks", taskFile], /--tokenizer: a server is asked with token ids/],
    ];
    for (const [args, message] of refusals) {
      const { code, stderr } = await upcycle("eval", ...args, "--out", join(root, "refused"));
      expect(stderr).toMatch(message);
      expect(code).toBe(2);
    }
    expect(existsSync(join(root, "refused"))).toBe(false);
  });

  it("sets two models side by side, and answers again from the log", async () => {
    const copy = copyModel(tiny, join(root, "copy"));
    const first = await evaluate("two", tiny, copy, "--num-fewshot", "2", "--limit", "12");
    expect(first.models.map(({ knownSamples }) => knownSamples)).toEqual([0, 0]);
    expect(first.models[0]!.results).toEqual(first.models[1]!.results);
    expect(first.differences[0]!.tasks[0]!.differences[0]).toMatchObject({ better: 0, worse: 0 });
    const html = join(root, "page.html");
    const again = await evaluate("two", tiny, copy, "--num-fewshot", "2", "--limit", "12", "--html", html);
    expect(again.models.map(({ knownSamples }) => knownSamples)).toEqual([12, 12]);
    expect(again.models[0]!.results).toEqual(first.models[0]!.results);
    expect(samplesOf(again)).toBe(samplesOf(first));
    expect(readFileSync(html, "utf8")).toContain("<title>tiny, copy · evaluation</title>");
    const record = JSON.parse(readFileSync(first.models[0]!.files.results, "utf8")) as Record<string, unknown>;
    expect(record).toMatchObject({ "n-shot": { quiz: 2 }, "n-samples": { quiz: { original: 60, effective: 12 } } });
  });

  it("writes results and samples in the harness's layouts, with its hashes", async () => {
    const evaluated = await evaluate("layout", tiny, "--limit", "4");
    const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");
    const samples = samplesOf(evaluated)
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as SampleLine);
    expect(samples).toHaveLength(4);
    const hashes = samples.map(({ doc, target, doc_hash, prompt_hash, target_hash, ...sample }) => {
      const { question, choices, answer } = doc;
      expect(Object.values(sample.arguments)).toEqual(
        choices.map((choice) => ({ arg_0: question, arg_1: ` ${choice}` })),
      );
      expect(target).toBe(String(answer));
      expect(doc_hash).toBe(sha256(JSON.stringify(doc, null, 2)));
      expect(prompt_hash).toBe(sha256(question));
      expect(target_hash).toBe(sha256(String(answer)));
      expect(sample.resps).toHaveLength(choices.length);
      expect(sample).toMatchObject({ filter: "none", metrics: ["acc", "acc_norm"] });
      return doc_hash + prompt_hash + target_hash;
    });
    const { results, files } = evaluated.models[0]!;
    const record = JSON.parse(readFileSync(files.results, "utf8")) as Record<string, unknown>;
    const right = samples.reduce((sum, { acc }) => sum + acc, 0);
    expect(record).toMatchObject({
      results: { quiz: { name: "quiz", alias: "quiz", sample_len: 4, "acc,none": right / 4 } },
      higher_is_better: { quiz: { acc: true, acc_norm: true } },
      config: { limit: 4, fewshot_seed: 1234, bootstrap_iters: 100_000 },
      task_hashes: { quiz: sha256(hashes.join("")) },
    });
    expect(results.quiz["acc,none"]).toBe(right / 4);
  });

  it("killed while it works, again and again, ends with the samples of a run left alone", async () => {
    const whole = await evaluate("whole", tiny);
    const args = ["eval", tiny, "--tasks", taskFile, "--out", join(root, "killed"), "--threads", "1"];
    for (const signal of ["SIGKILL", "SIGTERM", "SIGKILL"] as const) {
      const running = start(args);
      await running.saw("of all tasks").catch(() => undefined);
      running.process.kill(signal);
      await running.outcome;
    }
    const resumed = await evaluate("killed", tiny);
    expect(resumed.models[0]!.knownSamples).toBeGreaterThan(0);
    expect(samplesOf(resumed)).toBe(samplesOf(whole));
    expect(readdirSync(join(root, "killed", "tiny")).filter((name) => name.startsWith("."))).toEqual([]);
  });
});
