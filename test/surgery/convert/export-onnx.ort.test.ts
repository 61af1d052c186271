import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as ort from "onnxruntime-node";
import { beforeAll, describe, expect, it } from "vitest";
import { at, entryOf, valueAt } from "../../../src/base/at.js";
import { resultOf } from "../../../src/base/events.js";
import {
  exportOnnx,
  type ExportKind,
  type ExportOptions,
  type Exported,
} from "../../../src/surgery/convert/export-onnx.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { openModel } from "../../../src/evals/model.js";
import { evaluateOnce } from "../../engine/onnxruntime/evaluate-once.js";
import { trainProgram } from "../../../src/graph/programs/programs.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { inThread } from "../../support/backend.js";
import { chromium, openPage, serveFolders } from "../../support/browser.js";
import { golden, goldenModels, readTensors, relativeError, shifted } from "../../support/golden.js";

const root = temporaryFolder();
let count = 0;
const [batch, sequence] = [2, 24];
const forward: ExportKind = { kind: "forward", batch, sequence, rows: "all", loss: false };

function idsOf(name: string): Int32Array {
  return entryOf(readTensors(golden(name, "expected.safetensors")), "input_ids").data as Int32Array;
}

async function exported(name: string, changes: Partial<ExportOptions> = {}): Promise<Exported> {
  const dir = join(root, `${name}-${count++}`);
  mkdirSync(dir, { recursive: true });
  return resultOf(exportOnnx({ source: golden(name), out: join(dir, "model.onnx"), graph: forward, ...changes }));
}

const int64 = (data: Int32Array, dims: readonly number[]): ort.Tensor =>
  new ort.Tensor("int64", BigInt64Array.from(data, BigInt), dims);

/** Runs the file as any program would: by its path, its inputs by name. */
async function runFile(path: string, feeds: Readonly<Record<string, ort.Tensor>>): Promise<Record<string, ort.Tensor>> {
  const session = await ort.InferenceSession.create(path, { logSeverityLevel: 3, intraOpNumThreads: 1 });
  const results = await session.run(feeds);
  await session.release();
  return results;
}

function expectClose(results: ArrayLike<number>, expected: Float32Array, share = 1e-5): void {
  const scale = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  expect(results.length).toBe(expected.length);
  expected.forEach((value, i) => {
    if (!(Math.abs(at(results, i) - value) <= share * scale)) expect.fail(`element ${i}: ${results[i]} for ${value}`);
  });
}

/** What `upcycle forward` computes. */
async function logitsOf(name: string, ids: Int32Array): Promise<Float32Array> {
  const model = await openModel(golden(name), inThread, 1);
  const logits = await model.logits(ids, { batch, sequence });
  await model.close();
  return logits;
}

describe("an exported forward graph", () => {
  // Every family: windows, softcaps, sinks, partial rope, learned positions, latent attention, fine-grained and shared
  // experts.
  it.each(goldenModels)("of %s gives the logits of upcycle forward in plain onnxruntime", async (name) => {
    const { out, data, inputs, outputs, bytes } = await exported(name);
    const ids = idsOf(name);
    const { logits } = await runFile(out, { ids: int64(ids, [batch, sequence]) });
    expectClose(logits!.data as Float32Array, await logitsOf(name, ids));
    expect([data, inputs, outputs]).toEqual([
      null,
      [{ name: "ids", shape: [batch, sequence] }],
      [{ name: "logits", shape: [...logits!.dims] }],
    ]);
    expect(logits!.dims).toEqual([batch, sequence, 96]);
    expect(statSync(out).size).toBe(bytes);
  });

  it.each(["dense/gemma2", "moe/qwen3_moe"])(
    "of %s may have the last rows only, a loss, and its weights beside it",
    async (name) => {
      const { out, data, bytes } = await exported(name, {
        weights: "beside",
        graph: { ...forward, rows: "last", loss: true },
      });
      expect(data).toBe(`${out}.data`);
      expect(statSync(out).size + statSync(data!).size).toBe(bytes);
      const ids = idsOf(name);
      const targets = shifted(ids, sequence).targets;
      const { logits, loss } = await runFile(out, {
        ids: int64(ids, [batch, sequence]),
        targets: int64(targets, [batch, sequence]),
      });
      const whole = await logitsOf(name, ids);
      const vocab = whole.length / (batch * sequence);
      expect(logits!.dims).toEqual([batch, vocab]);
      [0, 1].forEach((row) => {
        const end = ((row + 1) * sequence - 1) * vocab;
        expectClose(
          (logits!.data as Float32Array).subarray(row * vocab, (row + 1) * vocab),
          whole.subarray(end, end + vocab),
          2e-5,
        );
      });
      const model = await openModel(golden(name), inThread, 1);
      expect((loss!.data as Float32Array)[0]).toBeCloseTo(await model.loss(ids, targets, { batch, sequence }), 5);
      await model.close();
    },
  );

  it("names its model, graph and shape in its metadata", async () => {
    const { out } = await exported("moe/mixtral");
    const text = readFileSync(out).toString("latin1");
    for (const part of [
      "upcycle",
      "mixtral",
      '{"batch":2,"sequence":24,"rows":"all","loss":false}',
      '"family":"mixtral"',
      "layers.0.experts.0.gate",
    ])
      expect(text).toContain(part);
  });
});

describe("an exported training graph", () => {
  it.each(["train/llama", "train/mixtral", "train/qwen3_moe"])(
    "of %s gives losses and gradients, also of other weights than its own",
    async (name) => {
      const checkpoint = await openCheckpoint(golden(name));
      const { spec } = checkpoint;
      const all = entryOf(readTensors(golden(name, "batches.safetensors")), "input_ids");
      const [, rows, length] = all.shape as [number, number, number];
      const { ids, targets } = shifted((all.data as Int32Array).subarray(0, rows * length), length);
      const { out, outputs } = await exported(name, {
        graph: { kind: "training", batch: rows, sequence: length, auxCoef: 0.02, zCoef: 0.01 },
      });
      const program = trainProgram(spec, { batch: rows, sequence: length, auxCoef: 0.02, zCoef: 0.01 });
      const weights: Float32Array[] = [];
      for (const { key } of program.params) weights.push(await checkpoint.readFloat32(key));
      await checkpoint.close();
      const feeds = { ids: int64(ids, [rows, length]), targets: int64(targets, [rows, length]) };
      const norm = program.params.findIndex(({ key }) => key === "finalNorm");
      const changed = at(weights, norm).map((value) => value * 1.5);
      // The same graph without stored weights takes any.
      const open = await exported(name, {
        weights: "inputs",
        graph: { kind: "training", batch: rows, sequence: length, auxCoef: 0.02, zCoef: 0.01 },
      });
      expect(open.inputs.map(({ name: port }) => port)).toEqual([
        "ids",
        "targets",
        ...program.params.map(({ key }) => key),
      ]);
      const fed = Object.fromEntries(
        program.params.map(({ key, shape }, i) => [
          key,
          new ort.Tensor("float32", i === norm ? changed : at(weights, i), shape),
        ]),
      );
      for (const other of [false, true]) {
        const expected = await evaluateOnce(program.graph, [
          ids,
          targets,
          ...weights.map((data, i) => (other && i === norm ? changed : data)),
        ]);
        const results = await runFile(other ? open.out : out, { ...feeds, ...(other ? fed : {}) });
        expect(Object.keys(results)).toEqual(outputs.map(({ name: port }) => port));
        expect(outputs).toHaveLength(expected.length);
        outputs.forEach(({ name: port, shape }, i) => {
          expect([...valueAt(results, port).dims]).toEqual(shape);
          expect(
            relativeError(Array.from(valueAt(results, port).data as Float32Array, Number), at(expected, i).data),
            port,
          ).toBeLessThan(1e-5);
        });
      }
      expect(outputs.map(({ name: port }) => port)).toEqual([
        "loss",
        ...(name === "train/llama"
          ? []
          : [
              "balance_loss",
              "z_loss",
              ...["expert_counts", "router_entropy"].flatMap((kind) =>
                spec.layers.map((_, layer) => `${kind}.${layer}`),
              ),
            ]),
        ...program.trained.map(({ key }) => `gradient.${key}`),
      ]);
    },
  );
});

describe("exportOnnx", () => {
  it("replaces only what it may, and leaves nothing when it is stopped", async () => {
    const out = join(root, "again.onnx");
    const options: ExportOptions = { source: golden("dense/llama"), out, graph: forward };
    await resultOf(exportOnnx({ ...options, weights: "beside" }));
    await expect(resultOf(exportOnnx(options))).rejects.toMatchObject({
      line: `${out}: file exists; choose another name, or replace it (--overwrite)`,
    });
    await resultOf(exportOnnx({ ...options, overwrite: true }));
    expect(existsSync(`${out}.data`)).toBe(false);
    const before = readFileSync(out);
    const stopped = resultOf(
      exportOnnx({ ...options, overwrite: true, weights: "beside", signal: AbortSignal.abort() }),
    );
    await expect(stopped).rejects.toMatchObject({ kind: "interrupted" });
    expect(readFileSync(out)).toEqual(before);
    expect(readdirSync(root).filter((name) => name.startsWith(".") || name.endsWith(".data"))).toEqual([]);
  });

  it("refuses sequences, names and folders that cannot be used", async () => {
    const options: ExportOptions = { source: golden("dense/llama"), out: join(root, "x.onnx"), graph: forward };
    await expect(resultOf(exportOnnx({ ...options, out: join(root, "model.safetensors") }))).rejects.toMatchObject({
      line: expect.stringContaining("no name that ends in .onnx"),
    });
    await expect(resultOf(exportOnnx({ ...options, graph: { ...forward, sequence: 1e6 } }))).rejects.toMatchObject({
      line: expect.stringMatching(/a sequence of 1000000 tokens is longer than the model's \d+ positions/),
    });
    writeFileSync(join(root, "file"), "");
    await expect(resultOf(exportOnnx({ ...options, out: join(root, "file", "x.onnx") }))).rejects.toMatchObject({
      kind: "input",
    });
  });
});

describe.skipIf(chromium === undefined)("in a browser (skipped where none is installed)", () => {
  const names = ["dense/gemma2", "dense/mistral", "dense/gpt2", "moe/qwen3_moe", "moe/gpt_oss", "moe/deepseek_v3"];
  let opened: Awaited<ReturnType<typeof openPage>>;
  beforeAll(async () => {
    opened = await openPage(
      await serveFolders({
        ort: fileURLToPath(new URL("../../../node_modules/onnxruntime-web/dist", import.meta.url)),
        models: root,
      }),
    );
  }, 120_000);

  it.each(names)(
    "onnxruntime-web gives the logits of %s",
    async (name) => {
      const { out } = await exported(name);
      const ids = idsOf(name);
      // As text: these lines are the browser's.
      const results = (await opened.page.evaluate(`(async () => {
      const ort = await import("/ort/ort.wasm.min.mjs");
      Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: "/ort/" });
      const session = await ort.InferenceSession.create("/models/${out.slice(root.length + 1)}", { executionProviders: ["wasm"] });
      const { logits } = await session.run({ ids: new ort.Tensor("int64", BigInt64Array.from([${ids.join()}], BigInt), [${batch}, ${sequence}]) });
      return { data: Array.from(logits.data), dims: Array.from(logits.dims) };
    })()`)) as { readonly data: readonly number[]; readonly dims: readonly number[] };
      expect(opened.errors).toEqual([]);
      expect(results.dims).toEqual([batch, sequence, 96]);
      expectClose(results.data, await logitsOf(name, ids));
    },
    120_000,
  );
});
