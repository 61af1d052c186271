/** Weights that are NaN or infinite: where a conversion that meets them has them from. */
import { at } from "../../base/at.js";
import { stopError, type UpcycleError } from "../../base/errors.js";
import { compact } from "../../base/format.js";
import type { Checkpoint } from "../../files/checkpoint/open.js";
import type { NonFiniteRun } from "../../files/checkpoint/write.js";
import { countNonFinite } from "../../files/numeric/finite.js";
import { matrixShape, wholeRows } from "../../files/numeric/rectangles.js";
import { tensorNames } from "../../model/tensors/names.js";
import { slotsOf } from "../../model/tensors/slots.js";
import { sourceKeys } from "../planning/expr.js";
import { adapterFolderOf, modelFolderOf } from "../../files/checkpoint/model-source.js";
import { sourceOf, type Parents } from "./parents.js";
import type { Work } from "./work.js";

/**
 * The error for a tensor that would get values that are no numbers. Reads what the tensor is made of until it finds
 * where they stand; where no source has any, the target's precision cannot hold the values.
 */
export async function damageError(
  sources: Parents,
  { outputs, dtype }: Pick<Work, "outputs" | "dtype">,
  { names: [name], slots }: NonFiniteRun,
): Promise<UpcycleError> {
  const keys = new Set(slots.map(({ key }) => key));
  const values = outputs.filter(({ slot }) => keys.has(slot.key)).map(({ value }) => value);
  for (const [index, source] of sources.entries()) {
    for (const key of new Set(values.flatMap((value) => sourceKeys(value, index)))) {
      const found = await countIn(source, key);
      if (found > 0) return sourceError(source, key, found);
    }
  }
  return stopError(
    `tensor ${name} would have infinite values: its weights are too large for this precision (${dtype})`,
    {
      hint: "write bfloat16 or float32 (--dtype), or write it all the same with --allow-nonfinite",
    },
  );
}

function sourceError(source: Checkpoint, key: string, count: number): UpcycleError {
  const from = sourceOf(source);
  const adapter = adapterFolderOf(from);
  const slot = slotsOf(source.spec).find((one) => one.key === key);
  const name = slot === undefined ? key : at(tensorNames(source.spec, slot.at), 0);
  const merged = adapter === null ? "" : ` with the adapter ${adapter} merged in`;
  return stopError(
    `the model is damaged: ${compact(count)} of the values of ${name}${merged} are NaN or infinite, as a training ` +
      "that has diverged leaves them",
    {
      where: modelFolderOf(from),
      hint: "use an earlier checkpoint, or convert it all the same with --allow-nonfinite",
    },
  );
}

/** Elements that are read at once. */
const elementsAtOnce = 1 << 22;

async function countIn(source: Checkpoint, key: string): Promise<number> {
  const slot = slotsOf(source.spec).find((one) => one.key === key);
  if (slot === undefined) return 0;
  const [rows, columns] = matrixShape(slot.shape);
  const step = Math.max(1, Math.floor(elementsAtOnce / columns));
  let count = 0;
  for (let start = 0; start < rows; start += step) {
    const rowCount = Math.min(step, rows - start);
    const { dtype, bytes } = await source.readRectangle(wholeRows(key, start, rowCount, columns));
    count += countNonFinite(dtype, bytes);
  }
  return count;
}
