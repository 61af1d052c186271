import { describe, expect, it } from "vitest";
import type { DecoderSpec, MoeFfn } from "../../../../src/model/decoder/types.js";
import { goldenConfig, read, refuses, withExperts, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";

const own = (spec: DecoderSpec): DecoderSpec => ({ ...spec, family: "upcycle" });

describe("upcycle", () => {
  const phimoe = own(read(goldenConfig("moe/phimoe")));
  const mixtral = own(read(goldenConfig("moe/mixtral")));
  const router = (spec: DecoderSpec, change: Partial<MoeFfn["router"]>): DecoderSpec => {
    const { ffn } = at(spec.layers, 0);
    if (ffn.kind !== "moe") throw new Error("a mixture is needed");
    return withExperts(spec, { router: { ...ffn.router, ...change } });
  };

  it("reads what it writes", () => {
    expect(read(write(phimoe))).toEqual(phimoe);
    expect(read(write(mixtral))).toEqual(mixtral);
  });

  it("reads folders that were written before some keys were there", () => {
    const { decoder, ...config } = write(mixtral);
    const { positionsOffset, headBias, attn, ...older } = decoder as Record<string, unknown>;
    const { alibi, lengthScale, ...olderAttention } = attn as Record<string, unknown>;
    expect([positionsOffset, headBias, alibi, lengthScale]).toEqual([0, false, null, null]);
    expect(read({ ...config, decoder: { ...older, attn: olderAttention } })).toEqual(mixtral);
  });

  it("linear biases that do not fit the heads are refused", () => {
    const { heads } = mixtral.attn;
    const alibi = { slopes: Array.from({ length: heads }, () => 0.5), rounded: false, scaled: false };
    const biased = (change: Partial<typeof alibi>): DecoderSpec => ({
      ...mixtral,
      attn: { ...mixtral.attn, alibi: { ...alibi, ...change } },
    });
    expect(read(write(biased({})))).toEqual(biased({}));
    refuses(() => read(write(biased({ slopes: [1] }))), `1 slopes for ${heads} heads`);
    refuses(() => read(write(biased({ rounded: true }))), "rounded linear biases need as many key heads as heads");
  });

  it("a spec whose parts do not fit together is refused in a line, not by the network", () => {
    const selects =
      "layer 0: sparsemixer selects among all experts by their logits, without groups, correction or renormalisation";
    refuses(() => read(write(router(phimoe, { correctionBias: true }))), selects);
    refuses(() => read(write(router(phimoe, { renormalise: { plus: 0, atLeast: 0 } }))), selects);
    refuses(() => read(write(withExperts(phimoe, { topK: 1 }))), "layer 0: sparsemixer selects 2 experts, not 1");
    refuses(() => read(write(withExperts(mixtral, { topK: 99 }))), "layer 0 selects 99 of");
    refuses(
      () => read(write({ ...mixtral, attn: { ...mixtral.attn, kvHeads: mixtral.attn.heads + 1 } })),
      "heads are no multiple of",
    );
  });
});
