/** Documents in one row that do not see each other, against the same documents in rows of their own. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at, entryOf } from "../../../src/base/at.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { evaluateOnce } from "../../engine/onnxruntime/evaluate-once.js";
import { logitsProgram, trainProgram } from "../../../src/graph/programs/programs.js";
import type { DecoderSpec } from "../../../src/model/decoder/types.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { finish, losses, remains, runOptions } from "../../support/runs.js";
import { golden, goldenModels } from "../../support/golden.js";

const root = temporaryFolder();
const END = 3;
const documents = [[7, 5, 9, 5, END], [END], [11, 6, 7, 5, 8, 9, END], [4, 12]];
const row = documents.flat();

async function logitsOf(
  spec: DecoderSpec,
  weights: ReadonlyMap<string, Float32Array>,
  ids: readonly number[],
  documentEnd?: number,
): Promise<number[]> {
  const { graph, params } = logitsProgram(spec, { batch: 1, sequence: ids.length, documentEnd });
  const [logits] = await evaluateOnce(graph, [Int32Array.from(ids), ...params.map(({ key }) => entryOf(weights, key))]);
  return logits!.data;
}

describe("documents that are kept apart", () => {
  it.each(goldenModels)("%s: logits as if each had a row of its own", async (name) => {
    const checkpoint = await openCheckpoint(golden(name));
    const { spec } = checkpoint;
    const weights = new Map<string, Float32Array>();
    for (const { key } of logitsProgram(spec, { batch: 1, sequence: 1 }).params)
      weights.set(key, await checkpoint.readFloat32(key));
    await checkpoint.close();
    const packed = await logitsOf(spec, weights, row, END);
    const apart: number[] = [];
    for (const ids of documents) apart.push(...(await logitsOf(spec, weights, ids)));
    const scale = Math.max(...apart.map(Math.abs));
    packed.forEach((value, i) => {
      if (!(Math.abs(value - at(apart, i)) <= 2e-5 * scale)) expect.fail(`logit ${i}: ${value}, expected ${apart[i]}`);
    });
    // Without it, what came before changes them.
    const joined = await logitsOf(spec, weights, row);
    expect(Math.max(...joined.map((value, i) => Math.abs(value - at(apart, i))))).toBeGreaterThan(1e-3 * scale);
  });

  it("a training step and its evaluation keep them apart alike", () => {
    const spec = runOptions("unused").spec;
    const apart = trainProgram(spec, { batch: 2, sequence: 8, auxCoef: 0, zCoef: 0, documentEnd: END });
    for (const { graph } of [apart, apart.evaluation]) {
      expect(graph.nodes.filter(({ prim }) => prim === "segmentIds").length).toBe(1);
      for (const node of graph.nodes)
        if (node.prim === "attention" || node.prim === "attentionGrad") expect(node.attrs.segmentIds).toBe(true);
    }
  });

  it("a run with resetAttention trains otherwise than one without, evaluates alike, and is another run", async () => {
    const [dir, other] = [join(root, "apart"), join(root, "joined")];
    const options = runOptions(dir);
    const block = { ...options.block, steps: 3, saveEvery: 3, resetAttention: true };
    const apart = await finish({ ...options, block });
    const joined = await finish({ ...options, dir: other, block: { ...block, resetAttention: undefined } });
    expect(losses(apart.metrics)).not.toEqual(losses(joined.metrics));
    expect(at(apart.metrics.evals, 0).loss).not.toBe(at(joined.metrics.evals, 0).loss);
    await expect(finish({ ...options, block: { ...block, resetAttention: undefined } })).rejects.toThrow(
      "training.resetAttention is gone",
    );
    expect((await remains(dir)).metrics).toBeDefined();
  });
});
