import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { lossFigure } from "../../../src/report/study/figure.js";
import { plainArm, study } from "../fixture.js";

const textsOf = (result: ReturnType<typeof study>): string[] =>
  lossFigure(result, "tokens")!.shapes.flatMap((shape) => (shape.kind === "text" ? [shape.text] : []));

describe("the figure of a study", () => {
  it("has a line of the legend for each arm, and one for the one parent", () => {
    const arms = [plainArm("one", "upcycled", [[4, 3.8]]), plainArm("two", "dense", [[4, 3.9]])];
    expect(textsOf({ ...study(), arms })).toEqual(expect.arrayContaining(["one", "two", "parent"]));
  });

  it("has one line of the legend for an arm behind many parents, in its colour and dashes", () => {
    const base = study();
    const ids = Array.from({ length: 8 }, (_, i) => `n${i}`);
    const parents = ids.map((id) => ({ ...at(base.parents, 0), id }));
    const arms = ids.flatMap((parent) =>
      ["short", "long"].map((arm) => {
        const plain = plainArm(`${arm}, ${parent}`, "upcycled", [[4, arm === "long" ? 3.7 : 3.9]]);
        return { ...plain, id: `${arm}@${parent}`, arm, parent };
      }),
    );
    const figure = lossFigure({ ...base, parents, arms }, "tokens")!;
    const texts = figure.shapes.flatMap((shape) => (shape.kind === "text" ? [shape.text] : []));
    expect(texts.filter((text) => /short|long|parent/.test(text))).toEqual(["short", "long"]);
    const curves = figure.shapes.flatMap((shape) => (shape.kind === "line" && shape.width === 2 ? [shape] : []));
    expect(new Set(curves.map(({ stroke }) => stroke)).size).toBe(2);
    expect(new Set(curves.map(({ dash }) => dash.join())).size).toBe(1);
  });
});
