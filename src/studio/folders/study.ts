/**
 * A study as its report shows it, from the folders of its runs: finished, under way or stopped. What its runs have
 * measured is read by the functions that `upcycle study` writes its result with.
 */
import { relative, resolve, sep } from "node:path";
import { UpcycleError, inputError } from "../../base/errors.js";
import { shellWord } from "../../base/shell.js";
import { expandStudy } from "../../base/schemas/study.js";
import type { TrainingBlock } from "../../base/schemas/training.js";
import { trainFlopsPerToken } from "../../model/cost/flops.js";
import { countParams } from "../../model/cost/params.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { ArmResult, ArmRun, ParentResult, Preservation, StudyResult } from "../../model/results/result.js";
import type { ReportBody } from "../../report/page/shell.js";
import { findings } from "../../report/study/findings.js";
import { studyBody } from "../../report/study/html.js";
import { questionResults } from "../../report/study/question-pairs.js";
import type { RunUnderWay, ShownStudy, StudyProgress } from "../../report/study/shown.js";
import { lossAt } from "../../report/study/statistics.js";
import { plural } from "../../report/study/wording.js";
import { measured, pointsOf, shortLog, type MeasuredLog } from "../../study/measured.js";
import { parentShape } from "../../study/parent.js";
import { planArms, tokensOf } from "../../study/plan.js";
import type { StudyRequest } from "../../study/types.js";
import { readMetrics } from "../../train/records.js";
import type { RunIdentity } from "../../train/run-list.js";
import { commandOf } from "./detail.js";
import { orNull } from "./report-body.js";
import type { StudioIndex } from "./index.js";
import type { RunEntry } from "./run-entry.js";
import { readPlainJson } from "./safe-file.js";

/** Largest file of a study that is read. */
const mostBytes = 64e6;

/** A run with what its record says. */
interface KnownRun {
  readonly entry: RunEntry;
  readonly identity: RunIdentity;
}

/** And with what its log says. */
interface ReadRun extends KnownRun {
  readonly metrics: MeasuredLog;
}

/** What is known of an arm before its runs. */
type ArmFacts = Omit<ArmResult, "runs"> & { readonly training: TrainingBlock | null };

/** What was read of something at a revision of a run. */
interface AtRevision<T> {
  readonly revision: number;
  readonly value: T;
}

/**
 * Records and logs as they were read at a revision, so that a study that is looked at again reads only those of runs
 * that have gone on. What is kept of a run goes with it.
 */
export class StudyReader {
  readonly #identities = new WeakMap<RunEntry, AtRevision<RunIdentity>>();
  readonly #logs = new WeakMap<RunEntry, AtRevision<MeasuredLog>>();

  constructor(private readonly index: StudioIndex) {}

  /** A study; null for a name that is none. Throws inputError where nothing can be shown of it yet, saying why. */
  async study(name: string): Promise<ShownStudy | null> {
    if (!this.index.found.studies.includes(name)) return null;
    const record = (await this.#json(name, "study.json")) as {
      readonly config?: StudyRequest;
      readonly startedAt?: string;
      readonly seconds?: number;
      readonly finished?: string;
    } | null;
    const store = await this.#store(name);
    const places = store === null ? [name] : [name, store];
    const isRunning = this.#entries(places).some(({ row }) => row.state === "running");
    const result = (await this.#json(name, "result.json")) as StudyResult | null;
    if (result?.version === 2 && Array.isArray(result.arms) && !isRunning) {
      const finished = orNull(() => ({ ...result, findings: findings(result) }));
      if (finished === null) throw damaged(name);
      return finished;
    }
    if (record?.config === undefined) throw inputError("study.json cannot be read", { where: name });
    const config = record.config;
    const known = await this.#known(places);
    const arms = await this.#arms(name, config, known);
    if (arms.length === 0) throw inputError("no run of the study has begun", { where: name });
    const { startedAt = "", seconds = 0 } = record;
    const runs = await each(known, async (run) => {
      const metrics = await this.#kept(this.#logs, run.entry, async ({ path }) => shortLog(await readMetrics(path)));
      return metrics && { ...run, metrics };
    });
    return this.#underWay(name, { config, arms, runs, store, startedAt, seconds });
  }

  /**
   * The runs of a study's arms where it shares a folder of runs with others; null for a study that keeps its own, and
   * where nothing can be said of its arms yet.
   */
  async sharedRuns(name: string): Promise<readonly RunEntry[] | null> {
    const store = await this.#store(name);
    if (store === null) return null;
    const record = (await this.#json(name, "study.json")) as { readonly config?: StudyRequest } | null;
    if (record?.config === undefined) return null;
    const runs = await this.#known([name, store]);
    const arms = await this.#arms(name, record.config, runs);
    return arms.flatMap((arm) => [...runsOfArm(name, arm, runs).values()].map(({ entry }) => entry));
  }

  /** The folder that a study shares its runs in with others, by its command, where it lies below the one shown. */
  async #store(name: string): Promise<string | null> {
    const command = await commandOf(this.index, name);
    const words = command?.words ?? [];
    const at = words.indexOf("--store");
    const given = at < 0 ? words.find((word) => word.startsWith("--store="))?.slice("--store=".length) : words[at + 1];
    if (command === null || given === undefined) return null;
    const below = relative(this.index.root, resolve(command.folder, given)).split(sep).join("/");
    return below.startsWith("..") || below === name ? null : below;
  }

  #json(name: string, file: string): Promise<unknown> {
    return readPlainJson(this.index.pathOf(name === "" ? file : `${name}/${file}`), mostBytes);
  }

  /** The runs in the folders of a study. */
  #entries(places: readonly string[]): RunEntry[] {
    return this.index.rows
      .filter(({ study, state }) => study !== null && places.includes(study) && state !== "unreadable")
      .flatMap((row) => this.index.run(row.name) ?? []);
  }

  /** Those whose records can be read. */
  #known(places: readonly string[]): Promise<KnownRun[]> {
    return each(this.#entries(places), async (entry) => {
      const identity = await this.#kept(this.#identities, entry, (one) => one.identity());
      return identity && { entry, identity };
    });
  }

  /** What was read of a run, read again where it has gone on; null for what cannot be read, and never could. */
  async #kept<T>(
    kept: WeakMap<RunEntry, AtRevision<T>>,
    entry: RunEntry,
    read: (entry: RunEntry) => Promise<T>,
  ): Promise<T | null> {
    const { revision } = entry.row;
    const before = kept.get(entry);
    if (before?.revision === revision) return before.value;
    try {
      const value = await read(entry);
      kept.set(entry, { revision, value });
      return value;
    } catch (cause) {
      // A line that is being written is read at the next look.
      if (!(cause instanceof UpcycleError)) throw cause;
      return before?.value ?? null;
    }
  }

  /** The arms by the study's file; by its runs alone where the file cannot be resolved any more. */
  async #arms(name: string, config: StudyRequest, runs: readonly KnownRun[]): Promise<ArmFacts[]> {
    const prefixes = [name, ...runs.flatMap(({ entry }) => entry.row.study ?? [])];
    try {
      const shapes = new Map<string, DecoderSpec>();
      for (const parent of expandStudy(config).parents) {
        const own = runs.find(({ entry }) => prefixes.some((one) => parentOf(one, entry.name) === parent.id));
        shapes.set(parent.id, own?.identity.spec ?? (await parentShape(config, parent)));
      }
      const planned = planArms(config, shapes).map(({ recipeName, ...arm }) => ({ ...arm, recipe: recipeName }));
      return planned.length === 0 ? armsOfRuns(runs) : planned;
    } catch (cause) {
      if (!(cause instanceof UpcycleError) && !(cause instanceof TypeError)) throw cause;
      return armsOfRuns(runs);
    }
  }

  async #underWay(
    name: string,
    study: {
      readonly config: StudyRequest;
      readonly arms: readonly ArmFacts[];
      readonly runs: readonly ReadRun[];
      readonly store: string | null;
      readonly startedAt: string;
      readonly seconds: number;
    },
  ): Promise<ShownStudy> {
    const { config, arms, runs, store } = study;
    const seeds = config.seeds ?? [...new Set(runs.map(({ entry }) => entry.row.seed))].sort((a, b) => a - b);
    const ofArms = await this.#armRuns(name, arms, runs, store);
    const finished = ofArms.filter(({ isFinished }) => isFinished);
    const isEarly = new Set(finished.map(({ arm }) => arm)).size < Math.min(2, arms.length);
    const begun = ofArms.filter(({ run }) => run.points.length > 1);
    const compared = isEarly ? begun : finished;
    const ends = compared.flatMap(({ run }) => run.points.at(-1)?.tokens ?? []);
    const tokens = ends.length === 0 ? null : Math.min(...ends);
    const results = arms.map((arm): ArmResult => {
      const own = compared.filter((one) => one.arm === arm.id);
      return {
        ...arm,
        runs: own.map(({ run }) => ({
          ...run,
          finalLoss: (tokens === null ? null : lossAt(run.points, "tokens", tokens)) ?? NaN,
        })),
      };
    });
    const progress: StudyProgress = {
      finished: finished.length,
      runs: arms.length * seeds.length,
      tokens,
      isEarly: isEarly && compared.length > 0,
      underWay: ofArms.filter((one) => !one.isFinished && !compared.includes(one)).map(runUnderWay),
      missing: missingWords(arms, seeds, ofArms),
    };
    const command = await commandOf(this.index, name);
    const measurements = {
      version: 2 as const,
      name: config.name ?? name,
      startedAt: study.startedAt,
      seconds: study.seconds,
      parents: parentResults(name, config, runs, results),
      arms: results,
      questions: questionResults(config.questions ?? [], results),
      commands: command === null ? [] : [command.words.map(shellWord).join(" ")],
      seeds,
      progress,
    };
    // Nothing is said of arms that have nothing to be compared yet: the list of what is missing has them.
    const begunArms = results.filter((arm) => arm.runs.length > 0);
    const found = findings({ ...measurements, arms: begunArms });
    return { ...measurements, findings: begunArms.length === 0 ? ["Nothing is measured yet."] : found };
  }

  async #armRuns(
    name: string,
    arms: readonly ArmFacts[],
    runs: readonly ReadRun[],
    store: string | null,
  ): Promise<MeasuredRun[]> {
    const found: MeasuredRun[] = [];
    for (const arm of arms) {
      for (const [seed, { entry, metrics, identity }] of runsOfArm(name, arm, runs)) {
        const training = identity.config["training"] as TrainingBlock;
        const own = measured(metrics, { training, flopsPerToken: arm.flopsPerToken });
        const path = below(name, entry.name);
        const preservation = await this.#preserved([name, ...(store === null ? [] : [store])], arm, seed);
        found.push({
          arm: arm.id,
          isFinished: metrics.done !== null,
          step: entry.row.step,
          steps: entry.row.steps,
          run: { seed, path, preservation, ...own, finalLoss: NaN },
        });
      }
    }
    return found;
  }

  /** What was measured of the model that an arm's runs of a seed start from; null where none is there. */
  async #preserved(places: readonly string[], { recipe, kind }: ArmFacts, seed: number): Promise<Preservation | null> {
    if (recipe === null || kind !== "upcycled") return null;
    const beginnings = places.map((name) => `${name === "" ? "" : `${name}/`}starts/${recipe}-seed-${seed}-`);
    const file = this.index.found.documents.find((one) => beginnings.some((beginning) => one.startsWith(beginning)));
    const found = file === undefined ? null : await readPlainJson(this.index.pathOf(file), 1e6);
    const one = found as Partial<Preservation> | null;
    return typeof one?.maxAbsLogit === "number" && typeof one.parentLoss === "number" ? (one as Preservation) : null;
  }
}

/** What each comes to, one after the other, without those of which there is nothing. */
async function each<T, R>(list: readonly T[], read: (one: T) => Promise<R | null>): Promise<R[]> {
  const found: R[] = [];
  for (const one of list) {
    const value = await read(one);
    if (value !== null) found.push(value);
  }
  return found;
}

/** A result that was written by another program, or was cut and mended. */
const damaged = (name: string): UpcycleError =>
  inputError("result.json lacks what a study's result has", {
    where: name,
    hint: "give the study's command again: it writes the result anew",
  });

/** The sections of a study. Throws inputError for one whose result is damaged. */
export function studySections(name: string, study: ShownStudy): ReportBody {
  const body = orNull(() => studyBody(study));
  if (body === null) throw damaged(name);
  return body;
}

/** The runs of an arm by seed. */
function runsOfArm<Run extends KnownRun>(name: string, arm: ArmFacts, runs: readonly Run[]): ReadonlyMap<number, Run> {
  const bySeed = new Map<number, Run>();
  for (const run of runs) {
    const { row } = run.entry;
    if (row.arm !== arm.id && row.arm !== arm.arm) continue;
    // A store has the runs of other studies too, whose arms may have the same names.
    if (row.study !== name && !isTrainedAs(run, arm.training)) continue;
    // A setting that was changed leaves the runs of the old one behind.
    if (row.changed >= (bySeed.get(row.seed)?.entry.row.changed ?? -Infinity)) bySeed.set(row.seed, run);
  }
  return bySeed;
}

interface MeasuredRun {
  readonly arm: string;
  readonly isFinished: boolean;
  readonly step: number;
  readonly steps: number;
  readonly run: ArmRun;
}

/** Settings of a training that change none of its numbers. */
const uncounted: readonly string[] = ["saveEvery", "recompute"];

/** Whether a run has the training of an arm. */
function isTrainedAs({ identity }: KnownRun, training: TrainingBlock | null): boolean {
  const own = identity.config["training"] as Readonly<Record<string, unknown>>;
  return Object.entries(training ?? {}).every(
    ([key, value]) => uncounted.includes(key) || JSON.stringify(own[key]) === JSON.stringify(value),
  );
}

/** The id of the parent that a run of a study has trained; null for a run of an arm. */
function parentOf(study: string, run: string): string | null {
  const prefix = study === "" ? "parents/" : `${study}/parents/`;
  return run.startsWith(prefix) ? (/^(.+)-[0-9a-f]+$/.exec(run.slice(prefix.length))?.[1] ?? null) : null;
}

/** The folder of a run seen from its study's; as it is shown where it lies elsewhere. */
const below = (study: string, run: string): string => (run.startsWith(`${study}/`) ? run.slice(study.length + 1) : run);

/** Arms by what their runs' records say, in the order in which their folders are named. */
function armsOfRuns(runs: readonly KnownRun[]): ArmFacts[] {
  const arms = new Map<string, ArmFacts>();
  for (const { entry, identity } of runs) {
    const { arm } = entry.row;
    if (arm.startsWith("parent ") || arms.has(arm)) continue;
    const kinds = ["dense", "upcycled", "scratch", "multiplied"] as const;
    const kind = kinds.find((one) => one === identity.config["kind"]);
    const training = identity.config["training"] as TrainingBlock;
    arms.set(arm, {
      id: arm,
      arm,
      parent: "parent",
      label: arm,
      kind: kind ?? (identity.kind === "dense" ? "dense" : "upcycled"),
      recipe: null,
      router: null,
      params: countParams(identity.spec),
      flopsPerToken: trainFlopsPerToken(identity.spec, training.sequence),
      training,
    });
  }
  return [...arms.values()];
}

/** The parents: those that were trained by their logs, others by the arms that began as them. */
function parentResults(
  name: string,
  config: StudyRequest,
  runs: readonly ReadRun[],
  arms: readonly ArmResult[],
): ParentResult[] {
  const ids = [...new Set(arms.map(({ parent }) => parent))];
  return ids.map((id): ParentResult => {
    const own = runs.find(({ entry }) =>
      [name, entry.row.study ?? name].some((one) => parentOf(one, entry.name) === id),
    );
    if (own !== undefined) {
      const training = own.identity.config["training"] as TrainingBlock;
      const points = pointsOf(own.metrics, trainFlopsPerToken(own.identity.spec, training.sequence));
      const { total, active } = countParams(own.identity.spec);
      const path = below(name, own.entry.name);
      const label = ids.length === 1 ? "dense parent, trained here" : `${id}, trained here`;
      const loss = points.at(-1)?.loss ?? NaN;
      return { id, label, path, tokens: tokensOf(training), params: { total, active }, loss, points };
    }
    // An arm that continues the parent, or keeps its function, has the parent's loss before its first step.
    const dense = arms.find(({ kind, parent }) => kind === "dense" && parent === id);
    const kept = arms.flatMap((arm) => arm.runs.flatMap(({ preservation }) => preservation?.parentLoss ?? []))[0];
    const loss = dense?.runs[0]?.points[0]?.loss ?? kept ?? NaN;
    const params = dense?.params ?? { total: NaN, active: NaN };
    const given = typeof config.parent === "string" ? config.parent : id;
    return { id, label: given, path: given, tokens: null, params, loss, points: [] };
  });
}

function runUnderWay({ arm, run: { seed, points }, step, steps }: MeasuredRun): RunUnderWay {
  return {
    arm,
    seed,
    step,
    steps,
    tokens: points.map(({ tokens }) => tokens),
    flops: points.map(({ flops }) => flops),
    losses: points.map(({ loss }) => loss),
  };
}

/** Which runs have not begun, and how far those are that have not ended. */
function missingWords(arms: readonly ArmFacts[], seeds: readonly number[], runs: readonly MeasuredRun[]): string[] {
  return arms.flatMap(({ id, label }) => {
    const own = runs.filter(({ arm }) => arm === id);
    const open = own
      .filter(({ isFinished }) => !isFinished)
      .map(({ run, step, steps }) => `seed ${run.seed} is at step ${step} of ${steps}`);
    const absent = seeds.filter((seed) => own.every(({ run }) => run.seed !== seed));
    const words = [
      ...open,
      ...(absent.length === 0 ? [] : [`${plural(absent.length, "seed")} not begun (${absent.join(", ")})`]),
    ];
    return words.length === 0 ? [] : [`${label}: ${words.join("; ")}.`];
  });
}
