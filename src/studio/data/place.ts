/** Where in the studio one is, as the part of its address behind `#`: a path, and settings of the view. */

/** Views by the first part of their path. */
export const viewNames = [
  "",
  "runs",
  "run",
  "compare",
  "experts",
  "models",
  "model",
  "reports",
  "report",
  "study",
  "evaluation",
  "jobs",
  "playground",
  "actions",
] as const;
/** A view. */
export type ViewName = (typeof viewNames)[number];

/** A view, what it is of, and its settings. */
export interface Place {
  readonly view: ViewName;
  /** Name of the run, model or report; "" for views of all. */
  readonly name: string;
  readonly settings: Readonly<Record<string, string>>;
}

/** The place that an address names; what it does not know is the start page. Never throws. */
export function parsePlace(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#?\/?/, "").split(/\?(.*)/s, 2);
  const [first = "", ...rest] = path.split("/");
  const view = viewNames.find((name) => name === first);
  const settings = Object.fromEntries(new URLSearchParams(query));
  return view === undefined
    ? { view: "", name: "", settings: {} }
    : { view, name: rest.map(decoded).join("/"), settings };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a place, with `#` in front; settings that are empty are left out. */
export function placeHash({ view, name, settings }: Partial<Place> & Pick<Place, "view">): string {
  const path = [view, ...(name === undefined || name === "" ? [] : name.split("/").map(encodeURIComponent))].join("/");
  const query = new URLSearchParams(Object.entries(settings ?? {}).filter(([, value]) => value !== "")).toString();
  return `#/${path}${query === "" ? "" : `?${query}`}`;
}

/** Several names as one setting, and back: names may hold any character. */
export const listSetting = (names: readonly string[]): string => names.map(encodeURIComponent).join(" ");

/** The names in a setting. */
export const listOf = (setting: string | undefined): string[] =>
  setting === undefined || setting === "" ? [] : setting.split(" ").map(decoded);
