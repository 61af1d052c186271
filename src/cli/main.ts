#!/usr/bin/env node
/** The command line: parses, calls one command, turns failures into one line and an exit code. */
import { Command, CommanderError, Option } from "commander";
import { UpcycleError, inputError } from "../base/errors.js";
import { mostQuoted, visibleLine } from "../base/shown.js";
import { toolVersion } from "../surgery/convert/version.js";
import { nearest } from "../base/schemas/nearest.js";
import { faces, stub, type Face } from "./commands.js";
import { helpText, withHelp } from "./help.js";
import { limitError, requireAddresses } from "../files/io/limits.js";
import "../files/io/few-files.js";
import { stoppedExitCode, withstandHangups } from "./signals.js";
import { ReaderGone, quietBrokenPipe, settleAll, showError } from "./terminal.js";

/** The program with the command that the arguments name; where they name none, with what can be said of all. */
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
  const named = args.find((arg) => !arg.startsWith("-")) ?? "";
  // `upcycle help COMMAND` shows the help of one that it names next.
  const wanted = named === "help" ? (args[args.indexOf(named) + 1] ?? "") : named;
  const loaded = Object.hasOwn(faces, wanted)
    ? [await loadedCommand(faces[wanted]!)]
    : Object.entries(faces).map(([name, face]) => stub(name, face));
  for (const command of loaded) program.addCommand(command.addOption(new Option("--debug").hideHelp()));
  // Commander prints an error in two lines and more; `main` prints it in one.
  for (const command of [program, ...loaded])
    withHelp(command)
      .exitOverride()
      .configureOutput({ outputError: () => undefined });
  return program;
}

/** A command with the options that all have. */
async function loadedCommand({ load }: Face): Promise<Command> {
  const { withPrintSettings } = await import("./settings.js");
  return withPrintSettings(await load());
}

export async function main(args: readonly string[]): Promise<number> {
  const debug = args.includes("--debug");
  let program: Command | undefined;
  try {
    requireAddresses();
    program = await buildProgram(args);
    requireNamed(args);
    if (args.every((arg) => arg === "--debug")) {
      program.outputHelp();
      return 0;
    }
    await program.parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    // --help, --version; and help that was shown instead of a line about what is wrong.
    if (error instanceof CommanderError && (error.exitCode === 0 || error.code === "commander.help"))
      return error.exitCode === 0 ? 0 : 2;
    if (error instanceof ReaderGone) return stoppedExitCode() ?? 0;
    const { lines, exitCode, stack } = describe(error, args);
    const [first = "", ...more] = lines;
    showError([`upcycle: ${first}`, ...more, ...(debug ? (stack ?? "").split("\n") : [])], process.stderr);
    return exitCode;
  } finally {
    settleAll(process.stderr);
  }
}

/** Commander shows the whole help where a command is missing or not there; one line says which it is. */
function requireNamed(args: readonly string[]): void {
  const [first, second = ""] = args.filter((arg) => arg !== "--debug");
  if (first === "--") throw inputError('no command before "--"', { hint: "see upcycle --help" });
  if (first !== "help" || second === "" || second.startsWith("-") || Object.hasOwn(faces, second)) return;
  const meant = nearest(second, Object.keys(faces));
  throw inputError(`there is no command "${visibleLine(second, mostQuoted)}" to help with`, {
    hint: meant === undefined ? "see upcycle --help" : `did you mean ${meant}?`,
  });
}

interface Description {
  readonly lines: readonly string[];
  readonly exitCode: number;
  readonly stack?: string | undefined;
}

function describe(error: unknown, args: readonly string[]): Description {
  const stopped = stoppedExitCode();
  if (error instanceof UpcycleError) {
    if (error.kind !== "interrupted" || stopped === null) return error;
    return { lines: error.lines, exitCode: stopped, stack: error.stack };
  }
  const limit = limitError(error);
  if (limit !== null) return { lines: [limit.line], exitCode: limit.exitCode, stack: limit.stack };
  if (error instanceof CommanderError) return { lines: [usageLine(error, args)], exitCode: 2, stack: error.stack };
  // Node asks for it where anything is relative, modules of its own too.
  if (error instanceof Error && /\buv_cwd\b/.test(error.message))
    return { lines: ["the working folder is gone; change to one that is there"], exitCode: 2, stack: error.stack };
  const aborted = (error as { name?: unknown } | null)?.name === "AbortError";
  if (aborted && stopped !== null) return { lines: ["stopped"], exitCode: stopped };
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const line = `internal error: ${message.replace(/\s*\n\s*/g, " ")}; this is a defect, --debug shows where`;
  return { lines: [line], exitCode: 1, stack };
}

/** Commander's message as one line, with its own suggestion or where to look. */
function usageLine({ message }: CommanderError, args: readonly string[]): string {
  const words = args.flatMap((arg) => [arg, arg.split("=", 1)[0]!]).filter((word) => word.length > mostQuoted);
  const [first = "", suggestion] = words
    .reduce((text, word) => text.replaceAll(word, visibleLine(word, mostQuoted)), message)
    .replace(/^error: /, "")
    .replace(/\.$/, "")
    .split("\n");
  const meant = /^\(Did you mean (.*)\?\)$/.exec(suggestion ?? "")?.[1];
  if (meant !== undefined) return `${first}; did you mean ${meant}?`;
  const command = args.find((arg) => Object.hasOwn(faces, arg));
  return `${first}; see upcycle ${command === undefined ? "" : `${command} `}--help`;
}

withstandHangups();
quietBrokenPipe();
process.exitCode = await main(process.argv.slice(2));
