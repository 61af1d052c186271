/** The text part of a multimodal config: what its class assumes, ties and leaves out. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { multimodalTypes, textPartOf } from "../../../src/model/decoder/text-part.js";
import { goldenConfig, read, without, type Config } from "./families/configs.js";

const where = "config.json";

/** A multimodal config around the text config of a golden model; `tied` is what it says of its head, if anything. */
const around = (type: string, text: Config, tied?: boolean | null): Config => ({
  model_type: type,
  text_config: text,
  vision_config: {},
  ...(tied === undefined ? {} : { tie_word_embeddings: tied }),
});

describe("whether the head of a text part is tied", () => {
  const llama = without(goldenConfig("dense/llama"), "tie_word_embeddings");
  const tiedText = { ...llama, tie_word_embeddings: true };
  const untiedText = { ...llama, tie_word_embeddings: false };

  // As transformers 5.18 sets `tie_word_embeddings` of the whole config, from which it ties.
  it.each<[string, Config, boolean | null | undefined, boolean]>([
    ["llava", llama, undefined, false],
    ["llava", llama, true, true],
    ["llava", tiedText, undefined, true],
    ["llava", tiedText, false, true],
    ["llava", untiedText, true, true],
    ["llava", goldenConfig("dense/gemma"), undefined, true],
    ["llava", without(goldenConfig("dense/gemma"), "tie_word_embeddings"), false, true],
    ["llava_next", tiedText, false, false],
    ["llava_next", llama, null, false],
    ["mistral3", llama, undefined, true],
    ["mistral3", llama, false, false],
    ["internvl", goldenConfig("dense/qwen2"), true, true],
  ])("%s: %#", (type, text, whole, tied) => {
    expect(read(around(type, text, whole)).tiedHead).toBe(tied);
  });
});

describe("what a class assumes of its text config", () => {
  it("Llama's has as many heads for keys as for queries, however many those are", () => {
    const text = without(goldenConfig("dense/llama"), "num_key_value_heads", "model_type");
    const { attn } = read(around("llava", text));
    expect(attn.kvHeads).toBe(attn.heads);
  });

  it("GLM-ASR's text model has sizes of its own", () => {
    const { attn, hidden, layers, maxPositions, norm } = read({ model_type: "glmasr", text_config: {} });
    expect({ hidden, count: layers.length, maxPositions, eps: norm.eps }).toEqual({
      hidden: 2048,
      count: 28,
      maxPositions: 8192,
      eps: 1e-5,
    });
    expect(attn).toMatchObject({ heads: 16, kvHeads: 4, headDim: 128 });
  });
});

describe("what a class leaves out of the logits", () => {
  const granite = { ...goldenConfig("dense/granite"), logits_scaling: 8 };

  it("is said, and the other factors stay", () => {
    const whole = around("llava_next", granite);
    expect(textPartOf(whole, where)?.leftOut).toEqual([
      "logits_scaling 8 of its text config is left out of the logits, as the llava_next class of transformers 5 does " +
        "(the text model's own class and vLLM apply it)",
    ]);
    const { multipliers } = read(granite);
    expect(read(whole).multipliers).toEqual({ ...multipliers, logits: 1 });
  });

  it("is nothing where the class applies it, or where it does nothing", () => {
    expect(read(around("granite4_vision", granite)).multipliers.logits).toBe(1 / 8);
    for (const whole of [
      around("granite4_vision", granite),
      around("llava_next", { ...granite, logits_scaling: 1 }),
      around("gemma3", { ...goldenConfig("dense/gemma3_text"), final_logit_softcapping: null }),
    ])
      expect(textPartOf(whole, where)?.leftOut).toEqual([]);
  });
});

it("docs/support.md names every multimodal type that is read", () => {
  const page = readFileSync(fileURLToPath(new URL("../../../docs/support.md", import.meta.url)), "utf8");
  for (const type of multimodalTypes) expect(page).toContain(`\`${type}\``);
});
