#!/usr/bin/env node
/** The command line: parses, calls one command, turns failures into one line and an exit code. */
import { Command, CommanderError } from "commander";
import { UpcycleError } from "../base/errors.js";
import { toolVersion } from "../convert/version.js";
import { quickstartCommand, studyCommand } from "./study.js";

export function buildProgram(): Command {
  const program = new Command("upcycle")
    .description("Turn trained dense language models into mixtures of experts, train them, and see what it bought.")
    .version(toolVersion)
    .option("--debug", "show stacks of errors")
    .enablePositionalOptions()
    .showHelpAfterError("(upcycle --help, or upcycle COMMAND --help, shows what is valid)");
  for (const command of [quickstartCommand(), studyCommand()]) {
    program.addCommand(command.option("--debug", "show stacks of errors"));
  }
  for (const command of [program, ...program.commands]) command.exitOverride();
  return program;
}

export async function main(args: readonly string[]): Promise<number> {
  const debug = args.includes("--debug");
  try {
    await buildProgram().parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    // Commander has already printed its own message, or the help that was asked for.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof UpcycleError) {
      process.stderr.write(`upcycle: ${error.line}\n`);
      if (debug) process.stderr.write(`${error.stack}\n`);
      return error.exitCode;
    }
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    process.stderr.write(`upcycle: internal error: ${message.replace(/\s*\n\s*/g, " ")}; this is a defect, --debug shows where\n`);
    if (debug) process.stderr.write(`${stack}\n`);
    return 1;
  }
}

process.exitCode = await main(process.argv.slice(2));
