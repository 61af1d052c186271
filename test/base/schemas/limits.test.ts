import { afterEach, expect, it, vi } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { issueText, parseAdapterConfig, parseRecipeConfig, parseTrainConfig } from "../../../src/base/schemas/index.js";
import { z } from "zod";

afterEach(() => void vi.restoreAllMocks());

function refusal(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof UpcycleError) return error.lines.join("\n");
    throw error;
  }
  return "";
}

it.each([
  ["lists in brackets", `${"[".repeat(1e6)}${"]".repeat(1e6)}`],
  ["blocks in braces", `${'{"a":'.repeat(1e5)}1${"}".repeat(1e5)}`],
  ["lists on one line", `${"- ".repeat(1e5)}x`],
])("%s nested without end are refused before they are parsed", (_, text) => {
  expect(refusal(() => parseAdapterConfig(text, "a.json"))).toBe(
    "a.json: lists and blocks are nested more than 500 levels deep",
  );
});

it("more keys than anybody writes are refused before each is compared with all others", () => {
  const text = Array.from({ length: 10_001 }, (_, i) => `key${i}: ${i}\n`).join("");
  expect(refusal(() => parseRecipeConfig(text, "r.yaml"))).toBe("r.yaml: the file has more than 10000 keys");
});

it("a key that is a list is unknown, and Node warns of nothing", () => {
  const emitWarning = vi.spyOn(process, "emitWarning").mockImplementation(() => undefined);
  expect(refusal(() => parseRecipeConfig("recipe: E2G1T1\n? [a, b]\n: 1\n", "r.yaml"))).toContain("unknown key");
  expect(emitWarning).not.toHaveBeenCalled();
});

it.each(["hidden", "inner", "heads", "kvHeads", "headDim", "maxPositions"])("a model.%s of 1e12 is refused", (key) => {
  const model = { hidden: 16, layers: 1, heads: 2, inner: 32, [key]: 1e12 };
  const training = { steps: 5, batch: 2, sequence: 16, lr: { peak: 0.003 } };
  const text = JSON.stringify({ out: "r", model, tokenizer: { vocab: 300 }, text: { files: ["t.txt"] }, training });
  expect(refusal(() => parseTrainConfig(text, "t.yaml"))).toMatch(
    new RegExp(`model\\.${key}\\): expected a whole number from 1 to \\d+, found 1000000000000$`, "m"),
  );
});

it("what a record lacks is missing, not undefined", () => {
  const { error } = z.object({ a: z.string() }).safeParse({});
  expect(error?.issues.map(issueText)).toEqual(["this is missing, expected string"]);
});
