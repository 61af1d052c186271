/** `hf://org/name@revision`: a model of the Hugging Face Hub where a folder could stand. */
import { basename, resolve } from "node:path";
import { inputError } from "../../base/errors.js";

/** A model on the Hub: its repository and revision. */
export interface HubReference {
  /** `org/name`, or `name` for the oldest models. */
  readonly repo: string;
  /** Branch, tag or commit; `main` where none is given. */
  readonly revision: string;
}

const scheme = "hf://";

/** Whether a model's name is a reference to the Hub: whether it begins with `hf://`. */
export function isHubReference(model: string): boolean {
  return model.startsWith(scheme);
}

/** The Hub's own rules for names: letters, digits, `-`, `_`, `.`; none of the last three doubled or at an end. */
const namePattern = /^[A-Za-z0-9](?:[A-Za-z0-9]|[-_.](?=[A-Za-z0-9]))*$/;

/**
 * What to call a model folder: its base name, or `org/name` for a snapshot in the Hub's cache, whose base name is a
 * commit.
 */
export function modelName(folder: string): string {
  return cachedModel(folder) ?? basename(resolve(folder));
}

/** The Hub's name of a snapshot in its cache; null: the folder is none. */
export function cachedModel(folder: string): string | null {
  const [, repo] = /[/\\]models--([^/\\]+)[/\\](?:snapshots|headers)[/\\][0-9a-f]{40}$/.exec(resolve(folder)) ?? [];
  return repo === undefined ? null : repo.replace("--", "/");
}

/** Whether the Hub could have a model of this name. */
export function isModelId(id: string): boolean {
  const parts = id.split("/");
  return parts.length <= 2 && parts.every((part) => part.length <= 96 && namePattern.test(part));
}

/** Reads a reference to the Hub. Throws inputError for anything but `hf://[org/]name[@revision]`. */
export function parseHubReference(model: string): HubReference {
  const rest = model.slice(scheme.length);
  const at = rest.indexOf("@");
  const repo = at < 0 ? rest : rest.slice(0, at);
  const revision = at < 0 ? "main" : rest.slice(at + 1);
  // Revisions become folder names of the cache.
  const badRevision =
    !/^[A-Za-z0-9][A-Za-z0-9._/-]*$/.test(revision) || revision.split("/").some((part) => /^\.*$/.test(part));
  if (!isHubReference(model) || !isModelId(repo) || badRevision) {
    const correction = withPlainSlashes(model, revision) ?? "hf://org/name or hf://org/name@revision";
    throw inputError(`"${model}" is no model of the Hub`, { hint: `write ${correction}` });
  }
  return { repo, revision };
}

/** The reference with the slashes of its revision, which was copied out of an address that has %2F; null otherwise. */
function withPlainSlashes(model: string, revision: string): string | null {
  const plain = revision.replace(/%2f/gi, "/");
  if (plain === revision || !/^[\w./-]+$/.test(plain)) return null;
  return `${model.slice(0, model.length - revision.length)}${plain}`;
}
