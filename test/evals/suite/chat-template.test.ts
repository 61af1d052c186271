/** Chat templates; `test/external/compare-evaluations.mjs` compares whole prompts with those of transformers. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readChatTemplate } from "../../../src/evals/suite/chat-template.js";
import { chatMessages, plainText, type Turn } from "../../../src/evals/tasks/chat.js";
import { temporaryFolder } from "../../files/io/temporary.js";

const turns: readonly Turn[] = [
  { role: "system", content: "Be brief.", behind: "\n" },
  { role: "user", content: "One?", behind: " " },
  { role: "assistant", content: "1", behind: "\n\n" },
  { role: "user", content: "Two?", behind: " " },
];
const begun: readonly Turn[] = [...turns, { role: "assistant", content: "It is", behind: "" }];

const template =
  "{{ bos_token }}{% for m in messages %}\n    {% if m.role == 'system' %}\n<s>{{ m.content }}</s>{% else %}" +
  "[{{ m.role }}]{{ m.content | trim }}[end]{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";

/** A folder whose tokenizer has such a configuration. */
function folderOf(config: Readonly<Record<string, unknown>>, file?: string): string {
  const folder = temporaryFolder();
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  if (file !== undefined) writeFileSync(join(folder, "chat_template.jinja"), file);
  return folder;
}

describe("prompts as messages", () => {
  it("are turns of their own, or one question with all examples in it", () => {
    expect(plainText(turns)).toBe("Be brief.\nOne? 1\n\nTwo? ");
    expect(chatMessages(turns, true).map(({ role, content }) => `${role}: ${content}`)).toEqual([
      "system: Be brief.",
      "user: One?",
      "assistant: 1",
      "user: Two?",
    ]);
    expect(chatMessages(turns, false)).toEqual([
      { role: "system", content: "Be brief." },
      { role: "user", content: "One? 1\n\nTwo?" },
    ]);
    expect(chatMessages(begun, false).slice(1)).toEqual([
      { role: "user", content: "One? 1\n\nTwo?" },
      { role: "assistant", content: "It is" },
    ]);
  });
});

describe("a tokenizer's chat template", () => {
  it("renders messages with its special tokens, up to where the answer begins", async () => {
    const { render, source } = await readChatTemplate(
      folderOf({ chat_template: template, bos_token: { content: "<b>" } }),
    );
    expect(source).toBe(template);
    expect(render(chatMessages(turns, true), false)).toBe(
      "<b><s>Be brief.</s>[user]One?[end][assistant]1[end][user]Two?[end][assistant]",
    );
    expect(render(chatMessages(begun, false), true)).toBe(
      "<b><s>Be brief.</s>[user]One? 1\n\nTwo?[end][assistant]It is",
    );
  });

  it("may be one of several, or a file of its own", async () => {
    const several = folderOf({
      chat_template: [
        { name: "default", template: "default" },
        { name: "tools", template: "tools" },
      ],
    });
    expect((await readChatTemplate(several)).source).toBe("default");
    expect((await readChatTemplate(several, "tools")).source).toBe("tools");
    await expect(readChatTemplate(several, "rag")).rejects.toMatchObject({
      message: 'the tokenizer has no chat template "rag"',
      hint: "it has tools: --apply-chat-template NAME",
    });
    expect((await readChatTemplate(folderOf({}, "of the file"))).source).toBe("of the file");
  });

  it("is missing, broken, or fails: said with the folder", async () => {
    await expect(readChatTemplate(folderOf({}))).rejects.toThrow("the tokenizer has no chat template");
    await expect(readChatTemplate(folderOf({ chat_template: "{% for %}" }))).rejects.toThrow("cannot be read");
    const { render } = await readChatTemplate(folderOf({ chat_template: "{{ raise_exception('no talk') }}" }));
    expect(() => render([{ role: "user", content: "x" }], false)).toThrow("the chat template fails: no talk");
  });

  it("that refuses a system message gets none", async () => {
    const picky =
      "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}<{{ m.content }}>{% endfor %}";
    const { render } = await readChatTemplate(folderOf({ chat_template: picky }));
    expect(render(chatMessages(turns, false), false)).toBe("<One? 1\n\nTwo?>");
  });
});
