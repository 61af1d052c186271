import { describe, expect, it } from "vitest";
import { carriedTokenizerConfig, type CarriedTokenizer } from "../../../src/files/checkpoint/carried-tokenizer.js";

const none: CarriedTokenizer = { tokenizerConfig: null, specialTokens: null, tokenizer: null, config: null };
const tokenizer = {
  added_tokens: [
    { id: 3, content: "<s>" },
    { id: 7, content: "</s>" },
  ],
};
const configFor = (from: Partial<CarriedTokenizer>): unknown => {
  const text = carriedTokenizerConfig({ ...none, ...from });
  return text === null ? null : JSON.parse(text);
};

describe("tokenizer_config.json of a carried tokenizer", () => {
  it("is configFor where there is none, with the ids of the model's config by name", () => {
    expect(
      configFor({
        tokenizer,
        config: { max_position_embeddings: 512, bos_token_id: 3, eos_token_id: [7, 3], pad_token_id: 99 },
      }),
    ).toEqual({
      tokenizer_class: "PreTrainedTokenizerFast",
      model_max_length: 512,
      clean_up_tokenization_spaces: false,
      bos_token: "<s>",
      eos_token: "</s>",
    });
    const eos = { content: "</s>", lstrip: false };
    expect(configFor({ tokenizer: {}, specialTokens: { eos_token: eos } })).toEqual({
      tokenizer_class: "PreTrainedTokenizerFast",
      clean_up_tokenization_spaces: false,
      eos_token: eos,
    });
  });

  it("gets a class if it names none, or code that stays behind", () => {
    expect(configFor({ tokenizer, tokenizerConfig: { model_max_length: 9, chat_template: "x" } })).toEqual({
      model_max_length: 9,
      chat_template: "x",
      tokenizer_class: "PreTrainedTokenizerFast",
    });
    expect(
      configFor({
        tokenizer,
        tokenizerConfig: {
          tokenizer_class: "OwnTokenizer",
          auto_map: { AutoTokenizer: ["tokenization_own.OwnTokenizer", null] },
        },
      }),
    ).toEqual({
      tokenizer_class: "PreTrainedTokenizerFast",
    });
  });

  it("stays as it is where it names a class, and where there is no tokenizer.json", () => {
    expect(configFor({ tokenizer, tokenizerConfig: { tokenizer_class: "LlamaTokenizerFast" } })).toBeNull();
    expect(configFor({ tokenizerConfig: { model_max_length: 9 } })).toBeNull();
    expect(configFor({})).toBeNull();
  });
});
