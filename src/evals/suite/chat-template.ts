/**
 * The chat template of a model's tokenizer, applied as transformers does (tokenization_utils_base.py,
 * utils/chat_template_utils.py) and the LM Evaluation Harness asks it to (lm_eval/models/huggingface.py).
 */
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { inputError } from "../../base/errors.js";
import { exists } from "../../files/io/atomic.js";
import { sizeLimits } from "../../files/io/open.js";
import { readJson, readText } from "../../files/io/ranges.js";
import type { Message } from "../tasks/chat.js";

/** A template that was read. */
interface ChatTemplate {
  readonly source: string;
  /** The prompt of messages; `continues`: the last message is not over. Throws inputError for what it cannot render. */
  readonly render: (messages: readonly Message[], continues: boolean) => string;
}

/** Special tokens that templates may name. */
const tokenNames = [
  "bos_token",
  "eos_token",
  "unk_token",
  "pad_token",
  "sep_token",
  "cls_token",
  "mask_token",
] as const;

/**
 * Reads a tokenizer's template: `chat_template.jinja`, or the one in `tokenizer_config.json`, where several are told
 * apart by name (`name`, else "default"). Throws inputError for a tokenizer without one, and for one that is no
 * template.
 */
export async function readChatTemplate(folder: string, name?: string): Promise<ChatTemplate> {
  const configFile = join(folder, "tokenizer_config.json");
  const config = (await exists(configFile))
    ? ((await readJson(configFile, sizeLimits.settings)) as Readonly<Record<string, unknown>>)
    : {};
  const file = join(folder, "chat_template.jinja");
  const named = templatesOf(config["chat_template"]);
  if (name === undefined && (await exists(file))) named.set("default", await readText(file, sizeLimits.settings));
  const source = named.get(name ?? "default");
  if (source === undefined) {
    const others = [...named.keys()].filter((one) => one !== "default");
    throw inputError(
      name === undefined ? "the tokenizer has no chat template" : `the tokenizer has no chat template "${name}"`,
      {
        where: folder,
        hint:
          others.length > 0 ? `it has ${others.join(", ")}: --apply-chat-template NAME` : "ask it plainly, without one",
      },
    );
  }
  let template: Template;
  try {
    template = new Template(source);
  } catch (cause) {
    throw inputError(`the chat template cannot be read: ${(cause as Error).message}`, { where: folder, cause });
  }
  const tokens = Object.fromEntries(tokenNames.flatMap((key) => tokenOf(key, config[key])));
  const rendered = (messages: readonly Message[], addGenerationPrompt: boolean): string =>
    template.render({ messages, add_generation_prompt: addGenerationPrompt, ...tokens });
  return {
    source,
    render(messages, continues) {
      try {
        return cut(rendered(messages, !continues), messages, continues);
      } catch (first) {
        // Some templates have no place for a system message, and say so.
        const others = messages.filter(({ role }) => role !== "system");
        try {
          if (others.length < messages.length) return cut(rendered(others, !continues), others, continues);
        } catch {
          // What was wrong first is said.
        }
        throw inputError(`the chat template fails: ${(first as Error).message}`, { where: folder, cause: first });
      }
    },
  };
}

/** Templates by name: a text is the default one, a list has names. */
function templatesOf(value: unknown): Map<string, string> {
  if (typeof value === "string") return new Map([["default", value]]);
  const named = Array.isArray(value) ? (value as readonly { name?: unknown; template?: unknown }[]) : [];
  return new Map(
    named.flatMap(({ name, template }) =>
      typeof name === "string" && typeof template === "string" ? [[name, template] as const] : [],
    ),
  );
}

function tokenOf(key: string, value: unknown): (readonly [string, string])[] {
  const text = typeof value === "object" && value !== null ? (value as { readonly content?: unknown }).content : value;
  return typeof text === "string" ? [[key, text]] : [];
}

/** What is rendered up to the end of a last message that goes on. */
function cut(text: string, messages: readonly Message[], continues: boolean): string {
  if (!continues) return text;
  const final = messages.at(-1)?.content ?? "";
  const place = text.lastIndexOf(final.trim());
  if (place < 0) throw new Error("it changes the beginning of the answer, which is to be continued");
  const whole = final.trimStart();
  return text.slice(0, place + (text.startsWith(whole, place) ? whole.length : final.trim().length));
}
