/**
 * Where a command accepts a model: a folder, or `hf://org/name[@revision]`, which becomes a folder of the Hub's cache;
 * with `+` and an adapter of either kind behind it, the model with that adapter merged in. Every command but `plan`,
 * which reads no weights, takes what `modelSource` gives.
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

/** For the help of arguments. */
export const orHub = "or hf://org/name[@revision]";
export const orAdapted = `${orHub}; +ADAPTER behind it merges a LoRA adapter in`;

/**
 * The folder itself, or the downloaded one (`part` of it: a folder of headers has no weights to read), with progress on
 * the terminal. Ctrl-C keeps what has come. Throws like `fetchModel`.
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

/** What is likely meant by a word that is no folder. What is wrong with any other is said where it is opened. */
async function requireModel(model: string): Promise<void> {
  if (model === "") throw inputError("the model's name is empty", { hint: "is a variable of the shell not set?" });
  if (/^hf:/i.test(model)) parseHubReference(model);
  if (!/^[^./\\][^/\\]*\/[^/\\]+$/.test(model) || hubReference(model) === null) return;
  if ((await exists(model)) || (await exists(previousName(resolve(model))))) return;
  throw inputError("no such folder", { where: model, hint: `a model of the Hub is written hf://${model}` });
}

/** A name of the Hub as a reference to it, or null. */
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
 * Of a command's argument: a folder, `hf://org/name[@revision]`, or either with `+` and an adapter, where the `hf://`
 * of the second may be left out.
 */
export async function askedModel(words: string): Promise<ModelSource> {
  const found = await namedModel(words, async (name, model) => {
    if (isHubReference(name) || (model !== null && isHubReference(model) && !(await exists(name))))
      return hubReference(name);
    return (await exists(name)) ? name : null;
  });
  // What is wrong with it is said where it is opened or fetched.
  return found ?? words;
}

/** Of a command's argument, for `openCheckpoint`. Throws like `askedModel` and `fetchModel`. */
export async function modelSource(
  words: string,
  json: boolean | undefined,
  part: FetchedPart = "all",
): Promise<ModelSource> {
  return fetchedSource(await askedModel(words), json, part);
}

/**
 * Folders of a model and its adapter by their names, downloaded where they have to be. An adapter is small and comes as
 * a whole.
 */
export async function fetchedSource(
  named: ModelSource,
  json: boolean | undefined,
  part: FetchedPart = "all",
): Promise<ModelSource> {
  if (typeof named === "string") return modelFolder(named, json, part);
  return {
    model: await modelFolder(named.model, json, part),
    adapter: await modelFolder(named.adapter, json, "adapter"),
  };
}

/** As a command takes it. */
export function shownModel(source: ModelSource): string {
  return foldersOf(source)
    .map((one) => (isHubReference(one) ? one : shownPath(one)))
    .join("+");
}

/** Shows how far a download is; speed and time left are judged by what came in this call. */
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
        const speed = ((done - first.done) / (now() - first.at)) * 1000;
        const pace = speed > 0 ? `  ${bytes(speed)}/s  ETA ${duration((total - done) / speed)}` : "";
        terminal.progress(`${percent(done / total, 3)} of ${bytes(total)}${pace}  downloading`, file);
        break;
      }
    }
  };
}
