/**
 * A part of one commit of a model in the cache: which of its files are needed, and how they come.
 *
 *   list of files -> those needed -> blobs -> links in the snapshot, config.json last -> ref
 */
import { dirname, join } from "node:path";
import { UpcycleError, inputError } from "../../base/errors.js";
import { adapterSources, cardFile, isCarried, largestCard, weightSources } from "../formats/model-files.js";
import { parseIndex } from "../formats/shards.js";
import { exists, writeFileAtomic } from "../io/atomic.js";
import { makeFolders } from "../io/folders.js";
import { withFsErrors } from "../io/fs-errors.js";
import { readText } from "../io/ranges.js";
import { requireFreeSpace } from "../io/space.js";
import { fetchBlob, linkBlob } from "./blob.js";
import { isNamed, isThere, requireInsideCache } from "./cache.js";
import { fetchHeader } from "./headers.js";
import type { Connection } from "./connection.js";
import type { RemoteFile } from "./listing.js";
import type { HubReference } from "./reference.js";
import { smallText } from "./settings.js";

/** What a download tells while it runs. */
export type HubEvent =
  /** The commit that the revision stands for. */
  | { readonly type: "commit"; readonly commit: string }
  /** Bytes of all files that are needed: `done` of them are here, of `total`. `file` is the one that comes now. */
  | { readonly type: "progress"; readonly file: string; readonly done: number; readonly total: number }
  /** The header of a weight file comes now: `done` of `total` headers are here. */
  | { readonly type: "header"; readonly file: string; readonly done: number; readonly total: number }
  /** The Hub cannot be reached (`why`), and what an earlier download left is used. */
  | { readonly type: "cached"; readonly why: string }
  /** A line for the user: what is waited for, or done differently than usual. */
  | { readonly type: "note"; readonly text: string };

/**
 * How much of a model: `all` of it; its config, index and the `headers` of its safetensors files (`headers.ts`; all of
 * a model of torch.save, whose files have none); its `config` alone; or its `settings`, the config with the tokenizer
 * and whatever else goes along unchanged. What is in the cache as a whole is given as a whole. `adapter`: a LoRA
 * adapter of PEFT, which is no model, as a whole.
 */
export type FetchedPart = "all" | "headers" | "config" | "settings" | "adapter";

/** Name of the file that comes last: a snapshot that has it is complete. */
const lastFile = (part: FetchedPart): string => (part === "adapter" ? "adapter_config.json" : "config.json");

/** Whom to ask for a model, and where it goes. */
export interface RemoteRequest {
  readonly model: string;
  readonly reference: HubReference;
  readonly endpoint: string;
  readonly connection: Connection;
  readonly repoDir: string;
  readonly onEvent?: ((event: HubEvent) => void) | undefined;
}

/** A model at one commit, with the part of it that is downloaded. */
interface CommitRequest extends RemoteRequest {
  readonly part: FetchedPart;
  readonly commit: string;
  readonly files: () => Promise<ReadonlyMap<string, RemoteFile>>;
}

/** Brings a part of a model into the cache, which must be locked, and gives its folder. Throws like `fetchModel`. */
export async function fetchPart(request: CommitRequest): Promise<string> {
  const { part, repoDir, commit } = request;
  const snapshot = join(repoDir, "snapshots", commit);
  const headers = join(repoDir, "headers", commit);
  await requireInsideCache(repoDir, [join(repoDir, "blobs"), join(repoDir, "refs"), snapshot, headers]);
  if (part !== "all" && part !== "adapter" && (await exists(join(snapshot, "config.json")))) return snapshot;
  const files = await request.files();
  const config = requireSettings(files, request);
  const download = new Download(request);
  if (part === "config" || part === "settings") {
    const others = part === "config" ? [] : [...files.values()].filter(({ path }) => isCarried(path));
    if (others.length > 0) download.total = sizeOf([...others, config]);
    await download.requireSpace([...others, config]);
    for (const file of others) await download.bring(file, headers);
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
export function weightsIn(
  files: ReadonlyMap<string, RemoteFile>,
  { model, part }: Pick<CommitRequest, "model" | "part">,
): WeightSource {
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
export function hasHeaders({ file, shards }: WeightSource): boolean {
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
  const { commit, connection, reference, onEvent } = download.request;
  await download.requireSpace(shards === null ? [config] : [config, source]);
  if (shards !== null) await download.bring(source, folder);
  const weightFiles = shards === null ? [source] : await shardsOf(join(folder, source.path), shards, files);
  for (const [done, file] of weightFiles.entries()) {
    onEvent?.({ type: "header", file: file.path, done, total: weightFiles.length });
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
export async function cachedFolder(
  repoDir: string,
  reference: HubReference,
  part: FetchedPart,
): Promise<string | null> {
  const snapshot = await cachedCommit(
    join(repoDir, "snapshots"),
    join(repoDir, "refs", reference.revision),
    reference,
    lastFile(part),
  );
  // Whether a folder of headers has the tokenizer does not show.
  if (snapshot !== null || part === "all" || part === "adapter" || part === "settings") return snapshot;
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
