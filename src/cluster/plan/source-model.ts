/** The network that a launch file's checkpoint will hold, before it is there. Pure. */
import { inputError } from "../../base/errors.js";
import type { LaunchConfig } from "../../base/schemas/index.js";
import { shellWord } from "../../base/shell.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { draftOf } from "../../surgery/planning/draft.js";
import { upcycleFfns } from "../../surgery/planning/experts.js";
import { upcycleRecipe, type TargetFamily } from "../../surgery/planning/recipe.js";
import { targets } from "../../surgery/planning/targets.js";

type From = NonNullable<LaunchConfig["from"]>;

/** What `upcycle convert` would make of `dense`. Throws inputError for a recipe that does not fit it. */
export function plannedModel(dense: DecoderSpec, { recipe, router, scaling, target }: From): DecoderSpec {
  if (recipe === undefined) return dense;
  const family = (target ?? "upcycle") as TargetFamily;
  if (!Object.hasOwn(targets, family))
    throw inputError(`"${family}" is no family that is written`, {
      where: "from.target",
      hint: `known: ${Object.keys(targets).join(", ")}`,
    });
  const wanted = targets[family];
  if (wanted.routers[router] === undefined)
    throw inputError(`${family} has no ${router} router`, { where: "from.router" });
  return upcycleFfns(draftOf(dense), upcycleRecipe(recipe, { order: router, scaling }), wanted).spec;
}

/** The command that makes the checkpoint; MODEL stands for a folder of weights that the file does not name. */
export function makingCommand({ from, checkpoint }: Pick<LaunchConfig, "from" | "checkpoint">): string {
  const { model, recipe, router, scaling, target } = from!;
  const weights = from!.weights ?? (model.endsWith(".json") ? "MODEL" : model);
  const words =
    recipe === undefined
      ? ["export", weights]
      : [
          ...["convert", weights, "--recipe", recipe, "--router", router, "--scaling", scaling],
          ...(target === undefined ? [] : ["--target", target]),
        ];
  return ["upcycle", ...words, "--format", "megatron", "--out", checkpoint].map(shellWord).join(" ");
}
