/** Where a command accepts a model: a folder, or `hf://org/name[@revision]`, which becomes a folder of the Hub's cache. */
import { bytes, duration, percent } from "../base/format.js";
import { isHubReference } from "../hub/reference.js";
import type { FetchedPart, HubEvent } from "../hub/fetch.js";
import { openContext } from "./context.js";
import type { Terminal } from "./terminal.js";

/** For the help of arguments. */
export const orHub = "or hf://org/name[@revision]";

/** The folder itself, or the downloaded one (`part` of it: a folder of headers has no weights to read), with progress on the terminal. Ctrl-C keeps what has come. Throws like `fetchModel`. */
export async function modelFolder(model: string, json: boolean | undefined, part: FetchedPart = "all"): Promise<string> {
  if (!isHubReference(model)) return model;
  const { terminal } = openContext({ json });
  // The library is large; commands that need no network start without it.
  const { fetchModel } = await import("../hub/fetch.js");
  const controller = new AbortController();
  const stop = (): void => controller.abort();
  process.on("SIGINT", stop).on("SIGTERM", stop);
  try {
    return await fetchModel(model, { part, signal: controller.signal, onEvent: downloadView(model, terminal, () => performance.now()) });
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop);
    terminal.settle();
  }
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
      case "progress": {
        const { done, total, file } = event;
        if (total === 0 || done === total) break;
        first ??= { at: now(), done };
        const speed = ((done - first.done) / (now() - first.at)) * 1000;
        const pace = speed > 0 ? `  ${bytes(speed)}/s  ETA ${duration((total - done) / speed)}` : "";
        terminal.progress(`downloading  ${percent(done / total, 3)} of ${bytes(total)}${pace}  ${file}`);
        break;
      }
    }
  };
}
