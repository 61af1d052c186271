/**
 * Why models of some types are not read, for those whose mathematics a description does not say (transformers 5.18,
 * models/TYPE/modeling_TYPE.py).
 */

const recurrent = "its layers are recurrences (state spaces, linear attention or convolutions) or mixed with such";
const behindSums = "its norms stand behind the sum of a part and its input";
const behindEncoder = "it is a decoder that stands behind an encoder";

const reasons: Readonly<Record<string, readonly string[]>> = {
  "a LayerNorm stands between its embedding and its first layer": ["bloom"],
  "a norm stands between its embedding and its first layer": ["nanochat"],
  "its norms on queries and keys have biases": ["persimmon", "fuyu"],
  "its positions are fixed sinusoids": ["xglm", "ctrl"],
  [recurrent]: [
    ...["mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm", "recurrent_gemma", "jamba", "bamba", "zamba", "zamba2"],
    ...["nemotron_h", "falcon_h1", "lfm2", "kimi_linear", "olmo_hybrid", "minimax"],
    ...["qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"],
  ],
  [behindSums]: [
    ...["openai-gpt", "bert", "bert-generation", "camembert", "data2vec-text", "electra", "ernie", "rembert"],
    ...["roberta", "roc_bert", "roformer", "xlm", "xlm-roberta", "big_bird"],
  ],
  [behindEncoder]: [
    ...["bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp", "pegasus", "plbart"],
    ...["prophetnet", "trocr", "whisper", "mllama", "musicgen", "musicgen_melody"],
  ],
};

const byType = new Map(Object.entries(reasons).flatMap(([why, types]) => types.map((type) => [type, why] as const)));

/** Why models of this type are not read; undefined if nothing more is known of them. */
export function whyNotRead(type: string): string | undefined {
  return byType.get(type);
}
