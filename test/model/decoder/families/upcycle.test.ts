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
