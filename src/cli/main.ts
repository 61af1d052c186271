#!/usr/bin/env node
/** The command line: parses, calls one command, turns failures into one line and an exit code. */
import { Command, CommanderError, Option } from "commander";
import { UpcycleError } from "../base/errors.js";
import { toolVersion } from "../convert/version.js";
import { stoppedExitCode, withstandHangups } from "./signals.js";
import { ReaderGone, quietBrokenPipe } from "./terminal.js";

/** In the order of the help. Each is loaded when it is needed: a command waits for its own code alone. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  quickstart: async () => (await import("./study.js")).quickstartCommand(),
  study: async () => (await import("./study.js")).studyCommand(),
  train: async () => (await import("./train.js")).trainCommand(),
  convert: async () => (await import("./convert.js")).convertCommand(),
  merge: async () => (await import("./merge.js")).mergeCommand(),
  verify: async () => (await import("./verify.js")).verifyCommand(),
  diff: async () => (await import("./diff.js")).diffCommand(),
  inspect: async () => (await import("./inspect.js")).inspectCommand(),
  forward: async () => (await import("./forward.js")).forwardCommand(),
  "export-onnx": async () => (await import("./export-onnx.js")).exportOnnxCommand(),
  generate: async () => (await import("./generate.js")).generateCommand(),
  perplexity: async () => (await import("./perplexity.js")).perplexityCommand(),
  fit: async () => (await import("./fit.js")).fitCommand(),
  plan: async () => (await import("./plan.js")).planCommand(),
  targets: async () => (await import("./targets.js")).targetsCommand(),
};

/** The program with the command that the arguments name, or with all where they name none. */
export async function buildProgram(args: readonly string[]): Promise<Command> {
  const program = new Command("upcycle")
    .description("Turn trained dense language models into mixtures of experts, train them, and see what it bought.")
    .version(toolVersion)
    .option("--debug", "show the stacks of errors; before or after the command")
    .enablePositionalOptions()
    .addHelpText("after", "\nupcycle COMMAND --help shows a command's options and an example.\n\nExample:\n  $ upcycle quickstart");
  // The program's own options take no values, so the first word is the command.
  const named = args.find((arg) => !arg.startsWith("-")) ?? "";
  const loaders = Object.hasOwn(commands, named) ? [commands[named]!] : Object.values(commands);
  const loaded = await Promise.all(loaders.map((load) => load()));
  for (const command of loaded) program.addCommand(command.addOption(new Option("--debug").hideHelp()));
  // Commander prints an error in two lines and more; `main` prints it in one.
  for (const command of [program, ...loaded]) command.exitOverride().configureOutput({ outputError: () => undefined });
  return program;
}

export async function main(args: readonly string[]): Promise<number> {
  const debug = args.includes("--debug");
  const program = await buildProgram(args);
  if (args.every((arg) => arg === "--debug")) {
    program.outputHelp();
    return 0;
  }
  try {
    await program.parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    // --help, --version; and help that was shown instead of a line about what is wrong.
    if (error instanceof CommanderError && (error.exitCode === 0 || error.code === "commander.help")) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof ReaderGone) return stoppedExitCode() ?? 0;
    const { line, exitCode, stack } = describe(error, program, args);
    process.stderr.write(`upcycle: ${line}\n`);
    if (debug) process.stderr.write(`${stack}\n`);
    return exitCode;
  }
}

interface Description {
  readonly line: string;
  readonly exitCode: number;
  readonly stack?: string | undefined;
}

function describe(error: unknown, program: Command, args: readonly string[]): Description {
  const stopped = stoppedExitCode();
  if (error instanceof UpcycleError) {
    if (error.kind !== "interrupted" || stopped === null) return error;
    return { line: error.line, exitCode: stopped, stack: error.stack };
  }
  if (error instanceof CommanderError) return { line: usageLine(error, program, args), exitCode: 2, stack: error.stack };
  const aborted = (error as { name?: unknown } | null)?.name === "AbortError";
  if (aborted && stopped !== null) return { line: "stopped", exitCode: stopped };
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const line = `internal error: ${message.replace(/\s*\n\s*/g, " ")}; this is a defect, --debug shows where`;
  return { line, exitCode: 1, stack };
}

/** Commander's message as one line, with its own suggestion or where to look. */
function usageLine({ message }: CommanderError, program: Command, args: readonly string[]): string {
  const [first = "", suggestion] = message.replace(/^error: /, "").replace(/\.$/, "").split("\n");
  const meant = /^\(Did you mean (.*)\?\)$/.exec(suggestion ?? "")?.[1];
  if (meant !== undefined) return `${first}; did you mean ${meant}?`;
  const command = args.find((arg) => program.commands.some((known) => known.name() === arg));
  return `${first}; see upcycle ${command === undefined ? "" : `${command} `}--help`;
}

withstandHangups();
quietBrokenPipe();
process.exitCode = await main(process.argv.slice(2));
