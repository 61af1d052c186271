/** Texts of two models side by side, token by token, with the experts that each token was given to. */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { bytes, compact } from "../../base/format.js";
import { shortNames } from "../data/names.js";
import {
  emptyText,
  longestPrompt,
  mostTokens,
  pathBelow,
  textWords,
  usualText,
  withLine,
  type TextRequest,
} from "../data/playground.js";
import type { CheckpointList, PlayableModel } from "../data/model-types.js";
import { useAnswer } from "./hooks.js";
import { AsCommand, Choice, Command, Waiting } from "./parts.js";
import { Texts, type Made } from "./playground-texts.js";
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

function Sides({ list }: { readonly list: CheckpointList }): JSX.Element {
  const [left, right] = chosenModels(list);
  const models = [left, right].filter((model) => model !== null);
  const labels = shortNames(list.models.map(({ name }) => name));
  const labelOf = (name: string): string => (name === "" ? folder : (labels.get(name) ?? name));
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
    setMade({ names: names.map(labelOf), texts: models.map(() => emptyText) });
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
        labelOf={labelOf}
        settings={settings}
        onPrompt={(text) => {
          setPrompt(text);
          set({ prompt: text });
        }}
        onRun={() => void run()}
      >
        <p class="small muted">
          {models.map(({ name, memory }) => `${labelOf(name)}: ${bytes(memory)}`).join(" + ")} of memory; this machine
          has {bytes(list.memory)}.{list.more > 0 && ` ${list.more} further model folders are not listed.`}
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
  readonly labelOf: (name: string) => string;
  readonly settings: Omit<TextRequest, "model">;
  readonly onPrompt: (text: string) => void;
  readonly onRun: () => void;
  readonly children: ComponentChildren;
}): JSX.Element {
  const { list, left, right, settings } = props;
  const options = list.models.map((model) => [model.name, modelWords(model, props.labelOf(model.name))] as const);
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

function modelWords({ kind, experts, topK, params }: PlayableModel, label: string): string {
  const shape = kind === "dense" ? "dense" : `${experts} experts, ${topK} per token`;
  return `${label} (${shape}, ${compact(params)})`;
}
