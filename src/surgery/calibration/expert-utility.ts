/**
 * What each expert of a mixture is worth on text, for copying some more often than others (`planning/multiply.ts`).
 *
 * - `load`: how many tokens it serves. Weights are streamed.
 * - `gradient`: the squared norm of the gradient of the mean next-token cross entropy on its weights (gate, up, down).
 *   The mean is over all sequences. The model and the experts' gradients are held in memory as float32.
 *
 * Letters: E experts, S tokens of a sequence.
 */
import { at, entryOf } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import type { Backend } from "../../engine/runtime/runtime.js";
import { openStreamedModel } from "../../evals/streamed-model.js";
import { openCheckpoint } from "../../files/checkpoint/open.js";
import type { ModelSource } from "../../files/checkpoint/model-source.js";
import { trainProgram } from "../../graph/programs/programs.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { slotsOf } from "../../model/tensors/slots.js";
import type { ExpertUtility } from "../planning/multiply.js";
import { sampledText, visitFfnInputs, type ReadText, type TextChoice } from "./ffn-inputs.js";
import { inTurn } from "./in-turn.js";
import { requireTokenizer } from "./layer-work.js";

/** What to measure, on which text, and what runs the model. */
export interface UtilityOptions extends TextChoice {
  /** The mixture, with its tokenizer. */
  readonly source: ModelSource;
  readonly by: ExpertUtility["by"];
  readonly backend: Backend;
  readonly threads: number;
  readonly signal?: AbortSignal | undefined;
  readonly onPart?: ((done: number, total: number) => void) | undefined;
}

/** What each expert is worth. */
export interface MeasuredUtility extends ReadText {
  /** [E] of every layer; null where it is dense. */
  readonly values: readonly (readonly number[] | null)[];
}

/** Measures what each expert is worth. Throws inputError for a dense model, one without tokenizer, or unusable text. */
export async function expertUtility(options: UtilityOptions): Promise<MeasuredUtility> {
  const { source, by } = options;
  await requireTokenizer(source, `the experts' ${by} is to be measured on text`);
  return by === "load" ? loads(options) : gradients(options);
}

/** Tokens that each expert of every layer serves. */
async function loads({
  source: from,
  backend,
  threads,
  signal,
  onPart,
  ...choice
}: UtilityOptions): Promise<MeasuredUtility> {
  const model = await openStreamedModel(from, backend, { threads, signal });
  try {
    const { layers } = requireExperts(model.spec, model.dir);
    const sampled = await sampledText(model, choice, signal);
    const counts = layers.map(({ ffn }) => (ffn.kind === "moe" ? new Array<number>(ffn.experts).fill(0) : null));
    await visitFfnInputs(model, sampled, {
      wants: (layer) => at(counts, layer) !== null,
      inputs: async (layer, inputs) => {
        const own = at(counts, layer);
        for (const expert of (await model.router(layer, inputs)).chosen) own![expert]! += 1;
      },
      passed: (layer) => onPart?.(layer + 1, layers.length),
    });
    return { values: counts, tokens: sampled.tokens, source: sampled.source };
  } finally {
    await model.close();
  }
}

function requireExperts(spec: DecoderSpec, dir: string): DecoderSpec {
  if (spec.layers.some(({ ffn }) => ffn.kind === "moe")) return spec;
  throw inputError("the model is dense: it has no experts whose worth could be measured", { where: dir });
}

/** Squared norms of the gradients on each expert's weights. */
async function gradients({
  source: from,
  backend,
  threads,
  signal,
  onPart,
  ...choice
}: UtilityOptions): Promise<MeasuredUtility> {
  const checkpoint = await openCheckpoint(from);
  try {
    const { dir } = checkpoint;
    const spec = requireExperts(checkpoint.spec, dir);
    const sampled = await sampledText({ dir, spec }, choice, signal);
    const { sequences, tokens, source } = sampled;
    const frozen = new Set(slotsOf(spec).flatMap(({ key, at: slot }) => (isExpertMatrix(slot) ? [] : [key])));
    const shape = { batch: 1, sequence: at(sequences, 0).length };
    const program = trainProgram(spec, { ...shape, auxCoef: 0, zCoef: 0, frozen });
    const weights = await inTurn(program.params, ({ key }) => checkpoint.readFloat32(key));
    const sums = program.trained.map(({ shape: [rows = 1, columns = 1] }) => new Float64Array(rows * columns));
    const operations = await backend.openOperations({ threads });
    try {
      for (const [done, ids] of sequences.entries()) {
        signal?.throwIfAborted();
        const outputs = await operations.run("expert utility", program.graph, [ids, targetsOf(ids), ...weights]);
        for (const [i, sum] of sums.entries())
          (outputs[program.gradients + i] as Float32Array).forEach((value, j) => (sum[j]! += value));
        onPart?.(done + 1, sequences.length);
      }
    } finally {
      await operations.close();
    }
    const squares = new Map(
      program.trained.map(({ key }, i) => [key, at(sums, i).reduce((sum, x) => sum + (x / sequences.length) ** 2, 0)]),
    );
    return { values: perExpert(spec, squares), tokens, source };
  } finally {
    await checkpoint.close();
  }
}

type At = ReturnType<typeof slotsOf>[number]["at"];

const isExpertMatrix = ({ part, expert }: At): boolean =>
  expert !== undefined && (part === "gate" || part === "up" || part === "down");

/** The next token of each; the last has none, and is ignored. */
const targetsOf = (ids: Int32Array): Int32Array => Int32Array.from(ids, (_, i) => ids[i + 1] ?? -1);

/** Sums over each expert's matrices. */
function perExpert(spec: DecoderSpec, squares: ReadonlyMap<string, number>): (number[] | null)[] {
  const sums = spec.layers.map(({ ffn }) => (ffn.kind === "moe" ? new Array<number>(ffn.experts).fill(0) : null));
  for (const { key, at: slot } of slotsOf(spec))
    if (isExpertMatrix(slot)) at(sums, slot.layer ?? 0)![slot.expert ?? 0]! += entryOf(squares, key);
  return sums;
}
