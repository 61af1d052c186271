/**
 * A thread that makes and writes chunks. Its first message says what they are made of and where they are written; each
 * further message is a chunk, and the last one asks it to close its files.
 */
import { parentPort, type MessagePort } from "node:worker_threads";
import { sentError, type SentError } from "../../base/errors.js";
import type { Chunk } from "../../files/checkpoint/chunks.js";
import {
  openChunkWriter,
  type ChunkTarget,
  type ChunkWriter,
  type WrittenChunk,
} from "../../files/checkpoint/chunk-writer.js";
import { areasOf, type AreaPlan } from "./areas.js";
import { closeParents, openParents, type ParentSources } from "./parents.js";

/** What a thread makes chunks of, and where it writes them. */
export interface ThreadWork {
  /** The parents, the base first. */
  readonly sources: ParentSources;
  readonly plan: AreaPlan;
  readonly target: ChunkTarget;
}

/** A message to the thread. */
export type Request =
  { readonly work: ThreadWork } | { readonly id: number; readonly chunk: Chunk } | { readonly close: true };

/**
 * The thread's answer: the `id` of the chunk that is `written`, or null once everything is closed.
 */
export type TaskOutcome = {
  readonly id: number | null;
  readonly written?: WrittenChunk | null;
  readonly error?: SentError;
};

interface OpenWork {
  readonly writer: ChunkWriter;
  readonly close: () => Promise<void>;
}

async function openWork({ sources, plan, target }: ThreadWork): Promise<OpenWork> {
  const parents = await openParents(sources);
  const writer = openChunkWriter(target, areasOf(parents, plan));
  return {
    writer,
    async close() {
      await writer.close();
      await closeParents(parents);
    },
  };
}

/** Answers the messages that come through `port`. */
function serve(port: MessagePort): void {
  let opening: Promise<OpenWork> | undefined;
  const carryOut = async (request: Exclude<Request, { readonly work: ThreadWork }>): Promise<WrittenChunk | null> => {
    if (opening === undefined) throw new Error("a chunk came before the work that it belongs to");
    const { writer, close } = await opening;
    if ("chunk" in request) return writer.write(request.chunk);
    await close();
    return null;
  };
  port.on("message", (request: Request) => {
    if ("work" in request) {
      opening = openWork(request.work);
      // What goes wrong here is the answer to the first chunk.
      opening.catch(() => undefined);
      return;
    }
    const id = "id" in request ? request.id : null;
    carryOut(request).then(
      (written) => port.postMessage({ id, written } satisfies TaskOutcome),
      (error: unknown) => port.postMessage({ id, error: sentError(error) } satisfies TaskOutcome),
    );
  });
}

if (parentPort !== null) serve(parentPort);
