import { describe, expect, it } from "vitest";
import { parseTaskFile } from "../../../src/base/schemas/index.js";
import { taskConfig, type TaskConfig } from "../../../src/evals/tasks/config.js";
import { loadTask, type Request, type Splits } from "../../../src/evals/tasks/prompt.js";
import { judgeOf, type Response } from "../../../src/evals/tasks/sample-results.js";
import { selectTasks, type TaskEntry } from "../../../src/evals/tasks/select.js";
import type { Doc } from "../../../src/evals/tasks/python-text.js";

const task = (yaml: string, file = "tasks/x/task.yaml"): TaskConfig => taskConfig(parseTaskFile(yaml, file), file);

const quiz = `
task: quiz
output_type: multiple_choice
training_split: train
test_split: test
description: "About {{topic}}.\\n\\n"
doc_to_text: "Q: {{question}}\\nA:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
`;
const docs = (count: number, name: string): Doc[] =>
  Array.from({ length: count }, (_, i) => ({
    topic: "whales",
    question: `${name} ${i}`,
    choices: ["one", "two"],
    answer: i % 2,
  }));
const splits: Splits = { train: docs(100, "train"), test: docs(3, "test") };

const contexts = (config: TaskConfig, numFewshot: number, data = splits): string[] =>
  loadTask(config, data)
    .samples({ numFewshot })
    .map(({ requests: [first] }) => (first as Extract<Request, { kind: "loglikelihood" }>).context);

const textOf = (response: string): Response => ({ kind: "generate", text: response });

describe("prompts", () => {
  it("have examples of CPython's draws, which go on from document to document", () => {
    const [first, second] = contexts(task(quiz), 5);
    const shots = (places: number[]): string =>
      places.map((i) => `Q: train ${i}\nA: ${["one", "two"][i % 2]}\n\n`).join("");
    expect(first).toBe(`About whales.\n\n${shots([99, 56, 14, 0, 11])}Q: test 0\nA:`);
    expect(second).toBe(`About whales.\n\n${shots([74, 4, 85, 88, 10])}Q: test 1\nA:`);
  });

  it("leave a document out of its own examples where both come from one split", () => {
    const own = task(quiz.replace("training_split: train", "fewshot_split: test"));
    for (const [i, context] of contexts(own, 2).entries()) expect(context.split(`Q: test ${i}\n`)).toHaveLength(2);
  });

  it("draw one more where neither a test split nor a split of examples is named, as the harness does", () => {
    const validated = task(quiz.replace("test_split: test", "validation_split: test"));
    // random.Random(1234).sample(range(100), 6)[:5] of CPython 3.11
    const [first] = contexts(validated, 5);
    expect([...first!.matchAll(/train (\d+)/g)].map(([, place]) => Number(place))).toEqual([99, 56, 14, 0, 11]);
    const [, second] = contexts(validated, 5);
    expect([...second!.matchAll(/train (\d+)/g)].map(([, place]) => Number(place))).not.toEqual([74, 4, 85, 88, 10]);
  });

  it("take the first examples in order where the task says so", () => {
    const ordered = task(`${quiz}fewshot_config: { sampler: first_n }\n`);
    const [first, second] = contexts(ordered, 2);
    expect(first).toContain("Q: train 0\nA: one\n\nQ: train 1\nA: two\n\nQ: test 0");
    expect(second).toContain("Q: train 0\nA: one\n\nQ: train 1\nA: two\n\nQ: test 1");
  });

  it("are refused where there are too few examples, with the task's name", () => {
    expect(() => contexts(task(quiz), 101)).toThrow(/101 examples are asked for, and there are 100/);
  });

  it("of WinoGrande have choices in the context and the rest of the sentence behind it", () => {
    const gap = task(
      `task: w
output_type: multiple_choice
validation_split: test
doc_to_text: !function preprocess_winogrande.doc_to_text
doc_to_choice: !function preprocess_winogrande.doc_to_choice
doc_to_target: !function preprocess_winogrande.doc_to_target
`,
      "tasks/winogrande/w.yaml",
    );
    const doc = { sentence: "Ann told Bo that _ was late.", option1: "Ann", option2: "Bo", answer: "2" };
    const loaded = loadTask(gap, { test: [doc] });
    const [sample] = loaded.samples();
    expect(sample!.requests).toEqual([
      { kind: "loglikelihood", context: "Ann told Bo that Ann", continuation: " was late." },
      { kind: "loglikelihood", context: "Ann told Bo that Bo", continuation: " was late." },
    ]);
    const [result] = judgeOf(loaded).judge(sample!, [
      { kind: "loglikelihood", logLikelihood: -3, greedy: false },
      { kind: "loglikelihood", logLikelihood: -2, greedy: false },
    ]);
    expect(result!.metrics).toMatchObject({ acc: 1 });
  });

  it("are judged behind filters: the number that is asked for, or the last one", () => {
    const sums = task(
      `task: sums
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
filter_list:
  - name: strict
    filter: [{ function: regex, regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)" }, { function: take_first }]
  - name: flexible
    filter: [{ function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)" }, { function: take_first }]
metric_list:
  - { metric: exact_match, regexes_to_ignore: [",", "(?s).*#### "] }
`,
    );
    const loaded = loadTask(sums, { test: [{ question: "1,200 + 34?", answer: "easy\n#### 1,234" }] });
    const [sample] = loaded.samples();
    const results = judgeOf(loaded).judge(sample!, [textOf("It is 1200 and 34, so 1234")]);
    expect(results.map(({ filter, filtered, metrics }) => [filter, filtered[0], metrics.exact_match])).toEqual([
      ["strict", "[invalid]", 0],
      ["flexible", "1234", 1],
    ]);
  });
});

describe("task files", () => {
  it("are refused by line and key", () => {
    expect(() => parseTaskFile("task: x\noutput_typ: loglikelihood\n", "x.yaml")).toThrow(/unknown key "output_typ"/);
  });

  it("name the Python function that has no port", () => {
    const own = quiz.replace('doc_to_choice: "{{choices}}"', "doc_to_choice: !function utils.choices");
    expect(() => task(own)).toThrow(
      expect.objectContaining({
        message: "the Python function x/utils.choices is not known here",
        hint: expect.stringMatching(/^ported are functions of hellaswag\/utils, mmlu_pro\/utils, /) as string,
      }),
    );
  });

  it("are refused for sampling, unknown metrics and unknown filters", () => {
    const text = "task: t\ntest_split: a\ndoc_to_text: q\ndoc_to_target: a\n";
    expect(() => task(`${text}generation_kwargs: { do_sample: true }\n`)).toThrow(/sampling/);
    expect(() => task(`${text}metric_list: [{ metric: rouge }]\n`)).toThrow(/metric "rouge" is not supported/);
    const strange = task(`${text}filter_list: [{ name: f, filter: [{ function: strange }] }]\n`);
    expect(() => judgeOf(loadTask(strange, { a: [{ q: "q", a: "a" }] }))).toThrow(/filter "strange"/);
  });
});

describe("names of tasks", () => {
  const entry = (yaml: string): TaskEntry => ({ file: "t.yaml", keys: parseTaskFile(yaml, "t.yaml") });
  const one = (name: string): TaskEntry => entry(quiz.replace("task: quiz", `task: ${name}\ntag: both`));
  const entries = [
    one("b"),
    one("a"),
    entry(
      "group: all\ngroup_alias: All\ntask: [both, { group: inner, task: [{ task: a, num_fewshot: 3 }] }]\n" +
        "aggregate_metric_list: { metric: acc }\n",
    ),
  ];

  it("stand for tasks, tags in alphabetical order, and groups behind those that they hold", () => {
    expect(selectTasks(["both"], entries).tasks.map(({ name }) => name)).toEqual(["a", "b"]);
    const { tasks, groups } = selectTasks(["all"], entries);
    expect(groups.map(({ name, tasks: own }) => [name, own])).toEqual([
      ["all::inner", ["a"]],
      ["all", ["a", "b"]],
    ]);
    expect(tasks.find(({ name }) => name === "a")?.numFewshot).toBe(3);
  });

  it("that nothing has are answered with the nearest", () => {
    expect(() => selectTasks(["bot"], entries)).toThrow(/no task, group or tag "bot"/);
  });
});
