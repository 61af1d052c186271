/** Makes chunks on worker threads. The bytes of a chunk do not depend on the thread that makes it. */
import { Worker } from "node:worker_threads";
import { receivedError } from "../../base/errors.js";
import type { ChunkWriter, WrittenChunk } from "../../files/checkpoint/chunk-writer.js";
import { limitError, moduleArguments } from "../../files/io/limits.js";
import { threadModule } from "../../files/io/thread-module.js";
import type { ThreadWork, TaskOutcome, Request } from "./worker.js";

/** Chunks that each thread has at a time: while it computes one, the other is read or written. */
const inFlightEach = 2;

/** A chunk that a thread was asked for. */
interface PendingChunk {
  readonly resolve: (written: WrittenChunk) => void;
  readonly reject: (error: Error) => void;
}

/** A worker thread, and how many chunks it has. */
interface Thread {
  readonly worker: Worker;
  busy: number;
  /** Called when the thread has closed its files or has ended. */
  closed: () => void;
}

/**
 * A chunk writer that hands every chunk to the thread with the fewest. Its `write` rejects with what went wrong in any
 * of the threads.
 */
export function openThreads(work: ThreadWork, threads: number): ChunkWriter {
  const pending = new Map<number, PendingChunk>();
  let nextId = 0;
  let failure: Error | undefined;
  const fail = (error: Error): void => {
    failure ??= error;
    for (const { reject } of pending.values()) reject(error);
    pending.clear();
  };
  const all = Array.from({ length: threads }, () => startThread(work, pending, fail));
  return {
    inFlight: threads * inFlightEach,
    write(chunk) {
      if (failure !== undefined) return Promise.reject(failure);
      const id = nextId++;
      const thread = all.reduce((a, b) => (b.busy < a.busy ? b : a));
      thread.busy++;
      return new Promise((resolve, reject) => {
        pending.set(id, { resolve, reject });
        thread.worker.postMessage({ id, chunk } satisfies Request);
      });
    },
    async close() {
      await Promise.all(all.map((thread) => closeThread(thread, failure !== undefined)));
    },
  };
}

function startThread(work: ThreadWork, pending: Map<number, PendingChunk>, fail: (error: Error) => void): Thread {
  const worker = new Worker(threadModule("surgery/convert/worker.js"), { execArgv: moduleArguments() });
  const thread: Thread = { worker, busy: 0, closed: () => undefined };
  worker.on("message", ({ id, written, error }: TaskOutcome) => {
    if (id === null) return thread.closed();
    thread.busy--;
    const chunk = pending.get(id);
    pending.delete(id);
    if (error !== undefined) chunk?.reject(receivedError(error));
    else if (written != null) chunk?.resolve(written);
    else chunk?.reject(new Error("a converting thread answered without a chunk"));
  });
  worker.on("error", (error: unknown) => fail(limitError(error) ?? (error as Error)));
  worker.on("exit", (code) => {
    thread.closed();
    fail(new Error(`a converting thread ended with code ${code}`));
  });
  worker.postMessage({ work } satisfies Request);
  return thread;
}

/** Ends a thread. One that works is asked to close its files first. */
async function closeThread(thread: Thread, hasFailed: boolean): Promise<void> {
  const closed = new Promise<void>((resolve) => (thread.closed = resolve));
  if (!hasFailed) {
    thread.worker.postMessage({ close: true } satisfies Request);
    await closed;
  }
  await thread.worker.terminate();
}
