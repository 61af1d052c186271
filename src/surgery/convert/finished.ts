/**
 * Tells whether a folder already is what a conversion would make: a conversion may have been stopped after its model
 * was complete, and before it was measured.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { UpcycleError } from "../../base/errors.js";
import { adapterConfigFile } from "../../files/checkpoint/adapter.js";
import { openCheckpoint } from "../../files/checkpoint/open.js";
import { planFiles, type PlannedFile, type WriteDtype } from "../../files/checkpoint/plan-files.js";
import { exists } from "../../files/io/atomic.js";
import { readText } from "../../files/io/ranges.js";
import { matrixShape } from "../../files/numeric/rectangles.js";
import { floatBytes } from "../../files/numeric/dtype.js";
import { printExpr } from "../planning/expr.js";
import type { Slot } from "../../model/tensors/slots.js";
import { areasOf } from "./areas.js";
import type { Parents } from "./parents.js";
import type { Work } from "./work.js";

/**
 * Names of the weight files if `dir` is what `work` would make, else null. It is if the texts beside the weights are
 * equal (a card with measured values is not), weight files have the right sizes, no file of the source is newer, and
 * the weights are made of these sources. Router rows from prompts are in none of the compared files, so work with such
 * data never counts as finished.
 */
export async function finishedFiles(
  dir: string,
  work: Work,
  maxShardBytes: number | undefined,
  sources: Parents,
): Promise<string[] | null> {
  const { target, files, data = [] } = work;
  if (data.length > 0) return null;
  // What is wrong with the path is said where the folder is made.
  const writtenAt = (await stat(join(dir, "config.json")).catch(() => null))?.mtimeMs;
  if (writtenAt === undefined) return null;
  const weights = planFiles(target, slotDtypeOf(work), maxShardBytes).files;
  const isFinished =
    (await holdsTexts(dir, files)) &&
    (await holdsSizes(dir, weights)) &&
    (await areOlder(sources, writtenAt)) &&
    (await isMadeOf(dir, work, sources));
  return isFinished ? weights.map(({ file }) => file) : null;
}

async function holdsTexts(dir: string, texts: Work["files"]): Promise<boolean> {
  for (const [name, text] of Object.entries(texts)) {
    const path = join(dir, name);
    if (!(await exists(path)) || (await readText(path)) !== text) return false;
  }
  return true;
}

async function holdsSizes(dir: string, weights: readonly PlannedFile[]): Promise<boolean> {
  for (const { file, header } of weights) {
    if ((await stat(join(dir, file)).catch(() => null))?.size !== header.fileBytes) return false;
  }
  return true;
}

/** Whether no file of the sources and their adapters was changed after `time`. */
async function areOlder(sources: Parents, time: number): Promise<boolean> {
  const folders = sources.flatMap((source) => [
    { ...source, config: "config.json" },
    ...(source.adapter === null ? [] : [{ ...source.adapter, config: adapterConfigFile }]),
  ]);
  for (const { dir, config, tensors } of folders) {
    for (const file of new Set([config, ...[...tensors.values()].map((tensor) => tensor.file)])) {
      if ((await stat(join(dir, file))).mtimeMs > time) return false;
    }
  }
  return true;
}

const slotDtypeOf = ({ dtype, slotDtype = () => dtype }: Work): ((slot: Slot) => WriteDtype) => slotDtype;

/**
 * Whether the weights are made of these sources. One row is compared of every tensor that has an expression of its own,
 * because texts, sizes and times do not tell apart two models of one name.
 */
async function isMadeOf(dir: string, work: Work, sources: Parents): Promise<boolean> {
  const { outputs, data = [], seed } = work;
  const dtype = slotDtypeOf(work);
  const make = areasOf(sources, { seed, data, values: outputs.map(({ slot, value }) => [slot.key, value]) });
  const result = await openCheckpoint(dir).catch((cause: unknown) => {
    if (cause instanceof UpcycleError) return null;
    throw cause;
  });
  if (result === null) return false;
  try {
    for (const { slot } of new Map(outputs.map((output) => [printExpr(output.value), output])).values()) {
      const [rows, columns] = matrixShape(slot.shape);
      if (rows * columns === 0) continue;
      const area = { rowStart: Math.floor(rows / 2), rowCount: 1, columnStart: 0, columnCount: columns };
      const own = await result.readRectangle({ key: slot.key, ...area, stride: columns });
      const expected = await make(slot, area, dtype(slot), new Uint8Array(columns * floatBytes[dtype(slot)]));
      if (own.dtype !== dtype(slot) || Buffer.compare(own.bytes, expected) !== 0) return false;
    }
    return true;
  } finally {
    await result.close();
  }
}
