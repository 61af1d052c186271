/**
 * A model of the Hugging Face Hub as a folder: downloaded once into the cache that Python's huggingface_hub uses as
 * well (`models--ORG--NAME/{blobs,snapshots,refs}`), only the files a model needs, resumable, each checked.
 *
 *   revision -> commit -> list of files -> those needed -> blobs -> links in the snapshot, config.json last -> ref
 */
import { basename, dirname, join } from "node:path";
import { UpcycleError, inputError } from "../../base/errors.js";
import { adapterSources, cardFile, isCarried, largestCard, weightSources } from "../formats/model-files.js";
import { parseIndex } from "../formats/shards.js";
import { exists, writeFileAtomic } from "../io/atomic.js";
import { makeFolders } from "../io/folders.js";
import { withFsErrors } from "../io/fs-errors.js";
import { lockFolder } from "../io/lock.js";
import { readText } from "../io/ranges.js";
import { requireFreeSpace } from "../io/space.js";
import { fetchBlob, linkBlob } from "./blob.js";
import { isNamed, isThere, requireInsideCache } from "./cache.js";
import { fetchHeader } from "./headers.js";
import { connectionTo, type Connection } from "./connection.js";
import type { HubLimits, TroubleKind } from "./limits.js";
import { commitOf, remoteFiles, type RemoteFile } from "./listing.js";
import { parseHubReference, type HubReference } from "./reference.js";
import { hubSettings, requireToken, smallText, type HubSettings } from "./settings.js";

/** What a download tells while it runs. */
export type HubEvent =
  /** The commit that the revision stands for. */
  | { readonly type: "commit"; readonly commit: string }
  /** Bytes of all files that are needed: `done` of them are here, of `total`. `file` is the one that comes now. */
  | { readonly type: "progress"; readonly file: string; readonly done: number; readonly total: number }
  /** The Hub cannot be reached (`why`), and what an earlier download left is used. */
  | { readonly type: "cached"; readonly why: string }
  /** A line for the user: what is waited for, or done differently than usual. */
  | { readonly type: "note"; readonly text: string };

/**
 * How much of a model: `all` of it; its config, index and the `headers` of its safetensors files (`headers.ts`; all of
 * a model of torch.save, whose files have none); or its `config` alone. What is in the cache as a whole is given as a
 * whole. `adapter`: a LoRA adapter of PEFT, which is no model, as a whole.
 */
export type FetchedPart = "all" | "headers" | "config" | "adapter";

/** Name of the file that comes last: a snapshot that has it is complete. */
const lastFile = (part: FetchedPart): string => (part === "adapter" ? "adapter_config.json" : "config.json");

/** How a model is downloaded, and which part of it. */
export interface FetchOptions {
  /** Default: all. */
  readonly part?: FetchedPart | undefined;
  /** Stops the download; what has come is kept. */
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: ((event: HubEvent) => void) | undefined;
  /** Default: those of the environment (`hubSettings`). */
  readonly settings?: HubSettings | undefined;
  /** Limits in place of those of `hubLimits`. */
  readonly limits?: Partial<HubLimits> | undefined;
}

const noAddress: ReadonlySet<TroubleKind> = new Set<TroubleKind>(["unreachable"]);
const noNetwork: ReadonlySet<TroubleKind> = new Set<TroubleKind>(["unreachable", "silent"]);

/**
 * The folder of `hf://org/name[@revision]`, in the cache, after everything that is missing of it has been downloaded.
 * Throws inputError for a model that is not there, not allowed or has no weights we read, and for settings that make no
 * sense; stopError where the network or disk fails, and interruptedError after Ctrl-C: what has come is kept, and the
 * next call resumes.
 */
export async function fetchModel(model: string, options: FetchOptions = {}): Promise<string> {
  const { part = "all", signal, onEvent, limits } = options;
  const reference = parseHubReference(model);
  const settings = options.settings ?? (await hubSettings());
  const repoDir = join(settings.cacheDir, `models--${reference.repo.replaceAll("/", "--")}`);
  if (settings.offline)
    return (await cachedFolder(repoDir, reference, part)) ?? notCached(model, "HF_HUB_OFFLINE is set");
  requireToken(settings);
  const onNote = (text: string): void => onEvent?.({ type: "note", text });
  const connection = connectionTo(reference, settings, { signal, limits, onNote });
  const { endpoint } = settings;
  // Without a network, what came over it before still serves, and need not be waited for; a refusal counts.
  const cached = await cachedFolder(repoDir, reference, part).catch(() => null);
  let commit: string | undefined;
  try {
    commit = await commitOf({ reference, endpoint, connection }, cached === null ? noAddress : noNetwork);
    return await fetchCommit({ model, part, reference, endpoint, connection, repoDir, commit, onEvent });
  } catch (cause) {
    const serves = cached !== null && (commit === undefined || basename(cached) === commit);
    if (!serves || !(cause instanceof UpcycleError) || !connection.isOutage(cause)) throw cause;
    onEvent?.({ type: "cached", why: cause.message });
    return cached;
  }
}

/** A model at one commit, with the part of it that is downloaded and the place where it goes. */
interface CommitRequest extends Pick<FetchOptions, "onEvent"> {
  readonly model: string;
  readonly part: FetchedPart;
  readonly reference: HubReference;
  readonly endpoint: string;
  readonly connection: Connection;
  readonly repoDir: string;
  readonly commit: string;
}

async function fetchCommit(request: CommitRequest): Promise<string> {
  const { repoDir, commit, onEvent } = request;
  onEvent?.({ type: "commit", commit });
  await withFsErrors(repoDir, "create folder", () => makeFolders(repoDir));
  const release = await lockFolder(repoDir);
  try {
    return await fetchPart(request);
  } finally {
    await release();
  }
}

async function fetchPart(request: CommitRequest): Promise<string> {
  const { part, repoDir, commit } = request;
  const snapshot = join(repoDir, "snapshots", commit);
  const headers = join(repoDir, "headers", commit);
  await requireInsideCache(repoDir, [join(repoDir, "blobs"), join(repoDir, "refs"), snapshot, headers]);
  if (part !== "all" && part !== "adapter" && (await exists(join(snapshot, "config.json")))) return snapshot;
  const files = await remoteFiles(request, commit);
  const config = requireSettings(files, request);
  const download = new Download(request);
  if (part === "config") {
    download.total = config.size;
    await download.requireSpace([config]);
    await fetchLast(download, config, headers, headerRef(repoDir, request.reference));
    return headers;
  }
  const source = weightsIn(files, request);
  if (part === "headers" && hasHeaders(source)) {
    await fetchHeaders(download, source, { files, config, folder: headers });
    await fetchLast(download, config, headers, headerRef(repoDir, request.reference));
    return headers;
  }
  await fetchWeights(download, source, { files, config, folder: snapshot });
  await fetchLast(download, config, snapshot, join(repoDir, "refs", request.reference.revision));
  return snapshot;
}

/** The settings of the model or adapter. Throws inputError where the repository has none. */
function requireSettings(files: ReadonlyMap<string, RemoteFile>, { model, part }: CommitRequest): RemoteFile {
  const settings = files.get(lastFile(part));
  if (settings !== undefined) return settings;
  if (part === "adapter")
    throw inputError("there is no adapter_config.json", {
      where: model,
      hint: "expected a LoRA adapter as PEFT saves it",
    });
  throw inputError("the model has no config.json", {
    where: model,
    hint: "expected a model in the format of transformers",
  });
}

/** Where the weights are: in one file, or in the shards that an index names. */
interface WeightSource {
  readonly file: RemoteFile;
  /** Extension of the shards; null: the file holds the weights. */
  readonly shards: string | null;
}

/** Finds the weights in the order of preference. Throws inputError where there are none that we read. */
function weightsIn(files: ReadonlyMap<string, RemoteFile>, { model, part }: CommitRequest): WeightSource {
  const sources = part === "adapter" ? adapterSources : weightSources;
  for (const { file: name, shards } of sources) {
    const file = files.get(name);
    if (file !== undefined) return { file, shards };
  }
  const others = [...files.keys()].filter((name) => /\.(gguf|bin|pt|pth|h5|msgpack|onnx|safetensors)$/.test(name));
  const instead = others.length === 0 ? "" : ` (found ${others.slice(0, 3).join(", ")})`;
  throw inputError(`the model has neither ${sources.map(({ file }) => file).join(", ")}${instead}`, { where: model });
}

/** Whether the weights are in the safetensors format, whose files have headers. */
function hasHeaders({ file, shards }: WeightSource): boolean {
  return file.path.endsWith(shards === null ? ".safetensors" : ".safetensors.index.json");
}

/** Where files go, out of all that the commit has; `config` comes last. */
interface FolderFiles {
  readonly files: ReadonlyMap<string, RemoteFile>;
  readonly config: RemoteFile;
  readonly folder: string;
}

/** Brings the files of one commit into the cache, and says how far it has come. */
class Download {
  /** Bytes of all files that are needed, for the reports. */
  total = 0;
  /** Bytes of the files that are here. */
  done = 0;

  constructor(readonly request: CommitRequest) {}

  #blobOf({ checksum }: RemoteFile): string {
    return join(this.request.repoDir, "blobs", checksum);
  }

  /** Downloads a file, unless it is in the cache, and gives it its name in `folder`. */
  async bring(file: RemoteFile, folder: string): Promise<void> {
    const { connection, commit, onEvent } = this.request;
    connection.requireOpen();
    const pointer = join(folder, file.path);
    const blob = this.#blobOf(file);
    const onBytes = (done: number): void =>
      onEvent?.({ type: "progress", file: file.path, done: this.done + done, total: this.total });
    if (!(await isNamed(pointer, file))) {
      if (!(await isThere(blob, file))) await fetchBlob({ file, commit, blob, connection, onBytes });
      await linkBlob(blob, pointer);
    }
    this.done += file.size;
    onBytes(0);
  }

  /** Throws stopError where the disk has no space for what is missing of the files. */
  async requireSpace(files: readonly RemoteFile[]): Promise<void> {
    let missing = 0;
    for (const file of files) if (!(await exists(this.#blobOf(file)))) missing += file.size;
    await requireFreeSpace(this.request.repoDir, missing);
  }
}

/** Brings the file that makes a folder complete, and remembers which commit the revision names. */
async function fetchLast(download: Download, file: RemoteFile, folder: string, ref: string): Promise<void> {
  await download.bring(file, folder);
  // A folder with its last file is complete, and one that a ref names can be used without a network.
  await writeRef(ref, download.request);
}

/** Brings the headers of all weight files, and their index if there is one. */
async function fetchHeaders(
  download: Download,
  { file: source, shards }: WeightSource,
  { files, config, folder }: FolderFiles,
): Promise<void> {
  const { commit, connection, reference } = download.request;
  await download.requireSpace(shards === null ? [config] : [config, source]);
  if (shards !== null) await download.bring(source, folder);
  const weightFiles = shards === null ? [source] : await shardsOf(join(folder, source.path), shards, files);
  for (const file of weightFiles) {
    const path = join(folder, file.path);
    if (!(await exists(path))) await fetchHeader({ file, commit, connection, repo: reference.repo }, path);
  }
}

/** Brings all files of a model or adapter but the last one: the small ones and the index first, then the weights. */
async function fetchWeights(
  download: Download,
  { file: source, shards }: WeightSource,
  { files, config, folder }: FolderFiles,
): Promise<void> {
  const isAdapter = download.request.part === "adapter";
  const first = [...files.values()].filter(
    ({ path, size }) =>
      (!isAdapter && isCarried(path)) || (path === cardFile && size <= largestCard) || path === source.path,
  );
  download.total = sizeOf(first) + config.size;
  await download.requireSpace([...first, config]);
  for (const file of first) if (file.path !== source.path || shards !== null) await download.bring(file, folder);
  const weights = shards === null ? [source] : await shardsOf(join(folder, source.path), shards, files);
  download.total = download.done + sizeOf(weights) + config.size;
  await download.requireSpace([...weights, config]);
  for (const file of weights) await download.bring(file, folder);
}

function sizeOf(files: readonly RemoteFile[]): number {
  return files.reduce((sum, { size }) => sum + size, 0);
}

/**
 * Remembers which commit a branch or tag named. The download is complete without that, so it is no failure where it
 * cannot be written.
 */
async function writeRef(path: string, { repoDir, reference, commit, connection }: CommitRequest): Promise<void> {
  const { revision } = reference;
  if (revision === commit) return;
  try {
    await withFsErrors(path, "write file", () => makeFolders(dirname(path)));
    await requireInsideCache(repoDir, [dirname(path)]);
    await writeFileAtomic(path, commit);
  } catch (cause) {
    if (!(cause instanceof UpcycleError)) throw cause;
    const advice = `without a network ask for @${commit}`;
    connection.note(`warning: which commit ${revision} is could not be kept (${cause.line}); ${advice}`);
  }
}

/**
 * The file that remembers a revision's commit for a folder of headers. It lies beside the headers, so that
 * huggingface_hub finds no ref to a snapshot that is not there.
 */
const headerRef = (repoDir: string, { revision }: HubReference): string => join(repoDir, "headers", "refs", revision);

/** The files that an index names. Throws inputError for one that the repository does not have. */
async function shardsOf(
  index: string,
  extension: string,
  files: ReadonlyMap<string, RemoteFile>,
): Promise<RemoteFile[]> {
  const names = [...new Set(parseIndex(await readText(index), index, extension).values())].sort();
  return names.map((name) => {
    const file = files.get(name);
    if (file === undefined)
      throw inputError(`the index lists ${name}, which the model does not have`, { where: index });
    return file;
  });
}

/**
 * The folder that an earlier download completed: the snapshot, or for a part of the model the folder of headers, if it
 * has that part; null where there is none.
 */
async function cachedFolder(repoDir: string, reference: HubReference, part: FetchedPart): Promise<string | null> {
  const snapshot = await cachedCommit(
    join(repoDir, "snapshots"),
    join(repoDir, "refs", reference.revision),
    reference,
    lastFile(part),
  );
  if (snapshot !== null || part === "all" || part === "adapter") return snapshot;
  const headers = await cachedCommit(
    join(repoDir, "headers"),
    headerRef(repoDir, reference),
    reference,
    lastFile(part),
  );
  return headers !== null && (part === "config" || (await hasAllHeaders(headers))) ? headers : null;
}

/** The folder of the commit that a revision stands for, if its last file is there; `ref` names the commit. */
async function cachedCommit(
  folders: string,
  ref: string,
  { revision }: HubReference,
  last: string,
): Promise<string | null> {
  const commit = /^[0-9a-f]{40}$/.test(revision) ? revision : (await smallText(ref)).trim();
  const folder = join(folders, commit);
  return /^[0-9a-f]{40}$/.test(commit) && (await exists(join(folder, last))) ? folder : null;
}

/**
 * Whether a folder has the headers of all weight files: one that was made for the config alone has none, an interrupted
 * one not all.
 */
async function hasAllHeaders(folder: string): Promise<boolean> {
  for (const { file, shards } of weightSources) {
    const path = join(folder, file);
    if (shards === "bin" || !(await exists(path))) continue;
    const names = shards === null ? [file] : [...new Set(parseIndex(await readText(path), path, shards).values())];
    return (await Promise.all(names.map((name) => exists(join(folder, name))))).every(Boolean);
  }
  return false;
}

function notCached(model: string, why: string): never {
  throw inputError(`the model is not in the cache, and ${why}`, {
    where: model,
    hint: "download it with a network first",
  });
}
