/**
 * A model of the Hugging Face Hub as a folder: downloaded once into the cache that Python's huggingface_hub uses as
 * well (`models--ORG--NAME/{blobs,snapshots,refs}`), only the files a model needs, resumable, each checked.
 *
 *   revision -> commit -> list of files -> the parts that are asked for, one after the other (`parts.ts`)
 */
import { basename, join } from "node:path";
import { UpcycleError, inputError } from "../../base/errors.js";
import { makeFolders } from "../io/folders.js";
import { withFsErrors } from "../io/fs-errors.js";
import { lockFolder } from "../io/lock.js";
import { connectionTo } from "./connection.js";
import type { HubLimits, TroubleKind } from "./limits.js";
import { commitOf, remoteFiles, type RemoteFile } from "./listing.js";
import {
  cachedFolder,
  fetchPart,
  hasHeaders,
  weightsIn,
  type FetchedPart,
  type HubEvent,
  type RemoteRequest,
} from "./parts.js";
import { parseHubReference, type HubReference } from "./reference.js";
import { hubSettings, requireToken, type HubSettings } from "./settings.js";

export type { FetchedPart, HubEvent } from "./parts.js";

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

/** A model of the Hub that is fetched in steps, all of the commit that its revision named at the first of them. */
export interface RemoteModel {
  /** The folder of a part. Throws like `fetchModel`. */
  fetch(part: FetchedPart): Promise<string>;
  /** Whether `fetch("headers")` leaves weights where they are; false where their files have no headers. */
  hasHeaders(): Promise<boolean>;
}

/** How a model is reached; which part of it is fetched is said later. */
type RemoteOptions = Omit<FetchOptions, "part">;

/**
 * The folder of `hf://org/name[@revision]`, in the cache, after everything that is missing of it has been downloaded.
 * Throws inputError for a model that is not there, not allowed or has no weights we read, and for settings that make no
 * sense; stopError where the network or disk fails, and interruptedError after Ctrl-C: what has come is kept, and the
 * next call resumes.
 */
export async function fetchModel(model: string, { part = "all", ...options }: FetchOptions = {}): Promise<string> {
  return (await remoteModel(model, options)).fetch(part);
}

/** A model that is fetched in steps; asks the Hub nothing yet. Throws inputError for settings that make no sense. */
export async function remoteModel(model: string, options: RemoteOptions = {}): Promise<RemoteModel> {
  const { signal, onEvent, limits } = options;
  const reference = parseHubReference(model);
  const settings = options.settings ?? (await hubSettings());
  const repoDir = join(settings.cacheDir, `models--${reference.repo.replaceAll("/", "--")}`);
  if (settings.offline) return cachedModel(repoDir, reference, () => notCached(model, "HF_HUB_OFFLINE is set"));
  requireToken(settings);
  const onNote = (text: string): void => onEvent?.({ type: "note", text });
  const connection = connectionTo(reference, settings, { signal, limits, onNote });
  const { endpoint } = settings;
  return new ReachableModel({ model, reference, endpoint, connection, repoDir, onEvent });
}

/** A model of which nothing comes over the network; `missing` throws where the cache does not have it either. */
function cachedModel(repoDir: string, reference: HubReference, missing: () => never): RemoteModel {
  return {
    fetch: async (part) => (await cachedFolder(repoDir, reference, part)) ?? missing(),
    hasHeaders: () => Promise.resolve(true),
  };
}

/** What is known of a commit; its list of files is asked for once, when it is needed. */
interface KnownCommit {
  readonly commit: string;
  files?: Promise<ReadonlyMap<string, RemoteFile>>;
}

class ReachableModel implements RemoteModel {
  #known: KnownCommit | undefined;
  /** Takes over when the network has failed and the cache serves. */
  #cached: RemoteModel | undefined;

  constructor(readonly request: RemoteRequest) {}

  async fetch(part: FetchedPart): Promise<string> {
    if (this.#cached !== undefined) return this.#cached.fetch(part);
    const { reference, connection, repoDir, onEvent } = this.request;
    // Without a network, what came over it before still serves, and need not be waited for; a refusal counts.
    const cached = await cachedFolder(repoDir, reference, part).catch(() => null);
    try {
      this.#known ??= await this.#ask(cached === null ? noAddress : noNetwork);
      return await this.#fetchCommit(this.#known, part);
    } catch (cause) {
      const serves = cached !== null && (this.#known === undefined || basename(cached) === this.#known.commit);
      if (!serves || !(cause instanceof UpcycleError) || !connection.isOutage(cause)) throw cause;
      onEvent?.({ type: "cached", why: cause.message });
      this.#cached = cachedModel(repoDir, reference, () => {
        throw cause;
      });
      return cached;
    }
  }

  async hasHeaders(): Promise<boolean> {
    if (this.#cached !== undefined) return true;
    const known = (this.#known ??= await this.#ask(noAddress));
    const files = await this.#filesOf(known);
    return hasHeaders(weightsIn(files, { model: this.request.model, part: "all" }));
  }

  async #ask(giveUpOn: ReadonlySet<TroubleKind>): Promise<KnownCommit> {
    const commit = await commitOf(this.request, giveUpOn);
    this.request.onEvent?.({ type: "commit", commit });
    return { commit };
  }

  async #filesOf(known: KnownCommit): Promise<ReadonlyMap<string, RemoteFile>> {
    known.files ??= remoteFiles(this.request, known.commit);
    try {
      return await known.files;
    } catch (cause) {
      delete known.files;
      throw cause;
    }
  }

  async #fetchCommit(known: KnownCommit, part: FetchedPart): Promise<string> {
    const { repoDir } = this.request;
    await withFsErrors(repoDir, "create folder", () => makeFolders(repoDir));
    const release = await lockFolder(repoDir);
    try {
      return await fetchPart({
        ...this.request,
        part,
        commit: known.commit,
        files: () => this.#filesOf(known),
      });
    } finally {
      await release();
    }
  }
}

function notCached(model: string, why: string): never {
  throw inputError(`the model is not in the cache, and ${why}`, {
    where: model,
    hint: "download it with a network first",
  });
}
