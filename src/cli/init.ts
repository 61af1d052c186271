/** `upcycle init` */
import { writeFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { shellPath } from "../base/shell.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { sizeLimits } from "../files/io/open.js";
import { readText } from "../files/io/ranges.js";
import { openContext, shownPath } from "./context.js";
import { oneOf, withExample, withJson, type CommonFlags } from "./options.js";

const recipes = fileURLToPath(new URL("../../recipes", import.meta.url));

/** What can be begun: the recipe that is copied, and the command that runs it. */
const kinds = {
  study: { template: "own-parent.yaml", run: (file: string) => `upcycle study ${file}` },
  train: { template: "train.yaml", run: (file: string) => `upcycle train ${file}` },
  convert: {
    template: "convert.yaml",
    run: (file: string) => `upcycle convert MODEL --recipe ${file} --out DIR`,
  },
} as const;

type Kind = keyof typeof kinds;

const kindNames = Object.keys(kinds) as Kind[];

interface InitFlags extends CommonFlags {
  readonly kind: Kind;
}

/** The command `init` with its options and its help. */
export function initCommand(): Command {
  const command = new Command("init")
    .description("write a commented recipe to start from: a study, a training or a conversion")
    .argument("[file]", "file to write, never one that is there (default: KIND.yaml)")
    .option("--kind <kind>", kindNames.join(", "), oneOf("--kind", kindNames), "study")
    .action(execute);
  return withExample(withJson(command), "upcycle init my-study.yaml --kind study");
}

async function execute(given: string | undefined, { kind, json: asJson }: InitFlags): Promise<void> {
  const { terminal, json } = openContext({ json: asJson });
  const file = given ?? `${kind}.yaml`;
  if (!/\.ya?ml$/i.test(file))
    throw inputError("a recipe is a YAML file", { where: file, hint: `name it ${file || kind}.yaml` });
  const { template, run } = kinds[kind];
  await writeNew(file, adapted(await readText(join(recipes, template), sizeLimits.yaml), template, file));
  const command = run(shellPath(shownPath(file)));
  if (json) return terminal.json({ file, kind, command });
  terminal.out([`wrote ${shownPath(file)}; change it, then run`, `  ${command}`]);
}

/** A file that is there is never replaced, not even between a look and the writing. */
async function writeNew(file: string, text: string): Promise<void> {
  try {
    await withFsErrors(file, "write recipe", () => writeFile(file, text, { flag: "wx" }));
  } catch (cause) {
    if (((cause as Error).cause as NodeJS.ErrnoException | undefined)?.code !== "EEXIST") throw cause;
    throw inputError("is there already, and init replaces nothing", { where: file, hint: "name another file", cause });
  }
}

/** The template as it reads in its new place: its schema is found from there, and its own name is the file's. */
function adapted(text: string, template: string, file: string): string {
  return text
    .replace(/(\$schema=)(\S+)/, (_, key: string, schema: string) => key + schemaPath(join(recipes, schema), file))
    .replaceAll(`recipes/${template}`, shownPath(file).replaceAll("\\", "/"));
}

/** Relative while the file stays near the package; editors read both kinds. */
function schemaPath(schema: string, file: string): string {
  const near = relative(dirname(resolve(file)), schema).replaceAll("\\", "/");
  return near.startsWith("../../..") ? schema.replaceAll("\\", "/") : near;
}
