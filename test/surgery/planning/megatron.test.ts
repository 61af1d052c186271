/**
 * `paper` scaling beside what Megatron-LM's own code makes of the same layer (test/golden/megatron/make.py), bit for
 * bit.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { entryOf, valueAt } from "../../../src/base/at.js";
import type { FloatDtype } from "../../../src/files/numeric/dtype.js";
import {
  softmaxRouter,
  type ActivationKind,
  type DecoderSpec,
  type RouterOrder,
} from "../../../src/model/decoder/types.js";
import { draftOf } from "../../../src/surgery/planning/draft.js";
import { evaluateExpr } from "../../../src/surgery/planning/evaluate.js";
import { upcycleFfns } from "../../../src/surgery/planning/experts.js";
import { sourceShapes } from "../../../src/surgery/planning/plan.js";
import { recipeName, upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { scaleFactors } from "../../../src/surgery/planning/scaling.js";
import { targets } from "../../../src/surgery/planning/targets.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { golden } from "../../support/golden.js";
import { denseSpec, rectanglesOfWhole } from "./fixtures.js";

const file = readFileSync(golden("megatron", "upcycled.safetensors"));
const headerLength = Number(file.readBigUInt64LE(0));
const header = JSON.parse(file.subarray(8, 8 + headerLength).toString()) as Record<
  string,
  { shape: number[]; data_offsets: [number, number] }
>;

function bytesOf(name: string): Buffer {
  const [begin, end] = valueAt(header, name).data_offsets;
  return file.subarray(8 + headerLength + begin, 8 + headerLength + end);
}

const kinds = { gated: [true, "silu"], gelu: [false, "gelu"], relu2: [false, "relu2"] } as const satisfies Record<
  string,
  [boolean, ActivationKind]
>;
type Kind = keyof typeof kinds;

function layerOf(kind: Kind): DecoderSpec {
  const [gated, activation] = kinds[kind];
  const source = denseSpec("llama", { layerCount: 1, hidden: 2 });
  return {
    ...source,
    layers: source.layers.map((layer) => ({
      ...layer,
      ffn: { kind: "dense", ffnDim: 8, bias: true, activation, gated },
    })),
  };
}

/** What each expert is, in Megatron's layout: gate rows before up rows, experts in order. */
async function upcycled(
  kind: Kind,
  dtype: FloatDtype,
  name: string,
  order: RouterOrder,
): Promise<Record<"fc1" | "fc1_bias" | "fc2" | "fc2_bias", Buffer>> {
  const source = layerOf(kind);
  const recipe = upcycleRecipe(name, { scaling: "paper", order });
  const { spec, values } = upcycleFfns(draftOf(source), recipe, {
    ...targets.upcycle,
    routers: { [order]: softmaxRouter(order) },
  });
  const shapes = sourceShapes(source);
  const dense = new Map<string, Buffer>();
  for (const [part, bias] of [
    ["fc1", ""],
    ["fc1_bias", "Bias"],
  ] as const) {
    const whole = bytesOf(`${kind}.${dtype}.${part}`);
    const half = kinds[kind][0] ? whole.length / 2 : 0;
    if (half > 0) dense.set(`layers.0.gate${bias}`, whole.subarray(0, half));
    dense.set(`layers.0.up${bias}`, whole.subarray(half));
  }
  dense.set("layers.0.down", bytesOf(`${kind}.${dtype}.fc2`));
  dense.set("layers.0.downBias", bytesOf(`${kind}.${dtype}.fc2_bias`));
  const context = {
    shapes,
    seed: 0,
    cache: new Map(),
    dtypeOf: () => dtype,
    // Aligned copies: a file's tensors begin anywhere.
    readRectangle: rectanglesOfWhole(shapes, (key) =>
      Promise.resolve({ dtype, bytes: Uint8Array.from(entryOf(dense, key)) }),
    ),
  };
  const parts = {
    fc1: [] as Uint8Array[],
    fc1_bias: [] as Uint8Array[],
    fc2: [] as Uint8Array[],
    fc2_bias: [] as Uint8Array[],
  };
  const into = {
    gate: "fc1",
    up: "fc1",
    gateBias: "fc1_bias",
    upBias: "fc1_bias",
    down: "fc2",
    downBias: "fc2_bias",
  } as const;
  for (let expert = 0; expert < recipe.expansion * recipe.granularity; expert++) {
    for (const part of ["gate", "up", "gateBias", "upBias", "down", "downBias"] as const) {
      const slot = slotsOf(spec).find(({ at }) => at.expert === expert && at.part === part);
      if (slot !== undefined)
        parts[into[part]].push(await evaluateExpr(entryOf(values, slot.key), slot.shape, dtype, context));
    }
  }
  return {
    fc1: Buffer.concat(parts.fc1),
    fc1_bias: Buffer.concat(parts.fc1_bias),
    fc2: Buffer.concat(parts.fc2),
    fc2_bias: Buffer.concat(parts.fc2_bias),
  };
}

const recipes = [...new Set(Object.keys(header).flatMap((name) => /\.(E\d+G\d+T\d+)\./.exec(name)?.slice(1, 2) ?? []))];

describe("Megatron-Core's upcycling", () => {
  it.each(recipes)("is paper scaling, to the last bit: %s", async (name) => {
    for (const kind of Object.keys(kinds) as Kind[]) {
      for (const dtype of ["F32", "BF16"] as const) {
        for (const order of ["topk-softmax", "softmax-topk"] as const) {
          const model = await upcycled(kind, dtype, name, order);
          for (const part of ["fc1", "fc1_bias", "fc2", "fc2_bias"] as const) {
            const key = `${kind}.${dtype}.${name}.${order}.${part}`;
            expect(model[part].equals(bytesOf(key)), key).toBe(true);
          }
        }
      }
    }
  });

  it("repeats the first E router rows G times each, as our router does", () => {
    for (const name of recipes) {
      const { expansion, granularity } = upcycleRecipe(name);
      const rows = new Float32Array(Uint8Array.from(bytesOf(`gated.F32.${name}.topk-softmax.router`)).buffer);
      // Row r of the router that it was made from holds 2r and 2r + 1.
      expect([...rows]).toEqual(
        Array.from({ length: expansion * granularity }, (_, e) => Math.floor(e / granularity)).flatMap((row) => [
          2 * row,
          2 * row + 1,
        ]),
      );
    }
  });

  it("has the same factors for every recipe", () => {
    const cases = new Uint16Array(Uint8Array.from(bytesOf("scales")).buffer);
    const values = new Float32Array(Uint8Array.from(bytesOf("scale_values")).buffer);
    expect(values.length).toBeGreaterThan(500);
    values.forEach((value, i) => {
      const [expansion, granularity, topK, root] = cases.subarray(4 * i, 4 * i + 4) as unknown as [
        number,
        number,
        number,
        number,
      ];
      const name = recipeName({ expansion, granularity, topK });
      const { gate, up, down, downBias } = scaleFactors(
        upcycleRecipe(name, { scaling: "paper", order: "softmax-topk" }),
        softmaxRouter("softmax-topk"),
        { gated: false, activation: root === 2 ? "gelu" : "relu2" },
      );
      expect([gate, up, down, downBias], name).toEqual([value, value, value, 1]);
    });
  });
});
