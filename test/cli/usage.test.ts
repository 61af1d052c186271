import { availableParallelism } from "node:os";
import { describe, expect, it } from "vitest";
import { targetFamilies } from "../../src/surgery/planning/recipe.js";
import { upcycle } from "./upcycle.js";

const mostThreads = Math.max(64, 8 * availableParallelism());

const commands = [
  "demo",
  "quickstart",
  "init",
  "study",
  "train",
  "studio",
  "convert",
  "merge",
  "verify",
  "diff",
  "inspect",
  "experts",
  "forward",
  "export-onnx",
  "generate",
  "perplexity",
  "fit",
  "plan",
  "targets",
  "doctor",
  "completion",
];

describe("the help", () => {
  it("of the program is shown by upcycle alone, by --help, --debug, help and help help", async () => {
    const alone = await upcycle();
    expect(alone.code).toBe(0);
    expect(alone.stdout).toContain("Usage: upcycle [options] [command]");
    for (const args of [["--help"], ["--debug"], ["help"], ["help", "help"], ["--debug", "help", "help"]])
      expect(await upcycle(...args), args.join(" ")).toEqual(alone);
    expect(alone.stdout.match(/--debug/g)).toHaveLength(1);
    for (const command of commands) expect(alone.stdout).toMatch(new RegExp(`^  ${command} `, "m"));
  });

  it.each(commands)("of %s ends with an example and fits 80 columns", async (command) => {
    const { code, stdout, stderr } = await upcycle(command, "--help");
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout.trimEnd().split("\n").slice(-2)).toEqual([
      "Example:",
      expect.stringMatching(new RegExp(`^  \\$ upcycle ${command}\\b`)),
    ]);
    expect(stdout).toContain("--json");
    expect(Math.max(...stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  it("of a command is shown by help COMMAND too", async () => {
    expect(await upcycle("help", "merge")).toEqual(await upcycle("merge", "--help"));
  });

  it("is not needed for the version, which --version prints", async () => {
    expect(await upcycle("--version")).toEqual({
      code: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
      stderr: "",
    });
  });
});

describe("a wrong command line", () => {
  it.each<[string[], string | RegExp]>([
    [["convrt", "x"], "unknown command 'convrt'; did you mean convert?"],
    [["nonsense"], "unknown command 'nonsense'; see upcycle --help"],
    [["train", "x.yaml", "--thread", "2"], "unknown option '--thread'; did you mean --threads?"],
    [["inspect", "x", "--nonsense"], "unknown option '--nonsense'; see upcycle inspect --help"],
    [["train"], "missing required argument 'file'; see upcycle train --help"],
    [["train", "a", "b"], "too many arguments for 'train'. Expected 1 argument but got 2; see upcycle train --help"],
    [["convert", "x"], "required option '--recipe <name>' not specified; see upcycle convert --help"],
    [
      ["convert", "x", "--expert-multiply", "2", "--drop", "0.5"],
      "--drop: does not go with --expert-multiply, which copies experts as they are; leave it out; --topk, " +
        "--router-std, --multiply-by and --seed do",
    ],
    [
      ["convert", "x", "--recipe", "E8G1T2", "--topk", "2"],
      "--topk: goes with --expert-multiply; a recipe's T says how many experts a token gets",
    ],
    [["convert", "x", "--recipe", "E8G1T2"], "required option '--out <dir>' not specified; see upcycle convert --help"],
    [["train", "x.yaml", "--threads", "0"], `--threads: "0" is not a whole number from 1 to ${mostThreads}`],
    [["generate", "x", "--threads", "1000000"], `--threads: "1000000" is not a whole number from 1 to ${mostThreads}`],
    [
      ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--gpu", "__proto__"],
      /^upcycle: --gpu: "__proto__" is not in the table of GPUs/,
    ],
    [["completion", "tcsh"], 'shell: "tcsh" is not one of bash, zsh, fish; did you mean bash?'],
    [["init", "--kind", "stdy"], '--kind: "stdy" is not one of study, train, convert; did you mean study?'],
    [["--"], 'no command before "--"; see upcycle --help'],
    [["help", "nothing"], 'there is no command "nothing" to help with; see upcycle --help'],
    [
      [`--${"x".repeat(100_000)}`],
      /^upcycle: unknown option '--x{100,200}… \[\d+ more characters\]'; see upcycle --help\n$/,
    ],
    [
      ["convert", "x", "--recipe", "E8G1T2", "--target", "mixtrl"],
      `--target: "mixtrl" is not one of auto, ${targetFamilies.join(", ")}; did you mean mixtral?`,
    ],
    [["convert", "x", "--recipe", "E8G1T2", "--drop", "2"], '--drop: "2" is not a number from 0 to 1'],
    [
      ["convert", "x", "--recipe", "E8G1T2", "--noise", "much", "--out", "y"],
      'noise: "much" is no amount of noise; write a standard deviation such as 0.01, or a share of each ' +
        "tensor's own such as 1%",
    ],
    [["convert", "x", "--recipe", "E8G1T2", "--router-std", "-1"], '--router-std: "-1" is not a number from 0'],
    [
      ["convert", "x", "--recipe", "E8G1T2", "--shard-size", "5"],
      '--shard-size: "5" is not a size; write a number and a unit: 500MB, 5GB, 4GiB',
    ],
    [
      ["convert", "x", "--recipe", "E8G1T2", "--out", ""],
      "the name of the folder to make is empty; is a variable of the shell not set?",
    ],
    [
      ["merge", "x", "--out", "", "--overwrite"],
      "the name of the folder to make is empty; is a variable of the shell not set?",
    ],
    [["inspect", ""], "the model's name is empty; is a variable of the shell not set?"],
    [
      ["inspect", "no-such-org/model"],
      "no-such-org/model: no such folder; a model of the Hub is written hf://no-such-org/model",
    ],
    [["inspect", "no-such/folder/model"], "no-such/folder/model: no such folder"],
    [
      ["inspect", "HF://org/model"],
      '"HF://org/model" is no model of the Hub; write hf://org/name or hf://org/name@revision',
    ],
    [
      ["convert", "x", "--recipe", "8x2", "--out", "y"],
      '"8x2" is not a recipe name; write E<copies>G<parts>T<experts per token>, for example E8G1T2',
    ],
    [["generate", "x", "--prompt", "a", "--top-p", "0x1"], '--top-p: "0x1" is not a number from 0 to 1'],
    [["data", "prepare", "x"], "required option '--tokenizer <dir>' not specified; see upcycle data prepare --help"],
  ])("%j says so in one line and exits with 2", async (args, line) => {
    const stderr: unknown = typeof line === "string" ? `upcycle: ${line}\n` : expect.stringMatching(line);
    expect(await upcycle(...args)).toEqual({ code: 2, stdout: "", stderr });
  });

  it("takes the last of an option given twice", async () => {
    const { code, stderr } = await upcycle(
      "convert",
      "nowhere",
      "--recipe",
      "bad",
      "--recipe",
      "E2G1T1",
      "--out",
      "a",
      "--out",
      "b",
    );
    expect([code, stderr]).toEqual([2, "upcycle: nowhere: no such folder\n"]);
  });

  it("shows a stack with --debug, before or after the command", async () => {
    const [before, after] = await Promise.all([
      upcycle("--debug", "inspect", "nowhere"),
      upcycle("inspect", "nowhere", "--debug"),
    ]);
    expect(after).toEqual(before);
    expect(before.stderr).toMatch(/^upcycle: nowhere: no such folder\nUpcycleError: no such folder\n +at /);
  });
});
