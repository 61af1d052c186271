/**
 * What the Hub says of a model: which commit a revision names, and which files that commit has. All of it is judged
 * before any of it becomes a path.
 */
import { listFiles, modelInfo } from "@huggingface/hub";
import { inputError, stopError } from "../../base/errors.js";
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
  readonly large: boolean;
}

interface AskedModel {
  readonly reference: HubReference;
  readonly endpoint: string;
  readonly connection: Connection;
}

/** Throws like `Connection.retried`, and inputError for what is no Hub. */
export async function commitOf(
  { reference: { repo, revision }, endpoint, connection }: AskedModel,
  giveUpOn: ReadonlySet<TroubleKind>,
): Promise<string> {
  let sha: unknown;
  try {
    ({ sha } = await modelInfo({
      name: repo,
      revision,
      hubUrl: endpoint,
      fetch: connection.api(giveUpOn),
      additionalFields: ["sha"],
    }));
  } catch (cause) {
    throw apiFailure(cause, endpoint, repo);
  }
  if (typeof sha !== "string" || !/^[0-9a-f]{40}$/.test(sha))
    throw inputError(`${endpoint} names no commit of the model`, { where: repo, hint: "check HF_ENDPOINT" });
  return sha;
}

/** The files beside the model's config.json, as far as their names can be file names anywhere. */
export async function remoteFiles(
  { reference: { repo }, endpoint, connection }: AskedModel,
  commit: string,
): Promise<Map<string, RemoteFile>> {
  const found = new Map<string, RemoteFile>();
  const where = `hf://${repo}`;
  const seen = new Set<string>();
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
      if (seen.has(path))
        throw stopError(`the Hub lists ${shown(path)} twice`, {
          where,
          hint: "run the same command later, or check HF_ENDPOINT",
        });
      seen.add(path);
      const { files } = connection.limits;
      if (seen.size > files)
        throw stopError(`the Hub lists more than ${files} files beside the model's config.json`, { where });
      const file = type === "file" ? remoteFile(path, entry) : null;
      if (file !== null) found.set(path, file);
    }
  } catch (cause) {
    throw apiFailure(cause, endpoint, where);
  }
  return found;
}

/** Null for an entry whose size or checksum is none. */
function remoteFile(
  path: string,
  {
    size,
    oid,
    lfs,
  }: {
    readonly size?: unknown;
    readonly oid?: unknown;
    readonly lfs?: { readonly oid?: unknown; readonly size?: unknown };
  },
): RemoteFile | null {
  const large = lfs !== undefined && lfs !== null;
  const [checksum, length] = large ? [lfs.oid, lfs.size ?? size] : [oid, size];
  if (typeof checksum !== "string" || !(large ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(checksum)) return null;
  if (typeof length !== "number" || !Number.isSafeInteger(length) || length < 0) return null;
  return { path, size: length, checksum, large };
}

/** Of one part, printable, and a name on every system: Windows keeps device names and some characters for itself. */
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
