/**
 * What the Hub says of a model: which commit a revision names, and which files that commit has. All of it is judged
 * before any of it becomes a path.
 */
import { datasetInfo, listFiles, modelInfo } from "@huggingface/hub";
import { inputError, stopError, UpcycleError } from "../../base/errors.js";
import { shown } from "../../base/shown.js";
import { apiFailure, type Connection } from "./connection.js";
import type { TroubleKind } from "./limits.js";
import type { HubReference } from "./reference.js";

/** A file of a repository as the Hub lists it. */
export interface RemoteFile {
  readonly path: string;
  readonly size: number;
  /** SHA-256 of the content for large files, the id of a git blob for the others; also the name of the cached file. */
  readonly checksum: string;
  /** Whether the file is stored apart from the git repository (LFS). */
  readonly large: boolean;
}

/** Whom to ask for which model. */
interface ModelRequest {
  readonly reference: HubReference;
  readonly endpoint: string;
  readonly connection: Connection;
}

/** How the names of data sets begin where those of models do not. */
export const datasetPrefix = "datasets/";

/**
 * The commit that a revision of a model or data set stands for. Throws like `Connection.retried`, and inputError for
 * what is no Hub.
 */
export async function commitOf(
  { reference: { repo, revision }, endpoint, connection }: ModelRequest,
  giveUpOn: ReadonlySet<TroubleKind>,
): Promise<string> {
  let sha: unknown;
  const isDataset = repo.startsWith(datasetPrefix);
  const asked = { revision, hubUrl: endpoint, fetch: connection.api(giveUpOn) };
  try {
    ({ sha } = isDataset
      ? await datasetInfo({ ...asked, name: repo.slice(datasetPrefix.length), additionalFields: ["sha"] })
      : await modelInfo({ ...asked, name: repo, additionalFields: ["sha"] }));
  } catch (cause) {
    throw apiFailure(cause, endpoint, repo);
  }
  if (typeof sha !== "string" || !/^[0-9a-f]{40}$/.test(sha))
    throw inputError(`${endpoint} names no commit of the model`, { where: repo, hint: "check HF_ENDPOINT" });
  return sha;
}

/**
 * The files beside the model's config.json, by name; left out are names that cannot be file names on every system, and
 * entries without a size or checksum. Throws like `Connection.retried`, and stopError for a list that names a file
 * twice or too many files.
 */
export async function remoteFiles(
  { reference: { repo }, endpoint, connection }: ModelRequest,
  commit: string,
): Promise<Map<string, RemoteFile>> {
  const byName = new Map<string, RemoteFile>();
  const where = `hf://${repo}`;
  const names = new Set<string>();
  try {
    for await (const entry of listFiles({
      repo,
      revision: commit,
      hubUrl: endpoint,
      fetch: connection.api(new Set()),
    })) {
      const { path, type } = entry;
      if (typeof path !== "string" || !isFileName(path)) continue;
      // A name of two files, or of a file and a folder, could be either.
      if (names.has(path))
        throw stopError(`the Hub lists ${shown(path)} twice`, {
          where,
          hint: "run the same command later, or check HF_ENDPOINT",
        });
      names.add(path);
      const { files } = connection.limits;
      if (names.size > files)
        throw stopError(`the Hub lists more than ${files} files beside the model's config.json`, { where });
      const file = type === "file" ? remoteFile(path, entry) : null;
      if (file !== null) byName.set(path, file);
    }
  } catch (cause) {
    throw apiFailure(cause, endpoint, where);
  }
  return byName;
}

/**
 * The files in a folder of a repository, by their paths; null where there is no such folder. What is no plain file is
 * left out. Throws like `remoteFiles`.
 */
export async function remoteFolder(
  { reference: { repo }, endpoint, connection }: ModelRequest,
  commit: string,
  folder: string,
): Promise<readonly RemoteFile[] | null> {
  const found: RemoteFile[] = [];
  const asked = { repo, revision: commit, path: folder, hubUrl: endpoint, fetch: connection.api(new Set()) };
  try {
    for await (const entry of listFiles(asked)) {
      const { path, type } = entry;
      if (typeof path !== "string" || !path.split("/").every(isFileName)) continue;
      const file = type === "file" ? remoteFile(path, entry) : null;
      if (file !== null) found.push(file);
      if (found.length > connection.limits.files)
        throw stopError(`the Hub lists more than ${connection.limits.files} files in ${folder}`, { where: repo });
    }
  } catch (cause) {
    // The repository and its commit are there, so what is refused is the folder.
    const failure = apiFailure(cause, endpoint, repo);
    if (failure instanceof UpcycleError && failure.kind === "input") return null;
    throw failure;
  }
  return found;
}

/** What the Hub says of a file; nothing of it has been judged yet. */
interface ListedEntry {
  readonly size?: unknown;
  readonly oid?: unknown;
  /** Set for a file that is stored apart from the git repository. */
  readonly lfs?: { readonly oid?: unknown; readonly size?: unknown };
}

/** The file of an entry; null for an entry whose size or checksum is none. */
function remoteFile(path: string, { size, oid, lfs }: ListedEntry): RemoteFile | null {
  const large = lfs !== undefined && lfs !== null;
  const [checksum, length] = large ? [lfs.oid, lfs.size ?? size] : [oid, size];
  if (typeof checksum !== "string" || !(large ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(checksum)) return null;
  if (typeof length !== "number" || !Number.isSafeInteger(length) || length < 0) return null;
  return { path, size: length, checksum, large };
}

/**
 * Whether a name has one part, is printable, and can be a file's on every system: Windows keeps device names and some
 * characters for itself.
 */
export function isFileName(name: string): boolean {
  if (
    name === "" ||
    Buffer.byteLength(name) > 255 ||
    /[/\\:*?"<>|\p{C}\p{Zl}\p{Zp}]/u.test(name) ||
    /^[. ]+$|[. ]$/.test(name)
  )
    return false;
  return !/^(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\.|$)/i.test(name);
}
