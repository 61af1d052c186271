/** Commands that the page starts and stops: each is shown as the command line that it is before it starts. */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { pathBelow } from "../data/playground.js";
import type { CheckpointList } from "../data/model-types.js";
import type { RecordedCommand, StartedAction } from "../data/command-types.js";
import { useAnswer } from "./hooks.js";
import { Choice, Command, Noted, Waiting } from "./parts.js";
import { act, embedded } from "./source.js";
import { actionVersion, folder, goTo, said, treeVersion } from "./state.js";

interface ActionList {
  readonly allowed: boolean;
  readonly actions: readonly StartedAction[];
}

/** The view. */
export function ActionsView(): JSX.Element {
  const { data, error } = useAnswer<ActionList>(embedded === null ? "/api/actions" : null, actionVersion.value);
  if (data === null) return <Waiting error={embedded === null ? error : "a file starts no commands"} what="commands" />;
  return (
    <>
      <h1>Start and stop</h1>
      {!data.allowed ? (
        <>
          <p>This page only reads. To let it start and stop commands, end the studio with Ctrl-C and start it so:</p>
          <Command words={["upcycle", "studio", folder, "--allow-actions"]} />
        </>
      ) : (
        <Forms />
      )}
      {data.actions.length > 0 && (
        <section aria-labelledby="started">
          <h2 id="started">Started here</h2>
          {data.actions.map((action) => (
            <Started key={action.id} action={action} />
          ))}
        </section>
      )}
    </>
  );
}

type Values = Readonly<Record<string, string>>;

interface Form {
  readonly title: string;
  /** What the command does. */
  readonly does: string;
  readonly fields: readonly {
    readonly key: string;
    readonly label: string;
    readonly usual?: string;
    /** What is to be written, where the label does not say it. */
    readonly hint?: string;
    /** Whether models of the folder are offered. */
    readonly isModel?: boolean;
    /** The words that may be chosen; any if left out. */
    readonly words?: readonly (readonly [word: string, label: string])[];
  }[];
  /** The request; null while something is missing. */
  readonly request: (values: Values) => unknown;
}

const optional = (key: string, value: string | undefined): Record<string, string> =>
  value === undefined || value.trim() === "" ? {} : { [key]: value.trim() };

const outHint = "below the folder that is shown";

const forms: Readonly<Record<string, Form>> = {
  train: {
    title: "Train",
    does: "Trains one model, dense or MoE, as a file says.",
    fields: [
      {
        key: "file",
        label: "Train file",
        hint: "YAML, for example one that upcycle init train.yaml --kind train writes",
      },
      { key: "out", label: "Run folder (optional)", hint: outHint },
    ],
    request: ({ file = "", out }) => (file === "" ? null : { command: "train", file, ...optional("out", out) }),
  },
  study: {
    title: "Study",
    does: "Trains the arms of a comparison over several seeds, and reports what they show.",
    fields: [
      {
        key: "file",
        label: "Study file",
        hint: "YAML, for example one that upcycle init study.yaml --kind study writes",
      },
      { key: "out", label: "Run folder (optional)", hint: outHint },
    ],
    request: ({ file = "", out }) => (file === "" ? null : { command: "study", file, ...optional("out", out) }),
  },
  convert: {
    title: "Convert",
    does: "Makes an MoE of a dense model; what it computes at first is measured against the dense model.",
    fields: [
      { key: "model", label: "Dense model", hint: "a folder, or hf://org/name", isModel: true },
      {
        key: "recipe",
        label: "Recipe",
        usual: "E8G1T2",
        hint: "E8G1T2: expansion 8, granularity 1, 2 experts per token; E8G8T8: 64 experts of an eighth, 8 per token",
      },
      { key: "out", label: "Folder to make", hint: outHint },
      {
        key: "format",
        label: "Format",
        usual: "",
        words: [
          ["", "a folder of Hugging Face"],
          ["megatron", "a checkpoint of Megatron-Core"],
        ],
      },
    ],
    request: ({ model = "", recipe = "E8G1T2", out = "", format }) =>
      model === "" || out === "" ? null : { command: "convert", model, recipe, out, ...optional("format", format) },
  },
  eval: {
    title: "Evaluate",
    does: "Asks one model or several the questions of benchmark tasks, by the prompts of the LM Evaluation Harness.",
    fields: [
      { key: "models", label: "Models, separated by spaces", hint: "folders with a tokenizer", isModel: true },
      { key: "tasks", label: "Tasks, separated by commas", usual: "arc_easy", hint: "arc_easy, hellaswag, mmlu, ..." },
      { key: "limit", label: "Samples of each task (optional)", hint: "a number; all if left empty" },
    ],
    request: ({ models = "", tasks = "arc_easy", limit = "" }) =>
      models.trim() === ""
        ? null
        : {
            command: "eval",
            models: models.trim().split(/\s+/),
            tasks: tasks.split(",").map((task) => task.trim()),
            ...(limit === "" ? {} : { limit: Number(limit) }),
          },
  },
};

function Forms(): JSX.Element {
  const [kind, setKind] = useState("train");
  const form = forms[kind]!;
  return (
    <section aria-labelledby="new">
      <h2 id="new">A new command</h2>
      <div class="controls" role="group" aria-label="Command">
        {Object.entries(forms).map(([key, { title }]) => (
          <button key={key} type="button" aria-pressed={key === kind} onClick={() => setKind(key)}>
            {title}
          </button>
        ))}
      </div>
      <FormOf key={kind} form={form} />
    </section>
  );
}

function FormOf({ form }: { readonly form: Form }): JSX.Element {
  const [values, setValues] = useState<Values>({});
  const request = form.request(values);
  const hasModel = form.fields.some(({ isModel }) => isModel === true);
  const { data } = useAnswer<CheckpointList>(hasModel ? "/api/checkpoints" : null, treeVersion.value);
  return (
    <>
      <p>{form.does}</p>
      <datalist id="models">
        {data?.models.map(({ name }) => (
          <option key={name} value={pathBelow(folder, name)} />
        ))}
      </datalist>
      {form.fields.map(({ key, label, usual = "", hint, isModel = false, words }) =>
        words === undefined ? (
          <div key={key} class="field">
            <label>
              <span>{label}</span>
              <input
                type="text"
                value={values[key] ?? usual}
                autocomplete="off"
                spellcheck={false}
                {...(isModel && { list: "models" })}
                {...(hint !== undefined && { "aria-describedby": `hint-${key}` })}
                onInput={(event) => setValues({ ...values, [key]: event.currentTarget.value })}
              />
            </label>
            {hint !== undefined && (
              <span id={`hint-${key}`} class="hint">
                {hint}
              </span>
            )}
          </div>
        ) : (
          <div key={key} class="field">
            <Choice
              label={label}
              value={values[key] ?? usual}
              options={words}
              onChange={(value) => setValues({ ...values, [key]: value })}
            />
          </div>
        ),
      )}
      <Starter request={request}>Start</Starter>
    </>
  );
}

/** Shows the command of a request, unless it stands above, and starts it when it is asked to. */
function Starter({
  request,
  isNamed = false,
  children,
}: {
  readonly request: unknown;
  readonly isNamed?: boolean;
  readonly children: ComponentChildren;
}): JSX.Element {
  const [command, setCommand] = useState<RecordedCommand | null>(null);
  const [error, setError] = useState("");
  const asked = JSON.stringify(request);
  useEffect(() => {
    let isGone = false;
    setCommand(null);
    if (request === null) return;
    act<RecordedCommand>("/api/actions/words", request).then(
      (words) => {
        if (isGone) return;
        setCommand(words);
        setError("");
      },
      (cause: unknown) => !isGone && setError((cause as Error).message),
    );
    return () => {
      isGone = true;
    };
  }, [asked]);
  const start = async (): Promise<void> => {
    try {
      await act("/api/actions/start", request);
      said.value = "The command was started.";
      goTo("actions");
    } catch (cause) {
      setError((cause as Error).message);
    }
  };
  return (
    <>
      {command !== null && !isNamed && <Noted command={command} />}
      {error !== "" && request !== null && <p role="alert">{error}</p>}
      <button type="button" class="main" disabled={command === null} onClick={() => void start()}>
        {children}
      </button>
    </>
  );
}

/**
 * Goes on with a stopped run by the command that was noted; nothing where the page only reads. `isNamed`: the command
 * stands above it.
 */
export function ResumeButton(props: { readonly run: string; readonly isNamed?: boolean }): JSX.Element | null {
  const { data } = useAnswer<ActionList>(embedded === null ? "/api/actions" : null, actionVersion.value);
  return data?.allowed === true ? (
    <Starter request={{ command: "resume", run: props.run }} isNamed={props.isNamed ?? false}>
      Go on with it
    </Starter>
  ) : null;
}

function Started({ action }: { readonly action: StartedAction }): JSX.Element {
  const { id, words, state, exitCode, lines } = action;
  const [error, setError] = useState("");
  const stop = (): void => void act("/api/actions/stop", { id }).catch(() => undefined);
  const again = (): void =>
    void act("/api/actions/start", { command: "again", id }).then(
      () => {
        setError("");
        said.value = "The command was started again.";
      },
      (cause: unknown) => setError((cause as Error).message),
    );
  return (
    <article class="card">
      <Command words={words} />
      <p>
        {state === "ended"
          ? exitCode === 130
            ? "saved and stopped"
            : exitCode === null
              ? "ended before it could save: it had just begun, or was stopped at once"
              : `ended with exit code ${exitCode}`
          : state === "stopping"
            ? "saving and stopping"
            : "running"}{" "}
        {/* One button, so that the focus stays where it is when the command ends. */}
        {(state !== "ended" || exitCode !== 0) && (
          <button type="button" onClick={state === "ended" ? again : stop}>
            {state === "ended"
              ? "Give it again, to go on where it stopped"
              : state === "stopping"
                ? "Stop at once"
                : "Save and stop"}
          </button>
        )}
      </p>
      {error !== "" && <p role="alert">{error}</p>}
      {lines.length > 0 && (
        <pre class="said" role="log" tabIndex={0} aria-label="What it says">
          {lines.slice(-30).join("\n")}
        </pre>
      )}
    </article>
  );
}
