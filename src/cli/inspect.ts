/** `upcycle inspect`: what a model folder holds. */
import { Command } from "commander";
import { bytes, compact, flops, grouped, labelled, table } from "../base/format.js";
import { damageWords } from "../surgery/convert/damage-words.js";
import { inspectModel, type LayerGroup, type ModelFacts, type StoredFormat } from "../surgery/convert/inspect.js";
import type { UpcycleRecord } from "../surgery/convert/record.js";
import { decoderRecord, layerRecord } from "../model/decoder/record.js";
import { routerOrder, type DecoderSpec, type Rope, type RouterSpec } from "../model/decoder/types.js";
import { openContext, shownPath } from "./context.js";
import { modelSource, orAdapted } from "./model-folder.js";
import { withExample, withJson, type CommonFlags } from "./options.js";

interface InspectFlags extends CommonFlags {
  readonly tensors?: boolean;
}

const labelWidth = 13;
/** The most names of unused tensors that are listed. */
const mostNames = 20;

/** The command with its options and its help. */
export function inspectCommand(): Command {
  const command = new Command("inspect")
    .description("say what a model folder holds; reads no weights")
    .argument("<model>", `model folder (Hugging Face: config.json, weights), ${orAdapted}`)
    .option("--tensors", "list every tensor")
    .action(execute);
  return withExample(withJson(command), "upcycle inspect models/moe");
}

async function execute(name: string, flags: InspectFlags): Promise<void> {
  const source = await modelSource(name, flags.json, "headers");
  const { terminal, json } = openContext({ json: flags.json });
  const { tensors, ...facts } = await inspectModel(source);
  if (json) {
    terminal.json({ ...recordOf(facts), ...(flags.tensors === true ? { tensors } : {}) });
    return;
  }
  const { columns } = terminal;
  for (const [label, text] of describe(facts)) terminal.out(labelled(label, text, labelWidth, columns));
  if (flags.tensors !== true) return;
  terminal.out("");
  terminal.out(tensorTable(tensors, new Set(facts.adapter?.changed), columns));
}

/** `adapted` are the names of the tensors that the model's adapter changes. */
function tensorTable(tensors: ModelFacts["tensors"], adapted: ReadonlySet<string>, columns: number): readonly string[] {
  const rows = tensors.map(({ name, dtype, scales, shape, bytes: size }) => [
    name,
    `${dtype}${scales === undefined ? "" : `, scales ${scales.per}`}${adapted.has(name) ? " + LoRA" : ""}`,
    `[${shape.join(", ")}]`,
    bytes(size),
  ]);
  return table([["tensor", "dtype", "shape", "size"], ...rows], ["left", "left", "left", "right"], columns);
}

/** The facts with the names that files use for parts of a decoder. */
function recordOf(facts: Omit<ModelFacts, "tensors">): Record<string, unknown> {
  const layers = facts.layers.map((group) => ({ ...group, layer: layerRecord(group.layer) }));
  return { ...facts, spec: decoderRecord(facts.spec), layers };
}

type LabelledText = [label: string, text: string];

/** The facts for people, a label and a text each. */
function describe(facts: Omit<ModelFacts, "tensors">): LabelledText[] {
  const { spec, params, unused, upcycle } = facts;
  const { sequence, forward, train } = facts.flopsPerToken;
  const adapterWords: LabelledText[] = facts.adapter === null ? [] : [["adapter", facts.adapter.words]];
  const unusedTensors: LabelledText[] = unused.length === 0 ? [] : [["unused", unusedWords(unused)]];
  const damage = damageWords(new Map(Object.entries(upcycle?.nonFinite ?? {})));
  const origin: LabelledText[] = upcycle === null ? [] : [["upcycled", originWords(upcycle)]];
  return [
    ["model", shownPath(facts.dir)],
    ...(damage === null ? [] : [["damaged", damage] satisfies LabelledText]),
    ...adapterWords,
    ["family", spec.family],
    ["shape", shape(spec)],
    ["attention", attention(spec)],
    ...facts.layers.map((group): LabelledText => [layerNames(group), layer(group)]),
    ["parameters", `${compact(params.total)} (${grouped(params.total)}), ${compact(params.active)} active per token`],
    ["on disk", `${bytes(facts.bytesOnDisk, 3)} in ${fileWords(facts.weightFiles)}, ${formatWords(facts.formats)}`],
    ["FLOPs", `${flops(forward)} per token forward, ${flops(train)} in training, at sequence ${grouped(sequence)}`],
    ...unusedTensors,
    ...facts.notes.map((note): LabelledText => ["note", note]),
    ...origin,
  ];
}

/** The number of weight files in words, and that they are pickles where any is. */
function fileWords(files: readonly string[]): string {
  const format = files.some((file) => file.endsWith(".bin")) ? " of torch.save" : "";
  return `${files.length === 1 ? "1 file" : `${files.length} files`}${format}`;
}

/**
 * Names beyond the first ones are only counted: a file may hold any number of tensors, which `--tensors` and `--json`
 * list.
 */
function unusedWords(names: readonly string[]): string {
  const more = names.length - mostNames;
  return `${names.length} tensors: ${names.slice(0, mostNames).join(", ")}${more > 0 ? `, and ${more} more` : ""}`;
}

/** The one plain format of all tensors, such as `F32`; else every format with its size and what it is read as. */
function formatWords(formats: readonly StoredFormat[]): string {
  const [first, ...others] = formats;
  if (first !== undefined && others.length === 0 && first.scales === null && first.readAs === null) return first.dtype;
  const parts = formats.map(
    ({ dtype, scales, readAs, bytes: size }) =>
      `${bytes(size, 3)} ` +
      `${dtype}${scales === null ? "" : ` with scales ${scales}`}${readAs === null ? "" : ` (read as ${readAs})`}`,
  );
  return parts.join(", ");
}

function shape({ hidden, layers, vocab, tiedHead, headBias, maxPositions, learnedPositions }: DecoderSpec): string {
  return (
    `hidden ${hidden}, ${layers.length === 1 ? "1 layer" : `${layers.length} layers`}, vocabulary ` +
    `${grouped(vocab)}, ${tiedHead ? "tied" : "own"} head${headBias ? " with a bias" : ""}, ` +
    `${grouped(maxPositions)} ${learnedPositions ? "learnt " : ""}positions`
  );
}

function attention({ attn, layers }: DecoderSpec): string {
  const { heads, kvHeads, headDim, qkNorm, qkvBias, alibi, lengthScale } = attn;
  const ropes = [...new Set(layers.map(({ rope }) => (rope === null ? "no rope" : `rope ${ropeWords(rope)}`)))];
  const extras = [
    qkNorm !== null ? "normalised queries and keys" : "",
    qkvBias ? "biases" : "",
    alibi !== null ? "linear biases (ALiBi)" : "",
    lengthScale !== null ? `queries scaled beyond ${grouped(lengthScale.originalMaxPositions)} positions` : "",
  ].filter((text) => text !== "");
  return [`${heads} heads of ${headDim}, ${kvHeads} key-value heads`, ...ropes, ...extras].join(", ");
}

function ropeWords({ theta, scaling }: Rope): string {
  if (scaling.kind === "none") return String(theta);
  return (
    `${theta} with ${scaling.kind} ` +
    "scaling" +
    ("factor" in scaling ? ` by ${scaling.factor}` : ` beyond ${grouped(scaling.originalMaxPositions)} positions`)
  );
}

function layerNames({ first, last }: LayerGroup): string {
  return first === last ? `layer ${first}` : `layers ${first}-${last}`;
}

function layer({ layer: { ffn, window } }: LayerGroup): string {
  const near = window === null ? "" : `, window of ${grouped(window)} tokens`;
  if (ffn.kind === "dense") return `dense, FFN ${grouped(ffn.ffnDim)}${near}`;
  const shared =
    ffn.shared === null ? "" : `, ${ffn.shared.gated ? "gated " : ""}shared expert of ${grouped(ffn.shared.ffnDim)}`;
  return (
    `MoE, ${ffn.experts} experts of ${grouped(ffn.ffnDim)}, top ${ffn.topK}, ${routerWords(ffn.router)} ` +
    `router${shared}${near}`
  );
}

function routerWords(router: RouterSpec): string {
  if (router.score === "sparsemixer") return router.score;
  const groups = router.groups === null ? "" : `, ${router.groups.kept} of ${router.groups.count} groups,`;
  return (
    (router.score === "softmax"
      ? routerOrder(router)
      : `${router.score}${router.renormalise === null ? "" : ", renormalised,"}`) + groups
  );
}

function exactness({ exactAtStart, rounded }: UpcycleRecord["expected"]): string {
  if (!exactAtStart) return "not exact";
  return rounded === undefined ? "exact" : "exact up to rounding";
}

/** What the record of an upcycled model says of its origin. */
function originWords({ name, parent, recipe, expected, nonFinite }: UpcycleRecord): string {
  const made =
    `${name} from ${parent.name} (${parent.family}), ${recipe.order}, scaling ${recipe.scaling}, router std ` +
    `${recipe.routerStd}, seed ${recipe.seed}`;
  return nonFinite === undefined ? `${made}; ${exactness(expected)} at the start: ${expected.why}` : made;
}
