/**
 * Turns a command's argument into a model: a folder, or `hf://org/name[@revision]`, which becomes a folder of the Hub's
 * cache; with `+` and an adapter of either kind behind it, the model with that adapter merged in. Every command opens
 * what `modelSource` gives, except `plan`, which reads no weights.
 */
import { resolve } from "node:path";
import { inputError } from "../base/errors.js";
import { bytes, duration, percent } from "../base/format.js";
import { foldersOf, type ModelSource } from "../files/checkpoint/model-source.js";

import { isHubReference, parseHubReference } from "../files/hub/reference.js";
import type { FetchedPart, HubEvent } from "../files/hub/fetch.js";
import { exists, previousName } from "../files/io/atomic.js";

import { openContext, shownPath } from "./context.js";
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
  if (!isHubReference(model)) {
    await requireModel(model);
    return model;
  }
  const { terminal } = openContext({ json });
  // The library is large; commands that need no network start without it.
  const { fetchModel } = await import("../files/hub/fetch.js");
  const controller = new AbortController();
  const forget = onStopAsked(() => controller.abort());
  try {
    return await fetchModel(model, {
      part,
      signal: controller.signal,
      onEvent: downloadView(model, terminal, () => performance.now()),
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

/** The model that a command's argument names, for `openCheckpoint`. Throws like `askedModel` and `fetchModel`. */
export async function modelSource(
  words: string,
  json: boolean | undefined,
  part: FetchedPart = "all",
): Promise<ModelSource> {
  return fetchedSource(await askedModel(words), json, part);
}

/**
 * A model whose names are replaced by folders, downloaded where they have to be. Of the model only `part` is fetched;
 * an adapter is small and always comes as a whole. Throws like `fetchModel`.
 */
export async function fetchedSource(
  source: ModelSource,
  json: boolean | undefined,
  part: FetchedPart = "all",
): Promise<ModelSource> {
  if (typeof source === "string") return modelFolder(source, json, part);
  return {
    model: await modelFolder(source.model, json, part),
    adapter: await modelFolder(source.adapter, json, "adapter"),
  };
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
