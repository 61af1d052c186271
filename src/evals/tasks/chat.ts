/** Prompts as messages of a conversation, as the LM Evaluation Harness makes them (lm_eval/api/task.py, utils.py). */
import { at } from "../../base/at.js";

type Role = "system" | "user" | "assistant";

/** A part of a prompt. */
export interface Turn {
  readonly role: Role;
  readonly content: string;
  /** What follows it in plain text. */
  readonly behind: string;
}

/** A message as templates read it. */
export interface Message {
  readonly role: Role;
  readonly content: string;
}

/** How a model wants to be talked to. */
export interface ChatFormat {
  /** Examples are turns of their own, and not a part of the one question. */
  readonly multiturn: boolean;
  /** The prompt of messages; `continues`: the last one is the beginning of the answer. Throws inputError. */
  readonly render: (messages: readonly Message[], continues: boolean) => string;
}

/** The parts of a prompt without roles. */
export const plainText = (turns: readonly Turn[]): string =>
  turns.map(({ content, behind }) => content + behind).join("");

/** The messages of a prompt; without `multiturn` all examples stand in the user's one message. */
export function chatMessages(turns: readonly Turn[], multiturn: boolean): readonly Message[] {
  if (multiturn) return turns.map(({ role, content }) => ({ role, content }));
  const system = turns.filter(({ role }, i) => i === 0 && role === "system");
  const last = at(turns, turns.length - 1);
  const begun = last.role === "assistant" ? [last] : [];
  const asked = turns.slice(system.length, turns.length - begun.length);
  const content = plainText(asked.map((turn, i) => (i === asked.length - 1 ? { ...turn, behind: "" } : turn)));
  return [...system, { role: "user" as const, content }, ...begun].map(({ role, content: text }) => ({
    role,
    content: text,
  }));
}
