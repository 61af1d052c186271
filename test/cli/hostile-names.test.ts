/** Names in files that others made, as the built command line shows them. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { golden } from "../support/golden.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { copyModel, editHeader, upcycle } from "./upcycle.js";

const hostile = "x\u001b[2J\u001b]0;owned\u0007\nmodel: forged\u009b\u202e\u200b";
// eslint-disable-next-line no-control-regex -- The point is that there are none.
const steering = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e\u200b]/;

describe("hostile names", () => {
  it("of tensors, and shapes without end, are shown harmless and short by inspect --tensors and its JSON", async () => {
    const dir = copyModel(golden("dense/llama"), join(temporaryFolder(), "llama"));
    editHeader(join(dir, "model.safetensors"), (header) => {
      const empty = { dtype: "F32", shape: [0, ...Array.from({ length: 100_000 }, () => 1)], data_offsets: [0, 0] };
      header[hostile] = empty;
    });
    const [text, json] = await Promise.all([
      upcycle("inspect", "--tensors", dir),
      upcycle("inspect", "--tensors", dir, "--json"),
    ]);
    expect([text.code, json.code]).toEqual([0, 0]);
    for (const { stdout, stderr } of [text, json]) expect(stdout + stderr).not.toMatch(steering);
    expect(text.stdout).not.toMatch(/^model: forged/m);
    expect(text.stdout).toContain("\\u001b[2J");
    expect(text.stdout).toMatch(/more\s+characters\]/);
    expect(text.stdout.length).toBeLessThan(20_000);
    expect((JSON.parse(json.stdout) as { tensors: { name: string }[] }).tensors.map(({ name }) => name)).toContain(
      hostile,
    );
  });

  it("of columns and of what is asked for are shown harmless in an error, on one line", async () => {
    const file = join(temporaryFolder(), "losses.csv");
    writeFileSync(file, `${JSON.stringify(hostile).replace(/\\u001b/g, "\u001b")},D,loss\n1,2,3\n`);
    for (const args of [
      ["fit", file, "--law", "chinchilla"],
      ["fit", file, "--law", hostile],
      ["inspect", hostile],
      ["plan", "--preset", "y".repeat(100_000)],
    ]) {
      const { code, stdout, stderr } = await upcycle(...args);
      expect([code, stdout]).toEqual([2, ""]);
      expect(stderr).toMatch(/^upcycle: [^\n]+\n$/);
      expect(stderr).not.toMatch(steering);
      expect(stderr.length).toBeLessThan(5000);
    }
  });

  it("verify says where a mixture and its parent were given the wrong way round", async () => {
    const [moe, dense] = [golden("moe/mixtral"), golden("dense/llama")];
    const { code, stdout, stderr } = await upcycle("verify", moe, dense);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(
      /^upcycle: .*mixtral: this model is a mixture of experts, and .*llama is dense: the parent comes first; swap them: upcycle verify \S*llama \S*mixtral\n$/,
    );
  });
});
