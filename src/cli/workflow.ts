/**
 * What `convert`, `merge` and `convert --expert-multiply` share: refusals before anything slow starts, the workflow,
 * and how its result is shown.
 */
import { stat } from "node:fs/promises";
import { inputError } from "../base/errors.js";
import { resultOf } from "../base/events.js";
import { duration, folded, percent } from "../base/format.js";
import { foldersOf, type ModelSource } from "../files/checkpoint/model-source.js";
import type { WriteDtype } from "../files/checkpoint/write.js";
import { isHubReference } from "../files/hub/reference.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { dtypeNames as dtypeWords } from "../surgery/convert/card.js";
import { damageWords, type Damage } from "../surgery/convert/damage-words.js";
import type { PlannedModel, Surgery } from "../surgery/convert/make.js";
import { requireOut } from "../surgery/convert/place.js";
import { sourceName } from "../surgery/convert/parents.js";
import { ProgressRecord } from "../surgery/convert/progress-record.js";
import type { Proof } from "../surgery/convert/proof.js";
import {
  makeByWorkflow,
  planByWorkflow,
  type WorkflowEvent,
  type WorkflowResult,
  type WorkflowThreads,
} from "../surgery/convert/workflow.js";
import { givenCommand } from "./assets.js";
import { shownPath, type CommandContext } from "./context.js";
import { chosenBackend, type DeviceFlags } from "./device.js";
import type { CommonFlags } from "./options.js";
import { preservationLines, preservationView } from "./preservation.js";
import { conversionView } from "./progress.js";
import type { Terminal } from "./terminal.js";

const dtypes = { float32: "F32", bfloat16: "BF16", float16: "F16" } as const satisfies Record<string, WriteDtype>;

/** A precision as `--dtype` names it. */
export type DtypeName = keyof typeof dtypes;

/** The values of `--dtype`. */
export const dtypeChoices = Object.keys(dtypes) as DtypeName[];

/** The precision that a value of `--dtype` names. */
export const dtypeOf = (name: DtypeName | undefined): WriteDtype | undefined => name && dtypes[name];

/** The name of a precision, as `--dtype` takes it. */
export const dtypeName = (dtype: WriteDtype): string => dtypeWords[dtype];

/** Flags of every command that makes a model folder. */
export interface MakeFlags extends CommonFlags, DeviceFlags {
  readonly out?: string;
  readonly dtype?: DtypeName;
  readonly shardSize?: number;
  readonly overwrite?: boolean;
  readonly dryRun?: boolean;
  readonly allowNonfinite?: boolean;
  readonly text?: readonly string[];
  readonly calibration?: readonly string[];
  readonly calibrationTokens?: number;
}

/**
 * Refuses an output folder or a text file that cannot be used, before any of the models, which are still names, is
 * fetched or read. With `acceptFinished` a result of the same conversion that was not measured will do. Throws
 * inputError.
 */
export async function requireBeforehand(
  models: readonly ModelSource[],
  { out, overwrite, dryRun, text = [], calibration = [] }: MakeFlags,
  acceptFinished = false,
): Promise<void> {
  const folders = models.flatMap(foldersOf).filter((name) => !isHubReference(name));
  if (out !== undefined && dryRun !== true) await requireOut({ out, overwrite, folders, acceptFinished });
  for (const file of [...text, ...calibration]) await withFsErrors(file, "open file", () => stat(file));
}

/** How a command runs its surgery. */
interface Running {
  readonly threads: WorkflowThreads;
  /** Whether to measure how much of the parent's function is kept. */
  readonly report: boolean;
  /** A result of the same conversion that was not measured will do. */
  readonly acceptFinished?: boolean;
  /** Done when the model is complete, before it is shown. */
  readonly afterwards?: () => Promise<void>;
  /** The word for the work in the line of progress, such as `merging`; `converting` if left out. */
  readonly doing?: string;
}

/** How a command shows what was planned and made. */
export interface ResultView<Planned extends PlannedModel, Details> {
  /** The keys of the JSON that say what was planned. */
  readonly facts: (planned: Planned) => Record<string, unknown>;
  /** The plan for people, before lines are folded. */
  readonly planLines: (planned: Planned) => readonly string[];
  /** What was made, for people, in lines of at most so many columns. */
  readonly madeLines: (result: WorkflowResult<Planned, Details>, columns: number) => readonly string[];
}

/** A view that says the same `lines` of a plan and of the model that was made of it. */
export function resultView<Planned extends PlannedModel, Details>(
  facts: (planned: Planned) => Record<string, unknown>,
  lines: (planned: Planned) => readonly string[],
): ResultView<Planned, Details> {
  return {
    facts,
    planLines: (planned) => [...lines(planned), ...planned.warnings.map((warning) => `warning: ${warning}`)],
    madeLines: ({ made, proof }, columns) => [
      ...soundLines(made, lines(made)).flatMap((line) => folded(line, columns)),
      `${countedFiles(made.weightFiles)} written in ${duration(made.seconds)}`,
      ...proofLines(proof, columns),
      `model: ${shownPath(made.dir)}`,
    ],
  };
}

/** The option of commands that write weights, for weights that are NaN or infinite. */
export const allowNonFinite = [
  "--allow-nonfinite",
  "write weights that are NaN or infinite too, instead of stopping",
] as const;

/** The lines on a model that was made; where it is damaged that comes first, and nothing is said of its function. */
export function soundLines({ damage }: { readonly damage: Damage }, lines: readonly string[]): string[] {
  const words = damageWords(damage);
  return words === null ? [...lines] : [`warning: ${words}`, ...lines.filter((line) => !line.startsWith("function"))];
}

/** Carries out a surgery, or plans it for a dry run, and shows the result. */
export async function carryOut<Planned extends PlannedModel, Details>(
  surgery: Surgery<Planned, Details>,
  flags: MakeFlags,
  { threads, report, acceptFinished, doing, afterwards }: Running,
  { facts, planLines, madeLines }: ResultView<Planned, Details>,
  { terminal, json, signal }: CommandContext,
): Promise<void> {
  const { text, overwrite, shardSize } = flags;
  const calibration = { text: flags.calibration, tokens: flags.calibrationTokens };
  const tools = { backend: await chosenBackend(flags.device, terminal), threads, text, calibration, signal };
  const view = workflowView(terminal, doing);
  if (flags.dryRun === true) {
    const planned = await resultOf(planByWorkflow(surgery, tools), view);
    if (json) return terminal.json({ dryRun: true, ...facts(planned) });
    const lines = [...planLines(planned), "dry run: nothing was written"];
    return terminal.out(lines.flatMap((line) => folded(line, terminal.columns)));
  }
  const out = requireOutFlag(flags.out);
  const allowed = flags.allowNonfinite;
  const options = {
    ...tools,
    out,
    overwrite,
    report,
    acceptFinished,
    maxShardBytes: shardSize,
    allowNonFinite: allowed,
  };
  const result = await recorded(surgery, facts, { out, view, make: () => makeByWorkflow(surgery, options) });
  await afterwards?.();
  const { made, proof } = result;
  if (!json) return terminal.out(madeLines(result, terminal.columns));
  const { dir, weightFiles, seconds } = made;
  const nonFinite = made.damage.size === 0 ? {} : { nonFinite: Object.fromEntries(made.damage) };
  terminal.json({ dryRun: false, model: dir, ...nonFinite, weightFiles, seconds, ...facts(made), ...proof });
}

/** Carries out a conversion, and notes beside its folder how far it is, for whoever looks on from outside. */
async function recorded<Planned extends PlannedModel, Details>(
  { sources }: Surgery<Planned, Details>,
  facts: ResultView<Planned, Details>["facts"],
  {
    out,
    view,
    make,
  }: {
    readonly out: string;
    readonly view: (event: WorkflowEvent) => void;
    readonly make: () => AsyncGenerator<WorkflowEvent<Planned>, WorkflowResult<Planned, Details>, undefined>;
  },
): Promise<WorkflowResult<Planned, Details>> {
  const record = new ProgressRecord(out, { command: givenCommand(), sources: sources.map(sourceName) });
  try {
    const result = await resultOf(make(), (event) => {
      if (event.type === "planned") record.name(nameIn(facts(event)));
      record.take(event);
      view(event);
    });
    await record.end();
    return result;
  } catch (cause) {
    await record.end(cause);
    throw cause;
  }
}

/** What the facts of a plan call it, such as its recipe. */
const nameIn = ({ name }: Record<string, unknown>): string | null => (typeof name === "string" ? name : null);

/** Commands ask for `--out` before anything else, so this refuses only where one has forgotten to. */
function requireOutFlag(out: string | undefined): string {
  if (out === undefined) throw inputError("is needed unless it is a dry run", { where: "--out" });
  return out;
}

/** A number of weight files in words: `3 weight files`. */
export const countedFiles = ({ length }: readonly string[]): string =>
  length === 1 ? "1 weight file" : `${length} weight files`;

/** What was measured, and how long that took; no lines where nothing was measured. */
export function proofLines(proof: Proof | null, columns: number): string[] {
  if (proof === null || proof.preservation === null) return [];
  const { preservation, reportSeconds } = proof;
  return ["", ...preservationLines(preservation, columns), `measured in ${duration(reportSeconds)}`, ""];
}

/** Shows a workflow's events: measurements on text, the writing, the proof. */
export function workflowView(terminal: Terminal, doing?: string): (event: WorkflowEvent) => void {
  const showConversion = conversionView(terminal, doing);
  const showProof = preservationView(terminal);
  return (event) => {
    switch (event.type) {
      case "prompts":
        terminal.progress(`reading prompts  layer ${event.done} of ${event.total}`);
        if (event.done === event.total) terminal.settle();
        break;
      case "warning":
        terminal.note(`warning: ${event.words}`);
        break;
      case "reading":
        terminal.progress(`reading text  ${event.done} of ${event.total}`);
        if (event.done === event.total) terminal.settle();
        break;
      case "clustered":
        terminal.note(
          `clustered ${event.tokens} tokens of ${event.source}: a router row stands for ` +
            `${percent(event.smallest, 2)} to ${percent(event.largest, 2)} of them`,
        );
        break;
      case "split":
        terminal.note(
          `split by activation on ${event.tokens} tokens of ${event.source}: a unit of the shared expert is active ` +
            `for ${percent(event.sharedRate, 2)} of them, another for ${percent(event.routedRate, 2)}`,
        );
        break;
      case "calibrated":
        terminal.note(`calibrated on ${event.tokens} tokens of ${event.source}`);
        break;
      case "proof":
        showProof(event.event);
        break;
      case "unproven":
        terminal.note(`warning: the model is complete, but it could not be measured: ${event.why}`);
        break;
      default:
        showConversion(event);
    }
  };
}
