/** The model card, README.md in a converted model's folder, with the front matter that the Hugging Face Hub reads. */
import { stringify } from "yaml";
import { at } from "../../base/at.js";
import { markdownText, oneLine } from "../../base/markdown.js";
import { bytes, compact, percent, significant } from "../../base/format.js";
import type { WriteDtype } from "../../files/checkpoint/write.js";
import { countParams } from "../../model/cost/params.js";
import { unreachedWords, worstLayer, type PreservationReport } from "../../model/results/preservation.js";
import { explainExpectation, explainTitle } from "../planning/explain.js";
import type { SurgeryPlan } from "../planning/plan.js";
import { servingOf, type Support } from "../planning/serving.js";
import { recipeName } from "../planning/recipe.js";
import { damageParagraph } from "./damage-words.js";
import type { ParentCard } from "./parent-card.js";
import { toolVersion } from "./version.js";

/** What people call the precisions that are written. */
export const dtypeNames: Readonly<Record<WriteDtype, string>> = { F32: "float32", BF16: "bfloat16", F16: "float16" };

/** Name of the file that says in full what was measured. */
export const reportFile = "preservation.json";
/** The sentence in the card of a model that was not measured yet. */
export const notMeasured = "Not measured.";

/** What the card of an upcycled model says. */
export interface CardFacts {
  /** Name of the base. */
  readonly parentName: string;
  /** What the base says of itself. */
  readonly parent: ParentCard;
  /** The adapter that is merged into the base; null: none. */
  readonly adapter: AdapterFacts | null;
  /** Further dense models that gave experts. */
  readonly experts: readonly {
    readonly name: string;
    readonly card: ParentCard;
    readonly adapter: AdapterFacts | null;
  }[];
  readonly plan: SurgeryPlan;
  readonly dtype: WriteDtype;
  /** Size of the weight files. */
  readonly weightBytes: number;
  readonly warnings: readonly string[];
  /** What was measured on the finished model; null: nothing yet. */
  readonly preservation: PreservationReport | null;
  /** The verdict on weights that are NaN or infinite; null: there are none. */
  readonly damage: string | null;
}

/** What a card says of a LoRA adapter that is merged into a model. */
export interface AdapterFacts {
  readonly name: string;
  /** Its name, rank, and what it changes. */
  readonly words: string;
  readonly card: ParentCard;
}

/** The text of the card. It holds neither times nor paths, so that equal facts give equal text. */
export function modelCard(facts: CardFacts): string {
  return [
    ...frontMatter(facts),
    "",
    `# ${shownName(facts.parentName, facts.adapter)} ${recipeName(facts.plan.recipe)}`,
    "",
    ...(facts.damage === null ? [] : [damageParagraph(facts.damage), ""]),
    "A mixture of experts, upcycled from " +
      `${bold(shownName(facts.parent.repository ?? facts.parentName, facts.adapter))} with Upcycle ` +
      `${toolVersion}.`,
    "",
    ...rows(summary(facts)),
    "",
    "`upcycle.json` holds the recipe in full.",
    "",
    "## The parent's function",
    "",
    // What arithmetic promises holds for numbers.
    ...(facts.damage === null ? [sentence(explainExpectation(facts.plan.expected)), ""] : []),
    ...measured(facts.preservation, facts.adapter === null ? "the parent" : "the parent with its adapter merged in"),
    "",
    "## Loading",
    "",
    ...loading(facts),
    "",
  ].join("\n");
}

function frontMatter({ parentName, parent, adapter, experts, plan }: CardFacts): string[] {
  const withAdapter = (own: AdapterFacts | null): NamedCard[] => (own === null ? [] : [own]);
  const others = experts.flatMap((model) => [model, ...withAdapter(model.adapter)]);
  const models = [{ name: parentName, card: parent }, ...withAdapter(adapter), ...others] as const;
  return matterLines(models, plan.target.family, ["moe", "mixture-of-experts", "upcycled"]);
}

/** A model, and what it says of itself. */
export interface NamedCard {
  readonly name: string;
  readonly card: ParentCard;
}

/**
 * The front matter, which the Hub reads: licence and languages of the first of `models`, the names on the Hub of all,
 * family and tags. The Hub refuses a card whose `base_model` is not one of its own names. A folder that knows no such
 * name is therefore named in a comment, for whoever publishes the model.
 */
export function matterLines(
  models: readonly [NamedCard, ...NamedCard[]],
  family: string,
  tags: readonly string[],
): string[] {
  const [{ card: first }] = models;
  const { license, licenseName, licenseLink, languages } = first;
  const idsOf = ({ card: { repository, baseModels } }: NamedCard): readonly string[] =>
    repository === null ? baseModels : [repository];
  const ids = [...new Set(models.flatMap(idsOf))];
  const local = [...new Set(models.filter((model) => idsOf(model).length === 0).map(({ name }) => oneLine(name)))];
  const only = (key: string, value: unknown): Record<string, unknown> => (value === null ? {} : { [key]: value });
  const matter = {
    ...only("license", license),
    ...only("license_name", licenseName),
    ...only("license_link", licenseLink),
    ...(languages.length === 0 ? {} : { language: [...languages] }),
    ...only("base_model", ids.length > 1 ? ids : (ids[0] ?? null)),
    ...(family === "upcycle" ? {} : { library_name: "transformers" }),
    pipeline_tag: "text-generation",
    tags: [...tags, family],
  };
  const comments = local.map(
    (name) => `# base_model: ${name} (a folder; the Hub takes only a name that it has itself)`,
  );
  return ["---", stringify(matter, { lineWidth: 0 }).trimEnd(), ...comments, "---"];
}

/** A model's name, or `model+adapter` as mergekit writes it, for Markdown. */
export const shownName = (name: string, adapter: AdapterFacts | null): string =>
  markdownText(adapter === null ? name : `${name}+${adapter.name}`) || "model";

/** Whether other programs can load the model: our own format is read by this project alone. */
const loadsElsewhere = ({ target }: SurgeryPlan): boolean => (target.family as string) !== "upcycle";

/** The rows of the card's table. */
function summary(facts: CardFacts): [string, string][] {
  const { parentName, parent, adapter, experts, plan, dtype, weightBytes } = facts;
  const { recipe, source, target } = plan;
  const { total, active } = countParams(target);
  return [
    ["parent", `${markdownText(parentName)} (${source.family}), ${compact(countParams(source).total)} parameters`],
    ...adapterRows("its adapter", adapter),
    ...experts.flatMap(({ name, card, adapter: own }, i): [string, string][] => [
      [`parent ${i + 1}`, `${markdownText(name)}, licence: ${licence(card)}`],
      ...adapterRows(`adapter of parent ${i + 1}`, own),
    ]),
    ...severalParentsRows(facts),
    ["parameters", `${compact(total)}, ${compact(active)} active for each token`],
    ["recipe", explainTitle(plan)],
    ["router", `${recipe.order}, ${routerWords(recipe)}`],
    ...splitRows(recipe),
    ["scaling", recipe.scaling],
    ["seed", String(recipe.seed)],
    ["weights", `${bytes(weightBytes, 3)} as ${dtypeNames[dtype]}`],
    ["licence", licence(parent)],
  ];
}

/** Which model gave each expert, and everything else; no rows where there is one parent. */
function severalParentsRows({ parentName, adapter, experts, plan: { recipe } }: CardFacts): [string, string][] {
  if (recipe.parents === null) return [];
  const names = [shownName(parentName, adapter), ...experts.map(({ name, adapter: own }) => shownName(name, own))];
  return [
    ["experts from", recipe.parents.map(({ source }) => at(names, source)).join(", ")],
    [
      "all other tensors",
      recipe.others === "base"
        ? `from ${shownName(parentName, adapter)}`
        : "the mean over the models that gave experts",
    ],
  ];
}

/** A row on the adapter that is merged into a model; none without one. */
export function adapterRows(key: string, adapter: AdapterFacts | null): [string, string][] {
  return adapter === null
    ? []
    : [
        [
          key,
          `${markdownText(adapter.words)}; licence: ${licence({ ...adapter.card, licenseFiles: [] }, "the adapter")}`,
        ],
      ];
}

/** Which hidden units went where, where that was measured. */
function splitRows({ split, shared }: SurgeryPlan["recipe"]): [string, string][] {
  if (split === null) return [];
  const text = split.text === null ? "text" : `${split.text.tokens} tokens of ${markdownText(split.text.source)}`;
  const common = shared === null ? "" : `the ${shared} most active are the shared expert, the others `;
  return [["units", `by activation on ${text}: ${common}balanced clusters (arXiv 2502.04416)`]];
}

function routerWords({ routerInit, routerStd, split }: SurgeryPlan["recipe"]): string {
  if (split !== null) return "directions of the weights of each cluster's representative unit";
  if (routerInit === null) return routerStd === 0 ? "all zero" : `normal, standard deviation ${routerStd}`;
  if (routerInit.kind === "uniform_random") return "uniform between -1 and 1 over the root of the hidden size";
  if (routerInit.kind === "centroids") {
    const { text } = routerInit;
    const words = text === null ? "text" : `${text.tokens} tokens of ${markdownText(text.source)}`;
    return `centroids of what each layer's FFN of the parent reads on ${words}`;
  }
  return `from the base's ${routerInit.kind === "hidden" ? "hidden states" : "token embeddings"} of prompts`;
}

/** A parent's licence in words, and where that stands. */
export function licence({ license, licenseName, licenseFrom, licenseFiles }: ParentCard, whose = "the parent"): string {
  const files = licenseFiles.length === 0 ? "" : `; ${markdownText(licenseFiles.join(", "))} beside this file`;
  if (license === null) return `not stated by ${whose}'s README.md or config.json${files}`;
  return (
    `${markdownText(licenseName === null ? license : `${license} (${licenseName})`)}, as ${whose}'s ` +
    `${licenseFrom} says${files}`
  );
}

/** What was measured, in lines of Markdown; `parent` says what to call the model that it was compared with. */
export function measured(report: PreservationReport | null, parent = "the parent"): string[] {
  if (report?.verdict.kind === "damaged") return [report.verdict.words];
  const unreached = report === null ? null : unreachedWords(report);
  if (report === null) return [`${notMeasured} \`upcycle verify PARENT THIS\` does.`];
  return [
    `Measured on ${report.tokens} tokens of ${markdownText(report.source)}, ${parent} and this model evaluated ` +
      "in float32:",
    "",
    ...rows(measuredRows(report)),
    "",
    report.verdict.words,
    ...(unreached === null ? [] : [unreached]),
    `\`${reportFile}\` has it by layer.`,
  ];
}

function measuredRows(report: PreservationReport): [string, string][] {
  const worst = worstLayer(report.layers);
  const worstRow: [string, string][] =
    worst === null
      ? []
      : [["relative error of an FFN", `${significant(worst.relative)} at most (layer ${worst.layer})`]];
  return [
    [
      "largest logit difference",
      `${significant(report.maxAbsLogitDiff)}, ${significant(report.relative)} of the largest logit`,
    ],
    ["mean logit difference", significant(report.meanAbsLogitDiff)],
    ["loss of the parent", report.parentLoss.toFixed(5)],
    ["loss of this model", report.childLoss.toFixed(5)],
    ["KL divergence", `${significant(report.klDivergence)} nats`],
    ["same likeliest token", percent(report.topAgreement, 4)],
    ...worstRow,
  ];
}

/** How to load the model, and what each program makes of it. */
function loading({ plan, warnings }: CardFacts): string[] {
  const notes = warnings.map((warning) => `- ${sentence(markdownText(warning))}`);
  const remarks = notes.length === 0 ? [] : ["", ...notes];
  if (!loadsElsewhere(plan)) {
    return [
      "No released architecture can hold this model: only Upcycle loads it (`upcycle generate`, `train`, `verify`).",
      ...remarks,
    ];
  }
  const serving = servingOf(plan.target as Parameters<typeof servingOf>[0], plan.recipe.order);
  const served = serving.some(({ program, support }) => program === "vLLM" && support === "same");
  return [
    "```python",
    "from transformers import AutoModelForCausalLM",
    'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder", dtype="auto")',
    "```",
    "",
    ...(served ? ["```sh", "vllm serve path/to/this/folder", "```", ""] : []),
    ...rows(
      serving.map(({ program, support, note }) => [
        program,
        note === null ? supportWords[support] : `${supportWords[support]}: ${note}`,
      ]),
    ),
    "",
    "As read in the sources of these programs; versions differ.",
    ...remarks,
  ];
}

const supportWords: Readonly<Record<Support, string>> = {
  same: "computes the same function",
  other: "loads it, but computes **another function**",
  no: "does not load it",
  unknown: "not known",
};

/** A Markdown table with an empty heading. */
export function rows(cells: readonly (readonly [string, string])[]): string[] {
  return [
    "| | |",
    "|---|---|",
    ...cells.map(([key, value]) => `| ${key} | ${value.replace(/[\r\n]+/g, " ").replaceAll("|", "\\|")} |`),
  ];
}

const bold = (text: string): string => `**${text}**`;

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
