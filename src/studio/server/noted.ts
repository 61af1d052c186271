/**
 * A command that a folder has noted, before it becomes one that the page starts. The file lies in the folder that is
 * shown, and whoever wrote that may have written anything: only words that `upcycle` itself notes for what can be gone
 * on with are let through, and what they write has a place that is known.
 */
import { resolve } from "node:path";
import { inputError } from "../../base/errors.js";
import { visibleLine } from "../../base/shown.js";
import type { RecordedCommand } from "../data/command-types.js";

/** A noted command, and the folder in which it was found; null for a conversion, which notes it beside its folder. */
export interface FoundCommand extends RecordedCommand {
  readonly holder: string | null;
}

/** Options of a command that goes on: those with a value, those without, and how many other words it takes. */
interface Form {
  readonly valued: readonly string[];
  readonly plain: readonly string[];
  readonly words: number;
}

const training = ["--out", "--log", "--device", "--precision", "--threads"];
/** Commands that find what is done, so that giving them again is harmless. */
const resumable: Readonly<Record<string, Form>> = {
  train: { valued: training, plain: ["--json"], words: 1 },
  study: { valued: [...training, "--store", "--jobs", "--scale", "--only"], plain: ["--json", "--report"], words: 1 },
  quickstart: { valued: training, plain: ["--json", "--full"], words: 0 },
};
/** Those that make the folder that they name. */
const converting = new Set(["convert", "merge", "import"]);
/** Options that name a folder in which a command writes. */
const writing = ["--out", "--store"];

const mostWords = 200;
const longestWord = 4096;

/** What a noted command would start, and the folders in which it writes. */
export interface CheckedCommand {
  readonly command: RecordedCommand;
  readonly writes: readonly string[];
}

/** Checks a noted command. Throws inputError for words that are not gone on with. */
export function checkedCommand({ words, folder, holder }: FoundCommand, where: string): CheckedCommand {
  const refused = (why: string): never => {
    throw inputError(`the command that was noted ${why}`, { where, hint: "give it in a shell" });
  };
  const [, name = ""] = words;
  if (words.length > mostWords || words.some((word) => word.length > longestWord)) refused("is too long");
  if ([...words, folder].some((word) => /\p{C}/u.test(word))) refused("holds characters that cannot be seen");
  if (converting.has(name)) {
    const out = valueOf(words, "--out") ?? "";
    if (out === "") refused("makes no folder");
    return { command: { words, folder }, writes: [resolve(folder, out)] };
  }
  const form = Object.hasOwn(resumable, name) ? resumable[name]! : null;
  if (form === null) throw inputError(`upcycle ${visibleLine(name, 40)} is not gone on with`, { where });
  const wrong = unknownWord(words.slice(2), form);
  if (wrong !== null) refused(`has "${visibleLine(wrong, 40)}", which no command that is gone on with has`);
  const writes = writing.flatMap((option) => valueOf(words, option) ?? []).map((path) => resolve(folder, path));
  // A file may name any folder; the run goes on in the one in which its command was noted.
  const out = valueOf(words, "--out") === null && holder !== null ? ["--out", holder] : [];
  return { command: { words: [...words, ...out], folder }, writes };
}

/** The first word that does not fit a form; null where all do. */
function unknownWord(words: readonly string[], { valued, plain, words: most }: Form): string | null {
  let others = 0;
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    const [option, value] = word.split(/=(.*)/s, 2);
    if (valued.includes(option!)) i += value === undefined ? 1 : 0;
    else if (!plain.includes(word) && (word.startsWith("-") || ++others > most)) return word;
  }
  return null;
}

/** The value of an option; null where it is not given. The last one counts. */
function valueOf(words: readonly string[], option: string): string | null {
  let found: string | null = null;
  words.forEach((word, i) => {
    if (word === option) found = words[i + 1] ?? "";
    else if (word.startsWith(`${option}=`)) found = word.slice(option.length + 1);
  });
  return found;
}
