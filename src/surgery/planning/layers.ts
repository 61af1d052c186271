/** Which layers get experts: the words and ranges that recipes use. */
import { inputError } from "../../base/errors.js";

/** A run of layers, both ends included. */
interface LayerRange {
  readonly from: number;
  readonly to: number;
}

/** Reads `all`, `even`, `odd`, or numbers and ranges from 0. Throws inputError for anything else. */
export function layerRanges(text: string): readonly LayerRange[] | "even" | "odd" {
  if (text === "all") return [{ from: 0, to: Infinity }];
  if (text === "even" || text === "odd") return text;
  return text.split(",").map((part) => {
    const match = /^\s*(\d{1,6})(?:\s*(-)\s*(\d{1,6})?)?\s*$/.exec(part);
    const from = Number(match?.[1]);
    const to = match?.[3] !== undefined ? Number(match[3]) : match?.[2] === undefined ? from : Infinity;
    if (match === null || to < from) {
      throw inputError(`"${text}" names no layers`, {
        where: "layers",
        hint: "write all, even, odd, or numbers and ranges from 0, for example 0,4-7,12-",
      });
    }
    return { from, to };
  });
}

/**
 * For each of `count` layers whether it gets experts. Throws inputError for a layer that is not there, and if none is
 * chosen.
 */
export function chosenLayers({ layers }: { readonly layers: string }, count: number): readonly boolean[] {
  const ranges = layerRanges(layers);
  const numbers = Array.from({ length: count }, (_, layer) => layer);
  if (ranges === "even" || ranges === "odd") {
    if (ranges === "odd" && count === 1) throw inputError("none of 1 layer is odd", { where: "layers" });
    return numbers.map((layer) => layer % 2 === (ranges === "odd" ? 1 : 0));
  }
  const beyond = ranges.find(({ from, to }) => from >= count || (to !== Infinity && to >= count));
  if (beyond !== undefined) {
    const missing = beyond.to === Infinity || beyond.from >= count ? beyond.from : beyond.to;
    throw inputError(`there is no layer ${missing}: the model has layers 0 to ${count - 1}`, {
      where: `layers ${layers}`,
    });
  }
  return numbers.map((layer) => ranges.some(({ from, to }) => layer >= from && layer <= to));
}
