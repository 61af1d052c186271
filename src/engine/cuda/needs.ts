/** What a run needs of a GPU's memory, known before any of it is taken. */
import { inputError } from "../../base/errors.js";

/** Bytes by what they are for. */
export type MemoryNeeds = ReadonlyMap<string, number>;

/** Share of the free memory that is left for the driver and for pieces that do not fit together. */
const MARGIN = 0.01;

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(bytes < 1e8 ? 3 : 1)} GB`;

/** Name of the part that grows with the tokens of a micro-batch. */
export const STEP_VALUES = "values of a step";

/**
 * Throws inputError where a run does not fit into what is free, with the sums and what to change.
 */
export function requireMemory(needs: MemoryNeeds, free: number, where: string): void {
  const all = [...needs.values()].reduce((sum, bytes) => sum + bytes, 0);
  const room = free * (1 - MARGIN);
  if (all <= room) return;
  const sums = [...needs]
    .filter(([, bytes]) => bytes > 0)
    .sort(([, a], [, b]) => b - a)
    .map(([name, bytes]) => `${name} ${gigabytes(bytes)}`);
  throw inputError(
    `this run needs ${gigabytes(all)} of the GPU's memory, ${gigabytes(free)} are free: ${sums.join(", ")}`,
    { where, hint: advice(needs.get(STEP_VALUES) ?? 0, all, room) },
  );
}

/** What makes a run fit. */
function advice(values: number, all: number, room: number): string {
  const rest = all - values;
  const share = (room - rest) / values;
  if (share <= 0)
    return "without any batch it does not fit: train a smaller model, freeze parameters, or keep no average";
  const percent = Math.max(1, Math.floor(100 * share));
  return (
    `about ${percent} % of this batch fits: lower batch and raise accumulate by as much, ` +
    "or set recompute: norms, or layer, which needs least"
  );
}
