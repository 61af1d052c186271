import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import type { RoutingConfig } from "../../../src/base/schemas/index.js";
import {
  sigmoidRouter,
  softmaxRouter,
  type DecoderSpec,
  type MoeFfn,
  type RouterSpec,
} from "../../../src/model/decoder/types.js";
import { trainProgram } from "../../../src/graph/programs/programs.js";
import {
  checkRouting,
  correctionKeys,
  elsewhereOf,
  movedBias,
  routingFeeds,
  routingSettings,
} from "../../../src/engine/routing/routing.js";
import { type RoutingFeed } from "../../../src/graph/programs/routing.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { megatronRouting } from "../../support/megatron.js";
import { denseSpec, moeSpec, routed } from "../../support/runs.js";
import { lineOf } from "../../support/line.js";

const deepseek = routed(sigmoidRouter({ groups: { count: 2, kept: 1 }, renormalised: true, scaling: 1 }));

it("refuses what the model cannot have, in one line", () => {
  const line = (spec: DecoderSpec, routing: RoutingConfig): string =>
    lineOf(() => checkRouting(spec, { routing, auxLoss: 0 }));
  const sparsemixer: RouterSpec = { ...softmaxRouter("softmax-topk"), score: "sparsemixer" };
  expect([
    line(denseSpec, { jitter: 0.1 }),
    line(moeSpec, { bias: 0.001 }),
    line(deepseek, { sinkhorn: true }),
    line(routed({ ...sigmoidRouter({ groups: null, renormalised: true, scaling: 1 }) }), { sinkhorn: true }),
    line(routed(sparsemixer), { sinkhorn: true }),
    line(routed(softmaxRouter("topk-softmax"), 1), { sinkhorn: true }),
  ]).toMatchInlineSnapshot(`
    [
      "training.routing: this model is dense, it has no routers; remove routing, or upcycle the model first",
      "training.routing.bias: routers of the family mixtral have no bias to balance experts with; make it with upcycle convert --correction-bias (in files correctionBias: true), or balance by auxLoss",
      "training.routing.sinkhorn: Sinkhorn routing does not go with a router that chooses within groups of experts; balance by auxLoss or routing.bias instead",
      "training.routing.sinkhorn: Sinkhorn routing does not go with a router that has a correction bias, which evaluation would choose by; balance by auxLoss or routing.bias instead",
      "training.routing.sinkhorn: Sinkhorn routing does not go with a sparsemixer router, whose weights hang on its own choices; balance by auxLoss instead",
      "training.routing.sinkhorn: Sinkhorn routing does not go with one renormalised expert per token: its weight is always 1, so the router would learn nothing; use a router that is not renormalised (softmax-topk)",
    ]
  `);
  const fine: readonly (readonly [DecoderSpec, RoutingConfig])[] = [
    [moeSpec, { sinkhorn: true, jitter: 0.1 }],
    [deepseek, { bias: 0.001, capacity: { factor: 1, drop: "probs" } }],
    [routed(softmaxRouter("softmax-topk"), 1), { sinkhorn: true }],
  ];
  for (const [spec, routing] of fine) expect(line(spec, routing)).toBe("no error");
  expect(lineOf(() => checkRouting(denseSpec, { auxLoss: 0.01 }))).toBe("no error");
});

it("wants a loss of its own for each of layers with different numbers of experts", () => {
  const mixed: DecoderSpec = {
    ...deepseek,
    layers: deepseek.layers.map((layer, i) => ({ ...layer, ffn: { ...layer.ffn, experts: 4 + 2 * i } as MoeFfn })),
  };
  expect(lineOf(() => checkRouting(mixed, { auxLoss: 0.01, routing: { balance: "model" } }))).toBe(
    "training.routing.balance: layers with different numbers of experts (4, 6) share no load-balancing loss; " +
      "balance: layer has one for each",
  );
  const fine = [{ auxLoss: 0 }, { auxLoss: 0, routing: { balance: "model" } }, { auxLoss: 0.01 }] as const;
  for (const block of fine) {
    checkRouting(mixed, block);
    const { outputs, evaluation } = trainProgram(mixed, {
      batch: 1,
      sequence: 4,
      auxCoef: block.auxLoss,
      zCoef: 0,
      routing: routingSettings({ ...block, accumulate: 1 }),
    });
    expect([outputs.balance === null, evaluation.outputs.balance]).toEqual(["routing" in block, null]);
  }
  expect(() => trainProgram(mixed, { batch: 1, sequence: 4, auxCoef: 0.1, zCoef: 0 })).toThrow(
    "different numbers of experts",
  );
});

it("says in settings what a block says, and that one micro-batch is the whole step", () => {
  const plain = { balance: "layer", sinkhorn: false, jitter: false, capacity: null };
  expect(routingSettings({ accumulate: 2 })).toEqual(plain);
  expect(routingSettings({ accumulate: 2, routing: { balance: "global", jitter: 0.1 } })).toEqual({
    ...plain,
    balance: "global",
    jitter: true,
  });
  expect(
    routingSettings({ accumulate: 1, routing: { balance: "running", capacity: { factor: 2, drop: "position" } } }),
  ).toEqual({ ...plain, balance: "layer", capacity: { factor: 2, by: "position" } });
});

describe("the expert bias", () => {
  it.each(megatronRouting.bias)("moves as Megatron's", ({ bias, counts, rate, moved }) => {
    movedBias(Float32Array.from(bias), counts, rate).forEach((value, e) => expect(value).toBeCloseTo(at(moved, e), 7));
  });

  it("stays where all are equal, and knows its slots", () => {
    expect(movedBias(Float32Array.of(1, 2), [3, 3], 0.1)).toEqual(Float32Array.of(1, 2));
    const keys = new Set(slotsOf(deepseek).map(({ key }) => key));
    expect(correctionKeys(deepseek)).toEqual(["layers.0.routerCorrection", "layers.1.routerCorrection"]);
    for (const key of correctionKeys(deepseek)) expect(keys.has(key)).toBe(true);
  });
});

describe("what routers are fed", () => {
  const jitter = (layer: number, elements = 40): RoutingFeed => ({
    kind: "jitter",
    layer,
    elements,
    shape: [elements / 4, 4],
  });
  const draw = { seed: 5, step: 3, jitter: 0.1 };

  it("is drawn around 1 as a function of seed, step, micro-batch and layer", () => {
    const [one] = routingFeeds([jitter(0, 20_000)], draw, 1, null) as [Float32Array];
    expect(Math.min(...one)).toBeGreaterThanOrEqual(0.9 - 1e-7);
    expect(Math.max(...one)).toBeLessThanOrEqual(1.1 + 1e-7);
    const mean = one.reduce((a, b) => a + b, 0) / one.length;
    const variance = one.reduce((a, b) => a + (b - mean) ** 2, 0) / one.length;
    expect(mean).toBeCloseTo(1, 2);
    // Of a uniform: (2 * 0.1)^2 / 12.
    expect(variance).toBeCloseTo(0.04 / 12, 4);
    expect(routingFeeds([jitter(0), jitter(1)], draw, 1, null)[0]).toEqual(one.slice(0, 40));
    // Number by number what the stream of that name says.
    const stream = randomStream(5, "router jitter 3 1 0");
    one.subarray(0, 7).forEach((value, i) => expect(value).toBeCloseTo(0.9 + 0.2 * stream.uniformAt(i), 6));
    const others = [
      [draw, 0, 0],
      [draw, 1, 1],
      [{ ...draw, step: 4 }, 1, 0],
      [{ ...draw, seed: 6 }, 1, 0],
    ] as const;
    for (const [other, micro, layer] of others)
      expect(routingFeeds([jitter(layer)], other, micro, null)[0]).not.toEqual(one.slice(0, 40));
    expect(() => routingFeeds([jitter(0)], undefined, 0, null)).toThrow("no seed");
  });

  it("is what other micro-batches have counted: those before, or all others", () => {
    const counts = [
      [
        [1, 2],
        [3, 0],
      ],
      [
        [0, 3],
        [1, 2],
      ],
      [
        [3, 0],
        [2, 1],
      ],
    ];
    const empty = [
      [0, 0],
      [0, 0],
    ];
    expect(elsewhereOf(0, 10, { before: [], all: null, empty })).toEqual({ counts: empty, tokens: 10 });
    expect(elsewhereOf(2, 10, { before: counts.slice(0, 2), all: null, empty })).toEqual({
      counts: [
        [1, 5],
        [4, 2],
      ],
      tokens: 30,
    });
    expect(elsewhereOf(1, 10, { before: counts.slice(0, 1), all: counts, empty })).toEqual({
      counts: [
        [4, 2],
        [5, 1],
      ],
      tokens: 30,
    });
    const feeds: RoutingFeed[] = [
      { kind: "elsewhere", index: 0, shape: [2] },
      { kind: "elsewhere", index: 1, shape: [2] },
      { kind: "perToken", shape: [] },
    ];
    expect(
      routingFeeds(feeds, undefined, 1, {
        counts: [
          [4, 2],
          [5, 1],
        ],
        tokens: 16,
      }),
    ).toEqual([Float32Array.of(4, 2), Float32Array.of(5, 1), Float32Array.of(1 / 16)]);
  });
});
