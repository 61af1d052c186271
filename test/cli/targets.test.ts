import { describe, expect, it } from "vitest";
import { golden } from "../support/golden.js";
import { upcycle, upcycleJson } from "./upcycle.js";

describe("upcycle targets", () => {
  it("lists what holds a model, what runs it, and why the others do not, in 80 columns", async () => {
    const { code, stdout } = await upcycle("targets", golden("dense/llama"));
    expect(code).toBe(0);
    expect(stdout).toMatch(/^mixtral +exact +yes +yes +yes +no$/m);
    expect(stdout).toMatch(/^qwen2_moe +exact +yes +yes +WRONG +no$/m);
    expect(stdout).toMatch(/^qwen2_moe +exact \* +yes +yes +yes +no$/m);
    expect(stdout).toContain("qwen3_moe       a qwen3_moe model cannot have queries and keys without a norm");
    expect(stdout).toContain("deepseek_v3");
    for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
  });

  it("says which trainers take which target, and the line of each, in 80 columns", async () => {
    const { code, stdout } = await upcycle("targets", golden("dense/qwen3"), "--trainers");
    expect(code).toBe(0);
    const [renormalised, plain] = stdout.split("softmax-topk:");
    expect(renormalised).toMatch(/^qwen3_moe +own +own +own +own +own$/m);
    expect(plain).toMatch(/^qwen3_moe +no +own +own +own +own$/m);
    expect(plain).toMatch(/^flex_olmo +no +by class +no +by class +by class$|^upcycle +no +no +no +no +no$/m);
    for (const line of [
      "--checkpoint.initial_load_in_hf",
      "automodel ",
      "megatron pt",
      "axolotl train",
      "llamafactory-cli",
    ])
      expect(stdout).toContain(line);
    for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
    const { trainers } = await upcycleJson("targets", golden("dense/qwen3"), "--trainers");
    expect(trainers).toContainEqual({
      family: "qwen3_moe",
      order: "topk-softmax",
      trainer: "ms-swift",
      support: "own",
      note: null,
    });
  });

  it("gives as JSON what each family computes, or why it cannot hold the model", async () => {
    const { targets, ...rest } = await upcycleJson("targets", golden("dense/qwen3"), "--recipe", "E8G2T4");
    expect(rest).toMatchObject({ family: "qwen3", recipe: "E8G2T4", never: { olmoe: expect.any(String) } });
    expect(targets).toContainEqual(
      expect.objectContaining({
        family: "qwen3_moe",
        order: "softmax-topk",
        obstacle: null,
        expected: expect.objectContaining({ kind: "constant-router" }),
      }),
    );
    expect(targets).toContainEqual(
      expect.objectContaining({
        family: "mixtral",
        expected: null,
        obstacle: "a mixtral model cannot have a norm on queries and keys",
        serving: [],
      }),
    );
  });

  it("refuses a mixture of experts and a name that is no recipe", async () => {
    expect(await upcycle("targets", golden("moe/mixtral"))).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("already a mixture of 4 experts"),
    });
    expect(await upcycle("targets", golden("dense/llama"), "--recipe", "8x")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('"8x" is not a recipe name'),
    });
  });
});
