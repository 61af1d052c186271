/** What a model folder says of itself for people: licence, languages, its name on the Hugging Face Hub. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { oneLine } from "../../base/markdown.js";
import { cardFile, largestCard } from "../../files/formats/model-files.js";
import { cachedModel, isModelId } from "../../files/hub/reference.js";
import { exists } from "../../files/io/atomic.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { readText } from "../../files/io/ranges.js";

/** What a model folder says of itself; null or empty: nothing. */
export interface ParentCard {
  /** Identifier of the licence, such as `apache-2.0`, as the Hub's model cards have it; null where nothing says it. */
  readonly license: string | null;
  /** Name of a licence whose identifier is `other`. */
  readonly licenseName: string | null;
  readonly licenseLink: string | null;
  /** Where `license` was found. */
  readonly licenseFrom: string | null;
  /** Files that hold a licence or a notice. */
  readonly licenseFiles: readonly string[];
  readonly languages: readonly string[];
  /** Its own name on the Hub, if the folder knows it. */
  readonly repository: string | null;
  /** Names on the Hub of what it was made from, as its card says. */
  readonly baseModels: readonly string[];
}

/** Reads what a folder says of itself. No conversion needs it, so what cannot be read counts as not said. */
export async function readParentCard(dir: string, config: Readonly<Record<string, unknown>>): Promise<ParentCard> {
  const front = await frontMatter(join(dir, cardFile)).catch(() => null);
  const fromCard = licenceId(front?.["license"]);
  const fromConfig = licenceId(config["license"]);
  const names = await withFsErrors(dir, "list folder", () => readdir(dir)).catch(() => []);
  const path = text(config["_name_or_path"]);
  const licenseFiles = names.filter((name) => /^(licen[cs]e|notice|copying|use_policy)([._-].*)?$/i.test(name)).sort();
  const cached = cachedModel(dir);
  return {
    license: fromCard ?? fromConfig,
    licenseName: plainName(front?.["license_name"]),
    licenseLink: link(text(front?.["license_link"]), licenseFiles),
    licenseFrom: fromCard !== null ? cardFile : fromConfig !== null ? "config.json" : null,
    licenseFiles,
    languages: list(front?.["language"]).filter((one) => /^[a-z][a-z0-9-]{1,30}$/i.test(one)),
    // A path of somebody's disk has other characters or more parts; a bare name may be a folder of it.
    repository:
      [cached, path].find((id) => id !== null && isModelId(id) && (id === cached || id.includes("/"))) ?? null,
    baseModels: list(front?.["base_model"]).filter((id) => isModelId(id) && id.includes("/")),
  };
}

async function frontMatter(path: string): Promise<Readonly<Record<string, unknown>> | null> {
  if (!(await exists(path))) return null;
  const [, yaml] = /^---[ \t]*\r?\n([\s\S]*?)\r?\n---[ \t]*(\r?\n|$)/.exec(await readText(path, largestCard)) ?? [];
  const content: unknown = yaml === undefined ? null : parse(yaml, { maxAliasCount: 10, logLevel: "error" });
  return typeof content === "object" && content !== null && !Array.isArray(content)
    ? (content as Record<string, unknown>)
    : null;
}

/** The value if it is one short line in which every character shows; else null. */
function text(value: unknown): string | null {
  const one: unknown = Array.isArray(value) && value.length === 1 ? value[0] : value;
  return typeof one === "string" && one.trim() !== "" && one.length <= 300 && oneLine(one) === one.trim()
    ? one.trim()
    : null;
}

/** A licence's identifier, such as `apache-2.0`; null for a value that is none. */
function licenceId(value: unknown): string | null {
  const id = text(value);
  return id !== null && /^[a-z0-9][a-z0-9._+-]{0,99}$/i.test(id) ? id : null;
}

/** A name of letters, digits and the marks between them; null for a value with markup or anything like a link. */
function plainName(value: unknown): string | null {
  const name = text(value);
  return name !== null && /^[\p{L}\p{N}][\p{L}\p{M}\p{N} ._+,'()-]{0,99}$/u.test(name) ? name : null;
}

/**
 * The address of a licence if a card may link to it: a web page, or a licence file that is copied along. Anything else,
 * such as `javascript:`, is left out.
 */
function link(address: string | null, beside: readonly string[]): string | null {
  if (address === null || beside.includes(address)) return address;
  return /^https?:\/\/[^\s<>"']+$/i.test(address) && URL.canParse(address) ? address : null;
}

function list(value: unknown): string[] {
  const all: readonly unknown[] = Array.isArray(value) ? value : [value];
  return all.map(text).filter((one) => one !== null);
}
