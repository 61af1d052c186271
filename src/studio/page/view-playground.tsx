/** Texts of two models side by side, token by token, with the experts that each token was given to. */
import type { ComponentChildren, JSX, TargetedKeyboardEvent } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { bytes, compact, fixed, significant } from "../../base/format.js";
import {
  emptyText,
  longestPrompt,
  mostTokens,
  partingOf,
  pathBelow,
  textWords,
  usualText,
  withLine,
  type GrowingText,
  type Parting,
  type TextRequest,
  type TextToken,
} from "../data/playground.js";
import type { CheckpointList, PlayableModel } from "../data/types.js";
import { shareScale } from "../../report/page/heat-map.js";
import { HeatLegend, HeatMap } from "./heat.js";
import { useAnswer } from "./hooks.js";
import { AsCommand, Choice, Command, Table, Waiting } from "./parts.js";
import { actLines, embedded } from "./source.js";
import { actionsAllowed, folder, place, said, set, setting, treeVersion } from "./state.js";

const none = " none";

/** The view. */
export function PlaygroundView(): JSX.Element {
  const { data, error } = useAnswer<CheckpointList>(embedded === null ? "/api/checkpoints" : null, treeVersion.value);
  if (data === null) return <Waiting error={embedded === null ? error : "a file runs no models"} what="models" />;
  return (
    <>
      <h1>Playground</h1>
      {data.models.length === 0 ? (
        <p>
          No model with a tokenizer lies here. <code>upcycle convert</code> and <code>upcycle train</code> make some.
        </p>
      ) : (
        <Sides list={data} />
      )}
      <AsCommand addresses={["/api/checkpoints"]} />
    </>
  );
}

/** The models that the address names, or a pair that was made from each other. */
function chosenModels({ models }: CheckpointList): readonly [PlayableModel | null, PlayableModel | null] {
  const named = (key: string): PlayableModel | null | undefined => {
    const name = place.value.settings[key];
    return name === none ? null : models.find((model) => model.name === name);
  };
  const child = models.find(({ parent }) => parent !== null);
  const first = named("left") ?? models.find(({ name }) => name === child?.parent) ?? models[0] ?? null;
  const second = named("right");
  if (second !== undefined) return [first, second];
  const related = models.find(({ parent }) => parent === first?.name);
  return [first, related ?? child ?? null];
}

/** A number of the address within its limits; the usual one where there is none. */
function numberOf(key: string, usual: number, most: number): number {
  const text = setting(key);
  const value = Number(text);
  return text === "" || !Number.isFinite(value) || value < 0 ? usual : Math.min(most, value);
}

const settingsNow = (prompt: string): Omit<TextRequest, "model"> => ({
  prompt,
  seed: Math.floor(numberOf("seed", usualText.seed, Number.MAX_SAFE_INTEGER)),
  temperature: numberOf("temperature", usualText.temperature, 100),
  maxTokens: Math.max(1, Math.floor(numberOf("tokens", usualText.maxTokens, mostTokens))),
});

/** What the texts on the page were made with, and the texts. */
interface Made {
  readonly names: readonly string[];
  readonly texts: readonly GrowingText[];
}

function Sides({ list }: { readonly list: CheckpointList }): JSX.Element {
  const [left, right] = chosenModels(list);
  const models = [left, right].filter((model) => model !== null);
  // A prompt that is being emptied is no reason to bring the usual one back.
  const [prompt, setPrompt] = useState(place.value.settings["prompt"] ?? usualText.prompt);
  const settings = settingsNow(prompt);
  const [made, setMade] = useState<Made>({ names: [], texts: [] });
  const [error, setError] = useState("");
  const stop = useRef<AbortController | null>(null);
  const [running, setRunning] = useState(false);
  useEffect(() => () => stop.current?.abort(), []);
  const needed = models.reduce((sum, { memory }) => sum + memory, 0);
  const isTooLarge = needed > list.memory;
  const wordsOf = ({ name }: PlayableModel): readonly string[] =>
    textWords({ ...settings, model: name }, pathBelow(folder, name), list.threads);
  const run = async (): Promise<void> => {
    stop.current?.abort();
    const abort = new AbortController();
    stop.current = abort;
    setError("");
    setRunning(true);
    set({ at: "" });
    const names = models.map(({ name }) => name);
    setMade({ names, texts: models.map(() => emptyText) });
    const take = (side: number, line: unknown): void =>
      setMade((before) => ({
        ...before,
        texts: before.texts.map((text, i) => (i === side ? withLine(text, line) : text)),
      }));
    const asked = models.map(async ({ name }, side) => {
      const beside = names[1 - side];
      const body = { model: name, ...(beside === undefined ? {} : { beside }), ...settings };
      await actLines("/api/generate", body, (line) => take(side, line), abort.signal);
    });
    const [failed] = (await Promise.allSettled(asked)).filter((one) => one.status === "rejected");
    if (stop.current !== abort) return;
    setRunning(false);
    if (failed !== undefined && !abort.signal.aborted) setError((failed.reason as Error).message);
    said.value = abort.signal.aborted ? "Stopped." : "The texts are complete.";
  };
  const isAllowed = actionsAllowed.value;
  return (
    <>
      <Form
        list={list}
        left={left}
        right={right}
        settings={settings}
        onPrompt={(text) => {
          setPrompt(text);
          set({ prompt: text });
        }}
        onRun={() => void run()}
      >
        <p class="small muted">
          {models.map(({ name, memory }) => `${name === "" ? folder : name}: ${bytes(memory)}`).join(" + ")} of memory;
          this machine has {bytes(list.memory)}.{list.more > 0 && ` ${list.more} further model folders are not listed.`}
        </p>
        {isTooLarge && (
          <p role="alert">
            {models.length > 1 ? "The two models do" : "The model does"} not fit in memory: together {bytes(needed)} are
            needed as float32, and there are {bytes(list.memory)}. Take one alone, or smaller ones.
          </p>
        )}
        {isAllowed ? (
          <div class="controls">
            <button type="submit" class="main" disabled={models.length === 0 || isTooLarge || settings.prompt === ""}>
              {running ? "Start again" : "Generate"}
            </button>
            <button type="button" class="main" disabled={!running} onClick={() => stop.current?.abort()}>
              Stop
            </button>
            <span class="muted" role="status">
              {running ? "running" : ""}
            </span>
          </div>
        ) : (
          <>
            <p>This page only reads. To let it run models, end the studio with Ctrl-C and start it so:</p>
            <Command words={["upcycle", "studio", folder, "--allow-actions"]} />
            <p>Or run the commands below in a shell.</p>
          </>
        )}
      </Form>
      {error !== "" && <p role="alert">{error}</p>}
      {made.texts.length > 0 && <Texts made={made} />}
      <section aria-labelledby="commands">
        <h2 id="commands">The same as commands</h2>
        {models.map((model) => (
          <Command key={model.name} words={wordsOf(model)} />
        ))}
      </section>
    </>
  );
}

function Form(props: {
  readonly list: CheckpointList;
  readonly left: PlayableModel | null;
  readonly right: PlayableModel | null;
  readonly settings: Omit<TextRequest, "model">;
  readonly onPrompt: (text: string) => void;
  readonly onRun: () => void;
  readonly children: ComponentChildren;
}): JSX.Element {
  const { list, left, right, settings } = props;
  const options = list.models.map((model) => [model.name, modelWords(model)] as const);
  const number = (key: string, label: string, value: number, step: string): JSX.Element => (
    <label class="choice">
      <span>{label}</span>
      <input
        type="number"
        min={0}
        step={step}
        value={value}
        onChange={(event) => set({ [key]: event.currentTarget.value })}
      />
    </label>
  );
  return (
    <form
      class="playground"
      onSubmit={(event) => {
        event.preventDefault();
        props.onRun();
      }}
    >
      <div class="controls">
        <Choice
          label="Parent, or first model"
          value={left?.name ?? ""}
          options={options}
          onChange={(value) => set({ left: value })}
        />
        <Choice
          label="Child, or second model"
          value={right?.name ?? none}
          options={[...options, [none, "none"]]}
          onChange={(value) => set({ right: value })}
        />
      </div>
      <label class="field">
        <span>Prompt</span>
        <textarea
          rows={3}
          maxLength={longestPrompt}
          value={settings.prompt}
          onInput={(event) => props.onPrompt(event.currentTarget.value)}
        />
      </label>
      <div class="controls">
        {number("seed", "Seed", settings.seed, "1")}
        {number("temperature", "Temperature (0: the likeliest)", settings.temperature, "any")}
        {number("tokens", "Most new tokens", settings.maxTokens, "1")}
      </div>
      {props.children}
    </form>
  );
}

function modelWords({ name, kind, experts, topK, params }: PlayableModel): string {
  const shape = kind === "dense" ? "dense" : `${experts} experts, ${topK} per token`;
  return `${name === "" ? folder : name} (${shape}, ${compact(params)})`;
}

function Texts({ made }: { readonly made: Made }): JSX.Element {
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
      <h3>{name === "" ? folder : name}</h3>
      <div
        ref={frame}
        class="tokens"
        role="group"
        aria-label={`Tokens of ${name === "" ? folder : name}; arrow keys go from one to the next`}
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
      <h3>Experts of {name === "" ? folder : name}, token by token</h3>
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
