/** Models below the folder that can generate text: what each is, what it takes, and which one it was made from. */
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { machineMemory, memoryOf } from "../../evals/memory.js";
import { countParams } from "../../model/cost/params.js";
import type { CheckpointList, PlayableModel } from "../data/model-types.js";
import type { StudioIndex } from "./index.js";
import { recordIn } from "./models.js";
import { parentFolder, specIn } from "./parents.js";
import { openPlain } from "./safe-file.js";

/** Models that are described. */
const most = 1000;

/** The list, as one look at the tree has found it. */
export async function checkpointList(index: StudioIndex): Promise<CheckpointList> {
  const names = index.found.checkpoints.slice(0, most);
  const models: PlayableModel[] = [];
  for (const name of names) {
    const model = await describedModel(index, name);
    if (model !== null) models.push(model);
  }
  return {
    models,
    more: index.found.checkpoints.length - names.length,
    memory: machineMemory(),
    threads: Math.max(1, Math.floor(availableParallelism() / 2)),
  };
}

async function describedModel(index: StudioIndex, name: string): Promise<PlayableModel | null> {
  const spec = await specIn(index, name);
  const tokenizer = await openPlain(join(index.pathOf(name), "tokenizer.json"));
  await tokenizer?.close();
  // Nothing can be said to a model without a tokenizer.
  if (spec === null || tokenizer === null) return null;
  const routed = spec.layers.flatMap(({ ffn }) => (ffn.kind === "moe" ? [ffn] : []));
  const { total, active } = countParams(spec);
  return {
    name,
    kind: routed.length > 0 ? "moe" : "dense",
    family: spec.family,
    params: total,
    activeParams: active,
    experts: routed[0]?.experts ?? null,
    topK: routed[0]?.topK ?? null,
    memory: memoryOf(spec),
    parent: await parentOf(index, name),
  };
}

async function parentOf(index: StudioIndex, name: string): Promise<string | null> {
  if (!index.found.models.includes(name)) return null;
  const record = await recordIn(index, name);
  return record === null ? null : parentFolder(index, name, record);
}
