/** Models of which the same is to be said, such as those that the seeds of an arm start from. */
import type { ModelRow } from "./model-types.js";

/** Models of one group, the one that differs most from its parent first. */
export type ModelGroup = readonly [ModelRow, ...ModelRow[]];

/** Models of one folder with the same recipe, parent and verdict as one group, in the order of their first members. */
export function modelGroups(models: readonly ModelRow[]): readonly ModelGroup[] {
  const groups = new Map<string, [ModelRow, ...ModelRow[]]>();
  for (const model of models) {
    const folder = model.name.split("/").slice(0, -1).join("/");
    const key = JSON.stringify([folder, model.recipe, model.parent, model.expected, model.preservation?.verdict]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [model]);
    else if (differenceOf(model) > differenceOf(group[0])) group.unshift(model);
    else group.push(model);
  }
  return [...groups.values()];
}

const differenceOf = ({ preservation }: ModelRow): number => preservation?.relative ?? 0;
