/**
 * A model of the Hugging Face Hub as a folder: downloaded once into the cache that Python's huggingface_hub uses as well
 * (`models--ORG--NAME/{blobs,snapshots,refs}`), only the files a model needs, resumable, each checked.
 *
 *   revision -> commit -> list of files -> those needed -> blobs -> links in the snapshot, config.json last -> ref
 */
import { join } from "node:path";
import { listFiles, modelInfo } from "@huggingface/hub";
import { UpcycleError, inputError } from "../base/errors.js";
import { adapterSources, cardFile, isCarried, largestCard, weightSources } from "../format/model-files.js";
import { parseIndex } from "../format/shards.js";
import { exists, writeFileAtomic } from "../io/atomic.js";
import { makeFolders } from "../io/folders.js";
import { withFsErrors } from "../io/fs-errors.js";
import { lockFolder } from "../io/lock.js";
import { largest } from "../io/open.js";
import { readText } from "../io/ranges.js";
import { requireFreeSpace } from "../io/space.js";
import { fetchBlob, linkBlob, type RemoteFile } from "./blob.js";
import { fetchHeader } from "./headers.js";
import { connectionTo, type Connection } from "./connection.js";
import { parseHubReference, type HubReference } from "./reference.js";
import { hubSettings, type HubSettings } from "./settings.js";

export type HubEvent =
  | { readonly type: "commit"; readonly commit: string }
  /** Bytes of all files that are needed: those here, those in all. */
  | { readonly type: "progress"; readonly file: string; readonly done: number; readonly total: number }
  | { readonly type: "cached"; readonly why: string };

/**
 * How much of a model: `all` of it; its config, index and the `headers` of its safetensors files (`headers.ts`; all of a model of torch.save, whose
 * files have none); or its `config` alone. What is in the cache as a whole is given as a whole. `adapter`: a LoRA adapter of PEFT, which is no model, as a whole.
 */
export type FetchedPart = "all" | "headers" | "config" | "adapter";

/** The file that comes last: a snapshot that has it is complete. */
const lastFile = (part: FetchedPart): string => (part === "adapter" ? "adapter_config.json" : "config.json");

export interface FetchOptions {
  /** Default: all. */
  readonly part?: FetchedPart | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: ((event: HubEvent) => void) | undefined;
  /** From the environment where left out. */
  readonly settings?: HubSettings | undefined;
  /** Milliseconds before the first new attempt after a broken line. */
  readonly retryMs?: number | undefined;
}

/**
 * The folder of `hf://org/name[@revision]`. Throws inputError for a model that is not there, not allowed or has no weights we read;
 * stopError where the network or disk fails, and interruptedError after Ctrl-C: what has come is kept, and the next call goes on.
 */
export async function fetchModel(model: string, { part = "all", signal, onEvent, settings: given, retryMs = 1000 }: FetchOptions = {}): Promise<string> {
  const reference = parseHubReference(model);
  const settings = given ?? (await hubSettings());
  const repoDir = join(settings.cacheDir, `models--${reference.repo.replaceAll("/", "--")}`);
  if (settings.offline) return (await cachedFolder(repoDir, reference, part)) ?? notCached(model, "HF_HUB_OFFLINE is set");
  const connection = connectionTo(reference, settings, signal);
  let commit: string;
  try {
    commit = await commitOf(reference, settings, connection);
  } catch (cause) {
    // Without a network, what came over it before still serves; a refusal counts.
    const cached = connection.reached() || signal?.aborted === true ? null : await cachedFolder(repoDir, reference, part);
    if (cached === null || !(cause instanceof UpcycleError)) throw cause;
    onEvent?.({ type: "cached", why: cause.message });
    return cached;
  }
  onEvent?.({ type: "commit", commit });
  await withFsErrors(repoDir, "create folder", () => makeFolders(repoDir));
  const release = await lockFolder(repoDir);
  try {
    return await fetchSnapshot({ model, part, reference, settings, connection, repoDir, commit, onEvent, retryMs });
  } finally {
    await release();
  }
}

interface Snapshot extends Pick<FetchOptions, "onEvent"> {
  readonly model: string;
  readonly part: FetchedPart;
  readonly reference: HubReference;
  readonly settings: HubSettings;
  readonly connection: Connection;
  readonly repoDir: string;
  readonly commit: string;
  readonly retryMs: number;
}

async function fetchSnapshot(options: Snapshot): Promise<string> {
  const { model, part, reference, settings, connection, repoDir, commit, onEvent, retryMs } = options;
  const snapshot = join(repoDir, "snapshots", commit);
  if (part !== "all" && part !== "adapter" && (await exists(join(snapshot, "config.json")))) return snapshot;
  const listed = await remoteFiles(options);
  const from = { repo: reference.repo, revision: commit, hubUrl: settings.endpoint, ...(settings.token === undefined ? {} : { accessToken: settings.token }) };
  const blobOf = ({ checksum }: RemoteFile): string => join(repoDir, "blobs", checksum);
  const state = { done: 0, total: 0 };
  const bring = async (file: RemoteFile, folder = snapshot): Promise<void> => {
    const pointer = join(folder, file.path);
    const report = (done: number): void => onEvent?.({ type: "progress", file: file.path, done: state.done + done, total: state.total });
    if (!(await exists(pointer))) {
      if (!(await exists(blobOf(file)))) {
        await fetchBlob({ file, from, blob: blobOf(file), connection, onBytes: report, retryMs });
      }
      await linkBlob(blobOf(file), pointer);
    }
    state.done += file.size;
    report(0);
  };

  const config = listed.get(lastFile(part));
  if (config === undefined && part === "adapter") throw inputError("there is no adapter_config.json", { where: model, hint: "expected a LoRA adapter as PEFT saves it" });
  if (config === undefined) throw inputError("the model has no config.json", { where: model, hint: "expected a model in the format of transformers" });
  if (part === "config") {
    const folder = join(repoDir, "headers", commit);
    state.total = config.size;
    await bring(config, folder);
    await writeRef(headerRef(repoDir, reference), reference, commit);
    return folder;
  }
  const sources = part === "adapter" ? adapterSources : weightSources;
  const source = sources.find(({ file }) => listed.has(file));
  if (source === undefined) {
    const others = [...listed.keys()].filter((name) => /\.(gguf|bin|pt|pth|h5|msgpack|onnx|safetensors)$/.test(name));
    throw inputError(`the model has neither ${sources.map(({ file }) => file).join(", ")}${others.length === 0 ? "" : ` (found ${others.slice(0, 3).join(", ")})`}`, { where: model });
  }
  if (part === "headers" && source.file.endsWith(source.shards === null ? ".safetensors" : ".safetensors.index.json")) {
    const folder = join(repoDir, "headers", commit);
    if (source.shards !== null) await bring(listed.get(source.file)!, folder);
    const files = source.shards === null ? [listed.get(source.file)!] : await shardsOf(join(folder, source.file), source.shards, listed);
    for (const file of files) if (!(await exists(join(folder, file.path)))) await fetchHeader({ file, from, connection, retryMs }, join(folder, file.path));
    await bring(config, folder);
    await writeRef(headerRef(repoDir, reference), reference, commit);
    return folder;
  }
  const first = [...listed.values()].filter(({ path, size }) => (part !== "adapter" && isCarried(path)) || (path === cardFile && size <= largestCard) || path === source.file);
  const small = first.filter(({ path }) => path !== source.file || source.shards !== null);
  const sizeOf = (files: readonly RemoteFile[]): number => files.reduce((sum, { size }) => sum + size, 0);
  state.total = sizeOf(first) + config.size;
  for (const file of small) await bring(file);
  const weights = source.shards === null ? [listed.get(source.file)!] : await shardsOf(join(snapshot, source.file), source.shards, listed);
  state.total = state.done + sizeOf(weights) + config.size;
  let missing = 0;
  for (const file of weights) if (!(await exists(blobOf(file)))) missing += file.size;
  await requireFreeSpace(repoDir, missing);
  for (const file of weights) await bring(file);
  // A snapshot with its last file is complete, and one that a ref names can be used without a network.
  await bring(config);
  await writeRef(join(repoDir, "refs", reference.revision), reference, commit);
  return snapshot;
}

/** Remembers which commit a branch or tag named. */
async function writeRef(path: string, { revision }: HubReference, commit: string): Promise<void> {
  if (revision === commit) return;
  await withFsErrors(path, "write file", () => makeFolders(join(path, "..")));
  await writeFileAtomic(path, commit);
}

/** Beside the headers, so that huggingface_hub finds no ref to a snapshot that is not there. */
const headerRef = (repoDir: string, { revision }: HubReference): string => join(repoDir, "headers", "refs", revision);

async function shardsOf(index: string, extension: string, listed: ReadonlyMap<string, RemoteFile>): Promise<RemoteFile[]> {
  const names = [...new Set(parseIndex(await readText(index), index, extension).values())].sort();
  return names.map((name) => {
    const file = listed.get(name);
    if (file === undefined) throw inputError(`the index lists ${name}, which the model does not have`, { where: index });
    return file;
  });
}

async function commitOf({ repo, revision }: HubReference, { endpoint, token }: HubSettings, connection: Connection): Promise<string> {
  if (token !== undefined && !token.startsWith("hf_")) throw inputError('the token of the Hub does not begin with "hf_"', { where: "HF_TOKEN" });
  try {
    const { sha } = await modelInfo({
      name: repo, revision, hubUrl: endpoint, fetch: connection.fetch, additionalFields: ["sha"], ...(token === undefined ? {} : { accessToken: token }),
    });
    if (typeof sha !== "string" || !/^[0-9a-f]{40}$/.test(sha)) throw inputError(`${endpoint} names no commit of the model`, { where: repo, hint: "check HF_ENDPOINT" });
    return sha;
  } catch (cause) {
    throw connection.failure(cause);
  }
}

/** The files beside the model's config.json. */
async function remoteFiles({ reference: { repo }, settings: { endpoint, token }, connection, commit }: Snapshot): Promise<Map<string, RemoteFile>> {
  const found = new Map<string, RemoteFile>();
  try {
    const entries = listFiles({ repo, revision: commit, hubUrl: endpoint, fetch: connection.fetch, ...(token === undefined ? {} : { accessToken: token }) });
    for await (const { type, path, size, oid, lfs } of entries) {
      const checksum = lfs?.oid ?? oid;
      // Checksums and names become paths.
      if (type !== "file" || !/^[^/\\]+$/.test(path) || checksum === undefined || !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(checksum)) continue;
      found.set(path, { path, size: lfs?.size ?? size, checksum, large: lfs !== undefined });
    }
  } catch (cause) {
    throw connection.failure(cause);
  }
  return found;
}

/** What an earlier download completed: the snapshot, or for a part of the model the folder of headers, if it has that part. */
async function cachedFolder(repoDir: string, reference: HubReference, part: FetchedPart): Promise<string | null> {
  const snapshot = await cachedCommit(join(repoDir, "snapshots"), join(repoDir, "refs", reference.revision), reference, lastFile(part));
  if (snapshot !== null || part === "all" || part === "adapter") return snapshot;
  const headers = await cachedCommit(join(repoDir, "headers"), headerRef(repoDir, reference), reference, lastFile(part));
  return headers !== null && (part === "config" || (await hasHeaders(headers))) ? headers : null;
}

async function cachedCommit(folders: string, ref: string, { revision }: HubReference, last: string): Promise<string | null> {
  const commit = /^[0-9a-f]{40}$/.test(revision) ? revision : (await readText(ref, largest.line).catch(() => "")).trim();
  const folder = join(folders, commit);
  return /^[0-9a-f]{40}$/.test(commit) && (await exists(join(folder, last))) ? folder : null;
}

/** A folder that was made for the config alone has none, an interrupted one not all. */
async function hasHeaders(folder: string): Promise<boolean> {
  for (const { file, shards } of weightSources) {
    const path = join(folder, file);
    if (shards === "bin" || !(await exists(path))) continue;
    const names = shards === null ? [file] : [...new Set(parseIndex(await readText(path), path, shards).values())];
    return (await Promise.all(names.map((name) => exists(join(folder, name))))).every(Boolean);
  }
  return false;
}

function notCached(model: string, why: string): never {
  throw inputError(`the model is not in the cache, and ${why}`, { where: model, hint: "download it with a network first" });
}
