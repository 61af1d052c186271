/**
 * Differences of two models by slot: what all layers (and experts) call alike is one group, with the layers in which it
 * differs.
 */
import type { TensorDiff } from "./diff.js";

/** Tensors of one name, apart from the numbers in it. */
export interface NameGroup {
  /** `model.layers.*.mlp.gate_proj.weight` */
  readonly name: string;
  readonly tensors: number;
  /** Runs of the first number in their names: layers. Empty where names hold none. */
  readonly layers: readonly (readonly [first: number, last: number])[];
}

export interface DiffGroup extends NameGroup {
  /** Tensors of this name that both models have, the equal ones too. */
  readonly of: number;
  readonly shapes: TensorDiff["shapes"];
  readonly dtypes: TensorDiff["dtypes"];
  /** Over its tensors: the largest differences, the smallest cosine. Null where the shapes differ. */
  readonly difference: TensorDiff["difference"];
}

const numbers = /(?<![^.])\d+(?![^.])/g;

/** The name with a star for every number between dots. */
const pattern = (name: string): string => name.replace(numbers, "*");

/** In the order of their first members. */
export function groupNames(names: readonly string[]): NameGroup[] {
  return [...gathered(names, pattern)].map(([, members]) => nameGroup(members));
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
      const [{ shapes, dtypes }] = members as [TensorDiff];
      const group = nameGroup(members.map(({ name }) => name));
      return { ...group, of: totals.get(group.name)!.length, shapes, dtypes, difference: worst(members) };
    })
    .sort((a, b) => compareDistances(distance(a), distance(b)));
}

/** A tensor of another shape, or with a NaN, is further away than any number says. */
export function distance({ difference }: Pick<TensorDiff, "difference">): number {
  return difference === null || Number.isNaN(difference.relative) ? Infinity : difference.relative;
}

/** The furthest first. */
export const compareDistances = (a: number, b: number): number => (a === b ? 0 : b - a);

function nameGroup(names: readonly string[]): NameGroup {
  const layers = new Set(names.flatMap((name) => name.match(numbers)?.[0] ?? []).map(Number));
  return { name: pattern(names[0]!), tensors: names.length, layers: runs([...layers].sort((a, b) => a - b)) };
}

/** 0, 1, 2, 5 as 0-2 and 5. */
function runs(numbers: readonly number[]): [number, number][] {
  const found: [number, number][] = [];
  for (const number of numbers) {
    const last = found.at(-1);
    if (last?.[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return found;
}

/** Math.max and Math.min keep a NaN. */
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
    const known = groups.get(key);
    if (known === undefined) groups.set(key, [item]);
    else known.push(item);
  }
  return groups;
}
