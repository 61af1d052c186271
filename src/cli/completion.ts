/** `upcycle completion`: scripts that let a shell complete commands, options and files. */
import { Command } from "commander";
import { shellWord } from "../base/shell.js";
import { openContext } from "./context.js";
import { oneOf, withExample, withJson, type CommonFlags } from "./options.js";
import { withPrintSettings } from "./settings.js";

/** What a shell has to know of a command. */
interface Completed {
  readonly name: string;
  readonly description: string;
  /** Words that may follow the command's name: `prepare` behind `data`. */
  readonly parts: readonly string[];
  readonly options: readonly { readonly long: string; readonly description: string }[];
}

const scripts: Readonly<Record<string, (commands: readonly Completed[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

/** Every command of the program, by name. */
type Commands = Readonly<Record<string, { readonly load: () => Promise<Command> }>>;

/** The command `completion` with its options and its help. */
export function completionCommand(commands: Commands): Command {
  const shells = Object.keys(scripts);
  const command = new Command("completion")
    .description("print a script that completes commands, options and files in a shell")
    .argument("<shell>", shells.join(", "), oneOf("shell", shells))
    .action((shell: string, flags: CommonFlags) => execute(shell, flags, commands));
  return withExample(
    withJson(command),
    "upcycle completion bash >> ~/.bashrc",
    "zsh: upcycle completion zsh > a folder of $fpath, as _upcycle. fish: upcycle completion fish > " +
      "~/.config/fish/completions/upcycle.fish. It completes the command upcycle, not npx upcycle.",
  );
}

async function execute(shell: string, flags: CommonFlags, commands: Commands): Promise<void> {
  const { terminal, json } = openContext({ json: flags.json });
  const script = scripts[shell]!(await Promise.all(Object.values(commands).map(({ load }) => completed(load))));
  if (json) terminal.json({ shell, script });
  else terminal.write(script);
}

async function completed(load: () => Promise<Command>): Promise<Completed> {
  const command = withPrintSettings(await load());
  const options = [command, ...command.commands]
    .flatMap((one) => one.options)
    .flatMap(({ long, description }) =>
      long === undefined || long === null ? [] : [{ long, description: firstClause(description) }],
    );
  return {
    name: command.name(),
    description: firstClause(command.description()),
    parts: command.commands.map((part) => part.name()),
    options: [...options, { long: "--help", description: "show its options" }],
  };
}

/** Menus of shells show one short line. */
const firstClause = (text: string): string => text.split(/[;:(]/, 1)[0]!.trim();

const optionsOf = ({ options }: Completed): string => options.map(({ long }) => long).join(" ");

/** Behind the name of a command with parts only they can stand. */
const partsCase = ({ parts }: Completed): string =>
  parts.length === 0 ? "" : ` [ "$COMP_CWORD" -eq 2 ] && options="${parts.join(" ")} --help";`;

const namesOf = (commands: readonly Completed[]): string => commands.map(({ name }) => name).join(" ");

/** Files are what is completed where nothing else fits: models, recipes, texts. */
function bashScript(commands: readonly Completed[]): string {
  return `# Completion of upcycle for bash.
_upcycle() {
  local current="\${COMP_WORDS[COMP_CWORD]}" options=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${namesOf(commands)} help --help --version --debug" -- "$current"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
    help) options="${namesOf(commands)}" ;;
    completion) options="${Object.keys(scripts).join(" ")} --json --help" ;;
${commands
  .filter(({ name }) => name !== "completion")
  .map(
    (command) =>
      `    ${command.name})${partsCase(command)} [[ "$current" == -* ]] && options="${optionsOf(command)}" ;;`,
  )
  .join("\n")}
  esac
  COMPREPLY=($(compgen -W "$options" -- "$current"))
}
complete -o default -F _upcycle upcycle
`;
}

function zshScript(commands: readonly Completed[]): string {
  // In a spec of _arguments and _describe a colon and brackets part the name from the words about it.
  const said = (text: string): string => text.replace(/[[\]:\\]/g, " ");
  const branches = commands.map(({ name, options, parts }) => {
    const specs = options.map(({ long, description }) => shellWord(`*${long}[${said(description)}]:value:_files`));
    return `    ${name}) _arguments ${specs.join(" ")} ${argumentSpec(name, parts)} ;;`;
  });
  return `#compdef upcycle
# Completion of upcycle for zsh.
_upcycle() {
  local -a commands
  commands=(
${commands.map(({ name, description }) => `    ${shellWord(`${name}:${said(description)}`)}`).join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local name="\${words[2]}"
  shift words
  (( CURRENT-- ))
  case "$name" in
${branches.join("\n")}
  esac
}
if [ "$funcstack[1]" = "_upcycle" ]; then _upcycle "$@"; else compdef _upcycle upcycle; fi
`;
}

function argumentSpec(name: string, parts: readonly string[]): string {
  if (name === "completion") return `'1:shell:(${Object.keys(scripts).join(" ")})'`;
  return parts.length === 0 ? "'*:file:_files'" : `'1:part:(${parts.join(" ")})' '*:file:_files'`;
}

function fishScript(commands: readonly Completed[]): string {
  const quoted = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const lines = commands.flatMap(({ name, description, options, parts }) => [
    `complete -c upcycle -n __fish_use_subcommand -f -a ${name} -d ${quoted(description)}`,
    ...(parts.length === 0
      ? []
      : [`complete -c upcycle -n '__fish_seen_subcommand_from ${name}' -f -a ${quoted(parts.join(" "))}`]),
    ...options.map(
      (option) =>
        `complete -c upcycle -n '__fish_seen_subcommand_from ${name}' -l ${option.long.slice(2)} -d ` +
        quoted(option.description),
    ),
  ]);
  return [
    "# Completion of upcycle for fish.",
    ...lines,
    `complete -c upcycle -n '__fish_seen_subcommand_from completion' -f -a '${Object.keys(scripts).join(" ")}'`,
    "",
  ].join("\n");
}
