/**
 * Documents as prompts, exactly as the LM Evaluation Harness builds them (lm_eval/api/task.py, samplers.py):
 *
 *   description + (question + delimiter + answer + "\n\n") for each example + question of the document
 *
 * or, for a chat template, as messages: the description is the system's, questions are the user's, answers the
 * assistant's.
 */
import { inputError } from "../../base/errors.js";
import { functionMark } from "../../base/schemas/task.js";
import { chatMessages, plainText, type ChatFormat, type Turn } from "./chat.js";
import type { Field, FewshotConfig, TaskConfig } from "./config.js";
import { isEqual, parseTemplate, type Template } from "./jinja.js";
import { requirePort } from "./ports.js";
import { PythonRandom } from "./python-random.js";
import { isDigits, isSpace, parseLiteral, type Doc, type Value } from "./python-text.js";

/** One question to a model. */
export type Request =
  | { readonly kind: "loglikelihood"; readonly context: string; readonly continuation: string }
  | { readonly kind: "rolling"; readonly text: string }
  | {
      readonly kind: "generate";
      readonly context: string;
      readonly until: readonly string[];
      readonly maxTokens: number;
    };

/** One document with what a model is asked about it. */
export interface Sample {
  /** Place of the document in its split. */
  readonly id: number;
  readonly doc: Doc;
  readonly target: Value;
  readonly requests: readonly Request[];
}

/** The documents of a task, by split, as they were read. */
export type Splits = Readonly<Record<string, readonly Doc[]>>;

/** Which samples are made. */
export interface SampleSettings {
  /** Examples in front of each question; the task's own number when left out. */
  readonly numFewshot?: number | undefined;
  /** Only the first so many documents. */
  readonly limit?: number | undefined;
  /** Seed of the draws of examples; the harness's 1234 when left out. */
  readonly seed?: number | undefined;
  /** Stands in front of all prompts, before a task's description. */
  readonly systemInstruction?: string | undefined;
  /** How messages become a prompt; plain text when left out. */
  readonly chat?: ChatFormat | undefined;
}

/** The harness's own seed of few-shot draws. */
export const FEWSHOT_SEED = 1234;

/** A task with its documents. */
export interface LoadedTask {
  readonly config: TaskConfig;
  /** Documents that are evaluated. */
  readonly docs: readonly Doc[];
  /** Whether choices are contexts, and the number of the right one is the question. */
  readonly multipleInput: boolean;
  /** Whether several answers are right. */
  readonly multipleTarget: boolean;
  /** Question of a document: text, or the number of the right choice. */
  text(doc: Doc): Value;
  target(doc: Doc): Value;
  choices(doc: Doc): readonly string[];
  /** The samples in the order of the documents. Throws inputError for examples that cannot be drawn. */
  samples(settings?: SampleSettings): readonly Sample[];
}

/** Splits that a task reads, each once. */
export function splitsOf({ trainingSplit, validationSplit, testSplit, fewshot }: TaskConfig, shots: number): string[] {
  const evaluated = testSplit ?? validationSplit;
  const examples = shots === 0 ? null : exampleSplit({ trainingSplit, validationSplit, testSplit, fewshot });
  return [...new Set([evaluated, examples])].filter((split) => split !== null);
}

/** The split that examples are drawn from; null where the file gives them. */
function exampleSplit({
  trainingSplit,
  validationSplit,
  testSplit,
  fewshot,
}: Pick<TaskConfig, "trainingSplit" | "validationSplit" | "testSplit" | "fewshot">): string | null {
  if (fewshot.split !== null) return fewshot.split;
  return fewshot.samples !== null ? null : (trainingSplit ?? validationSplit ?? testSplit);
}

/** Joins a task with its documents. Throws inputError for no documents and for fields that cannot be read. */
export function loadTask(config: TaskConfig, splits: Splits): LoadedTask {
  const where = `${config.file}: task ${config.name}`;
  const processed = (split: string, processDocs: string | null): readonly Doc[] => {
    const docs = splits[split];
    if (docs === undefined) throw inputError(`the data set has no split "${split}"`, { where });
    if (processDocs === null) return docs;
    const port = requirePort("docs", processDocs, { file: config.file, where });
    return withPlace(`${where}, split ${split}`, () => port(docs));
  };
  const split = config.testSplit ?? config.validationSplit ?? "";
  const docs = processed(split, config.processDocs);
  const [first] = docs;
  if (first === undefined) throw inputError(`the split "${split}" has no documents`, { where });
  const fields = new Fields(config, new Set(Object.keys(first)));
  const place = `${where}, document 1`;
  const multipleInput =
    config.docToChoice !== null && withPlace(place, () => typeof fields.text(config.docToText, first) === "number");
  const multipleTarget = withPlace(place, () => Array.isArray(fields.target(config.docToTarget, first)));
  const task: LoadedTask = {
    config,
    docs,
    multipleInput,
    multipleTarget,
    text: (doc) => fields.text(config.docToText, doc),
    target: (doc) => fields.target(config.docToTarget, doc),
    choices: (doc) => fields.choices(config.docToChoice, doc),
    samples({ numFewshot = config.numFewshot, limit, seed = FEWSHOT_SEED, systemInstruction = "", chat } = {}) {
      const examples = numFewshot === 0 ? null : new Examples(examplePool(config, processed), config, seed, where);
      const shots = new Map<Doc, readonly Turn[]>();
      return docs.slice(0, limit).map((doc, id) =>
        withPlace(`${where}, document ${id + 1}`, () => {
          const own = examples?.draw(doc, numFewshot) ?? [];
          const builder = new PromptBuilder(task, fields, { examples: own, shots, systemInstruction, chat });
          return { id, doc, target: task.target(doc), requests: builder.requests(doc) };
        }),
      );
    },
  };
  return task;
}

/** Runs what may fail on one document, and says where it did. */
function withPlace<T>(where: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    const message = (cause as Error).message;
    throw inputError(message, { where, cause });
  }
}

function examplePool(
  config: TaskConfig,
  processed: (split: string, processDocs: string | null) => readonly Doc[],
): readonly Doc[] {
  const { fewshot } = config;
  if (fewshot.split !== null) return processed(fewshot.split, fewshot.processDocs);
  if (fewshot.samples !== null) return fewshot.samples;
  return processed(exampleSplit(config) ?? "", config.processDocs);
}

/** Draws examples, with one generator that goes on from document to document. */
class Examples {
  private readonly random: PythonRandom;
  /** Where examples come from the evaluated split itself, a document is never its own example. */
  private readonly withoutOwn: boolean;

  constructor(
    private readonly pool: readonly Doc[],
    private readonly config: TaskConfig,
    seed: number,
    private readonly where: string,
  ) {
    this.random = new PythonRandom(seed);
    this.withoutOwn = config.fewshot.split === config.testSplit;
  }

  draw(doc: Doc, count: number): readonly Doc[] {
    const { pool, withoutOwn } = this;
    const others = (docs: readonly Doc[]): readonly Doc[] => docs.filter((one) => !isEqual(one, doc));
    if (this.config.fewshot.sampler === "first_n") {
      const from = withoutOwn ? others(pool) : pool;
      if (count > from.length) throw this.tooFew(count, from.length);
      return from.slice(0, count);
    }
    if (!withoutOwn) return this.sample(pool, count);
    const drawn = others(this.sample(pool, count + 1)).slice(0, count);
    return drawn.length < count ? this.sample(others(pool), count) : drawn;
  }

  private sample(from: readonly Doc[], count: number): readonly Doc[] {
    if (count > from.length) throw this.tooFew(count, from.length);
    return this.random.sample(from.length, count).map((place) => from[place]!);
  }

  private tooFew(wanted: number, there: number): Error {
    return inputError(`${wanted} examples are asked for, and there are ${there} to draw from`, {
      where: this.where,
      hint: "lower --num-fewshot",
    });
  }
}

/** Reads the fields of documents: a column, a template or a function. */
class Fields {
  private readonly templates = new Map<string, Template>();

  constructor(
    private readonly config: TaskConfig,
    /** Columns of the evaluated documents. */
    private readonly columns: ReadonlySet<string>,
  ) {}

  private template(source: string): Template {
    const known = this.templates.get(source) ?? parseTemplate(source, `${this.config.file}: task ${this.config.name}`);
    this.templates.set(source, known);
    return known;
  }

  private port(field: string, doc: Doc): Value {
    const { file, name } = this.config;
    return requirePort("field", field, { file, where: `${file}: task ${name}` })(doc);
  }

  /** Digits stand for a number where there are choices to be counted. */
  private counted(text: string): Value {
    return this.config.docToChoice !== null && isDigits(text) ? Number(text) : text;
  }

  text(field: Field, doc: Doc): Value {
    if (typeof field !== "string") return field;
    if (field.startsWith(functionMark)) return this.port(field, doc);
    if (this.columns.has(field)) return doc[field] ?? null;
    return this.counted(this.template(field).render(doc));
  }

  target(field: Field, doc: Doc): Value {
    if (typeof field !== "string") return field;
    if (field.startsWith(functionMark)) return this.port(field, doc);
    if (this.columns.has(field)) return doc[field] ?? null;
    const text = this.template(field).render(doc);
    if (text.length < 2 || !text.startsWith("[") || !text.endsWith("]")) return this.counted(text);
    try {
      return parseLiteral(text);
    } catch {
      return text;
    }
  }

  choices(field: Field | null, doc: Doc): readonly string[] {
    return this.choiceValues(field, doc).map((choice) => {
      if (typeof choice !== "string") throw new Error(`a choice is ${JSON.stringify(choice)}, expected text`);
      return choice;
    });
  }

  private choiceValues(field: Field | null, doc: Doc): readonly Value[] {
    if (field === null) throw new Error("there is no doc_to_choice");
    if (Array.isArray(field)) return field as readonly Value[];
    if (typeof field === "object") return Object.values(field as Readonly<Record<string, Value>>);
    if (typeof field !== "string") throw new Error("doc_to_choice is a number");
    const value = field.startsWith(functionMark)
      ? this.port(field, doc)
      : this.columns.has(field)
        ? (doc[field] ?? null)
        : listValue(this.template(field).value(doc));
    if (Array.isArray(value)) return value as readonly Value[];
    throw new Error(`doc_to_choice gives ${JSON.stringify(value)}, expected a list`);
  }

  /** A description or prefix: a column of the document itself, or a template; empty where there is none. */
  plain(field: string | null, doc: Doc): string {
    if (field === null || field === "") return "";
    const value = Object.hasOwn(doc, field) ? doc[field] : this.template(field).render(doc);
    if (typeof value === "string") return value;
    throw new Error(`the column "${field}" is no text`);
  }
}

/** A template of several parts renders a list as Python writes it, which is read back. */
const listValue = (value: Value): Value => (typeof value === "string" ? parseLiteral(value) : value);

/** The texts between which a delimiter is needed: neither side has white space at the seam. */
const needsDelimiter = (before: string, behind: string): boolean =>
  before !== "" && !isSpace([...before].at(-1)!) && (behind === "" || !isSpace([...behind][0]!));

function joined(before: string, behind: string, delimiter: string): string {
  if (before === "" || behind === "") return before + behind;
  return needsDelimiter(before, behind) ? before + delimiter + behind : before + behind;
}

/** What prompts of one document are made with. */
interface PromptParts {
  readonly examples: readonly Doc[];
  /** What examples look like, each of which stands before many documents. */
  readonly shots: Map<Doc, readonly Turn[]>;
  readonly systemInstruction: string;
  readonly chat: ChatFormat | undefined;
}

/** Makes the requests of one document. */
class PromptBuilder {
  constructor(
    private readonly task: LoadedTask,
    private readonly fields: Fields,
    private readonly parts: PromptParts,
  ) {}

  requests(doc: Doc): readonly Request[] {
    const { config } = this.task;
    switch (config.outputType) {
      case "loglikelihood":
        return [loglikelihood(this.context(doc), asText(this.task.target(doc), "the target"))];
      case "loglikelihood_rolling":
        return [{ kind: "rolling", text: asText(this.task.target(doc), "the target") }];
      case "generate_until":
        return [{ kind: "generate", context: this.context(doc), ...config.generation }];
      case "multiple_choice":
        return this.choiceRequests(doc);
    }
  }

  private choiceRequests(doc: Doc): readonly Request[] {
    const { config, multipleInput } = this.task;
    const choices = this.task.choices(doc);
    if (choices.length === 0) throw new Error("there are no choices");
    const delimiter = this.choiceDelimiter(doc);
    const own = multipleInput
      ? choices.map((choice) =>
          loglikelihood(this.context(doc, choice), delimiter + asText(this.task.target(doc), "the target")),
        )
      : this.continuations(this.context(doc), choices, delimiter);
    const wantsMutual = config.metrics.some(({ name }) => name === "acc_mutual_info");
    return wantsMutual ? [...own, ...this.continuations("", choices, delimiter)] : own;
  }

  /** A template ends where the answer begins, unless the answer has begun already. */
  private choiceDelimiter(doc: Doc): string {
    const { config } = this.task;
    if (this.parts.chat === undefined) return config.targetDelimiter;
    const prefix = this.fields.plain(config.genPrefix, doc);
    return prefix !== "" && !isSpace([...prefix].at(-1)!) ? config.targetDelimiter : "";
  }

  private continuations(context: string, choices: readonly string[], delimiter: string): Request[] {
    return choices.map((choice) => loglikelihood(context, delimiter + choice));
  }

  /** The prompt up to the answer; `question` stands in place of the document's own. */
  private context(doc: Doc, question?: string): string {
    const { config } = this.task;
    const { examples, systemInstruction, chat } = this.parts;
    const description = joined(systemInstruction, this.fields.plain(config.description, doc), config.fewshot.delimiter);
    const prefix = this.fields.plain(config.genPrefix, doc);
    const asked = question ?? asText(this.task.text(doc), "the question");
    const delimiter = question === undefined ? config.targetDelimiter : "";
    const seam = prefix !== "" && needsDelimiter(asked, prefix) ? delimiter : "";
    const turns: Turn[] = [
      ...(description === "" ? [] : [{ role: "system" as const, content: description, behind: "" }]),
      ...examples.flatMap((example) => this.shot(example)),
      { role: "user", content: asked, behind: seam },
      ...(prefix === "" ? [] : [{ role: "assistant" as const, content: prefix, behind: "" }]),
    ];
    return chat === undefined ? plainText(turns) : chat.render(chatMessages(turns, chat.multiturn), prefix !== "");
  }

  private shot(doc: Doc): readonly Turn[] {
    const { shots } = this.parts;
    const known = shots.get(doc) ?? this.shotOf(doc);
    shots.set(doc, known);
    return known;
  }

  /** One example: question, delimiter, answer, delimiter. */
  private shotOf(doc: Doc): readonly Turn[] {
    const { config, multipleInput } = this.task;
    const { fewshot } = config;
    let question = this.fields.text(fewshot.docToText, doc);
    let choices = fewshot.docToChoice === null ? null : this.fields.choices(fewshot.docToChoice, doc);
    if (multipleInput) {
      question = choices?.[question as number] ?? null;
      choices = null;
    }
    const answer = answerOf(this.fields.target(fewshot.docToTarget, doc), choices);
    const prefix = this.fields.plain(fewshot.genPrefix, doc);
    return exampleTurns(asText(question, "the question of an example"), answer, prefix, fewshot);
  }
}

function exampleTurns(
  question: string,
  answer: string | null,
  prefix: string,
  { targetDelimiter, delimiter }: FewshotConfig,
): readonly Turn[] {
  const delimits = prefix === "" ? answer !== null : needsDelimiter(question, prefix);
  const asked: Turn = { role: "user", content: question, behind: delimits ? targetDelimiter : "" };
  if (answer !== null) return [asked, { role: "assistant", content: joined(prefix, answer, " "), behind: delimiter }];
  return prefix === "" ? [asked] : [asked, { role: "assistant", content: prefix, behind: "" }];
}

const loglikelihood = (context: string, continuation: string): Request => ({
  kind: "loglikelihood",
  context,
  continuation,
});

/** The answer of an example: the choice of its number, the first of several, or the text; null where there is none. */
function answerOf(target: Value, choices: readonly string[] | null): string | null {
  if (target === null || target === "") return null;
  if (choices !== null && choices.length > 0 && typeof target === "number") {
    const answer = choices.at(target);
    if (answer === undefined) throw new Error(`the answer of an example is ${target} of ${choices.length} choices`);
    return answer;
  }
  return asText(Array.isArray(target) ? ((target as readonly Value[])[0] ?? null) : target, "the answer of an example");
}

function asText(value: Value, what: string): string {
  if (typeof value === "string") return value;
  throw new Error(`${what} is ${JSON.stringify(value)}, expected text`);
}
