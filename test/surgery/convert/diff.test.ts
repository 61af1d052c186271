import { writeFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { resultOf } from "../../../src/base/events.js";
import { convertCheckpoint } from "../../../src/surgery/convert/convert.js";
import { diffCheckpoints, type TensorDiff } from "../../../src/surgery/convert/diff.js";
import { groupDiffs, groupNames } from "../../../src/surgery/convert/diff-groups.js";
import { fromFloat32, toFloat32 } from "../../../src/files/numeric/dtype.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { fresh, rewrite, variant, withCheckpoint } from "../../files/checkpoint/folders.js";
import { golden } from "../../support/golden.js";
import { upcycle, upcycleJson } from "../../cli/upcycle.js";

const norm = "model.norm.weight";

/** llama with other values of its final norm. */
const changed = (change: (values: Float32Array) => Float32Array): string =>
  variant("dense/llama", (tensors) =>
    tensors.map((tensor) =>
      tensor.name === norm
        ? { ...tensor, bytes: fromFloat32("F32", change(toFloat32("F32", tensor.bytes).slice())) }
        : tensor,
    ),
  );

describe("diffCheckpoints", () => {
  it("finds no difference between equal models in one file and in shards", async () => {
    const dir = fresh();
    await withCheckpoint(golden("dense/llama"), (source) => rewrite(source, dir, { maxShardBytes: 40_000 }));
    const diff = await diffCheckpoints(golden("dense/llama"), dir);
    expect(diff).toMatchObject({ onlyA: [], onlyB: [] });
    expect(diff.tensors).toHaveLength(21);
    expect(
      diff.tensors.every(({ equal, difference }) => equal && difference!.maxAbs === 0 && difference!.relative === 0),
    ).toBe(true);
    expect((await diffCheckpoints(golden("dense/llama"), golden("dense/llama"))).equal).toBe(true);
  });

  it("measures a difference by its definition", async () => {
    let before = new Float32Array();
    const dir = changed((values) => {
      before = values.slice();
      return values.map((value, i) => (i === 3 ? value + 0.5 : i === 4 ? -value : value));
    });
    const diff = await diffCheckpoints(golden("dense/llama"), dir);
    expect(diff.equal).toBe(false);
    expect(diff.tensors.filter(({ equal }) => !equal).map(({ name }) => name)).toEqual([norm]);
    const after = before.map((value, i) => (i === 3 ? value + 0.5 : i === 4 ? -value : value));
    const differences = Array.from(before, (value, i) => Math.abs(value - at(after, i)));
    const length = (x: ArrayLike<number>): number =>
      Math.sqrt(Array.from(x).reduce((sum, value) => sum + value * value, 0));
    const { maxAbs, meanAbs, relative, cosine } = diff.tensors.find(({ name }) => name === norm)!.difference!;
    expect(maxAbs).toBe(Math.max(...differences));
    expect(meanAbs).toBeCloseTo(differences.reduce((x, y) => x + y) / differences.length, 12);
    expect(relative).toBeCloseTo(length(differences) / length(before), 12);
    expect(cosine).toBeCloseTo(
      before.reduce((sum, value, i) => sum + value * at(after, i), 0) / (length(before) * length(after)),
      12,
    );
  });

  it("reports a NaN as NaN, and tells equal values in another precision from equal bytes", async () => {
    const broken = await diffCheckpoints(
      golden("dense/llama"),
      changed((values) => values.fill(NaN, 2, 3)),
    );
    expect(broken.tensors.find(({ name }) => name === norm)!.difference).toEqual({
      maxAbs: NaN,
      meanAbs: NaN,
      relative: NaN,
      cosine: NaN,
    });
    const dir = fresh();
    await withCheckpoint(golden("dense/llama"), (source) => rewrite(source, dir, { dtype: "BF16" }));
    const rounded = await diffCheckpoints(golden("dense/llama"), dir);
    expect(rounded.tensors.every(({ dtypes, equal }) => dtypes.join() === "F32,BF16" && !equal)).toBe(true);
    expect(rounded.tensors.every(({ difference }) => difference!.relative < 2 ** -8)).toBe(true);
    expect(rounded.config.map(({ key }) => key)).toContain("dtype");
  });

  it("matches a parent's tensors with its child's, and lists what only one has", async () => {
    const out = fresh();
    await resultOf(convertCheckpoint({ source: golden("dense/llama"), recipe: upcycleRecipe("E2G1T1"), out }));
    const { onlyA, onlyB, tensors, config } = await diffCheckpoints(golden("dense/llama"), out);
    expect(onlyA).toHaveLength(6);
    expect(onlyA[0]).toBe("model.layers.0.mlp.gate_proj.weight");
    expect(onlyB).toHaveLength(2 * (1 + 2 * 3));
    expect(tensors.every(({ equal }) => equal)).toBe(true);
    expect(config.find(({ key }) => key === "model_type")).toEqual({ key: "model_type", a: '"llama"', b: '"mixtral"' });
  });

  it("says which shapes differ, and refuses a folder that is no model", async () => {
    const [whole, parts] = [fresh(), fresh()];
    await resultOf(convertCheckpoint({ source: golden("dense/llama"), recipe: upcycleRecipe("E2G1T1"), out: whole }));
    await resultOf(convertCheckpoint({ source: golden("dense/llama"), recipe: upcycleRecipe("E2G2T2"), out: parts }));
    const diff = await diffCheckpoints(whole, parts);
    const other = diff.tensors.filter(({ shapes }) => shapes[0].join() !== shapes[1].join());
    expect(other).toHaveLength(2 * (1 + 2 * 3));
    expect(other.every(({ difference, equal }) => difference === null && !equal)).toBe(true);
    await expect(diffCheckpoints(golden("dense/llama"), fresh())).rejects.toBeInstanceOf(UpcycleError);
  });
});

describe("differences by slot", () => {
  const tensor = (name: string, relative: number, rest: Partial<TensorDiff> = {}): TensorDiff => ({
    name,
    shapes: [[2], [2]],
    dtypes: ["F32", "F32"],
    nonFinite: [0, 0],
    equal: relative === 0,
    difference: { maxAbs: relative, meanAbs: relative, relative, cosine: 1 - relative },
    ...rest,
  });

  it("are one group for all layers and experts, with the layers that differ, the largest first", () => {
    const layers = [0, 1, 2, 3, 4].map((n) =>
      tensor(`model.layers.${n}.self_attn.q_proj.weight`, n === 3 ? 0 : 0.1 * n + 0.1),
    );
    const experts = [0, 1].flatMap((n) =>
      [0, 1].map((m) => tensor(`model.layers.${n}.mlp.experts.${m}.up_proj.weight`, 0.9)),
    );
    expect(groupDiffs([...layers, tensor("model.norm.weight", 0.2), ...experts])).toMatchObject([
      { name: "model.layers.*.mlp.experts.*.up_proj.weight", tensors: 4, of: 4, layers: [[0, 1]] },
      {
        name: "model.layers.*.self_attn.q_proj.weight",
        tensors: 4,
        of: 5,
        layers: [
          [0, 2],
          [4, 4],
        ],
        difference: { maxAbs: 0.5, relative: 0.5, cosine: 0.5 },
      },
      { name: "model.norm.weight", tensors: 1, of: 1, layers: [] },
    ]);
  });

  it("have other shapes, other precisions and NaN in groups of their own", () => {
    const diff = groupDiffs([
      tensor("layers.0.q", 0.5),
      tensor("layers.1.q", 0.5, { dtypes: ["F32", "BF16"] }),
      tensor("layers.2.q", 0.5, { shapes: [[2], [3]], difference: null }),
      tensor("layers.3.q", 0.5, { difference: { maxAbs: 1, meanAbs: NaN, relative: NaN, cosine: NaN } }),
    ]);
    expect(diff.map(({ layers, difference }) => [layers, difference?.relative])).toEqual([
      [
        [
          [0, 0],
          [3, 3],
        ],
        NaN,
      ],
      [[[2, 2]], undefined],
      [[[1, 1]], 0.5],
    ]);
  });

  it("name tensors that only one model has by slot too", () => {
    expect(groupNames(["layers.0.a", "layers.1.a", "head"])).toEqual([
      { name: "layers.*.a", tensors: 2, layers: [[0, 1]] },
      { name: "head", tensors: 1, layers: [] },
    ]);
  });
});

describe("upcycle diff", () => {
  it("shows the differences in 80 columns, and fails only if asked to", async () => {
    const dir = changed((values) => values.map((value) => 2 * value));
    const config = JSON.parse(readFileSync(join(dir, "config.json"), "utf8")) as Record<string, unknown>;
    writeFileSync(join(dir, "config.json"), JSON.stringify({ ...config, initializer_range: 0.5 }));
    const shown = await upcycle("diff", golden("dense/llama"), dir);
    expect(shown.code).toBe(0);
    expect(shown.stdout).toContain("tensors in both: 21, 20 of them equal to the last bit");
    expect(shown.stdout).toMatch(/model\.norm\.weight +1 of 1 +\S+ +\S+ +1\.00 +1\.00000/);
    expect(shown.stdout).toMatch(/initializer_range +\S+ +0\.5/);
    expect(Math.max(...shown.stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
    expect((await upcycle("diff", golden("dense/llama"), dir, "--exit-code")).code).toBe(1);
    expect(await upcycle("diff", golden("dense/llama"), golden("dense/llama"), "--exit-code")).toMatchObject({
      code: 0,
      stdout: "no difference: 21 tensors and the config are equal\n",
    });
    expect(await upcycleJson("diff", golden("dense/llama"), dir)).toMatchObject({ equal: false, onlyA: [], onlyB: [] });
  });
});
