/** Differences of two plain data, in the words of a settings file. */

/** One setting that differs. */
export interface Change {
  /** Names from the outside in, with dots. */
  readonly key: string;
  /** The old value; undefined where the setting is new. */
  readonly was: unknown;
  /** The new value; undefined where the setting is gone. */
  readonly is: unknown;
}

type Data = Readonly<Record<string, unknown>>;
const isData = (value: unknown): value is Data => typeof value === "object" && value !== null && !Array.isArray(value);

/** Every setting that differs, in the order of the old ones. The order of keys is no difference. */
export function changesBetween(was: Data, is: Data, within = ""): Change[] {
  return [...new Set([...Object.keys(was), ...Object.keys(is)])].flatMap((name) => {
    const [before, after] = [was[name], is[name]];
    const key = within === "" ? name : `${within}.${name}`;
    if (isData(before) && isData(after)) return changesBetween(before, after, key);
    return JSON.stringify(before) === JSON.stringify(after) ? [] : [{ key, was: before, is: after }];
  });
}

/** Changes that are named; more are counted. */
const most = 4;
/** Characters of a value that are shown. */
const longest = 60;

/** "a was 1 and is 2, b is new (3)". */
export function changeWords(changes: readonly Change[]): string {
  const words = changes.slice(0, most).map(({ key, was, is }) => {
    if (was === undefined) return `${key} is new (${shown(is)})`;
    return is === undefined ? `${key} is gone (was ${shown(was)})` : `${key} was ${shown(was)} and is ${shown(is)}`;
  });
  return `${words.join(", ")}${changes.length > most ? `, and ${changes.length - most} more differ` : ""}`;
}

function shown(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length <= longest ? text : `${text.slice(0, longest - 1)}…`;
}
