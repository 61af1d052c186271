/** The list of runs: as many rows as the screen has, whatever their number. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { bytes, compact, duration, fixed } from "../../base/format.js";
import { listOf, listSetting } from "../data/place.js";
import { csvOf } from "../../report/page/csv.js";
import { filterExpression, rowWindow, shownRows, sortKeys, type SortKey } from "../data/rows.js";
import type { RunRow } from "../data/types.js";
import { download } from "./download.js";
import { AsCommand, Go, State } from "./parts.js";
import { goTo, isListed, labelOf, place, rows, set, setting, unread } from "./state.js";

const rowHeight = 36;
/** Rows that are drawn above and below the screen. */
const usualMore = 8;

interface Column {
  readonly key: SortKey;
  readonly label: string;
  /** `wide`: left out on narrow screens. */
  readonly width: "name" | "wide" | "always";
  readonly cell: (row: RunRow) => JSX.Element | string;
}

const loss = (value: number | null): string => (value === null ? "–" : fixed(value, 4));

const columns: readonly Column[] = [
  {
    key: "name",
    label: "Run",
    width: "name",
    cell: (row) => (
      <Go view="run" name={row.name}>
        <bdi title={row.name}>{labelOf(row.name)}</bdi>
      </Go>
    ),
  },
  { key: "state", label: "State", width: "always", cell: (row) => <Progress row={row} /> },
  { key: "kind", label: "Kind", width: "wide", cell: (row) => row.kind },
  { key: "params", label: "Size", width: "wide", cell: (row) => compact(row.params) },
  { key: "tokens", label: "Tokens", width: "wide", cell: (row) => compact(row.tokens) },
  { key: "loss", label: "Loss", width: "always", cell: (row) => loss(row.loss) },
  { key: "bestLoss", label: "Best", width: "wide", cell: (row) => loss(row.bestLoss) },
  { key: "trainLoss", label: "Training", width: "wide", cell: (row) => loss(row.trainLoss) },
  {
    key: "tokensPerSecond",
    label: "Speed",
    width: "wide",
    cell: (row) => (row.tokensPerSecond === null ? "–" : `${compact(row.tokensPerSecond)}/s`),
  },
  {
    key: "secondsLeft",
    label: "Left",
    width: "wide",
    cell: (row) => (row.secondsLeft === null ? "–" : duration(row.secondsLeft)),
  },
  { key: "dead", label: "Dead", width: "wide", cell: (row) => (row.dead === null ? "–" : String(row.dead)) },
  { key: "bytes", label: "Models", width: "wide", cell: (row) => bytes(row.bytes) },
];

function Progress({ row }: { readonly row: RunRow }): JSX.Element {
  const part = row.steps === 0 ? 0 : Math.min(1, row.step / row.steps);
  return (
    <span class="progress" title={row.problem ?? `step ${row.step} of ${row.steps}`}>
      <State state={row.state} />
      {(row.state === "running" || row.state === "stopped") && <span class="muted"> {Math.floor(100 * part)} %</span>}
      {row.alerts > 0 && (
        <span class="warn">
          {" "}
          <span aria-hidden="true">⚠ </span>
          {row.alerts}
          <span class="unless-narrow">{row.alerts === 1 ? " alert" : " alerts"}</span>
        </span>
      )}
    </span>
  );
}

/** The view. */
export function RunsView(): JSX.Element {
  const filter = setting("filter");
  const sort = sortKeys.find((key) => key === setting("sort")) ?? "name";
  const descending = setting("order") === "down";
  const chosen = useMemo(() => new Set(listOf(setting("chosen"))), [setting("chosen")]);
  const shown = useMemo(
    () => shownRows(rows.value, { filter, sort, descending }),
    [rows.value, filter, sort, descending],
  );
  const isExpression = filterExpression(filter) !== null;
  const choose = (name: string): void => {
    const next = new Set(chosen);
    if (!next.delete(name)) next.add(name);
    set({ chosen: listSetting([...next]) });
  };
  return (
    <>
      <h1>Runs</h1>
      <div class="controls">
        <label class="filter">
          <span>Filter by a regular expression</span>
          <input
            id="filter"
            type="search"
            value={filter}
            placeholder="seed-[01]|moe"
            aria-describedby="filter-says"
            onInput={(event) => set({ filter: event.currentTarget.value })}
          />
        </label>
        <span id="filter-says" class="muted" role="status">
          {shown.length} of {rows.value.length} runs
          {!isExpression && ", found as it is written: this is no regular expression"}
          {unread.value > 0 && `, ${unread.value} logs being read`}
        </span>
        <button
          type="button"
          disabled={chosen.size < 2}
          onClick={() => goTo("compare", "", { runs: setting("chosen") })}
        >
          Compare {chosen.size === 0 ? "chosen runs" : `${chosen.size} runs`}
        </button>
        {chosen.size > 0 && (
          <button type="button" onClick={() => set({ chosen: "" })}>
            Choose none
          </button>
        )}
        <button type="button" onClick={() => download("runs.csv", csvOfRuns(shown), "text/csv")}>
          CSV
        </button>
      </div>
      {rows.value.length === 0 && (
        <p class="muted">{isListed.value ? "There is no run below this folder." : "Reading the list…"}</p>
      )}
      {rows.value.length > 0 && (
        <List shown={shown} chosen={chosen} choose={choose} sort={sort} descending={descending} />
      )}
      <p class="small muted">
        Keys: / filter, j and k or arrows move, Enter opens, x chooses, c compares. Click a heading to sort by it.
      </p>
      <AsCommand addresses={["/api/runs"]} />
    </>
  );
}

interface ListProps {
  readonly shown: readonly RunRow[];
  readonly chosen: ReadonlySet<string>;
  readonly choose: (name: string) => void;
  readonly sort: SortKey;
  readonly descending: boolean;
}

function List({ shown, chosen, choose, sort, descending }: ListProps): JSX.Element {
  const frame = useRef<HTMLDivElement>(null);
  // Rows above and below the screen are drawn when those on it are there.
  const [view, setView] = useState({ top: 0, height: 640, more: 0 });
  const [active, setActive] = useState(0);
  useEffect(() => {
    const element = frame.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => {
      const height = element.clientHeight;
      setView((old) => (old.height >= height && old.height < height + rowHeight ? old : { ...old, height }));
    });
    observer.observe(element);
    const timer = setTimeout(() => setView((old) => ({ ...old, more: usualMore })), 300);
    return () => {
      clearTimeout(timer);
      observer.disconnect();
    };
  }, []);
  const { first, count } = rowWindow({ ...view, rowHeight, total: shown.length }, view.more);
  const move = (to: number): void => {
    const next = Math.min(shown.length - 1, Math.max(0, to));
    setActive(next);
    const element = frame.current;
    if (element === null) return;
    const top = next * rowHeight;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + 2 * rowHeight > element.scrollTop + element.clientHeight)
      element.scrollTop = top + 2 * rowHeight - element.clientHeight;
  };
  // Keys may come faster than the page is drawn: what they change holds for the next one.
  useLayoutEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (
        event.target instanceof HTMLInputElement ||
        event.target instanceof HTMLSelectElement ||
        event.ctrlKey ||
        event.metaKey
      )
        return;
      const row = shown[active];
      if (event.key === "j" || event.key === "ArrowDown") move(active + 1);
      else if (event.key === "k" || event.key === "ArrowUp") move(active - 1);
      else if (event.key === "x" && row !== undefined) choose(row.name);
      else if (event.key === "c" && chosen.size > 1)
        goTo("compare", "", { runs: place.value.settings["chosen"] ?? "" });
      else if (
        event.key === "Enter" &&
        row !== undefined &&
        !(event.target instanceof HTMLAnchorElement || event.target instanceof HTMLButtonElement)
      )
        goTo("run", row.name);
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [shown, active, chosen]);
  return (
    <div
      class="list"
      ref={frame}
      role="table"
      aria-label="Runs"
      aria-rowcount={shown.length + 1}
      tabIndex={0}
      onScroll={({ currentTarget: { scrollTop: top, clientHeight: height } }) =>
        setView({ top, height, more: usualMore })
      }
    >
      <div class="list-head" role="rowgroup">
        <div class="list-row" role="row" aria-rowindex={1}>
          <span role="columnheader" class="choose">
            <span class="hidden">Chosen</span>
          </span>
          {columns.map(({ key, label, width }) => (
            <span
              key={key}
              role="columnheader"
              class={width}
              aria-sort={key === sort ? (descending ? "descending" : "ascending") : "none"}
            >
              <button
                type="button"
                class="plain"
                onClick={() => set({ sort: key, order: key === sort && !descending ? "down" : "" })}
              >
                {label}
                {key === sort && <span aria-hidden="true">{descending ? " ↓" : " ↑"}</span>}
              </button>
            </span>
          ))}
        </div>
      </div>
      <div role="rowgroup" class="list-body" style={{ height: `${shown.length * rowHeight}px` }}>
        {shown.slice(first, first + count).map((row, i) => (
          <div
            key={row.name}
            role="row"
            aria-rowindex={first + i + 2}
            class={`list-row${first + i === active ? " active" : ""}`}
            style={{ transform: `translateY(${(first + i) * rowHeight}px)` }}
            onClick={() => setActive(first + i)}
          >
            <span role="cell" class="choose">
              <input
                type="checkbox"
                checked={chosen.has(row.name)}
                onChange={() => choose(row.name)}
                aria-label={`choose ${row.name}`}
              />
            </span>
            {columns.map(({ key, width, cell }) => (
              <span role="cell" key={key} class={width}>
                {cell(row)}
              </span>
            ))}
          </div>
        ))}
      </div>
    </div>
  );
}

function csvOfRuns(list: readonly RunRow[]): string {
  const keys = [
    "name",
    "study",
    "arm",
    "seed",
    "state",
    "kind",
    "params",
    "activeParams",
    "step",
    "steps",
    "tokens",
    "loss",
    "bestLoss",
    "trainLoss",
    "tokensPerSecond",
    "secondsLeft",
    "dead",
    "experts",
    "bytes",
  ] as const;
  return csvOf(
    keys,
    list.map((row) => keys.map((key) => row[key])),
  );
}
