/**
 * The model card of a model that was trained further: it says what the training started from, and how that was made.
 */
import { cardFile } from "../../files/formats/model-files.js";
import { compact } from "../../base/format.js";
import { markdownText } from "../../base/markdown.js";
import type { Checkpoint } from "../../files/checkpoint/open.js";
import { countParams } from "../../model/cost/params.js";
import { cachedModel, modelName } from "../../files/hub/reference.js";
import { isMoe } from "../../model/decoder/types.js";
import type { MergeLineage } from "../planning/merge-lineage.js";
import { recipeName } from "../planning/recipe.js";
import { toolVersion } from "./version.js";
import { adapterRows, licence, matterLines, rows, shownName } from "./card.js";
import { readLineage } from "./lineage.js";
import { readParentCard } from "./parent-card.js";
import { adapterFacts } from "./parents.js";
import { readRecord } from "./record.js";

/**
 * Texts, by file name, that are written beside the weights into every checkpoint of a training that starts from this
 * model. They hold neither times nor paths, so that equal starts give equal texts.
 */
export async function trainedFiles(start: Checkpoint): Promise<Readonly<Record<string, string>>> {
  return { [cardFile]: await trainedCard(start) };
}

async function trainedCard(start: Checkpoint): Promise<string> {
  const { dir, config, spec } = start;
  // A record that cannot be read must not keep a training from starting: the card then says less.
  const [record, lineage] = await Promise.all([
    readRecord(dir).catch(() => null),
    readLineage(start).catch(() => null),
  ]);
  const [card, adapter] = await Promise.all([readParentCard(dir, config), adapterFacts(start)]);
  const parents = record === null ? [] : (record.parents ?? [record.parent.name]);
  // What an upcycled model was made of says more than the name of its folder, such as `start`.
  const base = record === null || cachedModel(dir) !== null ? modelName(dir) : `${record.parent.name} ${record.name}`;
  const name = shownName(base, adapter);
  const { total, active } = countParams(spec);
  const tags = isMoe(spec) ? ["moe", "mixture-of-experts", ...(lineage === null ? [] : ["upcycled"])] : [];
  const kind = isMoe(spec) ? "A mixture of experts" : "A dense model";
  return [
    ...matterLines([{ name: base, card }, ...(adapter === null ? [] : [adapter])], spec.family, tags),
    "",
    `# ${name}, trained further`,
    "",
    `${kind}, trained further from **${name}** with Upcycle ${toolVersion}.`,
    "",
    ...rows([
      ["trained from", `${markdownText(modelName(dir))} (${spec.family})`],
      ...adapterRows("its adapter", adapter),
      ...(record === null
        ? []
        : [["upcycled from", `${parents.map(markdownText).join(", ")} (${record.parent.family})`] as const]),
      ...(lineage === null ? [] : [["recipe", recipeWords(lineage)] as const]),
      ["parameters", active === total ? compact(total) : `${compact(total)}, ${compact(active)} active for each token`],
      ["licence", licence(card)],
    ]),
    "",
    "What it was trained on, and how far, is in `run.json` and `metrics.jsonl` of the run's folder.",
    ...(lineage === null ? [] : ["How its experts were made is in `config.json`, under the key `upcycle`."]),
    "",
  ].join("\n");
}

function recipeWords({ recipe, family, copies }: MergeLineage): string {
  return `${recipeName(recipe)}, of a ${family} model${copies === 1 ? "" : `; every expert ${copies} times`}`;
}
