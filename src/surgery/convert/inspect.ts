/** Says what a model folder holds, from its config, file headers and record. No weight is read. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint, type Checkpoint, type ModelSource, type StoredTensor } from "../../files/checkpoint/open.js";
import { forwardFlopsPerToken, trainFlopsPerToken } from "../../model/cost/flops.js";
import { countParams, type ParamCount } from "../../model/cost/params.js";
import type { Dtype } from "../../files/formats/safetensors.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import type { FloatDtype } from "../../files/numeric/dtype.js";
import type { DecoderSpec, LayerSpec } from "../../model/decoder/types.js";
import { wordsOfAdapter } from "./parents.js";
import { readRecord, type UpcycleRecord } from "./record.js";

/** Longest context that FLOPs are stated for: attention's share depends on it. */
const FLOPS_SEQUENCE = 2048;

/** A run of equal layers, from the first to the last. */
export interface LayerGroup {
  readonly first: number;
  readonly last: number;
  readonly layer: LayerSpec;
}

/** Tensors stored alike. */
export interface StoredFormat {
  readonly dtype: Dtype;
  /** What one scale stands for, such as `per row`; null: no scales. */
  readonly scales: string | null;
  /** The precision they are read in, where that is not the stored one; null: as stored. */
  readonly readAs: FloatDtype | null;
  readonly tensors: number;
  readonly bytes: number;
}

/** What a model folder holds. */
export interface ModelFacts {
  readonly dir: string;
  readonly spec: DecoderSpec;
  readonly layers: readonly LayerGroup[];
  readonly params: ParamCount;
  /** The precision that most of the weights are read in. */
  readonly dtype: FloatDtype;
  /** How the tensors are stored, the largest share first. */
  readonly formats: readonly StoredFormat[];
  /** Size of the weight files, headers included. */
  readonly bytesOnDisk: number;
  readonly weightFiles: readonly string[];
  readonly flopsPerToken: { readonly sequence: number; readonly forward: number; readonly train: number };
  /** Stored tensors that the model does not read. */
  readonly unused: readonly string[];
  readonly tensors: readonly (StoredTensor & { readonly name: string })[];
  /** Remarks on how the files were read. */
  readonly notes: readonly string[];
  /** The LoRA adapter that is merged in while weights are read. What is stored, above, is the model's own. */
  readonly adapter: AdapterSummary | null;
  /** How the model was made, if it was upcycled here. */
  readonly upcycle: UpcycleRecord | null;
}

/** A LoRA adapter, and what it changes. */
export interface AdapterSummary {
  readonly dir: string;
  /** Its name, ranks, and how much it changes. */
  readonly words: string;
  /** Smallest and largest rank. */
  readonly ranks: readonly [number, number];
  /** Stored tensors of the model that it changes. */
  readonly changed: readonly string[];
}

/** Throws inputError if the folder is no supported model, or its adapter cannot be merged in. */
export async function inspectModel(source: ModelSource): Promise<ModelFacts> {
  const checkpoint = await openCheckpoint(source);
  await checkpoint.close();
  const { dir, adapter, spec, dtype, unused, notes } = checkpoint;
  const tensors = tensorsOf(checkpoint);
  const weightFiles = [...new Set(tensors.map(({ file }) => file))].sort();
  const sequence = Math.min(FLOPS_SEQUENCE, spec.maxPositions);
  return {
    dir,
    spec,
    dtype,
    bytesOnDisk: await sizeOf(weightFiles.map((file) => join(dir, file))),
    weightFiles,
    unused,
    notes,
    tensors,
    formats: storedFormats(tensors),
    layers: groupLayers(spec.layers),
    params: countParams(spec),
    flopsPerToken: {
      sequence,
      forward: forwardFlopsPerToken(spec, sequence),
      train: trainFlopsPerToken(spec, sequence),
    },
    adapter:
      adapter === null
        ? null
        : { dir: adapter.dir, words: wordsOfAdapter(adapter), ranks: adapter.ranks, changed: adapter.changed },
    upcycle: await readRecord(dir),
  };
}

/** The stored tensors with their names, without what only reading needs. */
function tensorsOf({ tensors }: Pick<Checkpoint, "tensors">): ModelFacts["tensors"] {
  return Array.from(tensors, ([name, { file, dtype, shape, bytes, readAs, scales }]) => ({
    name,
    file,
    dtype,
    shape,
    bytes,
    ...(readAs === undefined ? {} : { readAs }),
    ...(scales === undefined ? {} : { scales }),
  }));
}

async function sizeOf(paths: readonly string[]): Promise<number> {
  let bytes = 0;
  for (const path of paths) bytes += (await withFsErrors(path, "look up file", () => stat(path))).size;
  return bytes;
}

function storedFormats(tensors: readonly StoredTensor[]): StoredFormat[] {
  const formats = new Map<string, StoredFormat>();
  for (const { dtype, readAs = null, scales, bytes } of tensors) {
    const per = scales?.per ?? null;
    const others = formats.get(`${dtype} ${per}`);
    formats.set(`${dtype} ${per}`, {
      dtype,
      scales: per,
      readAs,
      tensors: (others?.tensors ?? 0) + 1,
      bytes: (others?.bytes ?? 0) + bytes,
    });
  }
  return [...formats.values()].sort((a, b) => b.bytes - a.bytes);
}

function groupLayers(layers: readonly LayerSpec[]): LayerGroup[] {
  const groups: LayerGroup[] = [];
  layers.forEach((layer, index) => {
    const before = groups.at(-1);
    if (before !== undefined && JSON.stringify(before.layer) === JSON.stringify(layer))
      groups[groups.length - 1] = { ...before, last: index };
    else groups.push({ first: index, last: index, layer });
  });
  return groups;
}
