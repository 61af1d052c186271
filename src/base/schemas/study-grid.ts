/**
 * A study file as a list: every parent and every arm that its blocks, changes and grids stand for, each with all of
 * its settings. Pure; the study's schema refuses what comes out as a problem here.
 */
import type { ModelConfig, TokenizerConfig } from "./blocks.js";
import { changesAt, isBlock, merged, type Block } from "./changes.js";
import type { StudyArm, StudyConfig } from "./study-blocks.js";
import type { TrainingBlock } from "./training.js";

/** A parent: a model of the user's, or one that the study trains. */
export type StudyParent<Source> = {
  /** Name in the file; `parent` where the file has one parent only. */
  readonly id: string;
} & (
  | { readonly kind: "given"; readonly source: Source }
  | {
      readonly kind: "trained";
      readonly model: ModelConfig;
      readonly tokenizer: TokenizerConfig;
      readonly pretrain: TrainingBlock;
      readonly seed: number;
    }
);

/** An arm with its training. */
export interface ExpandedArm {
  /** Name in the file, with the values that a grid has given it behind it. */
  readonly id: string;
  /** Name of the arm in the file. */
  readonly group: string;
  readonly arm: StudyArm;
  /** What a grid has set, in words such as `peak 0.001`; empty without one, and where the arm's name says it. */
  readonly setting: string;
  /** The training of the arm; of an arm with `match`, its length is not known yet. */
  readonly training: TrainingBlock;
  /** Parents that the arm starts from. */
  readonly parents: readonly string[];
}

/** Something that is wrong with a value that a grid, or a change, gives rise to. */
export interface GridProblem {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** What a study file stands for. */
export interface ExpandedStudy<Source> {
  readonly parents: readonly StudyParent<Source>[];
  readonly arms: readonly ExpandedArm[];
  readonly problems: readonly GridProblem[];
}

/** A study file, in which a parent's folder may have become something else than its name. */
export type GridConfig<Source> = Omit<StudyConfig, "parent" | "parents"> & {
  readonly parent?: Source | undefined;
  readonly parents?: Readonly<Record<string, ParentEntry<Source>>> | undefined;
};

/** An entry of `parents`. */
export interface ParentEntry<Source> {
  readonly path?: Source | undefined;
  readonly model?: Block | undefined;
  readonly tokenizer?: Block | undefined;
  readonly pretrain?: Block | undefined;
  readonly seed?: number | undefined;
  readonly vary?: Vary | undefined;
}

/** A grid (every value of each key with every value of the others), or a list of settings. */
export type Vary = Readonly<Record<string, readonly unknown[]>> | readonly Block[];

/** Checks data of one kind: the block with its defaults, or what is wrong with it. */
export type Check<T> = (
  data: unknown,
) =>
  | { readonly value: T }
  | { readonly issues: readonly { readonly path: readonly PropertyKey[]; readonly message: string }[] };

/** The checks that merged blocks have to pass; the schemas give them. */
export interface GridChecks {
  readonly training: Check<TrainingBlock>;
  readonly model: Check<ModelConfig>;
  readonly tokenizer: Check<TokenizerConfig>;
  readonly arm: Check<StudyArm>;
}

/** The id of the one parent of a file that names no several. */
export const onlyParent = "parent";

/** Everything that a study file stands for. */
export function expandWith<Source>(config: GridConfig<Source>, checks: GridChecks): ExpandedStudy<Source> {
  const problems: GridProblem[] = [];
  const scaled = scaledStudy(config);
  const parents = expandParents(scaled, config, checks, problems);
  return { parents, arms: expandArms(scaled, config, parents, checks, problems), problems };
}

/** Names of an entry's settings: by the values in the file, which questions name, whatever the scale makes of them. */
const idsOf = (name: string, vary: Vary | undefined): readonly string[] =>
  settingsOf(vary).map((setting) => idOf(name, setting));

/** One setting of a grid or list: what it changes, and its name. */
interface Setting {
  readonly changes: Block;
  readonly values: readonly { readonly path: string; readonly value: unknown }[];
  readonly name: string | null;
  /** Where in the file it stands, behind the entry's own path. */
  readonly path: readonly PropertyKey[];
}

const unvaried: Setting = { changes: {}, values: [], name: null, path: [] };

/** All settings of a grid or list; one that changes nothing where there is none. */
function settingsOf(vary: Vary | undefined): readonly Setting[] {
  if (vary === undefined) return [unvaried];
  if (isList(vary)) {
    return vary.map((entry, index) => {
      const { name, ...rest } = entry;
      const values = Object.entries(rest).map(([path, value]) => ({ path, value }));
      return { ...settingOf(values, ["vary", index]), name: typeof name === "string" ? name : null };
    });
  }
  let rows: { path: string; value: unknown }[][] = [[]];
  for (const [path, values] of Object.entries(vary))
    rows = rows.flatMap((row) => values.map((value) => [...row, { path, value }]));
  return rows.map((values) => settingOf(values, ["vary"]));
}

const isList = (vary: Vary): vary is readonly Block[] => Array.isArray(vary);

function settingOf(values: Setting["values"], path: Setting["path"]): Setting {
  const changes = values.reduce<Block>((all, { path: key, value }) => merged(all, changesAt(key, value)), {});
  return { changes, values, name: null, path };
}

/** `base-0.001-e8g1t2`: the entry's name with the values of its setting. */
function idOf(name: string, { values, name: own }: Setting): string {
  if (own !== null) return `${name}-${own}`;
  return [name, ...values.map(({ value }) => slug(value))].join("-");
}

function slug(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text
    .toLowerCase()
    .replace(/[^a-z0-9.]+/g, "-")
    .replace(/^[-.]+|[-.]+$/g, "");
}

/** `peak 0.001, batch 8`: a setting in words. The recipe is left out where the arm is called by it. */
function wordsOf({ values, name }: Setting, isCalledByRecipe: boolean): string {
  if (name !== null) return name;
  const shown = values.filter(({ path }) => path !== "recipe" || !isCalledByRecipe);
  return shown
    .map(({ path, value }) => {
      const last = path.split(".").at(-1) ?? path;
      const isUnique = shown.filter((other) => other.path.split(".").at(-1) === last).length === 1;
      return `${isUnique ? last : path} ${shownValue(value)}`;
    })
    .join(", ");
}

/** A scaled number has more digits than anybody reads. */
function shownValue(value: unknown): string {
  if (typeof value === "number") return String(Number(value.toPrecision(4)));
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Notes what a check has found at `path`; the checked value, or null. */
function checked<T>(
  check: Check<T>,
  data: unknown,
  place: { readonly path: readonly PropertyKey[]; readonly what: string; readonly scale?: number },
  problems: GridProblem[],
): T | null {
  const result = check(data);
  if ("value" in result) return result.value;
  for (const { path, message } of result.issues) {
    const key = [...(place.what === "" ? [] : [place.what]), ...path.map(String)].join(".");
    const said = fractionWords(valueAt(data, path), place.scale) ?? message;
    problems.push({ path: place.path, message: key === "" ? said : `${key}: ${said}` });
  }
  return null;
}

/** What is within nested blocks at a path; undefined where they end before. */
const valueAt = (data: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>((within, key) => (isBlock(within) ? within[String(key)] : undefined), data);

/** Says that a size is none at this scale; null for anything else. */
function fractionWords(value: unknown, scale = 1): string | null {
  if (scale === 1 || typeof value !== "number" || Number.isInteger(value)) return null;
  return `${shownValue(value)} at scale ${scale}, expected a whole number; choose a scale that keeps sizes whole`;
}

function expandParents<Source>(
  config: GridConfig<Source>,
  named: GridConfig<Source>,
  checks: GridChecks,
  problems: GridProblem[],
): StudyParent<Source>[] {
  const { parent, model, tokenizer, pretrain, parents, seeds } = config;
  const firstSeed = seeds[0] ?? 0;
  if (parents === undefined) {
    if (parent !== undefined) return [{ id: onlyParent, kind: "given", source: parent }];
    // The schema tells what is missing.
    if (model === undefined || tokenizer === undefined || pretrain === undefined) return [];
    const place = { path: ["model"], what: "", scale: config.scale };
    // At another scale sizes may no longer fit together.
    const scaled = checked(checks.model, model, place, problems);
    return scaled === null
      ? []
      : [{ id: onlyParent, kind: "trained", model: scaled, tokenizer, pretrain, seed: firstSeed }];
  }
  return Object.entries(parents).flatMap(([name, { vary, path, ...entry }]) => {
    if (path !== undefined) return [{ id: name, kind: "given" as const, source: path }];
    const ids = idsOf(name, named.parents?.[name]?.vary);
    return settingsOf(vary).flatMap((setting, index): StudyParent<Source>[] => {
      const own = merged(entry, setting.changes);
      const place = ["parents", name, ...setting.path];
      const unknown = Object.keys(setting.changes).filter((key) => !parentKeys.includes(key));
      for (const key of unknown)
        problems.push({ path: place, message: `${key} is no part of a parent; one of ${parentKeys.join(", ")}` });
      const block = <T>(key: "model" | "tokenizer" | "pretrain", base: unknown, check: Check<T>): T | null =>
        checked(
          check,
          merged((base ?? {}) as Block, (own[key] ?? {}) as Block),
          { path: place, what: key, scale: config.scale },
          problems,
        );
      const parts = {
        model: block("model", model, checks.model),
        tokenizer: block("tokenizer", tokenizer, checks.tokenizer),
        pretrain: block("pretrain", pretrain, checks.training),
      };
      const { seed = firstSeed } = own;
      if (parts.model === null || parts.tokenizer === null || parts.pretrain === null) return [];
      return [
        {
          id: ids[index] ?? idOf(name, setting),
          kind: "trained",
          model: parts.model,
          tokenizer: parts.tokenizer,
          pretrain: parts.pretrain,
          seed: Number(seed),
        },
      ];
    });
  });
}

/** Keys of a parent that is trained here. */
const parentKeys: readonly string[] = ["model", "tokenizer", "pretrain", "seed"];

function expandArms<Source>(
  config: GridConfig<Source>,
  named: GridConfig<Source>,
  parents: readonly StudyParent<Source>[],
  checks: GridChecks,
  problems: GridProblem[],
): ExpandedArm[] {
  const names = parentNames(named, parents);
  return Object.entries(config.arms).flatMap(([group, entry]) => {
    const ids = idsOf(group, named.arms[group]?.vary);
    return settingsOf(entry.vary).flatMap((setting, index): ExpandedArm[] => {
      const path = ["arms", group, ...setting.path];
      const arm =
        entry.vary === undefined
          ? entry
          : checked(checks.arm, merged({ ...entry, vary: undefined }, setting.changes), { path, what: "" }, problems);
      if (arm === null) return [];
      const changed = arm.continue === undefined ? config.continue : merged(config.continue, arm.continue);
      const place = { path: arm.continue === undefined ? path : [...path, "continue"], what: "" };
      const training =
        arm.continue === undefined ? config.continue : checked(checks.training, changed, place, problems);
      if (training === null) return [];
      const from = (arm.parents ?? [...names.keys()]).flatMap((name) => names.get(name) ?? []);
      return [
        {
          id: ids[index] ?? idOf(group, setting),
          group,
          arm,
          setting: wordsOf(setting, arm.label === undefined),
          training,
          parents: from,
        },
      ];
    });
  });
}

/** Ids of the parents that each name in the file stands for: those of its grid. */
export function parentNames<Source>(
  { parents: entries }: Pick<GridConfig<Source>, "parents">,
  parents: readonly Pick<StudyParent<Source>, "id">[],
): ReadonlyMap<string, readonly string[]> {
  if (entries === undefined) return new Map(parents.map(({ id }) => [id, [id]]));
  return new Map(
    Object.entries(entries).map(([name, { vary }]) => {
      const ids = idsOf(name, vary);
      return [name, parents.filter(({ id }) => ids.includes(id)).map(({ id }) => id)];
    }),
  );
}

/**
 * The study enlarged by its one number s. Width (hidden size, FFN size, heads; a head keeps its size) grows with s, and
 * so do batch and steps, so that parameters outside of the embedding and tokens both grow with s^2. Learning rates and
 * first weights shrink with the square root of s: 1 / width for AdamW, times the square root of the batch.
 */
function scaledStudy<Source>(config: GridConfig<Source>): GridConfig<Source> {
  const { scale, model, pretrain, continue: further, arms, parents } = config;
  if (scale === 1) return config;
  return {
    ...config,
    model: model === undefined ? undefined : (scaledModel(model, scale) as ModelConfig),
    pretrain: pretrain === undefined ? undefined : (scaledTraining(pretrain, scale) as TrainingBlock),
    continue: scaledTraining(further, scale) as TrainingBlock,
    arms: Object.fromEntries(Object.entries(arms).map(([id, arm]) => [id, scaledArm(arm, scale)])),
    parents:
      parents &&
      Object.fromEntries(
        Object.entries(parents).map(([id, entry]) => [
          id,
          {
            ...entry,
            model: entry.model && scaledModel(entry.model, scale),
            pretrain: entry.pretrain && scaledTraining(entry.pretrain, scale),
            vary: scaledVary(entry.vary, scale),
          },
        ]),
      ),
  };
}

type Factors = Readonly<Record<string, (value: number, scale: number) => number>>;
/** Sizes: those that do not stay whole numbers are refused by the block's own schema. */
const times = (value: number, scale: number): number => value * scale;
/** Counts of steps and sequences. */
const rounded = (value: number, scale: number): number => (value === 0 ? 0 : Math.max(1, Math.round(value * scale)));
const overRoot = (value: number, scale: number): number => value / Math.sqrt(scale);

const modelFactors: Factors = { hidden: times, inner: times, heads: times, kvHeads: times, initStd: overRoot };
const trainingFactors: Factors = {
  steps: rounded,
  batch: rounded,
  evalEvery: rounded,
  saveEvery: rounded,
  "lr.peak": overRoot,
  "lr.warmup": rounded,
  "lr.decay": rounded,
  "lr.steps": rounded,
};

/** A block whose numbers at the paths of `factors` are scaled; those that are left out stay so. */
function scaledBlock(block: Block, factors: Factors, scale: number, within = ""): Block {
  return Object.fromEntries(
    Object.entries(block).map(([key, value]) => {
      const path = within === "" ? key : `${within}.${key}`;
      if (isBlock(value)) return [key, scaledBlock(value, factors, scale, path)];
      const factor = factors[path];
      return [key, factor === undefined || typeof value !== "number" ? value : factor(value, scale)];
    }),
  );
}

const scaledModel = (model: Block, scale: number): Block => scaledBlock(model, modelFactors, scale);
const scaledTraining = (block: Block, scale: number): Block => scaledBlock(block, trainingFactors, scale);

const varyFactors: Factors = {
  shared: times,
  ...Object.fromEntries(Object.entries(modelFactors).map(([key, factor]) => [`model.${key}`, factor])),
  ...Object.fromEntries(
    Object.entries(trainingFactors).flatMap(([key, factor]) => [
      [`pretrain.${key}`, factor],
      [`continue.${key}`, factor],
    ]),
  ),
};

function scaledVary(vary: Vary | undefined, scale: number): Vary | undefined {
  const value = (path: string, one: unknown): unknown =>
    typeof one === "number" ? (varyFactors[path]?.(one, scale) ?? one) : one;
  if (vary === undefined) return undefined;
  if (isList(vary))
    return vary.map((entry) =>
      Object.fromEntries(Object.entries(entry).map(([path, one]) => [path, value(path, one)])),
    );
  return Object.fromEntries(Object.entries(vary).map(([path, ones]) => [path, ones.map((one) => value(path, one))]));
}

function scaledArm(arm: StudyArm, scale: number): StudyArm {
  const shared = arm.kind === "upcycled" && arm.shared !== undefined ? { shared: arm.shared * scale } : {};
  return {
    ...arm,
    ...shared,
    continue: arm.continue && scaledTraining(arm.continue, scale),
    vary: scaledVary(arm.vary, scale),
  } as StudyArm;
}
