import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { tensorBytes } from "../../../src/files/formats/safetensors.js";
import { parseIndex, planShards, shardName } from "../../../src/files/formats/shards.js";

const tensors = fc
  .array(
    fc.record({
      dtype: fc.constantFrom("F32" as const, "BF16" as const),
      shape: fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 2 }),
    }),
    { minLength: 1, maxLength: 20 },
  )
  .map((list) => list.map((tensor, i) => ({ name: `t${i}`, ...tensor })));

describe("planShards", () => {
  it("keeps order, respects the limit, and the index says where everything is", () => {
    fc.assert(
      fc.property(tensors, fc.integer({ min: 1, max: 400 }), (list, maxBytes) => {
        const { shards, index } = planShards(list, maxBytes);
        expect(shards.flatMap((shard) => shard.tensors)).toEqual(list);
        for (const [i, shard] of shards.entries()) {
          expect(shard.tensors.length).toBeGreaterThan(0);
          expect(shard.bytes).toBe(shard.tensors.reduce((sum, { dtype, shape }) => sum + tensorBytes(dtype, shape), 0));
          expect(shard.bytes <= maxBytes || shard.tensors.length === 1).toBe(true);
          expect(shard.file).toBe(shardName(i, shards.length));
        }
        expect(index === null).toBe(shards.length === 1);
        if (index === null) return;
        const where = new Map(
          shards.flatMap(({ file, tensors: inside }) => inside.map(({ name }): [string, string] => [name, file])),
        );
        expect(parseIndex(index, "i")).toEqual(where);
      }),
    );
  });

  it("names files as transformers does", () => {
    expect(shardName(0, 1)).toBe("model.safetensors");
    expect(shardName(2, 12)).toBe("model-00003-of-00012.safetensors");
  });

  it("writes the index transformers wrote", () => {
    const golden = readFileSync(
      new URL("../../golden/moe/mixtral/model.safetensors.index.json", import.meta.url),
      "utf8",
    );
    const { index } = planShards(
      [
        { name: "b", dtype: "BF16", shape: [2, 3] },
        { name: "a", dtype: "F32", shape: [5] },
      ],
      20,
    );
    expect(index).toBe(`{
  "metadata": {
    "total_parameters": 11,
    "total_size": 32
  },
  "weight_map": {
    "a": "model-00002-of-00002.safetensors",
    "b": "model-00001-of-00002.safetensors"
  }
}
`);
    expect(golden.split("\n").slice(0, 5)).toEqual([
      "{",
      '  "metadata": {',
      '    "total_parameters": 61856,',
      '    "total_size": 247424',
      "  },",
    ]);
  });

  it("refuses a limit of zero", () => {
    expect(() => planShards([], 0)).toThrow(UpcycleError);
    expect(() => planShards([], NaN)).toThrow(UpcycleError);
  });
});

describe("parseIndex", () => {
  it.each([
    ["nope", /not valid JSON/],
    ["null", /no weight_map object/],
    ['{"weight_map":[]}', /no weight_map object/],
    ['{"weight_map":{"a":"../x.safetensors"}}', /"..\/x.safetensors", expected a .safetensors file beside the index/],
    ['{"weight_map":{"a":3}}', /mapped to 3/],
    ['{"weight_map":{"a":"m.safetensors","a":"n.safetensors"}}', /"a" twice/],
  ])("refuses the index %s", (text, message) => {
    expect(() => parseIndex(text, "i")).toThrow(message);
    expect(() => parseIndex(text, "i")).toThrow(UpcycleError);
  });
});

it("an index of 100,000 files, and shards so small that there would be as many, are refused by their number", () => {
  const map = Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`t${i}`, `model-${i}.safetensors`]));
  expect(() => parseIndex(JSON.stringify({ weight_map: map }), "i")).toThrow(
    "index lists 100000 files, the limit is 10000",
  );
  const tensors = Array.from({ length: 20_000 }, (_, i) => ({ name: `t${i}`, dtype: "F32" as const, shape: [2] }));
  expect(() => planShards(tensors, 8)).toThrow("shards of 8 bytes would be 20000 files, the limit is 10000");
});
