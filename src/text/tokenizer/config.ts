/** The `tokenizer_config.json` beside a `tokenizer.json`, so that other tools open it as we do. */
import { END_OF_TEXT } from "./train.js";

/** What the file depends on. */
interface TokenizerConfigSettings {
  /** Longest sequence of the model, in tokens. */
  readonly maxLength: number;
  /** `END_OF_TEXT` when left out. */
  readonly eosToken?: string | undefined;
}

/**
 * The text of `tokenizer_config.json`. With it transformers' AutoTokenizer gives our ids: it adds no BOS, cleans up no
 * spaces, and takes everything else from tokenizer.json. The end-of-text token also pads, because batching in
 * transformers wants one.
 */
export function tokenizerConfig(settings: TokenizerConfigSettings): string {
  const eosToken = settings.eosToken ?? END_OF_TEXT;
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    model_max_length: settings.maxLength,
    clean_up_tokenization_spaces: false,
    add_bos_token: false,
    add_eos_token: false,
    bos_token: null,
    eos_token: eosToken,
    pad_token: eosToken,
    unk_token: null,
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}
