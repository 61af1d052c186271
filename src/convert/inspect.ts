/** What a model folder holds, from its config, file headers and record: no weight is read. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint, type StoredTensor } from "../checkpoint/open.js";
import { forwardFlopsPerToken, trainFlopsPerToken } from "../cost/flops.js";
import { countParams, type ParamCount } from "../cost/params.js";
import { withFsErrors } from "../io/fs-errors.js";
import type { FloatDtype } from "../numeric/dtype.js";
import type { DecoderSpec, LayerSpec } from "../spec/types.js";
import { readRecord, type UpcycleRecord } from "./record.js";

/** Longest context that FLOPs are stated for: attention's share depends on it. */
const FLOPS_SEQUENCE = 2048;

/** A run of equal layers. */
export interface LayerGroup {
  readonly first: number;
  readonly last: number;
  readonly layer: LayerSpec;
}

export interface ModelFacts {
  readonly dir: string;
  readonly spec: DecoderSpec;
  readonly layers: readonly LayerGroup[];
  readonly params: ParamCount;
  /** The dtype that holds most of the weights' bytes. */
  readonly dtype: FloatDtype;
  /** Of the weight files, headers included. */
  readonly bytesOnDisk: number;
  readonly weightFiles: readonly string[];
  readonly flopsPerToken: { readonly sequence: number; readonly forward: number; readonly train: number };
  /** Stored tensors that the model does not read. */
  readonly unused: readonly string[];
  readonly tensors: readonly (StoredTensor & { readonly name: string })[];
  /** How the model was made, if it was upcycled here. */
  readonly upcycle: UpcycleRecord | null;
}

/** Throws inputError if the folder is no supported model. */
export async function inspectModel(dir: string): Promise<ModelFacts> {
  const checkpoint = await openCheckpoint(dir);
  await checkpoint.close();
  const { spec, dtype, unused } = checkpoint;
  const tensors = [...checkpoint.tensors].map(([name, tensor]) => ({ name, ...tensor }));
  const weightFiles = [...new Set(tensors.map(({ file }) => file))].sort();
  let bytesOnDisk = 0;
  for (const file of weightFiles) {
    const path = join(dir, file);
    bytesOnDisk += (await withFsErrors(path, "look up file", () => stat(path))).size;
  }
  const sequence = Math.min(FLOPS_SEQUENCE, spec.maxPositions);
  return {
    dir, spec, dtype, bytesOnDisk, weightFiles, unused, tensors,
    layers: groupLayers(spec.layers),
    params: countParams(spec),
    flopsPerToken: { sequence, forward: forwardFlopsPerToken(spec, sequence), train: trainFlopsPerToken(spec, sequence) },
    upcycle: await readRecord(dir),
  };
}

function groupLayers(layers: readonly LayerSpec[]): LayerGroup[] {
  const groups: LayerGroup[] = [];
  layers.forEach((layer, index) => {
    const before = groups.at(-1);
    if (before !== undefined && JSON.stringify(before.layer) === JSON.stringify(layer)) groups[groups.length - 1] = { ...before, last: index };
    else groups.push({ first: index, last: index, layer });
  });
  return groups;
}
