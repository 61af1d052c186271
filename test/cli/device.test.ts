/** `--device` as a user meets it on any machine: GPU 99 exists on none. */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { temporaryFolder } from "../files/io/temporary.js";
import { deviceChoices, deviceWords } from "../../src/cli/device.js";
import { golden } from "../support/golden.js";
import { upcycle } from "./upcycle.js";

const dir = temporaryFolder();
const llama = golden("dense/llama");
const text = join(dir, "text.txt");
writeFileSync(text, "some text ".repeat(100));

describe("a GPU that is asked for and does not exist", () => {
  it("is refused in one line before a conversion writes anything", async () => {
    const out = join(dir, "moe");
    const { code, stdout, stderr } = await upcycle(
      ...["convert", llama, "--recipe", "E4G1T2", "--out", out, "--device", "cuda:99"],
    );
    expect([code, stdout, existsSync(out)]).toEqual([2, "", false]);
    expect(stderr).toMatch(/^upcycle: [^\n]+\n$/);
  });

  it.each([
    ["verify", [llama, llama]],
    ["perplexity", [llama, text]],
    ["generate", [llama, "--prompt", "a"]],
  ])("is refused by %s with exit code 2", async (command, words) => {
    const { code, stdout, stderr } = await upcycle(command, ...words, "--device", "cuda:99");
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^upcycle: [^\n]+\n$/);
  });
});

describe("several devices of a study", () => {
  it.each([
    [
      "cuda:0,cuda:1",
      [
        { kind: "cuda", ordinal: 0 },
        { kind: "cuda", ordinal: 1 },
      ],
    ],
    ["cuda", [{ kind: "cuda", ordinal: 0 }]],
    ["cpu", [{ kind: "cpu" }]],
  ])("are read from %s, and are said again so", (text, choices) => {
    const device = deviceChoices(text);
    expect(device).toEqual(choices);
    expect(deviceChoices(deviceWords({ device }).replace(" --device ", ""))).toEqual(choices);
  });

  it.each(["cpu,cuda:0", "cuda:0,cuda:0", "cuda:1,auto"])("are refused as %s", (text) => {
    expect(() => deviceChoices(text)).toThrow("is no list of different GPUs");
  });
});

describe("--device", () => {
  it.each(["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"])("refuses the word %s", async (word) => {
    const { code, stderr } = await upcycle("verify", llama, llama, "--device", word);
    expect([code, stderr]).toEqual([
      2,
      `upcycle: --device: "${word}" is no device; write auto, cpu, cuda or cuda:N; upcycle doctor says what there is\n`,
    ]);
  });
});
