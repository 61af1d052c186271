/** A model with NaN weights, as every command that reads it meets it. */
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { encodeSafetensors } from "../../src/files/formats/safetensors.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { tensorsOf, writeTensors } from "../support/adapters.js";
import { golden } from "../support/golden.js";
import { upcycle, upcycleJson } from "./upcycle.js";

const root = temporaryFolder();
const sound = golden("dense/llama");
const damaged = join(root, "damaged");
const moe = join(root, "moe");
const up = "model.layers.1.mlp.up_proj.weight";
const ids = join(root, "ids.safetensors");

beforeAll(() => {
  cpSync(sound, damaged, { recursive: true });
  const path = join(damaged, "model.safetensors");
  const tensors = tensorsOf(path);
  const tensor = tensors.get(up)!;
  const values = new Float32Array(tensor.bytes.slice().buffer);
  values[3] = NaN;
  writeTensors(path, tensors.set(up, { ...tensor, bytes: new Uint8Array(values.buffer) }));
  const input = new Uint8Array(Int32Array.of(1, 2, 3, 4).buffer);
  writeFileSync(ids, encodeSafetensors([{ name: "input_ids", dtype: "I32", shape: [1, 4], bytes: input }]));
});

describe("NaN weights", () => {
  it("stop convert with exit code 1 and one line", async () => {
    const { code, stdout, stderr } = await upcycle("convert", damaged, "--recipe", "E4G1T2", "--out", join(root, "no"));
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toContain(`${damaged}: the model is damaged: 1 of the values of ${up} are NaN or infinite`);
    expect(stderr).toContain("--allow-nonfinite");
  });

  it("are the first thing that is said of a model that was made all the same, and the only verdict", async () => {
    const options = ["--recipe", "E4G1T2", "--out", moe, "--allow-nonfinite"];
    const { code, stdout } = await upcycle("convert", damaged, ...options);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^warning: this model is damaged: \d+ values? (is|are) NaN or infinite/);
    expect(stdout).toContain("A logit is not a number");
    expect(stdout).not.toContain("kept exactly");
    expect(stdout).not.toContain("same likeliest token");
  });

  it("make verify say no more than that, with exit code 1", async () => {
    const { code, stdout, stderr } = await upcycle("verify", damaged, moe, "--tokens", "32", "--threads", "1");
    expect(code).toBe(1);
    expect(stdout).toMatch(/^A logit is not a number/);
    expect(stdout).not.toContain("same likeliest token");
    expect(stderr).toContain("a logit is not a number, so nothing was compared");
    expect(stderr).not.toContain("promises");
    const facts = await upcycle("inspect", moe);
    expect(facts.stdout.split("\n")[1]).toMatch(/^damaged +this model is damaged: \d+ values/);
    expect(facts.stdout).not.toContain("exact at the start");
  });

  it("make forward and diff warn", async () => {
    const out = join(root, "logits.safetensors");
    const forward = await upcycle("forward", damaged, "--input-ids", ids, "--output", out, "--threads", "1");
    expect(forward.code).toBe(0);
    expect(forward.stderr).toContain(`warning: ${damaged}: weights are NaN or infinite (${up}): the model is damaged`);
    const diff = await upcycle("diff", sound, damaged);
    expect(diff.stdout.replace(/\s+/g, " ")).toMatch(
      new RegExp(`^warning: b is damaged: ${up} has values that are NaN or infinite`),
    );
    expect((await upcycle("forward", sound, "--input-ids", ids, "--output", `${out}2`)).stderr).not.toContain(
      "warning",
    );
  });

  it("stop merge, and export for Megatron-Core", async () => {
    for (const [command, ...rest] of [
      ["merge", moe],
      ["export", damaged, "--format", "megatron"],
    ] as const) {
      const { code, stderr } = await upcycle(command, ...rest, "--out", join(root, `${command}-no`));
      expect(code, command).toBe(1);
      expect(stderr, command).toContain("is damaged");
      const allowed = ["--out", join(root, `${command}-yes`), "--allow-nonfinite"];
      const facts = await upcycleJson(command, ...rest, ...allowed);
      expect(facts.nonFinite, command).toBeDefined();
    }
  });
});
