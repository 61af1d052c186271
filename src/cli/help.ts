/** Help as wide as the terminal it is read on. */
import { Help, type Command } from "commander";
import { folded, wrap } from "../base/format.js";
import { displayWidth } from "../base/width.js";
import { resultColumns } from "./terminal.js";

/** An option whose name leaves fewer columns than this beside it is explained below its name. */
const leastBeside = 30;

const helpColumns = (): number => resultColumns(process.stdout);

/** Makes a command's help as wide as the terminal, with long lines folded. */
export function withHelp(command: Command): Command {
  return command.configureHelp({
    helpWidth: helpColumns(),
    minWidthToWrap: 1,
    formatItem(term, termWidth, description, helper) {
      const width = this.helpWidth ?? helpColumns();
      if (description === "" || width - termWidth - 4 >= leastBeside) {
        return Help.prototype.formatItem.call(this, term, termWidth, description, helper);
      }
      return [`  ${term}`, ...wrap(description, width - 6).map((line) => `      ${line}`)].join("\n");
    },
    formatHelp(helpedCommand, helper) {
      return helpLines(Help.prototype.formatHelp.call(this, helpedCommand, helper));
    },
  });
}

/** Text below a command's options: paragraphs, then command lines that work. */
export function helpText(paragraphs: readonly string[], examples: readonly string[]): string {
  const text = paragraphs.flatMap((paragraph) => wrap(paragraph, helpColumns()));
  const above = text.length === 0 ? [] : ["", ...text];
  return helpLines([...above, "", "Example:", ...examples.map((example) => `  $ ${example}`)].join("\n"));
}

function helpLines(text: string): string {
  const width = helpColumns();
  return text
    .split("\n")
    .flatMap((line) => (displayWidth(line) <= width ? [line] : folded(line, width, "keep")))
    .join("\n");
}
