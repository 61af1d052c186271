/** Small parts that all views are made of. */
import type { AriaRole, ComponentChildren, JSX, TargetedMouseEvent } from "preact";
import { useRef, useState } from "preact/hooks";
import { shellWord } from "../../base/shell.js";
import { placeHash, type ViewName } from "../data/place.js";
import type { RecordedCommand } from "../data/command-types.js";
import type { RunState, StudioAlert } from "../data/types.js";
import { downloadTable } from "./download.js";
import { folder, labelOf, said } from "./state.js";

/** A link to a view. */
export function Go(props: {
  readonly view: ViewName;
  readonly name?: string;
  readonly settings?: Readonly<Record<string, string>>;
  readonly current?: boolean;
  readonly children: ComponentChildren;
}): JSX.Element {
  const { view, name = "", settings = {}, current, children } = props;
  return (
    <a href={placeHash({ view, name, settings })} aria-current={current === true ? "page" : undefined}>
      {children}
    </a>
  );
}

const stateWords: Readonly<Record<RunState, string>> = {
  running: "running",
  finished: "finished",
  stopped: "stopped",
  unread: "being read",
  unreadable: "unreadable",
};

/** The state of a run: a word, and a mark that does not depend on colour. */
export function State({ state }: { readonly state: RunState }): JSX.Element {
  return <span class={`state ${state}`}>{stateWords[state]}</span>;
}

/** A command line with a button that copies it. */
export function Command({
  words,
  label = "Copy",
}: {
  readonly words: readonly string[];
  readonly label?: string;
}): JSX.Element {
  const [done, setDone] = useState("");
  const text = words.map(shellWord).join(" ");
  const copy = async (event: TargetedMouseEvent<HTMLButtonElement>): Promise<void> => {
    const code = event.currentTarget.parentElement?.querySelector("code");
    try {
      await navigator.clipboard.writeText(text);
      setDone("Copied");
    } catch {
      // A page without https, on another name than localhost, may not write the clipboard.
      if (code) getSelection()?.selectAllChildren(code);
      setDone("Selected");
    }
    said.value = "The command is copied.";
    setTimeout(() => setDone(""), 1600);
  };
  return (
    <div class="command">
      <code>{text}</code>
      <button type="button" onClick={(event) => void copy(event)} aria-label={`${label}: ${text}`}>
        {done === "" ? label : done}
      </button>
    </div>
  );
}

/** A command that was noted, with the folder in which it was given. */
export function Noted({ command }: { readonly command: RecordedCommand }): JSX.Element {
  return (
    <>
      <Command words={command.words} />
      <p class="small muted">given in {command.folder}</p>
    </>
  );
}

/** The commands that print what a view shows: the answers at these addresses. */
export function AsCommand({ addresses }: { readonly addresses: readonly string[] }): JSX.Element {
  return (
    <details class="as-command">
      <summary>The same as {addresses.length === 1 ? "a command" : "commands"}</summary>
      {addresses.map((address) => (
        <Command key={address} words={["upcycle", "studio", folder, "--print", address]} />
      ))}
    </details>
  );
}

/** What is shown while there is no answer, and why there is none. */
export function Waiting({ error, what }: { readonly error: string | null; readonly what: string }): JSX.Element {
  return error === null ? <p class="muted">Reading {what}…</p> : <p role="alert">{error}</p>;
}

/** Alerts as a list. */
export function Alerts({
  list,
  withRun = true,
}: {
  readonly list: readonly StudioAlert[];
  readonly withRun?: boolean;
}): JSX.Element {
  return (
    <ul class="alerts">
      {list.map((alert) => (
        <li key={`${alert.run} ${alert.kind}`} class={alert.level}>
          <b>{alert.level === "error" ? "Error" : "Warning"}</b>{" "}
          {withRun && alert.run !== null && (
            <>
              <Go view="run" name={alert.run}>
                {labelOf(alert.run)}
              </Go>
              {": "}
            </>
          )}
          {alert.message}
          {alert.step !== null && <span class="muted"> at step {alert.step}</span>}
          {alert.count > 1 && <span class="muted">, {alert.count} times</span>}
        </li>
      ))}
    </ul>
  );
}

/** Names and values. */
export function Facts({ list }: { readonly list: readonly (readonly [string, ComponentChildren])[] }): JSX.Element {
  return (
    <dl class="facts-grid">
      {list.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A choice of a few words. */
export function Choice(props: {
  readonly label: string;
  readonly value: string;
  readonly options: readonly (readonly [value: string, label: string])[];
  readonly onChange: (value: string) => void;
}): JSX.Element {
  return (
    <label class="choice">
      <span>{props.label}</span>
      <select value={props.value} onChange={(event) => props.onChange(event.currentTarget.value)}>
        {props.options.map(([value, label]) => (
          <option key={value} value={value}>
            {label}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A table that scrolls in its own frame, and the button that saves it. */
export function Table(props: {
  readonly label: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly ComponentChildren[])[];
  readonly isNumber?: (column: number) => boolean;
  /** Whether what is around the table saves it whole. */
  readonly isSaved?: boolean;
  /** Whether each row becomes lines of names and values where the screen is narrow. */
  readonly isStacked?: boolean;
}): JSX.Element {
  const isNumber = props.isNumber ?? (() => false);
  const table = useRef<HTMLTableElement>(null);
  // Rows that are no table rows for the style sheet are still some for who hears them.
  const role = (name: AriaRole): { readonly role?: AriaRole } => (props.isStacked === true ? { role: name } : {});
  const frame = (
    <div class="frame" role="region" tabIndex={0} aria-label={props.label}>
      <table ref={table} class={props.isStacked === true ? "stacked" : undefined} {...role("table")}>
        <thead {...role("rowgroup")}>
          <tr {...role("row")}>
            {props.head.map((text, i) => (
              <th key={i} scope="col" class={isNumber(i) ? "number" : undefined} {...role("columnheader")}>
                {text}
              </th>
            ))}
          </tr>
        </thead>
        <tbody {...role("rowgroup")}>
          {props.rows.map((row, i) => (
            <tr key={i} {...role("row")}>
              {row.map((cell, column) =>
                column === 0 ? (
                  <th key={column} scope="row" {...role("rowheader")}>
                    {cell}
                  </th>
                ) : (
                  <td
                    key={column}
                    class={isNumber(column) ? "number" : undefined}
                    data-head={props.head[column]}
                    {...role("cell")}
                  >
                    {cell}
                  </td>
                ),
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
  if (props.isSaved === true) return frame;
  return (
    <div>
      {frame}
      <p class="files">
        <button
          type="button"
          aria-label={`${props.label} as CSV`}
          onClick={() => table.current !== null && downloadTable(props.label, table.current)}
        >
          CSV
        </button>
      </p>
    </div>
  );
}
