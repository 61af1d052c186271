/** What a command needs to know of a model whose weights it does not read. */
import { openCheckpoint, type ModelSource } from "../files/checkpoint/open.js";
import type { DecoderSpec } from "../model/decoder/types.js";

/** The description of a model's decoder. Throws like `openCheckpoint`. */
export async function decoderOf(source: ModelSource): Promise<DecoderSpec> {
  const checkpoint = await openCheckpoint(source);
  await checkpoint.close();
  return checkpoint.spec;
}
