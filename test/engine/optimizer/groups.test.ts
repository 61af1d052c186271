import { describe, expect, it } from "vitest";
import { lower } from "../../../src/graph/onnx/lower.js";
import { groupOf, planParameters } from "../../../src/engine/optimizer/groups.js";
import { trainProgram } from "../../../src/graph/programs/programs.js";
import { sigmoidRouter } from "../../../src/model/decoder/types.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { denseSpec, moeSpec } from "../../support/runs.js";
import { lineOf } from "../../support/line.js";

const shared = {
  ...moeSpec,
  layers: moeSpec.layers.map((layer) => ({ ...layer, ffn: { ...layer.ffn, shared: { ffnDim: 8, gated: true } } })),
} as typeof moeSpec;

describe("groups", () => {
  it("are routers, routed experts and the rest", () => {
    const parts = (group: string): string[] => [
      ...new Set(
        slotsOf(shared)
          .filter((slot) => groupOf(slot) === group)
          .map((slot) => (slot.at.expert === undefined ? slot.at.part : `expert ${slot.at.part}`)),
      ),
    ];
    expect(parts("router")).toEqual(["router", "sharedRouter"]);
    expect(parts("experts")).toEqual(["expert gate", "expert up", "expert down"]);
    expect(parts("rest")).toEqual([
      "embed",
      "inputNorm",
      "q",
      "k",
      "v",
      "o",
      "ffnNorm",
      "sharedGate",
      "sharedUp",
      "sharedDown",
      "finalNorm",
    ]);
  });

  it("tune only what departs from the common settings", () => {
    expect(planParameters(moeSpec, {})).toEqual({ frozen: new Set(), tuning: {} });
    const { tuning } = planParameters(moeSpec, { groups: { router: { lr: 3 }, experts: { weightDecay: 0 } } });
    expect(tuning["layers.1.router"]).toEqual({ rate: 3, decay: null });
    expect(tuning["layers.0.experts.2.up"]).toEqual({ rate: 1, decay: 0 });
    expect(Object.keys(tuning).length).toBe(2 + 2 * 4 * 3);
    expect(planParameters(denseSpec, { groups: { router: { lr: 3 } } }).tuning).toEqual({});
  });

  it("leave a correction bias alone, without being told", () => {
    const router = sigmoidRouter({ groups: null, renormalised: true, scaling: 1 });
    const spec = {
      ...moeSpec,
      layers: moeSpec.layers.map((layer) => ({ ...layer, ffn: { ...layer.ffn, router } })),
    } as typeof moeSpec;
    expect(planParameters(spec, { groups: { router: { lr: 3 } } })).toMatchObject({
      frozen: new Set(["layers.0.routerCorrection", "layers.1.routerCorrection"]),
      tuning: { "layers.0.router": { rate: 3 } },
    });
    const program = trainProgram(spec, { batch: 1, sequence: 8, auxCoef: 0.01, zCoef: 0 });
    expect(program.params.length - program.trained.length).toBe(2);
    expect(program.graph.outputs.length).toBe(program.gradients + program.trained.length);
  });

  it("freeze by group and by pattern, where a dot is a dot", () => {
    const frozen = (settings: Parameters<typeof planParameters>[1]): string[] => [
      ...planParameters(moeSpec, settings).frozen,
    ];
    expect(frozen({ groups: { router: { freeze: true } } })).toEqual(["layers.0.router", "layers.1.router"]);
    expect(frozen({ freeze: ["layers.*.q", "embed"] })).toEqual(["layers.0.q", "layers.1.q", "embed"]);
    expect(frozen({ freeze: ["layers.1.experts.3.*"] })).toEqual(
      ["gate", "up", "down"].map((part) => `layers.1.experts.3.${part}`),
    );
    expect(lineOf(() => planParameters(moeSpec, { freeze: ["layersX0Xq"] }))).toMatch(
      /^training.freeze: freeze "layersX0Xq" names no parameter of this model; names look like embed, /,
    );
    expect(lineOf(() => planParameters(moeSpec, { freeze: ["layers.2.q"] }))).toContain(
      '"layers.2.q" names no parameter',
    );
    expect(lineOf(() => planParameters(moeSpec, { freeze: ["*"] }))).toBe(
      "training: every parameter is frozen, nothing is left to train",
    );
  });
});

describe("a program with frozen parameters", () => {
  const shape = { batch: 1, sequence: 8, auxCoef: 0.01, zCoef: 0 };
  const whole = trainProgram(moeSpec, shape);

  it("has gradients of the others only, the same ones, and fewer nodes", () => {
    const frozen = planParameters(moeSpec, { freeze: ["layers.0.*", "embed"] }).frozen;
    const part = trainProgram(moeSpec, { ...shape, frozen });
    expect(part.params).toEqual(whole.params);
    expect(part.trained.map(({ key }) => key)).toEqual(
      whole.params.map(({ key }) => key).filter((key) => !frozen.has(key)),
    );
    expect(part.graph.outputs.length).toBe(part.gradients + part.trained.length);
    // Nothing of layer 0 is trained, so its backward pass is gone: no attention gradient but that of layer 1.
    const count = (prim: string, { graph }: typeof part): number =>
      graph.nodes.filter((node) => node.prim === prim).length;
    expect([count("attentionGrad", whole), count("attentionGrad", part)]).toEqual([2, 1]);
    expect([count("embeddingGrad", whole), count("embeddingGrad", part)]).toEqual([1, 0]);
  });

  it("computes no expert's weight gradient that nobody asks for", () => {
    const matmuls = (frozen: ReadonlySet<string>): number =>
      lower(trainProgram(moeSpec, { ...shape, frozen }).graph).bytes.length;
    // One product per expert matrix: the rule gives all of a layer at once, lowering drops those that nobody reads.
    const one = planParameters(moeSpec, { freeze: ["layers.0.experts.0.gate"] }).frozen;
    const two = planParameters(moeSpec, { freeze: ["layers.0.experts.0.gate", "layers.0.experts.1.gate"] }).frozen;
    expect(matmuls(new Set()) - matmuls(one)).toBeGreaterThan(60);
    expect(matmuls(one) - matmuls(two)).toBeGreaterThan(60);
  });
});
