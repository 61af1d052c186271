/**
 * Arguments of Megatron's `pretrain_gpt.py` as settings, and the words of a shell script that call it. Source:
 * NVIDIA/Megatron-LM@d98e8a64, `training/arguments.py` (validate_args). Pure.
 */
import type { MegatronSettings, MegatronValue } from "./megatron-settings.js";
import { listOf } from "./megatron-settings.js";

/** An argument as it stands in a script. */
export interface MegatronArgument {
  /** With its dashes, such as `--num-experts`. */
  readonly flag: string;
  readonly values: readonly string[];
}

/** Words of a shell text: quotes and escapes are taken away, comments and line ends that are escaped too. */
export function shellWords(text: string): string[] {
  const words: string[] = [];
  let word: string | null = null;
  let quote: string | null = null;
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
    if (quote !== null) {
      if (char === quote) quote = null;
      else if (char === "\\" && quote === '"' && /["\\$`]/.test(text[i + 1] ?? "")) word = (word ?? "") + text[++i]!;
      else word = (word ?? "") + char;
    } else if (char === "'" || char === '"') {
      quote = char;
      word ??= "";
    } else if (char === "\\") {
      const next = text[++i];
      if (next !== "\n" && next !== undefined) word = (word ?? "") + next;
    } else if (/\s/.test(char) || ((char === "(" || char === ")") && (word === null || char === ")"))) {
      // Brackets around words are a list of the shell.
      if (word !== null) words.push(word);
      word = null;
    } else if (char === "#" && word === null) {
      while (i + 1 < text.length && text[i + 1] !== "\n") i++;
    } else word = (word ?? "") + char;
  }
  if (word !== null) words.push(word);
  return words;
}

/** Every argument among the words of a text, in order; `--flag=value` counts as two words. */
export function argumentsIn(text: string): MegatronArgument[] {
  const found: { flag: string; values: string[] }[] = [];
  for (const word of shellWords(text)) {
    const named = /^(--[a-z][\w-]*)(?:=(.*))?$/s.exec(word);
    if (named !== null) found.push({ flag: named[1]!, values: named[2] === undefined ? [] : [named[2]] });
    else found.at(-1)?.values.push(word);
  }
  return found;
}

/** Arguments whose name says something else than the setting that they change. */
const renamed: Readonly<Record<string, MegatronSettings>> = {
  "--disable-bias-linear": { add_bias_linear: false },
  "--no-bias-gelu-fusion": { bias_gelu_fusion: false },
  "--no-bias-swiglu-fusion": { bias_swiglu_fusion: false },
  "--no-rope-fusion": { apply_rope_fusion: false },
  "--no-yarn-correction-range-round-to-int": { yarn_correction_range_round_to_int: false },
  "--use-rotary-position-embeddings": { position_embedding_type: "rope" },
  "--no-position-embedding": { add_position_embedding: false },
};

/** The settings that arguments give. */
export function settingsOfArguments(given: readonly MegatronArgument[]): MegatronSettings {
  const settings: Record<string, MegatronValue> = { add_bias_linear: true };
  for (const { flag, values } of given) {
    const other = renamed[flag];
    const name = flag.slice(2).replaceAll("-", "_");
    if (other !== undefined) Object.assign(settings, other);
    else settings[name] = valueOf(name, values);
  }
  if (settings["norm_epsilon"] !== undefined) settings["layernorm_epsilon"] = settings["norm_epsilon"];
  if (settings["apply_layernorm_1p"] === true) settings["layernorm_zero_centered_gamma"] = true;
  return { ...usualSizes(settings), ...settings };
}

/** Sizes that are left out follow from others. */
function usualSizes({ hidden_size: hidden, ffn_hidden_size: ffn, swiglu }: MegatronSettings): MegatronSettings {
  if (typeof hidden !== "number" || typeof ffn === "number") return {};
  return { ffn_hidden_size: swiglu === true ? Math.floor(Math.floor((4 * hidden * 2) / 3) / 64) * 64 : 4 * hidden };
}

const pairs: ReadonlySet<string> = new Set(["window_size"]);

function valueOf(name: string, values: readonly string[]): MegatronValue {
  const [first] = values;
  if (first === undefined) return true;
  if (pairs.has(name))
    return values
      .join(",")
      .replace(/[()\s]/g, "")
      .split(",")
      .map(Number);
  if (/_freq$/.test(name)) return listOf(values.join("")) ?? values.join(" ");
  const plain = values.map((value) => (/^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$/.test(value) ? Number(value) : value));
  return plain.length === 1 ? plain[0]! : plain;
}
