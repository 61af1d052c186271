/** The files in recipes/: the committed JSON Schemas are the generated ones, and every example is valid. */
import { readFileSync, readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  hardwareSchema,
  jsonSchema,
  parseHardware,
  parseRecipeConfig,
  parseStudyConfig,
  parseTrainConfig,
  recipeConfigSchema,
  studySchema,
  trainSchema,
} from "../../../src/base/schemas/index.js";
import { recipeFromConfig } from "../../../src/surgery/planning/recipe-config.js";

const folder = new URL("../../../recipes/", import.meta.url);
const textOf = (name: string): string => readFileSync(new URL(name, folder), "utf8");

describe("the files in recipes/", () => {
  it.each([
    ["study", studySchema],
    ["train", trainSchema],
    ["hardware", hardwareSchema],
    ["recipe", recipeConfigSchema],
  ] as const)("%s.schema.json is up to date (npm run build && node scripts/schemas.mjs)", (name, schema) => {
    expect(textOf(`${name}.schema.json`)).toBe(`${JSON.stringify(jsonSchema(schema), null, 2)}\n`);
  });

  const examples = readdirSync(folder).filter((name) => name.endsWith(".yaml"));
  it.each(examples)("%s is valid and names its schema", (name) => {
    const text = textOf(name);
    const [, kind] = /^# yaml-language-server: \$schema=(study|train|hardware|recipe)\.schema\.json\n/.exec(text) ?? [];
    expect(kind).toBeDefined();
    if (kind === "study") parseStudyConfig(text, name);
    else if (kind === "train") parseTrainConfig(text, name);
    else if (kind === "recipe") recipeFromConfig(parseRecipeConfig(text, name));
    else parseHardware([{ text, file: name }]);
  });

  it("every key of the schemas is described", () => {
    const missing: string[] = [];
    const walk = (node: unknown, path: string): void => {
      if (typeof node !== "object" || node === null) return;
      for (const [key, value] of Object.entries(node)) {
        if (key === "properties") {
          for (const [name, property] of Object.entries(
            value as Record<string, { description?: string; const?: unknown }>,
          )) {
            if (property.description === undefined && property.const === undefined) missing.push(`${path}.${name}`);
            walk(property, `${path}.${name}`);
          }
        } else walk(value, path);
      }
    };
    walk(jsonSchema(studySchema), "study");
    walk(jsonSchema(trainSchema), "train");
    walk(jsonSchema(hardwareSchema), "hardware");
    walk(jsonSchema(recipeConfigSchema), "recipe");
    expect(missing).toEqual([]);
  });
});
