/** A study as small as one can be, with real text files and a real tokenizer, and what tests ask of its result. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { at, entryOf } from "../../src/base/at.js";
import { UpcycleError } from "../../src/base/errors.js";
import { resultOf } from "../../src/base/events.js";
import { randomStream } from "../../src/base/random.js";
import { parseStudyConfig, type StudyConfig } from "../../src/base/schemas/index.js";
import type { StudyResult } from "../../src/model/results/result.js";
import { runStudy, type StudyEvent } from "../../src/study/run.js";
import { inThread } from "../support/backend.js";
import { temporaryFolder } from "../files/io/temporary.js";

const vocabulary =
  "the a whale ship sea of in and union state people year congress captain white great night wind every war peace law";
/** Words of the text. */
export const words = vocabulary.split(" ");

/** Sixty documents of sentences that repeat enough for a small model to learn something. */
function writeCorpus(file: string): void {
  const stream = randomStream(2, "corpus");
  let index = 0;
  const word = (): string => at(words, Math.floor(stream.uniformAt(index++) ** 2 * words.length));
  const sentence = (): string => `${Array.from({ length: 8 }, word).join(" ")}.`;
  const lines = Array.from({ length: 60 }, () =>
    JSON.stringify({ text: Array.from({ length: 6 }, sentence).join(" ") }),
  );
  writeFileSync(file, `${lines.join("\n")}\n`);
}

/** Settings of a training of so many steps. */
export const training = (steps: number): string =>
  `{steps: ${steps}, batch: 4, sequence: 16, lr: {peak: 1e-2, schedule: cosine, warmup: 2, final: 0.1}, ` +
  "evalEvery: 3, saveEvery: 4}";

/** The file of a study on a text. */
const yamlOf = (corpus: string, changes: string): string => `
name: tiny
seeds: [0, 7]
text: {files: [${JSON.stringify(corpus)}], heldOut: 0.1}
tokenizer: {vocab: 300}
model: {hidden: 16, layers: 2, heads: 2, kvHeads: 1, inner: 32, maxPositions: 64}
pretrain: ${training(12)}
continue: ${training(6)}
evaluation: {tokens: 200}
arms:
  dense: {kind: dense}
  coarse: {kind: upcycled, recipe: E4G1T2, label: whole copies}
  fine: {kind: upcycled, recipe: E4G4T4, routerStd: 1}
  soft: {kind: upcycled, recipe: E4G2T4, router: softmax-topk, routerStd: 0}
  scratch: {kind: scratch, like: coarse}
${changes}`;

/** Where a study runs, and what is not as usual. */
export interface RunOptions {
  readonly config?: StudyConfig;
  readonly dir: string;
  readonly store?: string;
  readonly jobs?: number;
  readonly only?: readonly string[];
  readonly signal?: AbortSignal;
}

/** The study of one test file, in a temporary folder. */
export interface SmallStudy {
  readonly root: string;
  /** The file of its text. */
  readonly corpus: string;
  /** Its file, with lines added at the end. */
  readonly yaml: (changes?: string) => string;
  readonly config: (text?: string) => StudyConfig;
  readonly run: (options: RunOptions, onEvent?: (event: StudyEvent) => void) => Promise<StudyResult>;
}

/** Makes the study of a test file; to be called once, outside of its tests. */
export function smallStudy(): SmallStudy {
  const root = temporaryFolder();
  const corpus = join(root, "corpus.jsonl");
  writeCorpus(corpus);
  const yaml = (changes = ""): string => yamlOf(corpus, changes);
  const config = (text = yaml()): StudyConfig => parseStudyConfig(text, "study.yaml");
  return {
    root,
    corpus,
    yaml,
    config,
    run({ config: study = config(), signal, ...place }, onEvent) {
      const command = "upcycle study tiny.yaml";
      const options = { config: study, ...place, backends: [inThread], threads: 1, command, signal } as const;
      return resultOf(runStudy(options), onEvent);
    },
  };
}

/** The error that a study ends with. */
export async function failure(promise: Promise<unknown>): Promise<UpcycleError> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  if (!(error instanceof UpcycleError)) throw new Error(`expected an UpcycleError, got ${String(error)}`);
  return error;
}

/** For values that a test has to have: throws, so that the test fails. */
export function fail(): never {
  throw new Error("there is no such value");
}

/** A result without what depends on the clock and the machine. Findings are words about the same numbers. */
export function timeless(result: StudyResult): unknown {
  return {
    ...result,
    startedAt: null,
    seconds: null,
    environment: null,
    findings: result.findings.filter((sentence) => !/token.*s\b|memory|GB|MB/i.test(sentence)),
    arms: result.arms.map((arm) => ({
      ...arm,
      runs: arm.runs.map((one) => ({ ...one, tokensPerSecond: null, peakRssBytes: null })),
    })),
  };
}

type ArmResult = StudyResult["arms"][number];

/** The first parent. */
export const mainParent = ({ parents }: StudyResult): StudyResult["parents"][number] => at(parents, 0);
/** The arm of an id. */
export const armOf = ({ arms }: StudyResult, id: string): ArmResult =>
  entryOf(new Map(arms.map((one) => [one.id, one])), id);
/** An arm's run with the first seed. */
export const firstRun = ({ runs }: ArmResult): ArmResult["runs"][number] => at(runs, 0);
/** What was measured at the end of a training. */
export const lastPoint = ({
  points,
}: {
  readonly points: ArmResult["runs"][number]["points"];
}): (typeof points)[number] => at(points, points.length - 1);
