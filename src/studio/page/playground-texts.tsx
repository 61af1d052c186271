/** Two texts side by side: where they part, the token that is chosen, and the experts that each token was given to. */
import type { JSX, TargetedKeyboardEvent } from "preact";
import { useMemo, useRef } from "preact/hooks";
import { fixed, significant } from "../../base/format.js";
import { partingOf, type GrowingText, type Parting, type TextToken } from "../data/playground.js";
import { shareScale } from "../../report/page/heat-map.js";
import { HeatLegend, HeatMap } from "./heat.js";
import { Choice, Table } from "./parts.js";
import { set, setting } from "./state.js";

/** What the texts on the page were made with, and the texts. */
export interface Made {
  /** What the models are called. */
  readonly names: readonly string[];
  readonly texts: readonly GrowingText[];
}

/** The texts, what is to be known of the token that is chosen, and which experts each token went to. */
export function Texts({ made }: { readonly made: Made }): JSX.Element {
  const { names, texts } = made;
  const [first, second] = texts;
  const parting = first === undefined || second === undefined ? null : partingOf(first, second);
  const at = setting("at") === "" ? (parting?.place ?? first?.promptTokens ?? 0) : Number(setting("at"));
  return (
    <section aria-labelledby="texts">
      <h2 id="texts">Texts</h2>
      {parting !== null && second !== undefined && <PartingWords parting={parting} texts={[first!, second]} />}
      <div class="charts">
        {texts.map((text, side) => (
          <TextOf
            key={`${side} ${names[side]}`}
            name={names[side] ?? ""}
            text={text}
            at={at}
            parted={parting?.place ?? null}
          />
        ))}
      </div>
      <h3>
        Token {at + 1}
        {at < (first?.promptTokens ?? 0) && " (of the prompt)"}
      </h3>
      <div class="charts">
        {texts.map((text, side) => (
          <TokenOf key={`${side} ${names[side]}`} name={names[side] ?? ""} token={text.tokens[at]} />
        ))}
      </div>
      {texts.map((text, side) =>
        text.routers.length === 0 ? null : (
          <Routing key={`${side} ${names[side]}`} name={names[side] ?? ""} text={text} />
        ),
      )}
    </section>
  );
}

function PartingWords(props: {
  readonly parting: Parting;
  readonly texts: readonly [GrowingText, GrowingText];
}): JSX.Element {
  const { parting, texts } = props;
  const { common, place: parted, difference } = parting;
  const near =
    difference === null
      ? ""
      : " Behind the same tokens, log-probabilities that both name differ by " +
        `${significant(difference, 2)} nats at most.`;
  if (parted === null)
    return (
      <p class="answer-line" role="status">
        <b>The two texts are the same so far</b>: {common} new tokens.{near}
      </p>
    );
  const [first, second] = texts.map(({ tokens }) => tokens[parted]);
  const words = (token: TextToken | undefined): string =>
    token === undefined ? "its end" : `${shownText(token.text)}${chance(token.logProbability)}`;
  return (
    <p class="answer-line" role="status">
      <b>The texts part after {common === 0 ? "the prompt" : common === 1 ? "1 new token" : `${common} new tokens`}</b>:
      the first goes on with {words(first)}, the second with {words(second)}.{near}
    </p>
  );
}

const chance = (logProbability: number | null): string =>
  logProbability === null ? "" : ` (${probability(logProbability)})`;

/** A probability in percent. */
const probability = (logProbability: number): string => `${significant(100 * Math.exp(logProbability), 3)} %`;

/** A token's text with what cannot be seen written out. */
const shownText = (text: string): string =>
  text === "" ? "(part of a character)" : `“${text.replaceAll("\n", "⏎").replaceAll("\t", "⇥")}”`;

function TextOf(props: {
  readonly name: string;
  readonly text: GrowingText;
  readonly at: number;
  readonly parted: number | null;
}): JSX.Element {
  const { name, text, at, parted } = props;
  const { tokens, promptTokens, tokensPerSecond, ended, error } = text;
  const frame = useRef<HTMLDivElement>(null);
  const onKey = (event: TargetedKeyboardEvent<HTMLDivElement>): void => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -Infinity, End: Infinity }[
      event.key
    ];
    if (step === undefined) return;
    event.preventDefault();
    const next = Math.min(tokens.length - 1, Math.max(0, at + step));
    set({ at: String(next) });
    frame.current?.querySelectorAll("button")[next]?.focus();
  };
  return (
    <article class="card">
      <h3>{name}</h3>
      <div
        ref={frame}
        class="tokens"
        role="group"
        aria-label={`Tokens of ${name}; arrow keys go from one to the next`}
        onKeyDown={onKey}
      >
        {tokens.map((token, i) => (
          <button
            key={i}
            type="button"
            tabIndex={i === Math.min(at, tokens.length - 1) ? 0 : -1}
            class={`token${i < promptTokens ? " of-prompt" : ""}${i === parted ? " parted" : ""}`}
            aria-pressed={i === at}
            aria-label={`token ${i + 1}: ${shownText(token.text)}${chance(token.logProbability)}`}
            style={token.logProbability === null ? undefined : { "--sure": String(Math.exp(token.logProbability)) }}
            onClick={() => set({ at: String(i) })}
          >
            {token.text === "" ? "·" : token.text}
          </button>
        ))}
        {!ended && <span class="muted">{tokens.length === 0 ? "opening the model…" : "…"}</span>}
      </div>
      <p class="small muted">
        {tokens.length - promptTokens} new tokens behind {promptTokens} of the prompt
        {tokensPerSecond !== null && `, ${significant(tokensPerSecond)} per second`}
      </p>
      {error !== null && <p role="alert">{error}</p>}
    </article>
  );
}

function TokenOf({ name, token }: { readonly name: string; readonly token: TextToken | undefined }): JSX.Element {
  if (token === undefined) return <p class="muted">{name} has no token here.</p>;
  const { id, text, logProbability, alternatives, layers } = token;
  const isNamed = alternatives.some((one) => one.id === id);
  const shown = [...alternatives, ...(isNamed || logProbability === null ? [] : [{ id, text, logProbability }])];
  return (
    <div>
      <p>
        <b>{shownText(text)}</b>, number {id} of the vocabulary
        {logProbability !== null && `: ${probability(logProbability)}, ${fixed(logProbability, 4)} nats`}.
      </p>
      {shown.length > 0 && (
        <Table
          label={`Likeliest tokens of ${name} here`}
          head={["Token", "Probability", "Log-probability", ""]}
          rows={shown.map((one) => [
            one.id === id ? <b key="token">{shownText(one.text)}, taken</b> : shownText(one.text),
            probability(one.logProbability),
            fixed(one.logProbability, 4),
            <span key="bar" class="share" aria-hidden="true">
              <i style={{ width: `${100 * Math.exp(one.logProbability)}%` }} />
            </span>,
          ])}
          isNumber={(column) => column === 1 || column === 2}
        />
      )}
      {layers.length > 0 && (
        <Table
          label={`Experts of ${name} that this token was given to`}
          head={["Layer", "Experts and their weights"]}
          rows={layers.map(({ layer, experts, weights }) => [
            `layer ${layer}`,
            experts.map((expert, i) => `${expert} (${fixed(weights[i] ?? 0, 3)})`).join(", "),
          ])}
        />
      )}
    </div>
  );
}

/** Which expert each token went to, of one layer. */
function Routing({ name, text }: { readonly name: string; readonly text: GrowingText }): JSX.Element {
  const { routers, tokens } = text;
  const chosen = Math.min(Number(setting("layer") || 0), routers.length - 1);
  const router = routers[chosen]!;
  const values = useMemo(
    () =>
      Array.from({ length: router.experts }, (_, expert) =>
        tokens.map(({ layers }) => {
          const choice = layers.find(({ layer }) => layer === router.layer);
          const index = choice?.experts.indexOf(expert) ?? -1;
          return index < 0 ? null : (choice?.weights[index] ?? null);
        }),
      ),
    [tokens, router],
  );
  return (
    <>
      <h3>Experts of {name}, token by token</h3>
      <div class="controls">
        <Choice
          label="Layer"
          value={String(chosen)}
          options={routers.map(({ layer }, i) => [String(i), `layer ${layer}`] as const)}
          onChange={(value) => set({ layer: value })}
        />
      </div>
      <HeatLegend scale={shareScale} />
      <HeatMap
        title={`Weights of experts by token, layer ${router.layer}`}
        values={values}
        rowName={(row) => `expert ${row}`}
        columnName={(column) => `token ${column + 1} ${shownText(tokens[column]?.text ?? "")}`}
        columnTick={(column) => String(column + 1)}
        scale={shareScale}
        format={(value) => fixed(value, 3)}
      />
    </>
  );
}
