/** A thread that makes and writes chunks: the first message says of what and where to, each further one is a chunk. */
import { parentPort } from "node:worker_threads";
import { sentError, type SentError } from "../../base/errors.js";
import type { Chunk } from "../../files/checkpoint/chunks.js";
import { openChunkWriter, type ChunkTarget, type ChunkWriter } from "../../files/checkpoint/chunk-writer.js";
import { areasOf, type AreaPlan } from "./areas.js";
import { closeParents, openParents, type ParentSources } from "./parents.js";

export interface ThreadWork {
  /** The parents, the base first. */
  readonly sources: ParentSources;
  readonly plan: AreaPlan;
  readonly target: ChunkTarget;
}

export type Request =
  { readonly work: ThreadWork } | { readonly id: number; readonly chunk: Chunk } | { readonly close: true };

/** `id` of the chunk written, with the sum of its bytes; null once everything is closed. */
export type Reply = { readonly id: number | null; readonly sum?: number | null; readonly error?: SentError };

interface Hands {
  readonly writer: ChunkWriter;
  readonly close: () => Promise<void>;
}

async function openHands({ sources, plan, target }: ThreadWork): Promise<Hands> {
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

let hands: Promise<Hands> | undefined;

parentPort?.on("message", (request: Request) => {
  if ("work" in request) {
    hands = openHands(request.work);
    // Heard with the first chunk.
    hands.catch(() => undefined);
    return;
  }
  const id = "id" in request ? request.id : null;
  const work = async (): Promise<number | null> => {
    const { writer, close } = await hands!;
    if ("chunk" in request) return writer.write(request.chunk);
    await close();
    return null;
  };
  work().then(
    (sum) => parentPort!.postMessage({ id, sum } satisfies Reply),
    (error: unknown) => parentPort!.postMessage({ id, error: sentError(error) } satisfies Reply),
  );
});
