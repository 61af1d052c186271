// Writes recipes/*.schema.json from the built schemas: npm run build && node scripts/schemas.mjs
import { writeFileSync } from "node:fs";
import {
  hardwareSchema,
  jsonSchema,
  launchSchema,
  recipeConfigSchema,
  studySchema,
  trainSchema,
} from "../dist/base/schemas/index.js";

for (const [name, schema] of [
  ["study", studySchema],
  ["train", trainSchema],
  ["hardware", hardwareSchema],
  ["recipe", recipeConfigSchema],
  ["launch", launchSchema],
]) {
  const file = new URL(`../recipes/${name}.schema.json`, import.meta.url);
  writeFileSync(file, `${JSON.stringify(jsonSchema(schema), null, 2)}\n`);
}
