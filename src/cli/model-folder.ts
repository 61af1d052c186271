/**
 * Turns a command's argument into a model: a folder, or `hf://org/name[@revision]`, which becomes a folder of the Hub's
 * cache; with `+` and an adapter of either kind behind it, the model with that adapter merged in. Every command opens
 * what `modelSource` gives, except `plan`, which reads no weights.
 */
import { resolve } from "node:path";
import { inputError } from "../base/errors.js";
import { bytes, duration, percent } from "../base/format.js";
import { foldersOf, type ModelSource } from "../files/checkpoint/model-source.js";
import { describedIn } from "../files/checkpoint/open.js";
import type { FetchedPart, HubEvent, RemoteModel } from "../files/hub/fetch.js";
import { isHubReference, parseHubReference } from "../files/hub/reference.js";
import { exists, previousName } from "../files/io/atomic.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { openContext, shownPath } from "./context.js";
import { decoderOf } from "./decoder-of.js";
import { namedModel } from "./model-words.js";
import { onStopAsked } from "./signals.js";
import type { Terminal } from "./terminal.js";

/** Words for the help of an argument that may be a model of the Hub. */
export const orHub = "or hf://org/name[@revision]";
/** Words for the help of an argument that may be a model of the Hub, or a model with an adapter. */
export const orAdapted = `${orHub}; +ADAPTER behind it merges a LoRA adapter in`;

/**
 * The folder itself, or the folder into which the model is downloaded, with progress on the terminal. `part` says what
 * is downloaded: a folder of headers has no weights to read. Ctrl-C keeps what has come. Throws like `fetchModel`, and
 * inputError for a word that is likely meant to be a model of the Hub.
 */
export async function modelFolder(
  model: string,
  json: boolean | undefined,
  part: FetchedPart = "all",
): Promise<string> {
  return withDownloads(json, async (open) => (await open(model)).fetch(part));
}

/** Reaches a folder, or a model of the Hub. Throws like `modelFolder`. */
type Reach = (model: string) => Promise<RemoteModel>;

/** Runs what fetches models, with progress on the terminal; Ctrl-C ends it. */
async function withDownloads<T>(json: boolean | undefined, run: (reach: Reach) => Promise<T>): Promise<T> {
  const { terminal } = openContext({ json });
  const controller = new AbortController();
  const forget = onStopAsked(() => controller.abort());
  try {
    return await run(async (model) => {
      if (!isHubReference(model)) {
        await requireModel(model);
        return { fetch: () => Promise.resolve(model), hasHeaders: () => Promise.resolve(true) };
      }
      // The library is large; commands that need no network start without it.
      const { remoteModel } = await import("../files/hub/fetch.js");
      return remoteModel(model, {
        signal: controller.signal,
        onEvent: downloadView(model, terminal, () => performance.now()),
      });
    });
  } finally {
    forget();
    terminal.settle();
  }
}

/** Says what a word that is no folder likely means. What is wrong with any other folder is said where it is opened. */
async function requireModel(model: string): Promise<void> {
  if (model === "") throw inputError("the model's name is empty", { hint: "is a variable of the shell not set?" });
  if (/^hf:/i.test(model)) parseHubReference(model);
  if (!/^[^./\\][^/\\]*\/[^/\\]+$/.test(model) || hubReference(model) === null) return;
  if ((await exists(model)) || (await exists(previousName(resolve(model))))) return;
  throw inputError("no such folder", { where: model, hint: `a model of the Hub is written hf://${model}` });
}

/** A model's name on the Hub as a reference, `hf://` in front; null for what cannot be such a name. */
export function hubReference(name: string): string | null {
  const reference = isHubReference(name) ? name : `hf://${name}`;
  try {
    parseHubReference(reference);
    return reference;
  } catch {
    return null;
  }
}

/**
 * The model that a command's argument names, still to be fetched: a folder, `hf://org/name[@revision]`, or either with
 * `+` and an adapter, whose `hf://` may be left out behind a model of the Hub. Throws like `namedModel`.
 */
export async function askedModel(words: string): Promise<ModelSource> {
  const source = await namedModel(words, async (name, model) => {
    if (isHubReference(name) || (model !== null && isHubReference(model) && !(await exists(name))))
      return hubReference(name);
    return (await exists(name)) ? name : null;
  });
  // What is wrong with a word that names nothing is said where it is opened or fetched.
  return source ?? words;
}

/** The model that a command's argument names, for `openCheckpoint`. Throws like `askedModel` and `fetchedSources`. */
export async function modelSource(
  words: string,
  json: boolean | undefined,
  part: FetchedPart = "all",
): Promise<ModelSource> {
  return fetchedSource(await askedModel(words), json, part);
}

/** A model whose names are replaced by folders. Throws like `fetchedSources`. */
export async function fetchedSource(
  source: ModelSource,
  json: boolean | undefined,
  part: FetchedPart = "all",
  judge: (source: ModelSource) => Promise<unknown> = () => Promise.resolve(),
): Promise<ModelSource> {
  const [fetched] = await fetchedSources([source], json, { part, judge: ([one]) => judge(one) });
  return fetched;
}

/** Models of one command, the base first. */
type Models = readonly [ModelSource, ...ModelSource[]];
/** One of something for each model. */
type EachOf<M extends Models, One> = { readonly [I in keyof M]: One };

/** What is fetched of several models, and who judges them before. */
interface FetchPlan<M extends Models> {
  /** Of an adapter, which is small, always comes all. */
  readonly part: FetchedPart;
  /** Throws inputError for models that do not go together, by their configs; adapters are not seen here. */
  readonly judgeSpecs?: (specs: EachOf<M, DecoderSpec>) => void;
  /** Throws inputError for models of which nothing can be made, by their headers. */
  readonly judge?: (sources: EachOf<M, ModelSource>) => Promise<unknown>;
}

/**
 * Models whose names are replaced by folders, downloaded where they have to be. Configs come first, then headers, and
 * weights last: what cannot be read, and what the judges refuse, is refused before gigabytes are downloaded. Weight
 * files without headers (torch.save) are judged by their configs alone. Throws like `fetchModel`, `openCheckpoint` and
 * the judges.
 */
export async function fetchedSources<const M extends Models>(
  models: M,
  json: boolean | undefined,
  { part, judge, judgeSpecs }: FetchPlan<M>,
): Promise<EachOf<M, ModelSource>> {
  return withDownloads(json, async (reach) => {
    const reached = await eachOf(models, async (source): Promise<ReachedSource> => {
      if (typeof source === "string") return { model: await reach(source), adapter: null };
      return { model: await reach(source.model), adapter: await reach(source.adapter) };
    });
    if (models.flatMap(foldersOf).some(isHubReference)) {
      const specs = await eachOf(reached, async ({ model }) => describedIn(await model.fetch("config")));
      judgeSpecs?.(specs as EachOf<M, DecoderSpec>);
      if (part === "all") {
        const withHeaders = await readableByHeaders(reached);
        if (withHeaders.length === models.length) await judge?.(withHeaders as EachOf<M, ModelSource>);
      }
    }
    return (await eachOf(reached, (one) => fetchReached(one, part))) as EachOf<M, ModelSource>;
  });
}

/** A model that can be fetched, with its adapter. */
interface ReachedSource {
  readonly model: RemoteModel;
  readonly adapter: RemoteModel | null;
}

async function fetchReached({ model, adapter }: ReachedSource, part: FetchedPart): Promise<ModelSource> {
  const folder = await model.fetch(part);
  return adapter === null ? folder : { model: folder, adapter: await adapter.fetch("adapter") };
}

/** The models whose files have headers, with these alone. Throws inputError for one that cannot be read. */
async function readableByHeaders(reached: readonly ReachedSource[]): Promise<ModelSource[]> {
  const sources: ModelSource[] = [];
  for (const one of reached) {
    if (!(await one.model.hasHeaders())) continue;
    const source = await fetchReached(one, "headers");
    await decoderOf(source);
    sources.push(source);
  }
  return sources;
}

/** One after the other, so that the first of which something is said is the base. */
async function eachOf<A, B>(all: readonly A[], map: (one: A) => Promise<B>): Promise<B[]> {
  const mapped: B[] = [];
  for (const one of all) mapped.push(await map(one));
  return mapped;
}

/** A model as a command takes it. */
export function shownModel(source: ModelSource): string {
  return foldersOf(source)
    .map((one) => (isHubReference(one) ? one : shownPath(one)))
    .join("+");
}

/** Shows how far a download is. Speed and time left are judged by the bytes that this call has brought. */
export function downloadView(model: string, terminal: Terminal, now: () => number): (event: HubEvent) => void {
  let first: { readonly at: number; readonly done: number } | undefined;
  return (event) => {
    switch (event.type) {
      case "commit":
        terminal.note(`${model}: commit ${event.commit.slice(0, 12)}`);
        break;
      case "cached":
        terminal.note(`warning: ${event.why}; using the copy in the cache`);
        break;
      case "note":
        terminal.note(event.text);
        break;
      case "header":
        terminal.progress(`header ${event.done + 1} of ${event.total}  downloading`, event.file);
        break;
      case "progress": {
        const { done, total, file } = event;
        if (total === 0 || done === total) break;
        first ??= { at: now(), done };
        const bytesPerSecond = ((done - first.done) / (now() - first.at)) * 1000;
        const pace =
          bytesPerSecond > 0 ? `  ${bytes(bytesPerSecond)}/s  ETA ${duration((total - done) / bytesPerSecond)}` : "";
        terminal.progress(`${percent(done / total, 3)} of ${bytes(total)}${pace}  downloading`, file);
        break;
      }
    }
  };
}
