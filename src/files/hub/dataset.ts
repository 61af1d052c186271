/**
 * Splits of data sets of the Hugging Face Hub in the cache that Python's huggingface_hub uses as well
 * (`datasets--ORG--NAME/{blobs,snapshots,refs}`). Files are those of the branch `refs/convert/parquet`, in which the
 * Hub keeps every data set as `CONFIG/SPLIT/0000.parquet`, or those that are named.
 */
import { dirname, join } from "node:path";
import { UpcycleError, inputError } from "../../base/errors.js";
import { exists, writeFileAtomic, writeJson } from "../io/atomic.js";
import { makeFolders } from "../io/folders.js";
import { withFsErrors } from "../io/fs-errors.js";
import { lockFolder } from "../io/lock.js";
import { readText } from "../io/ranges.js";
import { requireFreeSpace } from "../io/space.js";
import { fetchBlob, linkBlob } from "./blob.js";
import { isNamed, isThere, requireInsideCache } from "./cache.js";
import { connectionTo, type Connection } from "./connection.js";
import type { FetchOptions } from "./fetch.js";
import type { TroubleKind } from "./limits.js";
import { commitOf, datasetPrefix, remoteFolder, type RemoteFile } from "./listing.js";
import { isModelId, type HubReference } from "./reference.js";
import { hubSettings, requireToken, smallText } from "./settings.js";

/** A split, and the files of it if they are named. */
export interface DatasetSplit {
  /** `org/name` */
  readonly path: string;
  /** Configuration; null: the data set's only one, or the one called default. */
  readonly name: string | null;
  readonly split: string;
  /** Paths in the repository; empty: the split as the Hub converted it. */
  readonly files: readonly string[];
}

const converted = "refs/convert/parquet";

/** What one split is fetched with. */
interface SplitRequest {
  readonly reference: HubReference;
  readonly endpoint: string;
  readonly connection: Connection;
  readonly repoDir: string;
  readonly split: DatasetSplit;
  readonly onEvent: FetchOptions["onEvent"];
}

/**
 * The files of a split, in order, after those that are missing have been downloaded. Throws like `fetchModel`, and
 * inputError for a configuration or split that the data set does not have.
 */
export async function fetchSplit(
  split: DatasetSplit,
  options: Pick<FetchOptions, "signal" | "onEvent" | "settings" | "limits"> = {},
): Promise<readonly string[]> {
  const where = `hf://${datasetPrefix}${split.path}`;
  if (!isModelId(split.path)) throw inputError(`"${split.path}" is no data set of the Hub`, { hint: "write org/name" });
  const settings = options.settings ?? (await hubSettings());
  const reference = { repo: datasetPrefix + split.path, revision: split.files.length > 0 ? "main" : converted };
  const repoDir = join(settings.cacheDir, `datasets--${split.path.replaceAll("/", "--")}`);
  const cached = await cachedSplit(repoDir, reference, split);
  if (settings.offline) {
    if (cached !== null) return cached;
    throw inputError(`the split ${split.split} is not in the cache, and HF_HUB_OFFLINE is set`, {
      where,
      hint: "download it with a network first, or give its files with --data",
    });
  }
  requireToken(settings);
  const { endpoint } = settings;
  const { signal, limits, onEvent } = options;
  const onNote = (text: string): void => onEvent?.({ type: "note", text });
  const connection = connectionTo(reference, settings, { signal, limits, onNote });
  // Without a network, what came over it before still serves, and need not be waited for.
  const giveUpOn = new Set<TroubleKind>(cached === null ? ["unreachable"] : ["unreachable", "silent"]);
  try {
    const commit = await commitOf({ reference, endpoint, connection }, giveUpOn);
    return await fetchAt({ reference, endpoint, connection, repoDir, split, onEvent }, commit);
  } catch (cause) {
    if (cached === null || !(cause instanceof UpcycleError) || !connection.isOutage(cause)) throw cause;
    onEvent?.({ type: "cached", why: cause.message });
    return cached;
  }
}

/** The record of a split's files: a folder alone does not say whether all of them are there. */
const recordPath = (repoDir: string, commit: string, { name, split, files }: DatasetSplit): string =>
  join(repoDir, "splits", commit, `${encodeURIComponent(`${name ?? "default"}/${split}/${files.join(",")}`)}.json`);

/** The files that an earlier download completed; null where there was none. */
async function cachedSplit(
  repoDir: string,
  { revision }: HubReference,
  split: DatasetSplit,
): Promise<readonly string[] | null> {
  const commit = (await smallText(join(repoDir, "refs", revision))).trim();
  if (!/^[0-9a-f]{40}$/.test(commit)) return null;
  const record = recordPath(repoDir, commit, split);
  if (!(await exists(record))) return null;
  const paths = JSON.parse(await readText(record)) as readonly string[];
  const files = paths.map((path) => join(repoDir, "snapshots", commit, path));
  return (await Promise.all(files.map(exists))).every(Boolean) ? files : null;
}

async function fetchAt(request: SplitRequest, commit: string): Promise<readonly string[]> {
  const { repoDir, split, reference, onEvent } = request;
  onEvent?.({ type: "commit", commit });
  await withFsErrors(repoDir, "create folder", () => makeFolders(repoDir));
  const release = await lockFolder(repoDir);
  try {
    const files = await filesOf(request, commit);
    const snapshot = join(repoDir, "snapshots", commit);
    const paths = files.map(({ path }) => join(snapshot, path));
    await requireInsideCache(repoDir, [join(repoDir, "blobs"), ...paths.map(dirname)]);
    await bringAll(request, commit, files);
    const record = recordPath(repoDir, commit, split);
    const ref = join(repoDir, "refs", reference.revision);
    for (const place of [record, ref]) await withFsErrors(place, "create folder", () => makeFolders(dirname(place)));
    await writeJson(
      record,
      files.map(({ path }) => path),
    );
    await writeFileAtomic(ref, commit);
    return paths;
  } finally {
    await release();
  }
}

async function bringAll(
  { repoDir, connection, onEvent }: SplitRequest,
  commit: string,
  files: readonly RemoteFile[],
): Promise<void> {
  const blobOf = ({ checksum }: RemoteFile): string => join(repoDir, "blobs", checksum);
  let missing = 0;
  for (const file of files) if (!(await exists(blobOf(file)))) missing += file.size;
  await requireFreeSpace(repoDir, missing);
  const total = files.reduce((sum, { size }) => sum + size, 0);
  let done = 0;
  for (const file of files) {
    connection.requireOpen();
    const pointer = join(repoDir, "snapshots", commit, file.path);
    const onBytes = (bytes: number): void =>
      onEvent?.({ type: "progress", file: file.path, done: done + bytes, total });
    if (!(await isNamed(pointer, file))) {
      const blob = blobOf(file);
      if (!(await isThere(blob, file))) await fetchBlob({ file, commit, blob, connection, onBytes });
      await linkBlob(blob, pointer);
    }
    done += file.size;
    onBytes(0);
  }
}

/** The split's files in the repository. Throws inputError where there are none. */
async function filesOf(request: SplitRequest, commit: string): Promise<readonly RemoteFile[]> {
  const { split, reference } = request;
  const where = `hf://${reference.repo}`;
  if (split.files.length === 0) {
    const folder = `${split.name ?? "default"}/${split.split}`;
    const files = (await remoteFolder(request, commit, folder))?.filter(({ path }) => path.endsWith(".parquet")) ?? [];
    if (files.length > 0) return [...files].sort((a, b) => (a.path < b.path ? -1 : 1));
    throw inputError(`the data set has no folder ${folder} on its branch ${converted}`, {
      where,
      hint: "are its configuration and split called so? give its files with --data otherwise",
    });
  }
  const found: RemoteFile[] = [];
  for (const path of split.files) {
    const folder = dirname(path) === "." ? "" : dirname(path);
    const file = (await remoteFolder(request, commit, folder))?.find((one) => one.path === path);
    if (file === undefined) throw inputError(`the data set has no file ${path}`, { where });
    found.push(file);
  }
  return found;
}
