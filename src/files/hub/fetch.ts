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
  | { readonly type: "commit"; readonly commit: string }
  /** Bytes of all files that are needed: those here, those in all. */
  | { readonly type: "progress"; readonly file: string; readonly done: number; readonly total: number }
  | { readonly type: "cached"; readonly why: string }
  /** What is waited for, or done differently than usual. */
  | { readonly type: "note"; readonly text: string };

/**
 * How much of a model: `all` of it; its config, index and the `headers` of its safetensors files (`headers.ts`; all of
 * a model of torch.save, whose files have none); or its `config` alone. What is in the cache as a whole is given as a
 * whole. `adapter`: a LoRA adapter of PEFT, which is no model, as a whole.
 */
export type FetchedPart = "all" | "headers" | "config" | "adapter";

/** The file that comes last: a snapshot that has it is complete. */
const lastFile = (part: FetchedPart): string => (part === "adapter" ? "adapter_config.json" : "config.json");

/** Which model is downloaded, and which part of it. */
export interface FetchOptions {
  /** Default: all. */
  readonly part?: FetchedPart | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: ((event: HubEvent) => void) | undefined;
  /** From the environment where left out. */
  readonly settings?: HubSettings | undefined;
  /** Where others than `hubLimits` are meant. */
  readonly limits?: Partial<HubLimits> | undefined;
}

const noAddress: ReadonlySet<TroubleKind> = new Set<TroubleKind>(["unreachable"]);
const noNetwork: ReadonlySet<TroubleKind> = new Set<TroubleKind>(["unreachable", "silent"]);

/**
 * The folder of `hf://org/name[@revision]`. Throws inputError for a model that is not there, not allowed or has no
 * weights we read; stopError where the network or disk fails, and interruptedError after Ctrl-C: what has come is kept,
 * and the next call resumes.
 */
export async function fetchModel(model: string, options: FetchOptions = {}): Promise<string> {
  const { part = "all", signal, onEvent, settings: given, limits } = options;
  const reference = parseHubReference(model);
  const settings = given ?? (await hubSettings());
  const repoDir = join(settings.cacheDir, `models--${reference.repo.replaceAll("/", "--")}`);
  if (settings.offline)
    return (await cachedFolder(repoDir, reference, part)) ?? notCached(model, "HF_HUB_OFFLINE is set");
  requireToken(settings);
  const onNote = (text: string): void => onEvent?.({ type: "note", text });
  const connection = connectionTo(reference, settings, { signal, limits, onNote });
  const asked = { reference, endpoint: settings.endpoint, connection };
  // Without a network, what came over it before still serves, and need not be waited for; a refusal counts.
  const cached = await cachedFolder(repoDir, reference, part).catch(() => null);
  let commit: string | undefined;
  try {
    commit = await commitOf(asked, cached === null ? noAddress : noNetwork);
    return await fetchCommit({ model, part, reference, settings, connection, repoDir, commit, onEvent });
  } catch (cause) {
    const serves = cached !== null && (commit === undefined || basename(cached) === commit);
    if (!serves || !(cause instanceof UpcycleError) || !connection.isOutage(cause)) throw cause;
    onEvent?.({ type: "cached", why: cause.message });
    return cached;
  }
}

async function fetchCommit(snapshot: Snapshot): Promise<string> {
  const { repoDir, commit, onEvent } = snapshot;
  onEvent?.({ type: "commit", commit });
  await withFsErrors(repoDir, "create folder", () => makeFolders(repoDir));
  const release = await lockFolder(repoDir);
  try {
    return await fetchSnapshot(snapshot);
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
}

async function fetchSnapshot(options: Snapshot): Promise<string> {
  const { model, part, reference, settings, connection, repoDir, commit, onEvent } = options;
  const snapshot = join(repoDir, "snapshots", commit);
  const headers = join(repoDir, "headers", commit);
  await requireInsideCache(repoDir, [join(repoDir, "blobs"), join(repoDir, "refs"), snapshot, headers]);
  if (part !== "all" && part !== "adapter" && (await exists(join(snapshot, "config.json")))) return snapshot;
  const listed = await remoteFiles({ reference, endpoint: settings.endpoint, connection }, commit);
  const blobOf = ({ checksum }: RemoteFile): string => join(repoDir, "blobs", checksum);
  const state = { done: 0, total: 0 };
  const bring = async (file: RemoteFile, folder = snapshot): Promise<void> => {
    connection.requireOpen();
    const pointer = join(folder, file.path);
    const blob = blobOf(file);
    const report = (done: number): void =>
      onEvent?.({ type: "progress", file: file.path, done: state.done + done, total: state.total });
    if (!(await isNamed(pointer, file))) {
      if (!(await isThere(blob, file))) await fetchBlob({ file, commit, blob, connection, onBytes: report });
      await linkBlob(blob, pointer);
    }
    state.done += file.size;
    report(0);
  };
  const requireSpace = async (files: readonly RemoteFile[]): Promise<void> => {
    let missing = 0;
    for (const file of files) if (!(await exists(blobOf(file)))) missing += file.size;
    await requireFreeSpace(repoDir, missing);
  };

  const config = listed.get(lastFile(part));
  if (config === undefined && part === "adapter")
    throw inputError("there is no adapter_config.json", {
      where: model,
      hint: "expected a LoRA adapter as PEFT saves it",
    });
  if (config === undefined)
    throw inputError("the model has no config.json", {
      where: model,
      hint: "expected a model in the format of transformers",
    });
  if (part === "config") {
    state.total = config.size;
    await requireSpace([config]);
    await bring(config, headers);
    await writeRef(headerRef(repoDir, reference), options);
    return headers;
  }
  const sources = part === "adapter" ? adapterSources : weightSources;
  const source = sources.find(({ file }) => listed.has(file));
  if (source === undefined) {
    const others = [...listed.keys()].filter((name) => /\.(gguf|bin|pt|pth|h5|msgpack|onnx|safetensors)$/.test(name));
    const instead = others.length === 0 ? "" : ` (found ${others.slice(0, 3).join(", ")})`;
    throw inputError(`the model has neither ${sources.map(({ file }) => file).join(", ")}${instead}`, { where: model });
  }
  if (part === "headers" && source.file.endsWith(source.shards === null ? ".safetensors" : ".safetensors.index.json")) {
    await requireSpace(source.shards === null ? [config] : [config, listed.get(source.file)!]);
    if (source.shards !== null) await bring(listed.get(source.file)!, headers);
    const index = join(headers, source.file);
    const files = source.shards === null ? [listed.get(source.file)!] : await shardsOf(index, source.shards, listed);
    for (const file of files) {
      const path = join(headers, file.path);
      if (!(await exists(path))) await fetchHeader({ file, commit, connection, repo: reference.repo }, path);
    }
    await bring(config, headers);
    await writeRef(headerRef(repoDir, reference), options);
    return headers;
  }
  const first = [...listed.values()].filter(
    ({ path, size }) =>
      (part !== "adapter" && isCarried(path)) || (path === cardFile && size <= largestCard) || path === source.file,
  );
  const small = first.filter(({ path }) => path !== source.file || source.shards !== null);
  const sizeOf = (files: readonly RemoteFile[]): number => files.reduce((sum, { size }) => sum + size, 0);
  state.total = sizeOf(first) + config.size;
  await requireSpace([...first, config]);
  for (const file of small) await bring(file);
  const weights =
    source.shards === null
      ? [listed.get(source.file)!]
      : await shardsOf(join(snapshot, source.file), source.shards, listed);
  state.total = state.done + sizeOf(weights) + config.size;
  await requireSpace([...weights, config]);
  for (const file of weights) await bring(file);
  // A snapshot with its last file is complete, and one that a ref names can be used without a network.
  await bring(config);
  await writeRef(join(repoDir, "refs", reference.revision), options);
  return snapshot;
}

/**
 * Remembers which commit a branch or tag named. The download is complete without: what cannot be kept is no failure.
 */
async function writeRef(path: string, { repoDir, reference, commit, connection }: Snapshot): Promise<void> {
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

/** Beside the headers, so that huggingface_hub finds no ref to a snapshot that is not there. */
const headerRef = (repoDir: string, { revision }: HubReference): string => join(repoDir, "headers", "refs", revision);

async function shardsOf(
  index: string,
  extension: string,
  listed: ReadonlyMap<string, RemoteFile>,
): Promise<RemoteFile[]> {
  const names = [...new Set(parseIndex(await readText(index), index, extension).values())].sort();
  return names.map((name) => {
    const file = listed.get(name);
    if (file === undefined)
      throw inputError(`the index lists ${name}, which the model does not have`, { where: index });
    return file;
  });
}

/**
 * What an earlier download completed: the snapshot, or for a part of the model the folder of headers, if it has that
 * part.
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
  return headers !== null && (part === "config" || (await hasHeaders(headers))) ? headers : null;
}

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
  throw inputError(`the model is not in the cache, and ${why}`, {
    where: model,
    hint: "download it with a network first",
  });
}
