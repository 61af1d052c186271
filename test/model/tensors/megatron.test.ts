import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import { argumentsIn, settingsOfArguments } from "../../../src/model/decoder/megatron-arguments.js";
import { megatronObstacles, specFromMegatron } from "../../../src/model/decoder/megatron.js";
import type { DecoderSpec } from "../../../src/model/decoder/types.js";
import { extraStates, keysFound, megatronTensors, writtenKeys } from "../../../src/model/tensors/megatron.js";
import { piecesOf } from "../../../src/model/tensors/placement.js";
import { golden, goldenModels } from "../../support/golden.js";

/** What Megatron-Core saved (`test/golden/megatron/inventory`): tensors and byte objects of the model. */
function inventory(name: string): { spec: DecoderSpec; tensors: Map<string, number[]>; objects: string[] } {
  const lines = readFileSync(golden("megatron", "inventory", `${name}.txt`), "utf8").split("\n");
  const isModel = (key: string): boolean => /^(embedding|decoder|output_layer)\./.test(key);
  const tensors = lines.flatMap((line) => {
    const match = /^T (\S+) \S+ (\[[\d, ]+\])/.exec(line);
    return match !== null && isModel(match[1]!) ? [[match[1]!, JSON.parse(match[2]!) as number[]] as const] : [];
  });
  const objects = lines.flatMap((line) => (line.startsWith("B ") && isModel(line.slice(2)) ? [line.slice(2)] : []));
  const spec = specFromMegatron(settingsOfArguments(argumentsIn(lines[0]!.replace("# ", ""))), name, 128);
  return { spec, tensors: new Map(tensors), objects };
}

describe("names of Megatron-Core", () => {
  it.each(["dense", "moe", "moe-shared", "moe-perlayer", "moe-0.14", "moe-0.18"])(
    "of the model of inventory %s are those that it saved, with their shapes",
    (name) => {
      const { spec, tensors, objects } = inventory(name);
      const keys = keysFound(tensors.keys());
      const own = megatronTensors(spec, keys);
      const shapes = [...own].map(([key, { shape }]): [string, readonly number[]] => [key, shape]);
      expect(Object.fromEntries(shapes)).toEqual(Object.fromEntries(tensors));
      const written = new Set(extraStates(spec, keys));
      expect(objects.filter((key) => !written.has(key))).toEqual([]);
    },
  );

  it("are missing for LayerNorms on queries and keys, whose biases no description has", () => {
    expect(() => inventory("ln-bias")).toThrow("setting qk_layernorm is true, expected none with LayerNorm");
  });

  const held = goldenModels
    .map((name) => [name, specFromConfig(JSON.parse(readFileSync(golden(name, "config.json"), "utf8")), name)] as const)
    .filter(([, spec]) => megatronObstacles(spec).length === 0);

  it.each(held)("the slots of %s fill every tensor once, in all spellings", (_, spec) => {
    const written = writtenKeys(spec);
    const singleton = { ...written, layers: "separate", halves: "separate", experts: "separate" } as const;
    for (const keys of [written, { ...written, layers: "separate" } as const, singleton])
      for (const { shape, slots } of megatronTensors(spec, keys).values()) {
        const filled = new Uint8Array(shape.reduce((a, b) => a * b, 1));
        for (const place of slots)
          for (const { at, count } of piecesOf(place)) for (let i = at; i < at + count; i++) filled[i]!++;
        expect(filled.every((times) => times === 1)).toBe(true);
      }
  });
});
