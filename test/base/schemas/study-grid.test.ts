/** What the grids, changes and questions of a study file stand for, and how mistakes in them are refused. */
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { at } from "../../../src/base/at.js";
import { expandStudy, parseStudyConfig } from "../../../src/base/schemas/index.js";

const study = `name: grid
seeds: [3, 4]
text: { builtin: [sotu] }
tokenizer: { vocab: 300 }
model: { hidden: 32, layers: 2, heads: 4, inner: 64 }
pretrain: { steps: 10, batch: 2, sequence: 16, lr: { peak: 1e-2, warmup: 2 } }
continue: { steps: 8, batch: 2, sequence: 16, lr: { peak: 1e-3 } }
arms:
  dense: { kind: dense }
  moe: { kind: upcycled, recipe: E4G1T2 }
`;

const expanded = (text: string): ReturnType<typeof expandStudy> => expandStudy(parseStudyConfig(text, "a.yaml"));

/** The line that a user sees for the study with these lines behind it. */
function refusal(more: string, from = "", to = ""): string {
  try {
    parseStudyConfig(`${study.replace(from, to)}${more}`, "a.yaml");
  } catch (error) {
    if (error instanceof UpcycleError) return error.line;
    throw error;
  }
  return "no error";
}

describe("a study file without a grid", () => {
  it("stands for one parent and its arms, as ever", () => {
    const { parents, arms, problems } = expanded(study);
    expect(problems).toEqual([]);
    expect(parents).toMatchObject([{ id: "parent", kind: "trained", seed: 3, model: { hidden: 32 } }]);
    expect(arms.map(({ id, setting, parents: from }) => [id, setting, from])).toEqual([
      ["dense", "", ["parent"]],
      ["moe", "", ["parent"]],
    ]);
    expect(arms.every(({ training }) => training.lr.peak === 1e-3)).toBe(true);
  });
});

describe("changes and grids", () => {
  it("of an arm change its training alone, at any depth", () => {
    const { arms } = expanded(`${study}  hot: { kind: dense, continue: { lr: { peak: 5e-3 }, batch: 4 } }\n`);
    expect(at(arms, 2).training).toEqual({
      ...at(arms, 0).training,
      batch: 4,
      lr: { ...at(arms, 0).training.lr, peak: 5e-3 },
    });
  });

  it("give every value of each key with every value of the others", () => {
    const { arms } = expanded(
      `${study}  many: { kind: upcycled, recipe: E2G1T1, vary: { recipe: [E2G1T1, E4G2T2], continue.lr.peak: [1e-3, 2e-3] } }\n`,
    );
    expect(
      arms
        .slice(2)
        .map(({ id, setting, arm, training }) => [
          id,
          setting,
          arm.kind === "upcycled" && arm.recipe,
          training.lr.peak,
        ]),
    ).toEqual([
      ["many-e2g1t1-0.001", "peak 0.001", "E2G1T1", 1e-3],
      ["many-e2g1t1-0.002", "peak 0.002", "E2G1T1", 2e-3],
      ["many-e4g2t2-0.001", "peak 0.001", "E4G2T2", 1e-3],
      ["many-e4g2t2-0.002", "peak 0.002", "E4G2T2", 2e-3],
    ]);
  });

  it("as a list give each of its settings, by name where it has one", () => {
    const { arms } = expanded(
      `${study}  some: { kind: dense, vary: [{ name: small, continue.batch: 1, continue.steps: 16 }, { continue.batch: 4 }] }\n`,
    );
    expect(arms.slice(2).map(({ id, training }) => [id, training.batch, training.steps])).toEqual([
      ["some-small", 1, 16],
      ["some-4", 4, 8],
    ]);
  });

  it("of parents give several, from which arms choose", () => {
    const text = `${study.replace("arms:", "parents:\n  base: {}\n  wide: { model: { inner: 128 }, seed: 9, vary: { pretrain.steps: [10, 20] } }\n  own: { path: models/x }\narms:")}  only: { kind: dense, parents: [wide, own] }\n`;
    const { parents, arms } = expanded(text);
    expect(
      parents.map((one) =>
        one.kind === "given" ? [one.id, one.source] : [one.id, one.model.inner, one.pretrain.steps, one.seed],
      ),
    ).toEqual([
      ["base", 64, 10, 3],
      ["wide-10", 128, 10, 9],
      ["wide-20", 128, 20, 9],
      ["own", "models/x"],
    ]);
    expect(at(arms, 0).parents).toEqual(["base", "wide-10", "wide-20", "own"]);
    expect(at(arms, 2).parents).toEqual(["wide-10", "wide-20", "own"]);
  });

  it("are scaled by one number", () => {
    const text = study.replace("name: grid", "name: grid\nscale: 4");
    const { parents, arms } = expanded(`${text}  some: { kind: dense, vary: { continue.batch: [2, 3] } }\n`);
    expect(parents).toMatchObject([
      {
        model: { hidden: 128, inner: 256, heads: 16, initStd: 0.01 },
        pretrain: { steps: 40, batch: 8, lr: { peak: 5e-3, warmup: 8 } },
      },
    ]);
    expect(arms.map(({ training }) => [training.batch, training.steps])).toEqual([
      [8, 32],
      [8, 32],
      [8, 32],
      [12, 32],
    ]);
  });
});

describe("mistakes in grids and questions", () => {
  it("include a scale at which sizes are no whole numbers", () => {
    expect(refusal("", "name: grid", "name: grid\nscale: 0.3")).toMatch(
      /^a\.yaml:6 \(model\): hidden: [\d.]+ at scale 0.3, expected a whole number \(and 2 more problems\); choose a/,
    );
    expect(refusal("", "name: grid", "name: grid\nscale: 0.5")).toBe("no error");
  });

  it("are refused with the line, what was found and what was expected", () => {
    expect(refusal("  a: { kind: dense, continue: { lr: { peek: 1 } } }\n")).toBe(
      'a.yaml:11 (arms.a.continue.lr.peek): unknown key "peek"; did you mean "peak"? valid keys: peak, schedule, warmup, final, decay, steps',
    );
    expect(refusal("  a: { kind: dense, continue: { steps: 0 } }\n")).toBe(
      "a.yaml:11 (arms.a.continue.steps): expected a whole number of at least 1, found 0",
    );
    expect(refusal("  a: { kind: dense, continue: { lr: { warmup: 99 } } }\n")).toBe(
      "a.yaml:11 (arms.a.continue): lr.warmup: warmup 99 is longer than steps 8",
    );
    expect(refusal("  a: { kind: upcycled, recipe: E2G1T1, vary: { recipe: [E2G1T1, 8x7] } }\n")).toMatch(
      /^a\.yaml:11 \(arms\.a\.vary\): recipe: Invalid string: must match pattern/,
    );
    expect(refusal("  a: { kind: dense, vary: [{ continue.batch: 0 }] }\n")).toMatch(
      /^a\.yaml:11 \(arms\.a\.vary\[0\]\): continue\.batch: /,
    );
    expect(refusal("  a: { kind: dense, vary: { nonsense: [1] } }\n")).toBe(
      'a.yaml:11 (arms.a.vary): Unrecognized key: "nonsense"',
    );
    expect(refusal("  a: { kind: dense, parents: [other] }\n")).toBe(
      'a.yaml:11 (arms.a.parents): there is no parent "other"',
    );
    expect(refusal("  a: { kind: dense, match: { flops: b } }\n")).toBe(
      'a.yaml:11 (arms.a.match.flops): there is no arm "b" with steps of its own',
    );
    expect(refusal("  a: { kind: dense, vary: { continue.batch: [2, 2] } }\n")).toBe(
      'a.yaml:8 (arms): two of the grid would be called "a-2"; give its settings a name',
    );
    expect(
      refusal(
        "  b: { kind: upcycled, recipe: E2G1T1, vary: { recipe: [E2G1T1, E4G1T1] } }\n  a: { kind: scratch, like: b }\n",
      ),
    ).toBe('a.yaml:12 (arms.a.like): arm "b" is several; name one of b-e2g1t1, b-e4g1t1');
    expect(refusal("questions: [{ ask: Is it?, compare: moe, with: desne }]\n")).toBe(
      'a.yaml:11 (questions[0].with): there is no arm "desne"; the arms are dense, moe',
    );
    const published = (words: string): string =>
      refusal(`questions: [{ ask: Is it?, compare: moe, with: dense, published: { ${words}, source: a paper } }]\n`);
    const both = "takes a difference, or a direction where no size is published: one of the two";
    expect(published("difference: -0.1, direction: lower")).toBe(`a.yaml:11 (questions[0].published): ${both}`);
    expect(published("relative: true")).toBe(`a.yaml:11 (questions[0].published): ${both}`);
    expect(published("direction: lower")).toBe("no error");
    expect(refusal("parents: { a: { path: x, seed: 1 } }\n")).toBe(
      'a.yaml:11 (parents.a.seed): "path" names a trained model, which seed cannot change; remove one of them',
    );
    expect(refusal("parents: { a: { path: x } }\nparent: y\n", "tokenizer: { vocab: 300 }\n")).toMatch(
      /"parents" names all parents/,
    );
    expect(refusal("parents: { a: { vary: { hidden: [1] } } }\n")).toBe(
      "a.yaml:11 (parents.a.vary): hidden is no part of a parent; one of model, tokenizer, pretrain, seed",
    );
    expect(refusal("  a: { kind: scratch, like: moe, continue: { batch: 4 } }\n")).toBe("no error");
  });
});
