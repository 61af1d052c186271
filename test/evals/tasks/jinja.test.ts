import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { parseTemplate } from "../../../src/evals/tasks/jinja.js";
import { parseLiteral, repr, type Doc } from "../../../src/evals/tasks/python-text.js";

interface Golden {
  readonly doc: Doc;
  readonly cases: readonly { readonly template: string; readonly rendered?: string; readonly refused?: string }[];
}

/** Made by test/external/record_templates.py with Jinja2 as the harness sets it up. */
const { doc, cases } = JSON.parse(
  readFileSync(new URL("../../golden/templates.json", import.meta.url), "utf8"),
) as Golden;

describe("templates", () => {
  it.each(cases)("render $template as Jinja2 does", ({ template, rendered }) => {
    if (rendered === undefined) expect(() => parseTemplate(template, "task").render(doc)).toThrow(UpcycleError);
    else expect(parseTemplate(template, "task").render(doc)).toBe(rendered);
  });

  it("give a list itself where they are one expression", () => {
    const { text } = doc["choices"] as { readonly text: readonly string[] };
    const value = parseTemplate("{{choices.text}}", "task").value(doc);
    expect(value).toEqual(text);
    expect(parseLiteral(repr(value))).toEqual(value);
  });

  it("are refused with the template and the place where their syntax is not understood", () => {
    expect(() => parseTemplate("{{ question ", "task.yaml: task x")).toThrow(/template "\{\{ question "/);
  });
});
