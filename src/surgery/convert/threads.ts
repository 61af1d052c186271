/** Chunks over worker threads. Which thread makes a chunk never matters to its bytes. */
import { Worker } from "node:worker_threads";
import { receivedError } from "../../base/errors.js";
import type { ChunkWriter } from "../../files/checkpoint/chunk-writer.js";
import { limitError, moduleArguments } from "../../files/io/limits.js";
import type { ThreadWork, Reply, Request } from "./worker.js";

/** While a thread computes one chunk, another of its chunks is read or written. */
const inFlightEach = 2;

export function openThreads(work: ThreadWork, threads: number): ChunkWriter {
  // Tests run the sources; the worker needs compiled code, which the build has put beside them.
  const here = import.meta.url;
  const file = here.endsWith(".ts")
    ? new URL("../../../dist/surgery/convert/worker.js", here)
    : new URL("./worker.js", here);
  const waiting = new Map<
    number,
    { readonly resolve: (sum: number | null) => void; readonly reject: (error: Error) => void }
  >();
  let next = 0;
  let broken: Error | undefined;
  const fail = (error: Error): void => {
    broken ??= error;
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  const workers = Array.from({ length: threads }, () => {
    const worker = new Worker(file, { execArgv: moduleArguments() });
    const state = { worker, busy: 0, closed: (): void => undefined };
    worker.on("message", ({ id, sum = null, error }: Reply) => {
      if (id === null) return state.closed();
      state.busy--;
      const one = waiting.get(id);
      waiting.delete(id);
      if (error === undefined) one?.resolve(sum);
      else one?.reject(receivedError(error));
    });
    worker.on("error", (error: unknown) => fail(limitError(error) ?? (error as Error)));
    worker.on("exit", (code) => {
      state.closed();
      fail(new Error(`a converting thread ended with code ${code}`));
    });
    worker.postMessage({ work } satisfies Request);
    return state;
  });
  return {
    inFlight: threads * inFlightEach,
    write(chunk) {
      if (broken !== undefined) return Promise.reject(broken);
      const id = next++;
      const state = workers.reduce((a, b) => (b.busy < a.busy ? b : a));
      state.busy++;
      return new Promise((resolve, reject) => {
        waiting.set(id, { resolve, reject });
        state.worker.postMessage({ id, chunk } satisfies Request);
      });
    },
    async close() {
      await Promise.all(
        workers.map(async (state) => {
          const closed = new Promise<void>((resolve) => (state.closed = resolve));
          if (broken === undefined) {
            state.worker.postMessage({ close: true } satisfies Request);
            await closed;
          }
          await state.worker.terminate();
        }),
      );
    },
  };
}
