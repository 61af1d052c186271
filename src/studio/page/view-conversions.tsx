/** Conversions at work and unfinished ones: how far each is, and the command that goes on with it. */
import type { JSX } from "preact";
import { bytes, duration, percent } from "../../base/format.js";
import type { ConversionRow } from "../data/model-types.js";
import { useAnswer } from "./hooks.js";
import { AsCommand, Facts, Noted } from "./parts.js";
import { actionsAllowed, conversionVersion, treeVersion } from "./state.js";
import { ResumeButton } from "./view-actions.js";

const states = {
  working: ["running", "at work"],
  silent: ["stopped", "its process says nothing"],
  stopped: ["stopped", "stopped"],
  dead: ["unreadable", "killed: its process is gone"],
} as const;

const phases = {
  starting: "opening the models",
  measuring: "measuring on text what the plan needs",
  writing: "writing weights",
  proving: "measuring how much of the parent's function is kept",
} as const;

/** All of them with their heading; nothing where there are none. */
export function Conversions(): JSX.Element | null {
  const { data } = useAnswer<{ conversions: readonly ConversionRow[] }>(
    "/api/conversions",
    `${conversionVersion.value} ${treeVersion.value}`,
  );
  if (data === null || data.conversions.length === 0) return null;
  return (
    <section aria-labelledby="conversions">
      <h2 id="conversions">Conversions at work, and unfinished ones</h2>
      {data.conversions.map((conversion) => (
        <Conversion key={conversion.name} conversion={conversion} />
      ))}
      <AsCommand addresses={["/api/conversions"]} />
    </section>
  );
}

function Conversion({ conversion }: { readonly conversion: ConversionRow }): JSX.Element {
  const { name, state, what, sources, phase, tensor, done, total, found, secondsLeft, why, command } = conversion;
  const { bytesPerSecond, started, updated } = conversion;
  const [look, words] = states[state];
  const isWriting = phase === "writing";
  const isAtWork = state === "working" || state === "silent";
  const part = total === 0 ? 0 : Math.min(1, done / total);
  const amount = (value: number): string => (isWriting ? bytes(value) : String(value));
  return (
    <article class="card">
      <h3>
        {name} <span class={`state ${look}`}>{words}</span>
      </h3>
      <p>
        {what ?? "A conversion"}
        {sources.length > 0 && ` from ${sources.join(", ")}`}: {phases[phase]}.
      </p>
      <progress max={1} value={part} aria-label={`${name}: ${percent(part, 3)} of ${phases[phase]}`} />
      <Facts
        list={[
          ["Done", total === 0 ? "–" : `${percent(part, 3)}, ${amount(done)} of ${amount(total)}`],
          ...(isWriting && isAtWork
            ? ([
                ["Speed", bytesPerSecond === null ? "–" : `${bytes(bytesPerSecond)}/s`],
                ["Time left", secondsLeft === null ? "–" : duration(secondsLeft)],
              ] as const)
            : []),
          ...(found > 0 ? ([["Found of an earlier attempt", bytes(found)]] as const) : []),
          ...(started === null ? [] : ([["Began", new Date(started).toLocaleString()]] as const)),
          ...(state === "working" ? [] : ([["Last heard of", new Date(updated).toLocaleString()]] as const)),
        ]}
      />
      {tensor !== null && (
        <p class="small">
          Last tensor: <code>{tensor}</code>
        </p>
      )}
      {why !== null && <p>{why}</p>}
      {command === null ? (
        <p class="muted">Its command was not noted. The same command, given again, goes on where it stopped.</p>
      ) : (
        <>
          <h4>{isAtWork ? "The command" : "The command that goes on with it"}</h4>
          {isAtWork || !actionsAllowed.value ? <Noted command={command} /> : <ResumeButton run={name} />}
        </>
      )}
    </article>
  );
}
