/** Folders and files that a command is told to make, where something of the user's is. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { temporaryFolder } from "../files/io/temporary.js";
import { golden } from "../support/golden.js";
import { copyModel, upcycle } from "./upcycle.js";

const root = temporaryFolder();
const llama = golden("dense/llama");
const home = join(root, "home");
beforeAll(() => {
  mkdirSync(join(home, ".ssh"), { recursive: true });
  writeFileSync(join(home, ".ssh", "id_rsa"), "key");
  writeFileSync(join(home, "thesis.txt"), "years");
  // Whatever is fetched says that it may not be.
  vi.stubEnv("HF_HUB_OFFLINE", "1");
  vi.stubEnv("HF_HUB_CACHE", join(root, "cache"));
});
afterAll(() => vi.unstubAllEnvs());

const expectFilesKept = (): void => {
  expect(readFileSync(join(home, "thesis.txt"), "utf8")).toBe("years");
  expect(readFileSync(join(home, ".ssh", "id_rsa"), "utf8")).toBe("key");
  expect(readdirSync(root).filter((name) => name.startsWith("."))).toEqual([]);
};

describe("a folder of the user's is kept, and named before anything is fetched or read", () => {
  it.each([
    ["convert", llama, "--recipe", "E2G1T1", "--no-report"],
    ["convert", "hf://org/model", "--recipe", "E2G1T1", "--scaling", "calibrated", "--router", "softmax-topk"],
    ["convert", "hf://org/moe", "--expert-multiply", "2"],
    ["merge", "hf://org/moe"],
  ])("by %s %s", async (...args) => {
    const line =
      `upcycle: ${home}: the folder is not replaced, because it holds what is no file of a model: .ssh and ` +
      "thesis.txt; choose another folder, or move that away first\n";
    expect(await upcycle(...args, "--out", home, "--overwrite")).toEqual({ code: 2, stdout: "", stderr: line });
    expectFilesKept();
  });

  it("by convert without --overwrite too", async () => {
    const { code, stderr } = await upcycle("convert", "hf://org/model", "--recipe", "E2G1T1", "--out", home);
    expect([code, stderr]).toEqual([
      2,
      `upcycle: ${home}: folder exists and is not empty (2 entries, such as .ssh); choose another folder, or ` +
        "replace this one (--overwrite)\n",
    ]);
    expectFilesKept();
  });
});

describe("what else can be known beforehand is said before anything is fetched", () => {
  it.each([
    [["merge", "hf://org/moe"], "required option '--out <dir>' not specified; see upcycle merge --help"],
    [
      [
        "convert",
        "hf://org/model",
        "--recipe",
        "E2G1T1",
        "--out",
        join(root, "out"),
        "--text",
        join(root, "nowhere.txt"),
      ],
      `${join(root, "nowhere.txt")}: cannot open file: no such file or folder`,
    ],
    [
      ["export-onnx", "hf://org/model", "--out", join(root, "model.bin")],
      `${join(root, "model.bin")}: the file to make has no name that ends in .onnx; such as model.onnx`,
    ],
    [
      ["export-onnx", "hf://org/model", "--out", join(root, "nowhere", "model.onnx")],
      `${join(root, "nowhere", "model.onnx")}: cannot write file: its folder does not exist; make it first`,
    ],
    [
      [
        "forward",
        "hf://org/model",
        "--input-ids",
        join(llama, "expected.safetensors"),
        "--output",
        join(llama, "model.safetensors"),
      ],
      `${join(llama, "model.safetensors")}: file exists and is no file of logits, so it is not replaced; ` +
        "choose another name, or move it away first",
    ],
    [
      ["plan", "hf://org/model", "--html", join(home, "thesis.txt")],
      `${join(home, "thesis.txt")}: file exists and is no page of this command, so it is not replaced; choose ` +
        "another name, or move it away first",
    ],
    [
      ["fit", join(root, "nothing.csv"), "--law", "chinchilla", "--html", join(home, "thesis.txt")],
      `${join(home, "thesis.txt")}: file exists and is no page of this command, so it is not replaced; choose ` +
        "another name, or move it away first",
    ],
  ])("refused: upcycle %j", async (args, line) => {
    expect(await upcycle(...args)).toEqual({ code: 2, stdout: "", stderr: `upcycle: ${line}\n` });
    expectFilesKept();
  });
});

it("a converted model is replaced on demand, a note beside its weights keeps it", async () => {
  const out = join(root, "moe");
  const convert = [
    "convert",
    copyModel(llama, join(root, "parent")),
    "--recipe",
    "E2G1T1",
    "--no-report",
    "--out",
    out,
  ];
  expect((await upcycle(...convert)).code).toBe(0);
  expect((await upcycle(...convert, "--overwrite")).code).toBe(0);
  writeFileSync(join(out, "findings.txt"), "mine");
  expect(await upcycle(...convert, "--overwrite")).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("findings.txt") as string,
  });
  expect(readFileSync(join(out, "findings.txt"), "utf8")).toBe("mine");
});
