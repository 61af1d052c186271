/**
 * Differences of two models by slot: what all layers (and experts) call alike is one group, with the layers in which it
 * differs.
 */
import { at, entryOf } from "../../base/at.js";
import type { TensorDiff } from "./diff.js";

/** Tensors of one name, apart from the numbers in it. */
export interface NameGroup {
  /** `model.layers.*.mlp.gate_proj.weight` */
  readonly name: string;
  readonly tensors: number;
  /** Runs of the first number in their names: layers. Empty where names hold none. */
  readonly layers: readonly (readonly [first: number, last: number])[];
}

/** Tensors of one name that differ, and by how much. */
export interface DiffGroup extends NameGroup {
  /** How many tensors of this name both models have, the equal ones included. */
  readonly of: number;
  readonly shapes: TensorDiff["shapes"];
  readonly dtypes: TensorDiff["dtypes"];
  /** The largest differences and the smallest cosine of its tensors; null if the shapes differ. */
  readonly difference: TensorDiff["difference"];
}

const numbers = /(?<![^.])\d+(?![^.])/g;

/** The name with a star for every number between dots. */
const pattern = (name: string): string => name.replace(numbers, "*");

/** Groups of names that are alike but for their numbers, in the order of their first members. */
export function groupNames(names: readonly string[]): NameGroup[] {
  return [...gathered(names, pattern)].map(([name, members]) => nameGroup(name, members));
}

/** Groups of tensors that differ, those that differ most first. Tensors of other shapes or precisions stand apart. */
export function groupDiffs(tensors: readonly TensorDiff[]): DiffGroup[] {
  const totals = gathered(tensors, ({ name }) => pattern(name));
  const different = tensors.filter(({ equal }) => !equal);
  const kindOf = ({ name, dtypes, shapes, difference }: TensorDiff): string =>
    JSON.stringify([pattern(name), dtypes, difference === null ? shapes : null]);
  const groups = gathered(different, kindOf);
  return [...groups.values()]
    .map((members): DiffGroup => {
      const { name, shapes, dtypes } = at(members, 0);
      const group = nameGroup(
        pattern(name),
        members.map((member) => member.name),
      );
      return { ...group, of: entryOf(totals, group.name).length, shapes, dtypes, difference: worst(members) };
    })
    .sort((a, b) => compareDistances(distance(a), distance(b)));
}

/**
 * How far a tensor is from the other, for sorting. One of another shape, or with a NaN, is further away than any number
 * says.
 */
export function distance({ difference }: Pick<TensorDiff, "difference">): number {
  return difference === null || Number.isNaN(difference.relative) ? Infinity : difference.relative;
}

/** Compares distances for `sort`: the furthest comes first. */
export const compareDistances = (a: number, b: number): number => (a === b ? 0 : b - a);

function nameGroup(name: string, names: readonly string[]): NameGroup {
  const layers = new Set(names.flatMap((member) => member.match(numbers)?.[0] ?? []).map(Number));
  return { name, tensors: names.length, layers: runs([...layers].sort((a, b) => a - b)) };
}

/** Ascending numbers as runs of neighbours: 0, 1, 2, 5 as 0-2 and 5-5. */
function runs(numbers: readonly number[]): [number, number][] {
  const ranges: [number, number][] = [];
  for (const number of numbers) {
    const last = ranges.at(-1);
    if (last?.[1] === number - 1) last[1] = number;
    else ranges.push([number, number]);
  }
  return ranges;
}

/** The largest differences and the smallest cosine of several tensors. Math.max and Math.min keep a NaN. */
function worst(members: readonly TensorDiff[]): TensorDiff["difference"] {
  return members
    .map(({ difference }) => difference)
    .reduce((a, b) =>
      a === null || b === null
        ? null
        : {
            maxAbs: Math.max(a.maxAbs, b.maxAbs),
            meanAbs: Math.max(a.meanAbs, b.meanAbs),
            relative: Math.max(a.relative, b.relative),
            cosine: Math.min(a.cosine, b.cosine),
          },
    );
}

function gathered<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}
