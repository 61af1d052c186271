/** `upcycle eval`: models on the tasks of the LM Evaluation Harness, side by side. */
import { join } from "node:path";
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { resultOf } from "../base/events.js";
import { duration, percent } from "../base/format.js";
import type { Backend } from "../engine/runtime/runtime.js";
import { openModel } from "../evals/model.js";
import { localModel, type AnsweringModel } from "../evals/scoring/model.js";
import { serverAddress, serverModel, type ServerAddress } from "../evals/scoring/server.js";
import { DataReader } from "../evals/suite/data.js";
import {
  evaluateModel,
  prepareTasks,
  type EvaluationEvent,
  type EvaluationSettings,
  type PreparedTask,
} from "../evals/suite/evaluate.js";
import { readChatTemplate } from "../evals/suite/chat-template.js";
import { sanitized, type EvaluatedModel } from "../evals/suite/harness-files.js";
import { modelIdentity, textIdentity } from "../evals/suite/models.js";
import { readTasks } from "../evals/suite/task-files.js";
import { writeResults } from "../evals/suite/write-results.js";
import type { ChatFormat } from "../evals/tasks/chat.js";
import type { Selection } from "../evals/tasks/select.js";
import { FEWSHOT_SEED } from "../evals/tasks/prompt.js";
import { BOOTSTRAP_ITERATIONS } from "../evals/tasks/standard-errors.js";
import { modelFolderOf, type ModelSource } from "../files/checkpoint/model-source.js";
import { isHubReference, modelName } from "../files/hub/reference.js";
import { makeFolders } from "../files/io/folders.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { lockFolder } from "../files/io/lock.js";
import { writeFileAtomic } from "../files/io/atomic.js";
import { isOwnPage, requireFilePlace } from "../files/io/named-file.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { renderEvaluationHtml } from "../report/evals/eval-page.js";
import { chartAssets } from "../study/chart-assets.js";
import { toolVersion } from "../surgery/convert/version.js";
import { openTokenizer } from "../text/tokenizer/load.js";
import { commandLine } from "./assets.js";
import { openContext, shownPath, type CommandContext } from "./context.js";
import { warnOfDamage } from "./damage.js";
import { decoderOf } from "./decoder-of.js";
import { chosenBackend, withPrecision, type PrecisionFlags } from "./device.js";
import { jsonOf, shownOutcomes, taskList, type EvaluatedOutcome } from "./eval-view.js";
import { askedModel, fetchedSource, orAdapted, shownModel } from "./model-folder.js";
import {
  collect,
  defaultThreads,
  wholeNumber,
  withExample,
  withJson,
  withThreads,
  type CommonFlags,
} from "./options.js";
import type { Terminal } from "./terminal.js";

interface EvalFlags extends CommonFlags, PrecisionFlags {
  readonly tasks?: readonly string[];
  readonly numFewshot?: number;
  readonly limit?: number;
  readonly includePath?: readonly string[];
  readonly data?: string;
  readonly tokenizer?: string;
  readonly out: string;
  readonly maxLength?: number;
  readonly applyChatTemplate?: string | true;
  readonly fewshotAsMultiturn?: boolean;
  readonly systemInstruction?: string;
  readonly seed: number;
  readonly bootstrap: number;
  readonly html?: string;
  readonly list?: boolean;
}

/** The command with its options and its help. */
export function evalCommand(): Command {
  const command = new Command("eval")
    .description("evaluate models on tasks of the LM Evaluation Harness, with its prompts and its numbers")
    .argument(
      "[model...]",
      `model folder with a tokenizer.json, ${orAdapted}; or the address of a completion server, http://HOST/v1[?model=NAME]`,
    )
    .option("--tasks <names>", "tasks, groups, tags or YAML files, with commas between; may be given again", names)
    .option(
      "--num-fewshot <n>",
      "examples in front of each question (default: the task's)",
      wholeNumber("--num-fewshot", 0),
    )
    .option("--limit <n>", "only the first n documents of each task", wholeNumber("--limit", 1))
    .option("--include-path <folder>", "folder with more task files; may be given again", collect)
    .option(
      "--data <folder>",
      "folder of data sets, ORG--NAME/CONFIG/SPLIT.jsonl or .parquet, looked into before the Hub",
    )
    .option("--tokenizer <folder>", "tokenizer of the models behind servers, whose prompts are token ids")
    .option("--out <folder>", "folder for answers, samples and results", "runs/eval")
    .option(
      "--max-length <n>",
      "tokens that the model sees at most (default: its positions)",
      wholeNumber("--max-length", 2),
    )
    .option("--seed <n>", "of the draws of examples", wholeNumber("--seed", 0, 2 ** 32 - 1), FEWSHOT_SEED)
    .option(
      "--bootstrap <n>",
      "resamples of standard errors that have no closed form; 0: no standard errors",
      wholeNumber("--bootstrap", 0),
      BOOTSTRAP_ITERATIONS,
    )
    .option(
      "--apply-chat-template [name]",
      "put prompts into the tokenizer's chat template, examples as turns; name: one of several templates",
    )
    .option("--no-fewshot-as-multiturn", "with a chat template: examples within the one question")
    .option("--system-instruction <text>", "in front of all prompts; with a chat template, the system's message")
    .option("--html <file>", "write a page: scores, differences between models, samples that they answer differently")
    .option("--list", "list the tasks that come along")
    .action(execute);
  return withExample(
    withJson(withThreads(withPrecision(command))),
    "upcycle eval models/dense models/moe --tasks arc_easy,hellaswag --limit 500",
    "A run that was stopped goes on where it was: the same command finds its answers in the folder of --out.",
  );
}

const names = (value: string, before: readonly string[] | undefined): readonly string[] => [
  ...(before ?? []),
  ...value.split(",").filter((name) => name !== ""),
];

/** A model as it was asked for: in a folder, or behind a server. */
type AskedModel = { readonly source: ModelSource } | { readonly server: ServerAddress };

async function execute(models: readonly string[], flags: EvalFlags): Promise<void> {
  const context = openContext({ json: flags.json, stopping: "finishing the batch in hand" });
  const { terminal, json, signal } = context;
  if (flags.list === true) return void (await taskList(context, flags.includePath));
  if (models.length === 0) throw inputError("no model is named", { hint: "see upcycle eval --help" });
  if (flags.html !== undefined) await requireFilePlace(flags.html, "page of this command", isOwnPage);
  const selection = await readTasks({ tasks: flags.tasks ?? [], includePaths: flags.includePath });
  const asked = await Promise.all(models.map(askedOf));
  for (const one of asked) if ("source" in one && !isRemote(one.source)) await decoderOf(one.source);
  if (flags.tokenizer === undefined && asked.some((one) => "server" in one))
    throw inputError("a server is asked with token ids, and no tokenizer is named", {
      where: "--tokenizer",
      hint: "give the folder of its model's tokenizer.json",
    });
  const settings: EvaluationSettings = {
    numFewshot: flags.numFewshot,
    limit: flags.limit,
    seed: flags.seed,
    bootstrapIterations: flags.bootstrap,
    systemInstruction: flags.systemInstruction,
  };
  // A GPU opens while prompts are built.
  const backend = asked.some((one) => "source" in one)
    ? chosenBackend(flags.device, terminal, flags.precision)
    : undefined;
  backend?.catch(() => undefined);
  const data = new DataReader({ dataFolder: flags.data, fetchSplit: hubSplits(terminal, signal) });
  const preparing = async (chat?: ChatFormat): Promise<readonly PreparedTask[]> => {
    terminal.progress("reading documents and building prompts");
    const prepared = await prepareTasks(selection, data, { ...settings, chat }, signal);
    terminal.settle();
    return prepared;
  };
  // Plain prompts are the same for all models.
  const plain = flags.applyChatTemplate === undefined ? await preparing() : null;
  const outcomes: EvaluatedOutcome[] = [];
  for (const one of asked) {
    const talk = plain === null ? await talkOf(one, flags) : null;
    const prepared = plain ?? (await preparing(talk?.format));
    const opened =
      "server" in one
        ? await openServed(one.server, context, flags)
        : await openHere(one.source, await backend!, context, flags);
    try {
      const chat = talk === null ? null : { template: talk.template, multiturn: talk.format.multiturn };
      outcomes.push(await evaluateOne({ ...opened, chat }, { context, flags, prepared, selection, settings }));
    } finally {
      await opened.model.close();
    }
  }
  if (flags.html !== undefined) {
    const page = {
      models: outcomes.map(({ model, outcome }) => ({ ...model, outcome })),
      groups: selection.groups,
      command: commandLine(),
      date: new Date().toISOString().slice(0, 10),
      version: toolVersion,
    };
    await writeFileAtomic(flags.html, renderEvaluationHtml(page, await chartAssets()));
  }
  if (json) terminal.json(jsonOf(outcomes, selection.groups));
  else shownOutcomes(outcomes, selection.groups, terminal);
}

/** How a model is talked to, by the template of its tokenizer. */
async function talkOf(
  one: AskedModel,
  { applyChatTemplate, fewshotAsMultiturn = true, tokenizer, json }: EvalFlags,
): Promise<{ readonly template: string; readonly format: ChatFormat }> {
  const folder = "server" in one ? (tokenizer ?? "") : modelFolderOf(await fetchedSource(one.source, json));
  const { source, render } = await readChatTemplate(folder, applyChatTemplate === true ? undefined : applyChatTemplate);
  return { template: source, format: { multiturn: fewshotAsMultiturn, render } };
}

async function askedOf(words: string): Promise<AskedModel> {
  const server = serverAddress(words);
  return server === null ? { source: await askedModel(words) } : { server };
}

const isRemote = (source: ModelSource): boolean => isHubReference(modelFolderOf(source));

/** What to call a model: `org/name` of the Hub, or its folder's name. */
function nameOf(source: ModelSource): string {
  if (typeof source !== "string") return shownModel(source);
  return isHubReference(source) ? source.slice("hf://".length) : modelName(source);
}

/** Downloads splits of data sets, with progress on the terminal. */
function hubSplits(terminal: Terminal, signal: AbortSignal): ConstructorParameters<typeof DataReader>[0]["fetchSplit"] {
  return async (split) => {
    const { fetchSplit } = await import("../files/hub/dataset.js");
    return fetchSplit(split, {
      signal,
      onEvent: (event) => {
        if (event.type === "note") terminal.note(event.text);
        if (event.type === "progress")
          terminal.progress(
            `${percent(event.done / Math.max(1, event.total), 3)}  downloading`,
            `${split.path} ${event.file}`,
          );
      },
    });
  };
}

/** A model that can be asked. */
interface OpenedModel {
  readonly name: string;
  readonly model: AnsweringModel;
  readonly device: string;
  /** What its answers depend on, in a few characters. */
  readonly identity: string;
}

async function openHere(
  source: ModelSource,
  backend: Backend,
  context: CommandContext,
  flags: EvalFlags,
): Promise<OpenedModel> {
  const { terminal, json, signal } = context;
  const name = nameOf(source);
  const fetched = await fetchedSource(source, json);
  const { dir, spec, maxLength } = await outlineOf(fetched, flags);
  // Prompts become tokens, in a process of the tokenizer's own, while the weights are read.
  const opened = openModel(fetched, backend, flags.threads ?? defaultThreads()).then((model) => {
    warnOfDamage(terminal, model);
    return model;
  });
  opened.catch(() => undefined);
  const closing = async (cause: unknown): Promise<never> => {
    await (await opened.catch(() => null))?.close();
    throw cause;
  };
  const tokenizer = await openTokenizer(modelFolderOf(fetched), { signal }).catch(closing);
  try {
    const model = await localModel({ dir, spec, opened }, tokenizer, maxLength);
    const identity = await modelIdentity(fetched, { backend, maxLength });
    return { name, model, device: backend.name, identity };
  } catch (cause) {
    await tokenizer.close();
    return closing(cause);
  }
}

/** What is known of a model without its weights. Throws inputError for more tokens than it has positions. */
async function outlineOf(
  source: ModelSource,
  flags: EvalFlags,
): Promise<{ readonly dir: string; readonly spec: DecoderSpec; readonly maxLength: number }> {
  const spec = await decoderOf(source);
  const { maxLength = spec.maxPositions } = flags;
  if (maxLength > spec.maxPositions)
    throw inputError(`${maxLength} tokens are more than the model's ${spec.maxPositions} positions`, {
      where: "--max-length",
    });
  return { dir: modelFolderOf(source), spec, maxLength };
}

async function openServed(address: ServerAddress, { signal }: CommandContext, flags: EvalFlags): Promise<OpenedModel> {
  const tokenizer = await openTokenizer(flags.tokenizer ?? "", { signal });
  try {
    const { maxLength } = flags;
    const model = await serverModel(address, tokenizer, { signal, maxLength, key: process.env["OPENAI_API_KEY"] });
    const identity = textIdentity([address.base, model.name, String(model.maxLength)]);
    return { name: model.name, model, device: address.base, identity };
  } catch (cause) {
    await tokenizer.close();
    throw cause;
  }
}

/** A model with the template that its prompts were put into. */
type TalkedModel = OpenedModel & Pick<EvaluatedModel, "chat">;

interface EvaluationContext {
  readonly context: CommandContext;
  readonly flags: EvalFlags;
  readonly prepared: readonly PreparedTask[];
  readonly selection: Selection;
  readonly settings: EvaluationSettings;
}

async function evaluateOne(
  { name, model, device, identity, chat }: TalkedModel,
  { context, flags, prepared, selection, settings }: EvaluationContext,
): Promise<EvaluatedOutcome> {
  const { terminal, signal } = context;
  const date = new Date();
  const folder = join(flags.out, sanitized(name));
  await withFsErrors(folder, "create folder", () => makeFolders(folder));
  const release = await lockFolder(folder);
  try {
    const logFolder = join(folder, "answers", identity);
    const outcome = await resultOf(
      evaluateModel({ model, prepared, selection, settings, logFolder, signal }),
      progressView(terminal, name, () => performance.now()),
    );
    terminal.settle();
    const evaluated = { name, maxLength: model.maxLength, device, version: toolVersion, chat };
    const files = await writeResults(folder, evaluated, outcome, { selection, settings, date });
    terminal.note(`${name}: ${shownPath(files.results)}`);
    return { model: evaluated, outcome, files };
  } finally {
    await release();
  }
}

/** Shows how far one model is; the time left is judged by the tokens that this call has computed. */
function progressView(terminal: Terminal, name: string, now: () => number): (event: EvaluationEvent) => void {
  let start: number | undefined;
  return (event) => {
    switch (event.type) {
      case "task":
        start ??= now();
        if (event.known > 0)
          terminal.note(`${name} ${event.task}: ${event.known} of ${event.total} answers are there already`);
        break;
      case "judging":
        terminal.progress("estimating standard errors", `${name} ${event.task}`);
        break;
      case "progress": {
        const { done, fresh, total, task } = event;
        const seconds = (now() - (start ?? now())) / 1000;
        const eta = fresh > 0 ? `  ETA ${duration((seconds / fresh) * (total - done))}` : "";
        terminal.progress(`${percent(done / total, 3)} of all tasks${eta}`, `${name} ${task}`);
        break;
      }
    }
  };
}
