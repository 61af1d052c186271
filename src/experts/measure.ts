/**
 * The diagnostics of an MoE: texts through its routers, its experts against each other, changes against held-out text.
 */
import { basename, dirname, join } from "node:path";
import { at } from "../base/at.js";
import { inputError } from "../base/errors.js";
import { meanOf } from "../base/mean.js";
import type { Backend } from "../engine/runtime/runtime.js";
import { requireFiniteWeights } from "../evals/finite-weights.js";
import { openStreamedModel, type StreamedModel } from "../evals/streamed-model.js";
import { modelFolderOf, type ModelSource } from "../files/checkpoint/model-source.js";
import { openCheckpoint } from "../files/checkpoint/open.js";
import { exists } from "../files/io/atomic.js";
import { routeRule } from "../graph/nn/experts.js";
import { isMoe } from "../model/decoder/types.js";
import type { ExpertLayer, ExpertsChange, ExpertsReport } from "../model/results/experts.js";
import { slotKey } from "../model/tensors/slots.js";
import { readLineage } from "../surgery/convert/lineage.js";
import type { OriginLineage } from "../surgery/planning/lineage.js";
import { withTokenizer } from "../text/tokenizer/load.js";
import { candidates, contributions, type ExpertSizes } from "./candidates.js";
import { measureCosts, type AskedChange, type Costs } from "./costs.js";
import { requireChange } from "./measures/changes.js";
import { certaintyMeter } from "./measures/certainty.js";
import { coactivationOf, pairCounts } from "./measures/coactivation.js";
import { countTable, specialisation } from "./measures/information.js";
import { loadOf, sharesOf } from "./measures/load.js";
import { tokenClasses } from "./measures/token-class.js";
import { joined, observe, type LayerRouting } from "./observe.js";
import { layerSimilarity, parentOf, type Parent } from "./similarity.js";
import { readTexts, textSources, type Sequence, type SequencedTexts } from "./texts.js";

/** What is measured, on what, and with which means. */
export interface ExpertsOptions {
  readonly model: ModelSource;
  /** The dense model that the experts were made from. */
  readonly parent?: ModelSource | undefined;
  /** Text files or folders, each a text of its own; none: the two texts that come along. */
  readonly text: readonly string[];
  /** Most tokens of each text. */
  readonly tokens: number;
  /** Tokens of one sequence, at most the model's positions. */
  readonly sequence: number;
  /** How many experts to leave out, one at a time, and how many pairs to merge. */
  readonly candidates: number;
  /** Changes that the user asks for. */
  readonly changes: readonly ExpertsChange[];
  readonly seed: number;
  readonly backend: Backend;
  readonly threads: number;
  readonly signal: AbortSignal;
  readonly onEvent?: ((event: ExpertsEvent) => void) | undefined;
}

/** What a measurement tells while it runs: a part of the work and how far it is, in layers. */
export interface ExpertsEvent {
  readonly doing: "looking" | "costs";
  readonly done: number;
  readonly total: number;
}

/**
 * Measures a model's experts. Throws inputError, before anything slow, for a dense model, one without tokenizer,
 * changes that it cannot be run with, a parent that it was not made from, and text that is missing or too short;
 * stopError for weights that are no numbers.
 */
export async function measureExperts(options: ExpertsOptions): Promise<ExpertsReport> {
  const { backend, threads, signal } = options;
  const { lineage, dir } = await requireMeasurable(options);
  const opened: StreamedModel[] = [];
  const open = async (source: ModelSource): Promise<StreamedModel> => {
    const streamed = await openStreamedModel(source, backend, { threads, signal });
    opened.push(streamed);
    return streamed;
  };
  try {
    const model = await open(options.model);
    const parent = options.parent === undefined ? null : parentOf(await open(options.parent), model.spec, lineage);
    const sequence = Math.min(options.sequence, model.spec.maxPositions);
    const texts = await textsOf(model, dir, { ...options, sequence });
    return await reportOf(model, parent, texts, { ...options, sequence });
  } finally {
    for (const streamed of opened) await streamed.close();
  }
}

/** The texts as sequences. Throws inputError for a tokenizer that has more tokens than the model. */
async function textsOf(
  { spec }: StreamedModel,
  dir: string,
  { text, sequence, tokens, signal }: ExpertsOptions,
): Promise<SequencedTexts> {
  const sources = textSources(text);
  return withTokenizer(dir, { signal }, async (tokenizer) => {
    if (tokenizer.vocab > spec.vocab)
      throw inputError(`its tokenizer has ${tokenizer.vocab} tokens, the model ${spec.vocab}`, { where: dir });
    return readTexts(tokenizer, dir, sources, { sequence, tokens });
  });
}

/** A dense model with the name that a model's record gives to its parent, in the folder beside it; null: none. */
export async function recordedParent(dir: string, name: string): Promise<string | null> {
  const folder = join(dirname(dir), basename(name));
  return (await exists(join(folder, "config.json"))) ? folder : null;
}

async function requireMeasurable({
  model,
  changes,
}: ExpertsOptions): Promise<{ lineage: OriginLineage | null; dir: string }> {
  const checkpoint = await openCheckpoint(model);
  try {
    const { spec, dir } = checkpoint;
    if (!isMoe(spec))
      throw inputError("the model is dense: it has no experts", { where: dir, hint: "give a mixture of experts" });
    const folder = modelFolderOf(model);
    if (!(await exists(join(folder, "tokenizer.json"))))
      throw inputError("the model has no tokenizer.json, without which there are no tokens to route", {
        where: folder,
        hint: "copy its tokenizer's files into the folder",
      });
    for (const change of changes) requireChange(spec, change);
    return { lineage: await readLineage(checkpoint), dir: folder };
  } finally {
    await checkpoint.close();
  }
}

async function reportOf(
  model: StreamedModel,
  parent: Parent | null,
  texts: SequencedTexts,
  options: ExpertsOptions,
): Promise<ExpertsReport> {
  const { observed, heldOut, names } = texts;
  const { spec } = model;
  const layers: ExpertLayer[] = [];
  const sizes: ExpertSizes[] = [];
  const total = spec.layers.length;
  const onLayer = (done: number): void => options.onEvent?.({ doing: "looking", done, total });
  for await (const routing of observe(model, observed, onLayer)) {
    const measured = await layerOf(model, parent, routing, texts, options);
    requireFiniteWeights(model);
    layers.push(measured.layer);
    sizes.push(measured.sizes);
  }
  const asked = options.changes.map((change): AskedChange => ({ ...change, asked: true, expected: null }));
  const costs = await costsOf(model, [...asked, ...candidates(spec, sizes, options.candidates)], texts, options);
  requireFiniteWeights(model);
  const classes = classLabels(observed);
  return {
    version: 1,
    model: model.dir,
    family: spec.family,
    parent: parent?.model.dir ?? null,
    texts: names.map((name, text) => ({
      name,
      observed: observed.filter((one) => one.text === text).length,
      heldOut: heldOut.filter((one) => one.text === text).length,
    })),
    sequence: options.sequence,
    tokens: classes.length,
    heldOutTokens: heldOut.length * options.sequence,
    classes: tokenClasses.map((name, index) => ({ name, tokens: classes.filter((one) => one === index).length })),
    seed: options.seed,
    layers,
    ...costs,
  };
}

async function costsOf(
  model: StreamedModel,
  changes: readonly AskedChange[],
  { heldOut, names }: SequencedTexts,
  { onEvent }: ExpertsOptions,
): Promise<Costs | { readonly loss: null; readonly costs: readonly [] }> {
  if (changes.length === 0) return { loss: null, costs: [] };
  return measureCosts(model, heldOut, changes, names.length, (done, total) =>
    onEvent?.({ doing: "costs", done, total }),
  );
}

/** Each token's class, in the order of sequences. */
const classLabels = (sequences: readonly Sequence[]): Int32Array =>
  joined(
    Int32Array,
    sequences.map(({ classes }) => classes),
  );

/** Everything that is measured of one layer, and what candidates are found by. */
async function layerOf(
  model: StreamedModel,
  parent: Parent | null,
  routing: LayerRouting,
  { observed, names }: SequencedTexts,
  { seed, signal, sequence }: ExpertsOptions,
): Promise<{ readonly layer: ExpertLayer; readonly sizes: ExpertSizes }> {
  const { layer, ffn, chosen, weights } = routing;
  const { experts, topK } = ffn;
  const tokens = chosen.length / topK;
  const pairs = pairCounts(chosen, experts, topK);
  const byTexts = { chosen, perUnit: sequence * topK, experts };
  const textOf = Int32Array.from(observed, ({ text }) => text);
  const byTokens = { chosen, perUnit: topK, experts };
  const classes = classLabels(observed);
  const correction = ffn.router.correctionBias
    ? await model.weights.readFloat32(slotKey({ part: "routerCorrection", layer }))
    : null;
  const certainty = certaintyMeter(experts, topK, routeRule(ffn.router), correction);
  let first = 0;
  for (const logits of routing.logits) {
    const rows = logits.length / experts;
    certainty.add(logits, chosen.subarray(first * topK, (first + rows) * topK));
    first += rows;
  }
  const { similarity, products } = await layerSimilarity(model, routing, parent, () => signal.throwIfAborted());
  const sizes = { layer, weights: meanWeights(chosen, weights, experts, tokens), products };
  return {
    sizes,
    layer: {
      layer,
      experts,
      topK,
      load: loadOf(
        pairs.map((row, expert) => at(row, expert)),
        tokens,
      ),
      byText: countTable(byTexts, textOf, names.length).map(sharesOf),
      byClass: countTable(byTokens, classes, tokenClasses.length).map((counts) =>
        meanOf(counts) === 0 ? null : sharesOf(counts),
      ),
      specialisation: {
        text:
          names.length === 1
            ? null
            : specialisation(byTexts, textOf, names.length, { seed, stream: `experts/${layer}/texts` }),
        tokenClass: specialisation(byTokens, classes, tokenClasses.length, {
          seed,
          stream: `experts/${layer}/classes`,
        }),
      },
      router: certainty.result(),
      coactivation: topK === 1 ? null : coactivationOf(pairs),
      similarity,
      contribution: contributions(sizes),
    },
  };
}

/** Mean weight of each expert over all tokens, 0 for those that did not choose it [E]. */
function meanWeights(chosen: Int32Array, weights: Float32Array, experts: number, tokens: number): number[] {
  const sums = new Array<number>(experts).fill(0);
  chosen.forEach((expert, i) => (sums[expert]! += at(weights, i)));
  return sums.map((sum) => sum / tokens);
}
