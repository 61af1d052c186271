/**
 * The Python functions that task files of the harness name with `!function`, ported: HellaSwag, WinoGrande, WikiText,
 * C4, Paloma, MMLU-Pro. Each is known by the folder of its file, its module and its own name.
 */
import { inputError } from "../../base/errors.js";
import { functionMark } from "../../base/schemas/task.js";
import { capitalize, pythonReplace, str, strip, whiteSpaceRuns, type Doc, type Value } from "./python-text.js";

/** What a rolling metric adds up for one document: log-likelihood in nats, and the words or bytes it is counted by. */
export type Weighted = readonly [logLikelihood: number, weight: number];

interface Ports {
  /** Changes documents, or leaves some out. */
  readonly docs: (docs: readonly Doc[]) => readonly Doc[];
  /** A question, answer or choices. */
  readonly field: (doc: Doc) => Value;
  /** Metrics of one document from its log-likelihood. */
  readonly results: (doc: Doc, logLikelihood: number) => Readonly<Record<string, Weighted>>;
}

type Kind = keyof Ports;

const textOf = (doc: Doc, key: string): string => {
  const value = doc[key];
  if (typeof value === "string") return value;
  throw new Error(`the document has no text "${key}"`);
};

const listOf = (doc: Doc, key: string): readonly string[] => {
  const value = doc[key];
  if (!Array.isArray(value)) throw new Error(`the document has no list "${key}"`);
  return (value as readonly Value[]).map((one) => str(one));
};

/** Takes the traces of WikiHow's markup out of a text of HellaSwag. */
function cleaned(text: string): string {
  return strip(text)
    .replaceAll(" [title]", ". ")
    .replace(/\[.*?\]/g, "")
    .replaceAll("  ", " ");
}

function hellaswag(docs: readonly Doc[]): readonly Doc[] {
  return docs.map((doc) => ({
    ...doc,
    query: cleaned(`${textOf(doc, "activity_label")}: ${textOf(doc, "ctx_a")} ${capitalize(textOf(doc, "ctx_b"))}`),
    choices: listOf(doc, "endings").map(cleaned),
    gold: Number(doc["label"]),
  }));
}

/** Where the gap of a sentence of WinoGrande is. */
function gapOf(doc: Doc): { readonly before: string; readonly behind: string } {
  const sentence = textOf(doc, "sentence");
  const place = sentence.indexOf("_");
  if (place < 0) throw new Error("the sentence has no gap _");
  return { before: sentence.slice(0, place), behind: strip(sentence.slice(place + 1)) };
}

const anySpace = whiteSpaceRuns.source.replace(/\+$/, "*");
const inside = (open: string, close: string): RegExp =>
  new RegExp(`\\${open}${anySpace}([^\\${close}]*?)${anySpace}\\${close}`, "g");

const brackets: readonly (readonly [RegExp, string])[] = [
  [inside("(", ")"), "(\\1)"],
  [inside("[", "]"), "[\\1]"],
  [inside("{", "}"), "{\\1}"],
  [inside('"', '"'), '"\\1"'],
  [inside("'", "'"), "'\\1'"],
];

/** Undoes WikiText's tokenisation: its marks in numbers, and spaces around punctuation and inside brackets. */
function detokenized(page: string): string {
  let text = page.replaceAll("s '", "s'").replace(/\/' [0-9]\//g, "/'[0-9]/");
  for (const [mark, sign] of [
    [" @-@ ", "-"],
    [" @,@ ", ","],
    [" @.@ ", "."],
  ] as const)
    text = text.replaceAll(mark, sign);
  for (const sign of [":", ";", ".", "!", "?", ","]) text = text.replaceAll(` ${sign} `, `${sign} `);
  for (const [pattern, replacement] of brackets) text = pythonReplace(pattern, replacement, text);
  for (const [from, to] of [
    ["= = = =", "===="],
    ["= = =", "==="],
    ["= =", "=="],
    [" \u00b0 ", "\u00b0"],
    [" \n", "\n"],
    ["\n ", "\n"],
    [" N ", " 1 "],
    [" 's", "'s"],
  ] as const)
    text = text.replaceAll(from, to);
  return text;
}

/** The pieces that `re.split(r"\s+", text)` gives. */
export const countWords = (text: string): number => text.split(whiteSpaceRuns).length;

/** Bytes of a text in UTF-8. */
export function countBytes(text: string): number {
  return new TextEncoder().encode(text).length;
}

/** Perplexities by the words and bytes of a column, whatever was scored. */
const byColumn =
  (column: string): Ports["results"] =>
  (doc, logLikelihood) => {
    const text = textOf(doc, column);
    const [words, bytes] = [countWords(text), countBytes(text)];
    return {
      word_perplexity: [logLikelihood, words],
      byte_perplexity: [logLikelihood, bytes],
      bits_per_byte: [logLikelihood, bytes],
    };
  };

const letters = "ABCDEFGHIJ";

function mmluProQuestion(doc: Doc): string {
  const options = listOf(doc, "options").slice(0, letters.length);
  const lines = options.map((option, i) => `${letters[i]}. ${strip(option)}\n`).join("");
  return `Question:\n${textOf(doc, "question")}\nOptions:\n${lines}Answer: Let's think step by step.`;
}

const mmluProSubjects = [
  "biology",
  "business",
  "chemistry",
  "computer science",
  "economics",
  "engineering",
  "health",
  "history",
  "law",
  "math",
  "other",
  "philosophy",
  "physics",
  "psychology",
];

const ports: { readonly [K in Kind]: Readonly<Record<string, Ports[K]>> } = {
  docs: {
    "hellaswag/utils.process_docs": hellaswag,
    ...Object.fromEntries(
      mmluProSubjects.map((subject) => [
        `mmlu_pro/utils.process_${subject.replaceAll(" ", "_")}`,
        (docs: readonly Doc[]) => docs.filter(({ category }) => category === subject),
      ]),
    ),
  },
  field: {
    "winogrande/preprocess_winogrande.doc_to_text": (doc) => Number(textOf(doc, "answer")) - 1,
    "winogrande/preprocess_winogrande.doc_to_target": (doc) => gapOf(doc).behind,
    "winogrande/preprocess_winogrande.doc_to_choice": (doc) =>
      ["option1", "option2"].map((option) => gapOf(doc).before + textOf(doc, option)),
    "wikitext/preprocess_wikitext.wikitext_detokenizer": (doc) => detokenized(textOf(doc, "page")),
    "c4/preprocess_c4.c4_detokenizer": (doc) => detokenized(textOf(doc, "text")),
    "paloma/paloma_utils.doc_to_target": (doc) => str(doc["text"] ?? null),
    "mmlu_pro/utils.doc_to_text": mmluProQuestion,
    "mmlu_pro/utils.fewshot_to_text": mmluProQuestion,
    "mmlu_pro/utils.fewshot_to_target": (doc) =>
      textOf(doc, "cot_content").replaceAll("A: Let's think step by step. ", ""),
  },
  results: {
    "wikitext/preprocess_wikitext.process_results": byColumn("page"),
    "c4/preprocess_c4.process_results": byColumn("text"),
  },
};

/** Modules of which functions are ported, with their folders: `hellaswag/utils`. */
function portedModules(): string[] {
  const names = Object.values(ports).flatMap((known) => Object.keys(known));
  return [...new Set(names.map((name) => name.slice(0, name.indexOf("."))))];
}

/** A function's name with the folder of the file that names it: `hellaswag/utils.process_docs`. */
function portName(field: string, file: string): string {
  const folder = file.replaceAll("\\", "/").split("/").at(-2) ?? "";
  return `${folder}/${field.slice(functionMark.length)}`;
}

/** The port of a function; null for a field that names none. Throws inputError for a function that has no port. */
export function requirePort<K extends Kind>(
  kind: K,
  field: string,
  { file, where }: { readonly file: string; readonly where: string },
): Ports[K] {
  const name = portName(field, file);
  const port = Object.hasOwn(ports[kind], name) ? ports[kind][name] : undefined;
  if (port !== undefined) return port;
  throw inputError(`the Python function ${name} is not known here`, {
    where,
    hint: `ported are functions of ${portedModules().join(", ")}`,
  });
}
