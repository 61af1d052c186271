/**
 * Whether a folder is what a conversion would make: for one that was stopped after its model was complete, before it
 * was measured.
 */
import { matrixShape } from "../../files/numeric/rectangles.js";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { UpcycleError } from "../../base/errors.js";
import { adapterConfigFile } from "../../files/checkpoint/adapter.js";
import { openCheckpoint } from "../../files/checkpoint/open.js";
import type { WriteDtype } from "../../files/checkpoint/plan-files.js";
import { layoutOf } from "../../files/checkpoint/weight-layout.js";
import { exists } from "../../files/io/atomic.js";
import { readText } from "../../files/io/ranges.js";
import { floatBytes } from "../../files/numeric/dtype.js";
import { printExpr } from "../planning/expr.js";
import type { Slot } from "../../model/tensors/slots.js";
import { areasOf } from "./areas.js";
import type { Parents } from "./parents.js";
import type { Work } from "./work.js";

/**
 * Names of the weight files, or null: equal texts, weight files of the right sizes, no file of the source changed
 * since, and weights that are made of these sources. Of `work` the files are the texts that are written beside the
 * weights; a card that has been measured since differs. Router rows that were given are in none of the files that are
 * compared, so that work with such data is never taken for finished.
 */
export async function finishedFiles(
  dir: string,
  work: Work,
  maxShardBytes: number | undefined,
  sources: Parents,
): Promise<string[] | null> {
  const { target, files, data = [] } = work;
  if (data.length > 0) return null;
  const config = join(dir, "config.json");
  // What is wrong with the path is said where the folder is made.
  const made = (await stat(config).catch(() => null))?.mtimeMs;
  if (made === undefined) return null;
  for (const [name, text] of Object.entries(files)) {
    const path = join(dir, name);
    if (!(await exists(path)) || (await readText(path)) !== text) return null;
  }
  const weights = layoutOf(work.format ?? "safetensors", target, slotDtypeOf(work), maxShardBytes).files;
  for (const { file, header } of weights) {
    if ((await stat(join(dir, file)).catch(() => null))?.size !== header.fileBytes) return null;
  }
  const folders = sources.flatMap((source) => [
    { ...source, config: "config.json" },
    ...(source.adapter === null ? [] : [{ ...source.adapter, config: adapterConfigFile }]),
  ]);
  for (const { dir: folder, config: settings, tensors } of folders) {
    for (const file of new Set([settings, ...[...tensors.values()].map((tensor) => tensor.file)])) {
      if ((await stat(join(folder, file))).mtimeMs > made) return null;
    }
  }
  return (await isMadeOf(dir, work, sources)) ? weights.map(({ file }) => file) : null;
}

const slotDtypeOf = ({ dtype, slotDtype = () => dtype }: Work): ((slot: Slot) => WriteDtype) => slotDtype;

/**
 * Compares one row of everything that is made in a different way: texts, sizes and times do not tell apart two models
 * of one name.
 */
async function isMadeOf(dir: string, work: Work, sources: Parents): Promise<boolean> {
  const { outputs, data = [], seed } = work;
  const dtype = slotDtypeOf(work);
  const make = areasOf(sources, { seed, data, values: outputs.map(({ slot, value }) => [slot.key, value]) });
  const made = await openCheckpoint(dir).catch((cause: unknown) => {
    if (cause instanceof UpcycleError) return null;
    throw cause;
  });
  if (made === null) return false;
  try {
    for (const { slot } of new Map(outputs.map((output) => [printExpr(output.value), output])).values()) {
      const [rows, columns] = matrixShape(slot.shape);
      if (rows * columns === 0) continue;
      const area = { rowStart: Math.floor(rows / 2), rowCount: 1, columnStart: 0, columnCount: columns };
      const [own, wanted] = [
        await made.readRectangle({ key: slot.key, ...area, stride: columns }),
        await make(slot, area, dtype(slot), new Uint8Array(columns * floatBytes[dtype(slot)])),
      ];
      if (own.dtype !== dtype(slot) || Buffer.compare(own.bytes, wanted) !== 0) return false;
    }
    return true;
  } finally {
    await made.close();
  }
}
