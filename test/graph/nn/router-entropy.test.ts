import { expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import { routerEntropy } from "../../../src/graph/nn/router-entropy.js";

const entropyOf = (logits: readonly number[], experts: number): number => {
  const b = new GraphBuilder();
  const input = b.input("logits", "f32", [logits.length / experts, experts]);
  return at(at(evaluate(b.finish([routerEntropy(b, input)]), [Float64Array.from(logits)]), 0).data, 0);
};

it("router entropy is that of the softmax, averaged over tokens", () => {
  expect(entropyOf([0, 0, 0, 0, 7, 7, 7, 7], 4)).toBeCloseTo(Math.log(4), 12);
  expect(entropyOf([0, 1000, 0], 3)).toBeCloseTo(0, 9);
  const noise = new Float32Array(15);
  randomStream(1, "logits").normals(noise, 0);
  const rows = [0, 1, 2].map((row) => [...noise.subarray(5 * row, 5 * row + 5)]);
  const plain = rows.map((row) => {
    const weights = row.map(Math.exp);
    const total = weights.reduce((a, c) => a + c);
    return weights.reduce((sum, weight) => sum - (weight / total) * Math.log(weight / total), 0);
  });
  expect(entropyOf([...noise], 5)).toBeCloseTo(plain.reduce((a, c) => a + c) / 3, 12);
});
