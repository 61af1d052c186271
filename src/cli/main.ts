/** The command line: parses, calls one command, turns failures into one line and an exit code. */
import { Command, CommanderError, Option } from "commander";
import { UpcycleError, inputError } from "../base/errors.js";
import { mostQuoted, visibleLine } from "../base/shown.js";
import { toolVersion } from "../surgery/convert/version.js";
import { nearest } from "../base/schemas/nearest.js";
import { commandNamed, commandNames, stubs, type CommandEntry } from "./commands.js";
import { helpText, withHelp } from "./help.js";
import { limitError, requireAddresses } from "../files/io/limits.js";
import "../files/io/few-files.js";
import { stoppedExitCode, withstandHangups } from "./signals.js";
import { ReaderGone, quietBrokenPipe, settleAll, showError } from "./terminal.js";

/** The program with the command that the arguments name; where they name none, with stubs of all commands. */
export async function buildProgram(args: readonly string[]): Promise<Command> {
  const program = new Command("upcycle")
    .description("Turn trained dense language models into mixtures of experts, train them, and see what it bought.")
    .version(toolVersion)
    .option("--debug", "show the stacks of errors; before or after the command")
    .enablePositionalOptions()
    .addHelpText("after", () =>
      helpText(["upcycle COMMAND --help shows a command's options and an example."], ["upcycle demo"]),
    );
  // The program's own options take no values, so the first word is the command.
  const firstWord = args.find((arg) => !arg.startsWith("-")) ?? "";
  // `upcycle help COMMAND` shows the help of the command behind it.
  const name = firstWord === "help" ? (args[args.indexOf(firstWord) + 1] ?? "") : firstWord;
  const entry = commandNamed(name);
  const commands = entry === undefined ? stubs() : [await loadedCommand(entry)];
  for (const command of commands) program.addCommand(command.addOption(new Option("--debug").hideHelp()));
  // Commander prints an error in two lines and more; `main` prints it in one.
  for (const command of [program, ...commands, ...commands.flatMap((one) => one.commands)])
    withHelp(command)
      .exitOverride()
      .configureOutput({ outputError: () => undefined });
  return program;
}

/** A command with the options that all have. */
async function loadedCommand({ load }: CommandEntry): Promise<Command> {
  const { withPrintSettings } = await import("./settings.js");
  return withPrintSettings(await load());
}

/** Runs the command line `upcycle ARGS` and returns its exit code; errors go to stderr, in one line each. */
export async function main(args: readonly string[]): Promise<number> {
  try {
    requireAddresses();
    await run(await buildProgram(args), args);
    // A command that has shown what it found may say that it was bad.
    return process.exitCode === 1 ? 1 : 0;
  } catch (error) {
    return failed(error, args);
  } finally {
    settleAll(process.stderr);
  }
}

async function run(program: Command, args: readonly string[]): Promise<void> {
  const words = args.filter((arg) => arg !== "--debug");
  const [first, second] = words;
  const isProgramHelp = words.length === 0 || (first === "help" && second === "help");
  if (isProgramHelp) return program.outputHelp();
  requireCommand(words);
  await program.parseAsync([...args], { from: "user" });
}

/** Commander shows the whole help where a command is missing or not there; one line says which it is. */
function requireCommand([first, second = ""]: readonly string[]): void {
  if (first === "--") throw inputError('no command before "--"', { hint: "see upcycle --help" });
  if (first !== "help" || second === "" || second.startsWith("-") || commandNamed(second) !== undefined) return;
  const similar = nearest(second, commandNames);
  throw inputError(`there is no command "${visibleLine(second, mostQuoted)}" to help with`, {
    hint: similar === undefined ? "see upcycle --help" : `did you mean ${similar}?`,
  });
}

/** Says what went wrong, if anything did, and returns the exit code. */
function failed(error: unknown, args: readonly string[]): number {
  // Commander throws after --help and --version, and after help that it shows instead of a line about what is wrong.
  if (error instanceof CommanderError && error.exitCode === 0) return 0;
  if (error instanceof CommanderError && error.code === "commander.help") return 2;
  if (error instanceof ReaderGone) return stoppedExitCode() ?? 0;
  const { lines, exitCode, stack } = describe(error, args);
  const [first = "", ...more] = lines;
  const trace = args.includes("--debug") ? (stack ?? "").split("\n") : [];
  showError([`upcycle: ${first}`, ...more, ...trace], process.stderr);
  return exitCode;
}

/** What is said of an error. */
interface Description {
  readonly lines: readonly string[];
  readonly exitCode: number;
  readonly stack?: string | undefined;
}

function describe(error: unknown, args: readonly string[]): Description {
  const signalExitCode = stoppedExitCode();
  if (error instanceof UpcycleError) {
    if (error.kind !== "interrupted" || signalExitCode === null) return error;
    return { lines: error.lines, exitCode: signalExitCode, stack: error.stack };
  }
  const limit = limitError(error);
  if (limit !== null) return { lines: [limit.line], exitCode: limit.exitCode, stack: limit.stack };
  if (error instanceof CommanderError) return { lines: [usageLine(error, args)], exitCode: 2, stack: error.stack };
  // Node asks for the working folder wherever a path is relative, in modules of its own too.
  if (error instanceof Error && /\buv_cwd\b/.test(error.message))
    return { lines: ["the working folder is gone; change to one that is there"], exitCode: 2, stack: error.stack };
  const isAbort = (error as { name?: unknown } | null)?.name === "AbortError";
  if (isAbort && signalExitCode !== null) return { lines: ["stopped"], exitCode: signalExitCode };
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const line = `internal error: ${message.replace(/\s*\n\s*/g, " ")}; this is a defect, --debug shows where`;
  return { lines: [line], exitCode: 1, stack };
}

/** Commander's message as one line, with its own suggestion or where to look. */
function usageLine({ message }: CommanderError, args: readonly string[]): string {
  const longWords = args.flatMap((arg) => [arg, ...arg.split("=", 1)]).filter((word) => word.length > mostQuoted);
  const [first = "", suggestion] = longWords
    .reduce((text, word) => text.replaceAll(word, visibleLine(word, mostQuoted)), message)
    .replace(/^error: /, "")
    .replace(/\.$/, "")
    .split("\n");
  const similar = /^\(Did you mean (.*)\?\)$/.exec(suggestion ?? "")?.[1];
  if (similar !== undefined) return `${first}; did you mean ${similar}?`;
  const at = args.findIndex((arg) => commandNamed(arg) !== undefined);
  const words = at < 0 ? [] : args.slice(at, args[at] === "data" && args[at + 1] === "prepare" ? at + 2 : at + 1);
  return `${first}; see ${["upcycle", ...words, "--help"].join(" ")}`;
}

withstandHangups();
quietBrokenPipe();
process.exitCode = await main(process.argv.slice(2));
