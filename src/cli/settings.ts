/** `--print-settings`: what a command would run with, its defaults and its file resolved. Nothing is run. */
import { CommanderError, type Command, type Option } from "commander";
import { openContext } from "./context.js";
import { defaultThreads } from "./options.js";

/** What a command knows beside its options. */
interface Resolved {
  /** Options whose value depends on a file or the machine. */
  readonly options?: Readonly<Record<string, unknown>>;
  /** A file that was read or a recipe, with its defaults. */
  readonly [key: string]: unknown;
}

/** `words` are the command's arguments. */
export type Resolver<Flags> = (
  words: readonly (string | undefined)[],
  flags: Flags,
  command: Command,
) => Promise<Resolved>;

const resolvers = new WeakMap<Command, Resolver<never>>();

/** Adds what `resolve` finds to the settings that the command prints; `resolve` may throw inputError. */
export function resolvedBy<Flags>(command: Command, resolve: Resolver<Flags>): Command {
  resolvers.set(command, resolve);
  return command;
}

const name = "--print-settings";

/**
 * Gives a command the option, which prints its settings before it begins and ends it with exit code 0. A command of
 * commands, such as `data`, has no settings of its own: each of its commands gets the option.
 */
export function withPrintSettings(command: Command): Command {
  command.commands.forEach(withPrintSettings);
  if (command.commands.length > 0) return command;
  return command
    .option(name, "print what it would run with, defaults and files resolved; run nothing")
    .hook("preAction", async (_, running) => {
      if (running.opts()["printSettings"] !== true) return;
      const settings = await settingsOf(running);
      const { terminal, json } = openContext({ json: running.opts()["json"] === true });
      if (json) terminal.json(settings);
      else
        terminal.out([`# upcycle ${fullName(running)}: its settings; nothing was run`, ...(await yamlLines(settings))]);
      throw new CommanderError(0, "upcycle.settings", "settings were printed");
    });
}

/** All commands have the option and hardly any call asks for it, so none but that loads the writer of YAML. */
async function yamlLines(settings: Readonly<Record<string, unknown>>): Promise<string[]> {
  const { stringify } = await import("yaml");
  return stringify(settings, { lineWidth: 0 }).trimEnd().split("\n");
}

async function settingsOf(command: Command): Promise<Record<string, unknown>> {
  const words = command.processedArgs as readonly (string | undefined)[];
  const { options, ...more } = (await resolvers.get(command)?.(words, command.opts<never>(), command)) ?? {};
  return {
    command: fullName(command),
    arguments: Object.fromEntries(command.registeredArguments.map((one, at) => [one.name(), words[at] ?? null])),
    options: {
      ...Object.fromEntries(
        command.options.filter(isSetting).map((one) => [one.attributeName(), valueOf(command, one)]),
      ),
      ...options,
    },
    ...more,
  };
}

/** The words that name a command behind `upcycle`, such as `data prepare`. */
function fullName(command: Command): string {
  const { parent } = command;
  return parent === null || parent.parent === null ? command.name() : `${fullName(parent)} ${command.name()}`;
}

/** How results and errors are shown is no setting of the work. */
const isSetting = ({ long }: Option): boolean => ![name, "--json", "--debug"].includes(long ?? "");

/**
 * The value on the command line, else the default of the parser, else the default that the help text states as
 * "(default: ...)", else null. Rewording such a text changes what `--print-settings` shows.
 */
function valueOf(command: Command, option: Option): unknown {
  const given: unknown = command.getOptionValue(option.attributeName());
  if (given !== undefined) return given;
  if (option.long === undefined || (!option.required && !option.optional)) return false;
  const words = /\(default: ([^)]*)\)/.exec(option.description)?.[1];
  if (words === undefined) return null;
  if (words.endsWith("all cores") && !words.includes(",")) return defaultThreads();
  return words !== "" && Number.isFinite(Number(words)) ? Number(words) : words;
}
