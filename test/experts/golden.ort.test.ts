/** Routers, and losses without or with merged experts, as transformers computes them (test/golden/routers/make.py). */
import { readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { at, entryOf } from "../../src/base/at.js";
import { openStreamedModel, type StreamedModel } from "../../src/evals/streamed-model.js";
import { measureCosts, type AskedChange } from "../../src/experts/costs.js";
import { certaintyMeter } from "../../src/experts/measures/certainty.js";
import { pairCounts } from "../../src/experts/measures/coactivation.js";
import { observe } from "../../src/experts/observe.js";
import type { Sequence } from "../../src/experts/texts.js";
import { routeRule } from "../../src/graph/nn/experts.js";
import { slotKey } from "../../src/model/tensors/slots.js";
import { inThread } from "../support/backend.js";
import { golden, readTensors, relativeError, type GoldenTensor } from "../support/golden.js";

const names = readdirSync(golden("routers"))
  .filter((file) => file.endsWith(".safetensors"))
  .map((file) => file.replace(".safetensors", ""));

const numbers = (tensors: ReadonlyMap<string, GoldenTensor>, key: string): number[] => [...entryOf(tensors, key).data];
const number = (tensors: ReadonlyMap<string, GoldenTensor>, key: string): number => at(numbers(tensors, key), 0);

async function withGolden<T>(
  name: string,
  use: (model: StreamedModel, tensors: Map<string, GoldenTensor>) => Promise<T>,
): Promise<T> {
  const model = await openStreamedModel(golden(`moe/${name}`), inThread, { threads: 1, weightElements: 300 });
  try {
    return await use(model, readTensors(golden("routers", `${name}.safetensors`)));
  } finally {
    await model.close();
  }
}

/** The golden ids [2, 24] as sequences of `length` tokens with the tokens behind them. */
function sequencesOf(name: string, length: 23 | 24): Sequence[] {
  const { data } = entryOf(readTensors(golden(`moe/${name}`, "expected.safetensors")), "input_ids");
  return [0, 1].map((row) => {
    const ids = Int32Array.from(data.subarray(row * 24, (row + 1) * 24));
    return {
      text: row,
      ids: ids.slice(0, length),
      targets: length === 23 ? ids.slice(1) : ids,
      classes: new Int32Array(length),
    };
  });
}

it("golden files are there for routers of every kind", () => {
  expect(names).toEqual(["deepseek_v3", "glm4_moe", "gpt_oss", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe_norm"]);
});

describe.each(names)("%s", (name) => {
  it("routes every token to transformers' experts with its weights, entropy and mass", async () => {
    await withGolden(name, async (model, tensors) => {
      let layers = 0;
      for await (const { layer, ffn, logits, weights, chosen } of observe(
        model,
        sequencesOf(name, 24),
        () => undefined,
      )) {
        layers += 1;
        const [expectedWeights, expectedChosen] = [
          numbers(tensors, `${layer}.weights`),
          numbers(tensors, `${layer}.chosen`),
        ];
        const ours = at(logits, 0);
        expect(relativeError(ours, numbers(tensors, `${layer}.logits`))).toBeLessThan(1e-5);
        for (let token = 0; token < chosen.length / ffn.topK; token++) {
          const row = (values: ArrayLike<number>): number[] =>
            Array.from({ length: ffn.topK }, (_, k) => at(values, token * ffn.topK + k));
          // The order of a token's experts is nobody's concern, their weights are.
          const pairs = (experts: number[], gates: number[]): (readonly [number, number])[] =>
            experts.map((expert, k) => [expert, at(gates, k)] as const).sort(([a], [b]) => a - b);
          const [mine, theirs] = [pairs(row(chosen), row(weights)), pairs(row(expectedChosen), row(expectedWeights))];
          expect(mine.map(([expert]) => expert)).toEqual(theirs.map(([expert]) => expert));
          mine.forEach(([, weight], k) => expect(weight).toBeCloseTo(at(theirs, k)[1], 5));
        }
        const counts = pairCounts(chosen, ffn.experts, ffn.topK).map((row, expert) => at(row, expert));
        expect(counts).toEqual(counts.map((_, expert) => expectedChosen.filter((one) => one === expert).length));
        const correction = ffn.router.correctionBias
          ? await model.weights.readFloat32(slotKey({ part: "routerCorrection", layer }))
          : null;
        const meter = certaintyMeter(ffn.experts, ffn.topK, routeRule(ffn.router), correction);
        meter.add(ours, chosen);
        expect(meter.result().entropy).toBeCloseTo(number(tensors, `${layer}.entropy`), 5);
        expect(meter.result().mass).toBeCloseTo(number(tensors, `${layer}.mass`), 5);
      }
      expect(layers).toBe(entryOf(tensors, "without.layers").data.length);
    });
  });

  it("loses what a checkpoint loses that cannot choose these experts, or has the mean of two in both", async () => {
    await withGolden(name, async (model, tensors) => {
      const [gone, first] = [numbers(tensors, "without.experts"), numbers(tensors, "merged.experts")];
      const change = (kind: AskedChange["kind"]): AskedChange => ({
        kind,
        groups: numbers(tensors, `${kind}.layers`).map((layer, i) => ({
          layer,
          experts: kind === "without" ? [at(gone, i)] : first.slice(2 * i, 2 * i + 2),
        })),
        asked: true,
        expected: null,
      });
      const changes = [change("without"), change("merged")];
      const { loss, costs } = await measureCosts(model, sequencesOf(name, 23), changes, 2, () => undefined);
      expect(loss).toBeCloseTo(number(tensors, "loss"), 5);
      for (const cost of costs) {
        expect(cost.loss).toBeCloseTo(number(tensors, `${cost.kind}.loss`), 5);
        expect(cost.difference).toBeCloseTo(cost.loss - loss, 12);
        expect(Math.abs(cost.difference)).toBeGreaterThan(2e-5);
      }
    });
  });
});

describe("changes", () => {
  it("of experts that no token chose cost exactly nothing, and begin where they are", async () => {
    await withGolden("qwen3_moe_norm", async (model) => {
      const [short] = sequencesOf("qwen3_moe_norm", 23);
      const two = { ...short!, ids: short!.ids.slice(0, 2), targets: short!.targets.slice(0, 2) };
      const unused: { layer: number; experts: number[] }[] = [];
      for await (const { layer, ffn, chosen } of observe(model, [two], () => undefined)) {
        const expert = Array.from({ length: ffn.experts }, (_, e) => e).find((e) => !chosen.includes(e));
        unused.push({ layer, experts: [expert!] });
      }
      expect(unused).toHaveLength(2);
      const changes = unused.map((group): AskedChange => ({
        kind: "without",
        groups: [group],
        asked: true,
        expected: null,
      }));
      const { costs } = await measureCosts(model, [two], changes, 1, () => undefined);
      expect(costs.map(({ difference, error, interval }) => [difference, error, interval])).toEqual([
        [0, null, null],
        [0, null, null],
      ]);
    });
  });
});
