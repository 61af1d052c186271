/** Texts of two models side by side: what is asked for, the command that it is, and where the texts part. */

/** What a text is made by. */
export interface TextRequest {
  /** The model's folder below the one that is shown. */
  readonly model: string;
  readonly prompt: string;
  readonly seed: number;
  /** 0 takes the likeliest token. */
  readonly temperature: number;
  readonly maxTokens: number;
}

/** Settings that the page begins with, and the most that may be asked for. */
export const usualText = { prompt: "The", seed: 0, temperature: 0.8, maxTokens: 60 } as const;
/** Most new tokens of a text, and most characters of its prompt. */
export const mostTokens = 1000;
/** Most characters of a prompt. */
export const longestPrompt = 20_000;
/** Tokens that are shown in place of each one. */
const alternatives = 8;

/** The path of something below the folder that is shown, as a command names it. */
export const pathBelow = (folder: string, name: string): string =>
  name === "" ? folder : `${folder.replace(/\/+$/, "")}/${name}`;

/** The words of the command that makes a text. `path` is the model's; `threads`: as many as it may take. */
export function textWords(request: TextRequest, path: string, threads: number): readonly string[] {
  const { prompt, seed, temperature, maxTokens } = request;
  const settings = {
    "--prompt": prompt,
    "--seed": seed,
    "--temperature": temperature,
    "--max-new-tokens": maxTokens,
    "--threads": threads,
    "--device": "cpu",
    "--alternatives": alternatives,
  };
  return [
    "upcycle",
    "generate",
    path,
    ...Object.entries(settings).flatMap(([name, value]) => [name, String(value)]),
    "--experts",
    "--stream",
    "--json",
  ];
}

/** A token in place of another. */
export interface OtherToken {
  readonly id: number;
  readonly text: string;
  readonly logProbability: number;
}

/** What one layer's router did with a token. */
export interface LayerChoice {
  readonly layer: number;
  readonly experts: readonly number[];
  readonly weights: readonly number[];
}

/** A token of a text, of the prompt or new. */
export interface TextToken {
  readonly id: number;
  readonly text: string;
  /** Natural logarithm of its probability at temperature 1; null in the prompt. */
  readonly logProbability: number | null;
  readonly alternatives: readonly OtherToken[];
  /** Experts of each layer; empty until the model has read it, and for a dense model. */
  readonly layers: readonly LayerChoice[];
}

/** A text while it grows. */
export interface GrowingText {
  readonly tokens: readonly TextToken[];
  /** Tokens of the prompt. */
  readonly promptTokens: number;
  /** Layers of experts. */
  readonly routers: readonly { readonly layer: number; readonly experts: number; readonly topK: number }[];
  readonly tokensPerSecond: number | null;
  /** Whether the command has ended, and with which exit code; `error` is what it said then. */
  readonly ended: boolean;
  readonly error: string | null;
}

/** A text of which nothing is known yet. */
export const emptyText: GrowingText = {
  tokens: [],
  promptTokens: 0,
  routers: [],
  tokensPerSecond: null,
  ended: false,
  error: null,
};

interface Line {
  readonly type?: unknown;
  readonly place?: number;
  readonly tokens?: readonly { readonly id: number; readonly text: string }[];
  readonly layers?: unknown;
  readonly id?: number;
  readonly text?: string;
  readonly logProbability?: number;
  readonly alternatives?: readonly OtherToken[];
  readonly tokensPerSecond?: number;
  readonly error?: string | null;
}

/** A text after a line of `upcycle generate --json --stream`; lines of other kinds change nothing. */
export function withLine(text: GrowingText, line: unknown): GrowingText {
  const { type, place = 0, ...found } = (line ?? {}) as Line;
  switch (type) {
    case "prompt": {
      const tokens = (found.tokens ?? []).map(({ id, text: words }) => plainToken(id, words));
      return { ...text, tokens, promptTokens: tokens.length, routers: (found.layers ?? []) as GrowingText["routers"] };
    }
    case "token": {
      const token = {
        ...plainToken(found.id ?? 0, found.text ?? ""),
        logProbability: found.logProbability ?? null,
        alternatives: found.alternatives ?? [],
      };
      return { ...text, tokens: [...text.tokens.slice(0, place), token] };
    }
    case "experts": {
      const layers = (found.layers ?? []) as readonly LayerChoice[];
      return { ...text, tokens: text.tokens.map((token, i) => (i === place ? { ...token, layers } : token)) };
    }
    case "done":
      return { ...text, tokensPerSecond: found.tokensPerSecond ?? null };
    case "end":
      return { ...text, ended: true, error: found.error ?? null };
    default:
      return text;
  }
}

const plainToken = (id: number, text: string): TextToken => ({
  id,
  text,
  logProbability: null,
  alternatives: [],
  layers: [],
});

/** Where two texts part. */
export interface Parting {
  /** New tokens that both have in common. */
  readonly common: number;
  /** Place of the first token that differs, in both alike; null while there is none. */
  readonly place: number | null;
  /** Largest difference of log-probabilities of the common tokens and the likeliest ones in their places, in nats. */
  readonly difference: number | null;
}

/** Compares two texts of one prompt token by token; null where their tokens of the prompt differ already. */
export function partingOf(a: GrowingText, b: GrowingText): Parting | null {
  const { promptTokens } = a;
  const prompt = (text: GrowingText): string =>
    text.tokens
      .slice(0, promptTokens)
      .map(({ id }) => id)
      .join();
  if (promptTokens === 0 || promptTokens !== b.promptTokens || prompt(a) !== prompt(b)) return null;
  const [first, second] = [a.tokens.slice(promptTokens), b.tokens.slice(promptTokens)];
  const both = Math.min(first.length, second.length);
  const at = first.slice(0, both).findIndex(({ id }, i) => second[i]?.id !== id);
  const common = at < 0 ? both : at;
  // Behind the same tokens both models were asked the same, also for the token at which they part.
  const asked = Math.min(both, common + 1);
  const differences = first.slice(0, asked).map((token, i) => largestDifference(token, second[i]!));
  const known = differences.filter((value) => value !== null);
  const endsEarlier = at < 0 && a.ended && b.ended && first.length !== second.length;
  return {
    common,
    place: at >= 0 || endsEarlier ? promptTokens + common : null,
    difference: known.length === 0 ? null : known.reduce((most, value) => Math.max(most, value), 0),
  };
}

/** Over the tokens that both name in one place; null where they name none in common. */
function largestDifference(a: TextToken, b: TextToken): number | null {
  const named = ({ id, logProbability, alternatives: others }: TextToken): Map<number, number> =>
    new Map([
      ...others.map((one): [number, number] => [one.id, one.logProbability]),
      ...(logProbability === null ? [] : [[id, logProbability] as const]),
    ]);
  const [first, second] = [named(a), named(b)];
  const differences = [...first].flatMap(([id, value]) => {
    const other = second.get(id);
    return other === undefined ? [] : [Math.abs(value - other)];
  });
  return differences.length === 0 ? null : differences.reduce((most, value) => Math.max(most, value), 0);
}
