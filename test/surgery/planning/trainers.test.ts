import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { targetFamilies } from "../../../src/surgery/planning/recipe.js";
import { trainerLine, trainers, trainersOf } from "../../../src/surgery/planning/trainers.js";

describe("trainers that read Hugging Face folders", () => {
  const page = readFileSync(new URL("../../../docs/cluster.md", import.meta.url), "utf8").replace(/ +/g, " ");

  it.each(trainers)("docs/cluster.md says of %s what the table says", (trainer) => {
    const row = page.split("\n").find((line) => line.startsWith(`| ${trainer} |`))!;
    const [, , line, own, others] = row.split("|").map((cell) => cell.trim());
    expect(line).toBe(`\`${trainerLine(trainer, "DIR")}\``);
    const supportOf = (support: string): string[] =>
      targetFamilies.filter(
        (family) => trainersOf(family, "topk-softmax").find((one) => one.trainer === trainer)!.support === support,
      );
    expect(
      [...own!.matchAll(/\w+/g)]
        .map(String)
        .filter((word) => (targetFamilies as readonly string[]).includes(word))
        .sort(),
    ).toEqual(supportOf("own").sort());
    expect(others).toBe(supportOf("transformers").length > 0 ? "by the class of transformers" : "no");
  });

  it("none takes upcycle's own format", () => {
    expect(trainersOf("upcycle", "topk-softmax").every(({ support }) => support === "no")).toBe(true);
  });
});
