/**
 * From names to tasks: groups, tags and single tasks as the LM Evaluation Harness resolves them
 * (lm_eval/tasks/_factory.py, lm_eval/config/group.py).
 */
import { inputError, type UpcycleError } from "../../base/errors.js";
import { nearest } from "../../base/schemas/nearest.js";
import { taskFileKeys, type TaskFile } from "../../base/schemas/task.js";
import { taskConfig, type TaskConfig } from "./config.js";

/** What one file defines, its includes merged in. */
export interface TaskEntry {
  readonly file: string;
  /** For a file that cannot be read, its name alone. */
  readonly keys: TaskFile;
  /** What is wrong with a file that nobody may ask for. */
  readonly problem?: UpcycleError | undefined;
}

/** A metric that a group shows. */
export interface GroupMetric {
  readonly metric: string;
  /** Filters to aggregate over; null: all that its tasks have. */
  readonly filters: readonly string[] | null;
  readonly weightBySize: boolean;
}

/** A group of tasks and groups. */
export interface Group {
  readonly name: string;
  readonly alias: string;
  readonly version: string | number;
  /** Names of its tasks and groups. */
  readonly children: readonly string[];
  /** Names of all tasks in it and in its groups, in order. */
  readonly tasks: readonly string[];
  readonly metrics: readonly GroupMetric[];
}

/** A group or task, and in how many groups it stands. */
interface Placed {
  readonly name: string;
  readonly level: number;
}

/**
 * Groups with their members behind them, then tasks of no group, in the order of the files; what stands in several
 * groups stands in each.
 */
export function inGroups(groups: readonly Group[], tasks: readonly string[]): readonly Placed[] {
  const byName = new Map(groups.map((group) => [group.name, group]));
  const inside = new Set(groups.flatMap(({ children }) => children));
  const placed = (name: string, level: number): Placed[] => [
    { name, level },
    ...(byName.get(name)?.children ?? []).flatMap((child) => placed(child, level + 1)),
  ];
  const names = [...groups.map(({ name }) => name), ...tasks];
  return names.filter((name) => !inside.has(name)).flatMap((name) => placed(name, 0));
}

/** What was asked for. */
export interface Selection {
  /** Each task once, in order. */
  readonly tasks: readonly TaskConfig[];
  /** Groups, each behind those that it holds. */
  readonly groups: readonly Group[];
}

/** Keys of a group itself; others in its file override its tasks' keys. */
const groupKeys = new Set(["group", "group_alias", "task", "aggregate_metric_list", "metadata", "include", "tag"]);

const isGroup = ({ keys }: TaskEntry): boolean => keys.group !== undefined;
const nameOf = ({ keys }: TaskEntry): string => keys.group ?? (typeof keys.task === "string" ? keys.task : "");
const tagsOf = ({ tag }: TaskFile): readonly string[] =>
  tag === undefined || tag === null ? [] : typeof tag === "string" ? [tag] : tag;

/**
 * The tasks of names: tasks, groups or tags among the entries. Of entries of one name the last one counts, so that a
 * user's files replace those that come along. Throws inputError for a name that nothing has.
 */
export function selectTasks(names: readonly string[], entries: readonly TaskEntry[]): Selection {
  const selector = new Selector(entries);
  for (const name of names) selector.add(name, {}, "--tasks");
  return selector.selection();
}

class Selector {
  private readonly byName = new Map<string, TaskEntry>();
  private readonly byTag = new Map<string, Set<string>>();
  private readonly tasks = new Map<string, TaskConfig>();
  private readonly groups = new Map<string, Group>();
  /** Groups that are being opened, for groups within themselves. */
  private readonly open: string[] = [];

  constructor(entries: readonly TaskEntry[]) {
    for (const entry of entries) {
      const name = nameOf(entry);
      if (name === "") continue;
      this.byName.set(name, entry);
      if (isGroup(entry)) continue;
      for (const tag of tagsOf(entry.keys)) this.byTag.set(tag, (this.byTag.get(tag) ?? new Set()).add(name));
    }
  }

  selection(): Selection {
    return { tasks: [...this.tasks.values()], groups: [...this.groups.values()] };
  }

  /** Adds what a name stands for, and returns the names of what was added. */
  add(name: string, overrides: Partial<TaskFile>, where: string): string[] {
    const entry = this.byName.get(name);
    if (entry?.problem !== undefined) throw entry.problem;
    if (entry !== undefined) return [isGroup(entry) ? this.addGroup(entry, overrides) : this.addTask(entry, overrides)];
    const tagged = this.byTag.get(name);
    if (tagged !== undefined) return [...tagged].sort().flatMap((one) => this.add(one, overrides, where));
    const known = [...this.byName.keys(), ...this.byTag.keys()];
    const guess = nearest(name, known);
    throw inputError(`there is no task, group or tag "${name}"`, {
      where,
      hint:
        guess === undefined
          ? "name a file, or give its folder with --include-path; upcycle eval --list shows what comes along"
          : `did you mean "${guess}"?`,
    });
  }

  private addTask({ file, keys }: TaskEntry, overrides: Partial<TaskFile>): string {
    const config = taskConfig({ ...keys, ...overrides }, file);
    this.tasks.set(config.name, config);
    return config.name;
  }

  private addGroup({ file, keys }: TaskEntry, overrides: Partial<TaskFile>): string {
    const name = keys.group ?? "";
    if (this.open.includes(name)) throw inputError(`the group "${name}" holds itself`, { where: file });
    this.open.push(name);
    const own = Object.fromEntries(Object.entries(keys).filter(([key]) => !groupKeys.has(key)));
    const merged = { ...own, ...overrides };
    const members = Array.isArray(keys.task) ? keys.task : keys.task === undefined ? [] : [keys.task];
    const children = members.flatMap((member) => this.addMember(member, name, merged, file));
    this.open.pop();
    const tasks = children.flatMap((child) => this.groups.get(child)?.tasks ?? [child]);
    const version = keys.metadata?.["version"];
    this.groups.set(name, {
      name,
      alias: keys.group_alias ?? name,
      version: typeof version === "number" || typeof version === "string" ? version : "N/A",
      children,
      tasks: [...new Set(tasks)],
      metrics: groupMetrics(keys),
    });
    return name;
  }

  private addMember(
    member: string | Record<string, unknown>,
    group: string,
    overrides: Partial<TaskFile>,
    file: string,
  ): string[] {
    const where = `${file} (group ${group})`;
    if (typeof member === "string") return this.add(member, overrides, where);
    for (const key of Object.keys(member))
      if (!taskFileKeys.includes(key))
        throw inputError(`unknown key "${key}"`, { where, hint: `valid keys: ${taskFileKeys.join(", ")}` });
    const keys = member as TaskFile;
    if (keys.group !== undefined) {
      const { group: name, ...rest } = keys;
      if (this.byName.has(name)) return this.add(name, { ...overrides, ...rest }, where);
      return [this.addGroup({ file, keys: { ...keys, group: `${group}::${name}` } }, overrides)];
    }
    if (typeof keys.task !== "string") throw inputError('an entry has neither "task" nor "group"', { where });
    const merged = { ...overrides, ...keys };
    if (this.byName.has(keys.task) || this.byTag.has(keys.task)) {
      const { task: base, ...rest } = merged;
      return this.add(base as string, rest, where);
    }
    return [this.addTask({ file, keys: {} }, { ...merged, task: `${group}::${keys.task}` })];
  }
}

function groupMetrics({ aggregate_metric_list: list }: TaskFile): readonly GroupMetric[] {
  const entries = list === undefined || list === null ? [] : Array.isArray(list) ? list : [list];
  return entries.map(({ metric, weight_by_size: bySize, filter_list: filters }) => ({
    metric,
    filters: filters === undefined || filters === null ? null : typeof filters === "string" ? [filters] : filters,
    weightBySize: bySize ?? true,
  }));
}
