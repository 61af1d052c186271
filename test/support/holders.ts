import type { DecoderSpec } from "../../src/model/decoder/types.js";
import type { TargetFamily, UpcycleRecipe } from "../../src/surgery/planning/recipe.js";
import { surveyRecipe } from "../../src/surgery/planning/survey.js";

/** The families that hold `source` for a recipe, best first. */
export function holders(source: DecoderSpec, recipe: UpcycleRecipe): TargetFamily[] {
  return surveyRecipe(source, recipe).flatMap(({ family, obstacle }) => (obstacle === null ? [family] : []));
}
