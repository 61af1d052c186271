/** Decoding in bfloat16 and in float32: kernels for few tokens, the cache, tokens that are chosen on the GPU. */
import { beforeEach, describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { cudaBackend } from "../../../src/engine/cuda/backend.js";
import type { CudaLowerOptions } from "../../../src/engine/cuda/lowering/options.js";
import { referenceBackend } from "../../../src/engine/interpreter/backend.js";
import type { ChosenExperts, ForwardRuntime } from "../../../src/engine/runtime/runtime.js";
import { generateBatch } from "../../../src/evals/generate.js";
import { startDecoding } from "../../../src/evals/decoding.js";
import { openModel } from "../../../src/evals/model.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import type { Graph } from "../../../src/graph/ir/ir.js";
import { extendProgram, logitsProgram, type ExtendProgram } from "../../../src/graph/programs/programs.js";
import { plainAttention, plainRope } from "../../../src/model/decoder/plain.js";
import { plainBlocks, plainExperts, rmsNorm, softmaxRouter } from "../../../src/model/decoder/types.js";
import type { DecoderSpec, LayerSpec } from "../../../src/model/decoder/types.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { argmax } from "../../../src/text/tokens/sample.js";
import { cudaMachine, isThorough } from "../../support/cuda.js";
import { golden, goldenModels, readTensors, relativeError } from "../../support/golden.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { runOnCuda } from "./run-list.js";

let stream = randomStream(0, "decoding");
let drawn = 0;
// Each test draws its own numbers, whichever others run.
beforeEach(({ task }) => {
  stream = randomStream(0, `decoding ${task.name}`);
  drawn = 0;
});

/** Numbers of bfloat16 from -1 to 1, times `by`. */
function halves(count: number, by = 1): Float32Array {
  const data = Float32Array.from({ length: count }, () => (2 * stream.uniformAt(drawn++) - 1) * by);
  const words = new Uint32Array(data.buffer);
  for (const [i, word] of words.entries()) words[i] = (word & 0xffff0000) >>> 0;
  return data;
}

/** A program of so many tokens that runs behind a cache, of which it has no part. */
const behindCache = (inputs: number): CudaLowerOptions => ({
  precision: "bf16",
  cache: { shapes: [], firstInput: inputs, firstOutput: Infinity },
});

/** x [m, k] W^T in float64 */
const product = (x: ArrayLike<number>, w: ArrayLike<number>, m: number, n: number, k: number): Float64Array =>
  Float64Array.from({ length: m * n }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < k; j++) sum += x[Math.floor(i / n) * k + j]! * w[(i % n) * k + j]!;
    return sum;
  });

/** As RMSNorm with weights `w` and no eps. */
function normed(x: ArrayLike<number>, w: ArrayLike<number>, m: number, k: number): Float64Array {
  return Float64Array.from({ length: m * k }, (_, i) => {
    let square = 0;
    for (let j = 0; j < k; j++) square += x[Math.floor(i / k) * k + j]! ** 2;
    return (x[i]! / Math.sqrt(square / k)) * w[i % k]!;
  });
}

describe.skipIf(cudaMachine === "no machine")(`on ${cudaMachine}, products of few tokens`, () => {
  const graphOf = (
    [m, k]: readonly [number, number],
    widths: readonly number[],
    build: (b: GraphBuilder, x: number, weights: readonly number[], norm: number) => readonly number[],
  ): Graph => {
    const b = new GraphBuilder();
    b.input("ids", "int", [m]);
    const x = b.input("x", "f32", [m, k]);
    const norm = b.input("norm", "f32", [k]);
    const weights = widths.map((width, i) => b.input(`w${i}`, "f32", [width, k]));
    return b.finish([...build(b, x, weights, norm)]);
  };
  const run = async (graph: Graph, feeds: readonly ArrayLike<number>[], m: number) =>
    runOnCuda(graph, [new Float64Array(m), ...feeds.map((feed) => Float64Array.from(feed))], behindCache(99));

  it.each([
    [1, 8, 1],
    [1, 1048, 33],
    [2, 64, 16],
    [7, 24, 40],
    [8, 264, 17],
    [9, 72, 5],
    [16, 2056, 18],
    [17, 40, 24],
    [32, 1048, 17],
    [45, 64, 33],
    [64, 264, 16],
    [65, 24, 40],
  ])("%i tokens of %i elements times %i rows", async (m, k, n) => {
    const [x, norm, w] = [halves(m * k), halves(k), halves(n * k)];
    const [out] = await run(
      graphOf([m, k], [n], (b, from, [weight]) => [b.op("matmul", [from, weight!], { transA: false, transB: true })]),
      [x, norm, w],
      m,
    );
    expect(relativeError(out as Float32Array, product(x, w, m, n, k))).toBeLessThan(2e-6);
  });

  it.each([3, 37])("are normed, several at once, and added to what is there: %i tokens", async (m) => {
    const k = 48;
    const widths = [17, 8, 40, 48];
    const x = halves(m * k);
    const norm = halves(k);
    const weights = widths.map((n) => halves(n * k, 0.2));
    const graph = graphOf([m, k], widths, (b, from, ids, normWeight) => {
      const flags = { transA: false, transB: true } as const;
      // Two roundings away from the input, so that what is added is a value that a node has made.
      const made = b.op("scale", [from], { by: 2 });
      const y = b.op("rmsNorm", [made, normWeight], { eps: 0 });
      const outs = ids.slice(0, 3).map((id) => b.op("matmul", [y, id], flags));
      const own = b.op("matmul", [made, ids[3]!], flags);
      const sum = b.op("scale", [b.add(made, own)], { by: 1 });
      return [
        ...outs.map((id) => b.op("activation", [id], { kind: "relu" })),
        b.op("activation", [sum], { kind: "relu" }),
      ];
    });
    const found = await run(graph, [x, norm, ...weights], m);
    const y = normed(x, norm, m, k);
    const relu = (values: Float64Array): Float64Array => values.map((value) => Math.max(0, value));
    for (const [i, n] of widths.slice(0, 3).entries())
      expect(relativeError(found[i] as Float32Array, relu(product(y, weights[i]!, m, n, k))), `${i}`).toBeLessThan(
        6e-3,
      );
    const doubled = x.map((value) => 2 * value);
    const sum = product(doubled, weights[3]!, m, 48, k).map((value, i) => value + doubled[i]!);
    expect(relativeError(found[3] as Float32Array, relu(sum))).toBeLessThan(6e-3);
  });

  it.each([3, 12, 35, 64])("make a gated unit of %i tokens", async (m) => {
    const [k, n] = [40, 21];
    const [x, norm, gates, ups] = [halves(m * k), halves(k), halves(n * k), halves(n * k)];
    const graph = graphOf([m, k], [n, n], (b, from, [gate, up], normWeight) => {
      const y = b.op("rmsNorm", [from, normWeight], { eps: 0 });
      const flags = { transA: false, transB: true } as const;
      return [b.op("swiglu", [b.op("matmul", [y, gate!], flags), b.op("matmul", [y, up!], flags)], {})];
    });
    const [found] = await run(graph, [x, norm, gates, ups], m);
    const y = normed(x, norm, m, k);
    const up = product(y, ups, m, n, k);
    const expected = product(y, gates, m, n, k).map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!);
    expect(relativeError(found as Float32Array, expected)).toBeLessThan(1e-2);
  });
});

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly window?: number;
  readonly softcap?: number;
  readonly sinks?: boolean;
  readonly experts?: number;
}

/** A decoder of two layers whose sizes fit no tile. */
function specOf({ heads, kvHeads, headDim, window, softcap, sinks = false, experts = 0 }: Shape): DecoderSpec {
  const ffn: LayerSpec["ffn"] =
    experts === 0
      ? { kind: "dense", ffnDim: 88, bias: false, activation: "silu", gated: true }
      : {
          kind: "moe",
          activation: "silu",
          ffnDim: 24,
          experts,
          topK: 2,
          router: softmaxRouter("topk-softmax"),
          ...plainExperts,
          shared: null,
        };
  const layer = (width: number | null): LayerSpec => ({ window: width, rope: plainRope(10000, headDim), ffn });
  return {
    family: experts === 0 ? "llama" : "mixtral",
    vocab: 50,
    hidden: 40,
    tiedHead: false,
    norm: rmsNorm(1e-5),
    ...plainBlocks,
    maxPositions: 256,
    attn: { ...plainAttention({ heads, kvHeads, headDim }), sinks, softcap: softcap ?? null },
    tokens: { bos: null, eos: [], pad: null },
    initStd: 0.02,
    auxLossCoef: 0,
    layers: [layer(null), layer(window ?? null)],
  };
}

const weightsOf = (spec: DecoderSpec): Map<string, Float32Array> =>
  new Map(
    slotsOf(spec).map(({ key, shape }) => {
      const count = shape.reduce((product_, size) => product_ * size, 1);
      return [key, shape.length === 1 ? halves(count).map((value) => value + 1) : halves(count, 0.3)];
    }),
  );

async function loaded(runtime: ForwardRuntime, weights: ReadonlyMap<string, Float32Array>): Promise<ForwardRuntime> {
  for (const [key, data] of weights) await runtime.write(key, data);
  return runtime;
}

const cuda = (precision: "float32" | "bf16") => cudaBackend(0, { precision }).openForward({ threads: 1 });

/** New tokens of each row, padded to as many: what came of them. */
interface Answer {
  readonly logits: Float32Array;
  readonly routing: readonly ChosenExperts[];
  readonly tokens: number;
  readonly counts: readonly number[];
}

/** Prompts of so many rows, then three tokens in each, every second of which stops for a step. */
async function decoded(
  runtime: ForwardRuntime,
  spec: DecoderSpec,
  { prompt = 12, batch = 2, routed = false }: { prompt?: number; batch?: number | undefined; routed?: boolean } = {},
): Promise<Answer[]> {
  const capacity = 128;
  const inTurn = (pair: readonly number[]) => Int32Array.from({ length: batch }, (_, row) => pair[row % 2]!);
  const programs = new Map<string, ExtendProgram>();
  const extend = async (tokens: number, past: number, lengths: number[], pair: number[], seed: number) => {
    const shape = { batch, tokens, capacity: past, positions: capacity };
    const name = `${tokens} ${past} ${routed}`;
    const program = programs.get(name) ?? extendProgram(spec, shape, { routed });
    programs.set(name, program);
    const counts = inTurn(pair);
    const { output: logits, routing } = await runtime.extend(name, program, {
      ids: Int32Array.from({ length: batch * tokens }, (_, i) => (7 * i + seed) % spec.vocab),
      lengths: inTurn(lengths),
      counts,
      capacity,
    });
    return { logits, routing, tokens, counts: [...counts] };
  };
  return [
    await extend(prompt, 0, [0, 0], [prompt, prompt - 3], 1),
    await extend(1, capacity, [prompt, prompt - 3], [1, 1], 2),
    await extend(1, capacity, [prompt + 1, prompt - 2], [0, 1], 3),
    await extend(2, capacity, [prompt + 1, prompt - 1], [2, 1], 4),
    await extend(1, capacity, [prompt + 3, prompt], [1, 1], 5),
  ];
}

/**
 * Which rows went the way that the interpreter's went. Where a router cannot tell two experts apart, rounding chooses
 * between them, and what a row computes from there on is another function: it is not compared. That it was so is seen
 * by the shares of its experts, which are within rounding those of the interpreter, as they are of every other token.
 */
class Routes {
  /** Of each row the first layer in which a token went another way. */
  private readonly turned: number[];

  constructor(
    rows: number,
    /** Between a share and the interpreter's. */
    private readonly bound: number,
  ) {
    this.turned = Array.from({ length: rows }, () => Infinity);
  }

  /** Compares the routing of further tokens. */
  compare(found: Answer, expected: Answer, run: string): void {
    expect(found.routing.length).toBe(expected.routing.length);
    for (const [i, one] of expected.routing.entries()) {
      const other = found.routing[i]!;
      expect([other.layer, other.experts], run).toEqual([one.layer, one.experts]);
      const before = [...this.turned];
      for (const [row, turned] of before.entries())
        for (let token = 0; token < expected.counts[row]!; token++) {
          // What it reads is another value by now.
          if (turned < one.layer) continue;
          const k = one.chosen.length / (before.length * expected.tokens);
          const slots = [(row * expected.tokens + token) * k, (row * expected.tokens + token + 1) * k] as const;
          for (let slot = slots[0]; slot < slots[1]; slot++)
            expect(
              Math.abs(other.weights[slot]! - one.weights[slot]!),
              `${run}, layer ${one.layer}, row ${row}, token ${token}`,
            ).toBeLessThan(this.bound);
          const [own, others] = [other, one].map(({ chosen }) => [...chosen.slice(...slots)].sort());
          if (own!.join() !== others!.join()) this.turned[row] = Math.min(this.turned[row]!, one.layer);
        }
    }
  }

  /** Of an answer for each of these rows, what the rows gave that went the interpreter's way. */
  same(logits: Float32Array, rows: readonly number[]): number[] {
    const width = logits.length / rows.length;
    return rows.flatMap((row, i) => (this.isSame(row) ? [...logits.subarray(i * width, (i + 1) * width)] : []));
  }

  isSame(row: number): boolean {
    return this.turned[row] === Infinity;
  }
}

describe.skipIf(cudaMachine === "no machine")(`on ${cudaMachine}, decoding behind a cache`, () => {
  it.each<[string, Shape, number?]>([
    ["heads of 32 elements", { heads: 2, kvHeads: 2, headDim: 32 }],
    ["many rows", { heads: 2, kvHeads: 1, headDim: 32 }, 19],
    ["many rows and experts", { heads: 1, kvHeads: 1, headDim: 64, experts: 3 }, 33],
    ["two query heads to a key", { heads: 4, kvHeads: 2, headDim: 32, window: 9 }],
    ["three query heads to a key, and sinks", { heads: 3, kvHeads: 1, headDim: 64, sinks: true }],
    ["eight query heads to a key, capped", { heads: 8, kvHeads: 1, headDim: 128, softcap: 2 }],
    ["heads of 24 elements", { heads: 2, kvHeads: 1, headDim: 24 }],
    ["experts", { heads: 1, kvHeads: 1, headDim: 256, experts: 5 }],
  ])("agrees with the interpreter: %s", async (_, shape, batch = 2) => {
    const spec = specOf(shape);
    const weights = weightsOf(spec);
    // Where tokens went is a part of what is compared.
    const routed = shape.experts !== undefined;
    const oracle = await loaded(await referenceBackend.openForward({ threads: 1 }), weights);
    const expected = await decoded(oracle, spec, { batch, routed });
    for (const [precision, bound] of [
      ["float32", 1e-5],
      ["bf16", 2e-2],
    ] as const) {
      const runtime = await loaded(await cuda(precision), weights);
      const found = await decoded(runtime, spec, { batch, routed });
      const plain = routed ? await decoded(runtime, spec, { batch }) : found;
      await runtime.close();
      const routes = new Routes(batch, bound);
      const rows = Array.from({ length: batch }, (_, row) => row);
      for (const [i, answer] of expected.entries()) {
        const run = `${precision}, run ${i}`;
        const own = found[i]!;
        // Whether a program says where its tokens went changes nothing else.
        expect(plain[i]!.logits, run).toEqual(own.logits);
        expect(plain[i]!.routing).toEqual([]);
        routes.compare(own, answer, run);
        const error = relativeError(routes.same(own.logits, rows), routes.same(answer.logits, rows));
        expect(error, run).toBeLessThan(bound);
      }
      const same = rows.filter((row) => routes.isSame(row)).length;
      expect(same, precision).toBeGreaterThanOrEqual(precision === "float32" ? batch : batch / 2);
    }
  });

  it("gives the experts of new tokens, and the logits and scores of chosen ones", async () => {
    const spec = specOf({ heads: 2, kvHeads: 1, headDim: 32, experts: 5 });
    const weights = weightsOf(spec);
    const answers = async (runtime: ForwardRuntime) => {
      const capacity = 64;
      const ids = (count: number, seed: number) => Int32Array.from({ length: count }, (_, i) => (7 * i + seed) % 50);
      const program = (tokens: number, past: number, asked: Parameters<typeof extendProgram>[2]) =>
        extendProgram(spec, { batch: 2, tokens, capacity: past, positions: capacity }, asked);
      const rows = Int32Array.of(5, 0, 2);
      const prompt = await runtime.extend("prompt", program(6, 0, { routed: true }), {
        ...{ ids: ids(12, 1), lengths: new Int32Array(2), counts: Int32Array.of(6, 4), capacity },
      });
      const chosen = await runtime.extend("chosen", program(3, capacity, { routed: true, chosen: 3 }), {
        ...{ ids: ids(6, 2), lengths: Int32Array.of(6, 4), counts: Int32Array.of(3, 1), capacity, rows },
      });
      const scored = await runtime.extend("scored", program(3, capacity, { routed: true, scored: true, chosen: 3 }), {
        ...{ ids: ids(6, 3), lengths: Int32Array.of(9, 5), counts: Int32Array.of(0, 2), capacity, rows },
        targets: Int32Array.of(4, 49, 0),
      });
      const one = await runtime.extend("one", program(1, capacity, { routed: true }), {
        ...{ ids: ids(2, 4), lengths: Int32Array.of(9, 7), counts: Int32Array.of(1, 1), capacity },
      });
      return [prompt, chosen, scored, one];
    };
    const expected = await answers(await loaded(await referenceBackend.openForward({ threads: 1 }), weights));
    expect(expected.map(({ routing }) => routing.map(({ chosen }) => chosen.length))).toEqual([
      [24, 24],
      [12, 12],
      [12, 12],
      [4, 4],
    ]);
    for (const [precision, bound] of [
      ["float32", 1e-5],
      ["bf16", 3e-2],
    ] as const) {
      const runtime = await loaded(await cuda(precision), weights);
      const found = await answers(runtime);
      await runtime.close();
      const routes = new Routes(2, bound);
      for (const [i, { output, routing }] of expected.entries()) {
        const run = `${precision}, run ${i}`;
        const [own, tokens] = [found[i]!, [6, 3, 3, 1][i]!];
        const asked = [
          [0, 1],
          [1, 0, 0],
          [1, 0, 0],
          [0, 1],
        ][i]!;
        const all = { tokens, counts: [tokens, tokens] };
        routes.compare({ logits: own.output, routing: own.routing, ...all }, { logits: output, routing, ...all }, run);
        expect(relativeError(routes.same(own.output, asked), routes.same(output, asked)), run).toBeLessThan(bound);
      }
      const same = [0, 1].filter((row) => routes.isSame(row)).length;
      expect(same, precision).toBeGreaterThanOrEqual(precision === "float32" ? 2 : 1);
    }
  });

  // The emulation is slow: one dense model and one mixture stand for all.
  it.each(isThorough ? goldenModels : ["dense/llama"])(
    "has the logits of transformers' %s in bfloat16, token by token",
    async (name) => {
      const checkpoint = await openCheckpoint(golden(name));
      const { spec } = checkpoint;
      const expected = readTensors(golden(name, "expected.safetensors"));
      const { data: ids, shape } = expected.get("input_ids")!;
      const [batch, sequence] = shape as [number, number];
      const half = sequence >> 1;
      const runtime = await cuda("bf16");
      for (const { key } of slotsOf(spec)) await runtime.write(key, await checkpoint.readFloat32(key));
      await checkpoint.close();
      const whole = await runtime.run("all", logitsProgram(spec, { batch, sequence }), [Int32Array.from(ids)]);
      const logits = expected.get("logits")!.data;
      const rounding = relativeError(whole, logits);
      const routed = spec.layers.some(({ ffn }) => ffn.kind === "moe");
      expect(rounding).toBeLessThan(routed ? 1e-1 : 5e-2);
      const rowsAt = (position: number): Float32Array =>
        Float32Array.from({ length: batch * spec.vocab }, (_, i) =>
          at(logits, (Math.floor(i / spec.vocab) * sequence + position) * spec.vocab + (i % spec.vocab)),
        );
      const errors: number[] = [];
      for (let position = half; position < sequence; position++) {
        const isFirst = position === half;
        const tokens = isFirst ? half : 1;
        const first = isFirst ? 0 : position - 1;
        const shapeNow = { batch, tokens, capacity: isFirst ? 0 : sequence, positions: sequence };
        const fed = Array.from({ length: batch }, (_, row) =>
          Array.from(ids.slice(row * sequence + first, row * sequence + first + tokens)),
        ).flat();
        const { output: found } = await runtime.extend(isFirst ? "prompt" : "token", extendProgram(spec, shapeNow), {
          ids: Int32Array.from(fed),
          lengths: new Int32Array(batch).fill(first),
          counts: new Int32Array(batch).fill(tokens),
          capacity: sequence,
        });
        errors.push(relativeError(found, rowsAt(position - 1)));
      }
      const bound = 2 * rounding + 1e-2;
      // Where a router stands between two experts, rounding decides: such a token goes another way, and those that see
      // it move with it. Most must stay near all the same, and none may be anywhere.
      const near = errors.filter((error) => error < bound).length;
      expect(near, errors.join()).toBeGreaterThanOrEqual(routed ? errors.length / 2 : errors.length);
      // Logits that have nothing to do with each other are 1.4 apart.
      expect(Math.max(...errors)).toBeLessThan(routed ? 1 : 0.5);
      await runtime.close();
    },
  );
});

describe.skipIf(cudaMachine === "no machine")(`on ${cudaMachine}, tokens that are chosen there`, () => {
  it("are the likeliest by the logits, rows that ended stay, and the lowest of equals is taken", async () => {
    const spec = specOf({ heads: 2, kvHeads: 2, headDim: 32 });
    const weights = weightsOf(spec);
    // Every logit has an equal.
    const head = weights.get("head")!;
    head.copyWithin((spec.vocab / 2) * spec.hidden, 0, (spec.vocab / 2) * spec.hidden);
    const runtime = await loaded(await cuda("bf16"), weights);
    const capacity = 64;
    const shape = (tokens: number, past: number) => ({ batch: 3, tokens, capacity: past, positions: capacity });
    const prompt = async () =>
      runtime.extend("prompt", extendProgram(spec, shape(4, 0)), {
        ids: Int32Array.from({ length: 12 }, (_, i) => i),
        lengths: new Int32Array(3),
        counts: Int32Array.of(4, 2, 3),
        capacity,
      });
    const best = (logits: Float32Array): number[] =>
      [0, 1, 2].map((row) => argmax(logits.subarray(row * spec.vocab, (row + 1) * spec.vocab)));
    const step = extendProgram(spec, shape(1, capacity));
    const first = best((await prompt()).output);
    const [steps, counts] = [5, Int32Array.of(1, 0, 1)];
    const expected: number[][] = [];
    let ids = first;
    for (let i = 0; i < steps; i++) {
      const lengths = Int32Array.of(4 + i, 2, 3 + i);
      const { output: logits } = await runtime.extend("step", step, {
        ids: Int32Array.from(ids),
        lengths,
        counts,
        capacity,
      });
      ids = best(logits);
      expected.push(ids);
    }
    await prompt();
    const lengths = Int32Array.of(4, 2, 3);
    const found = await runtime.likeliest!(
      "step",
      step,
      { ids: Int32Array.from(first), lengths, counts, capacity },
      steps,
    );
    expect(found.ids).toHaveLength(3 * steps);
    for (const row of [0, 2])
      expect(expected.map((line) => line[row])).toEqual(expected.map((_, i) => found.ids[3 * i + row]));
    expect(Math.max(...expected.flat())).toBeLessThan(spec.vocab / 2);
    // Logits that are no numbers choose nothing.
    await runtime.write(
      "head",
      head.map(() => NaN),
    );
    const none = await runtime.likeliest!("step", step, { ids: Int32Array.from(first), lengths, counts, capacity }, 2);
    expect([...none.ids]).toEqual(Array(6).fill(-1));
    await runtime.close();
  });

  it("make the same text as logits that are brought here, past the end of a row and of the cache", async () => {
    const backend = cudaBackend(0, { precision: "bf16" });
    const model = await openModel(golden("dense/llama"), backend, 1);
    const prompts = [Int32Array.of(3, 4, 5, 6), Int32Array.of(9, 8)];
    const plain = { ...model, likeliest: undefined };
    const texts = async (from: typeof model, stop: readonly number[], maxNewTokens: number) => {
      const rows: number[][] = [[], []];
      const settings = { temperature: 0, seed: 0, stop, maxNewTokens };
      for await (const { row, id } of generateBatch(from, prompts, settings)) rows[row]!.push(id);
      return rows;
    };
    const [expected, end] = [await texts(plain, [], 24), model.spec.maxPositions];
    expect(await texts(model, [], 24)).toEqual(expected);
    const stop = [expected[0]![7]!];
    expect(await texts(model, stop, 24)).toEqual(await texts(plain, stop, 24));
    const decoding = await startDecoding(model, [[1, 2, 3]], { expected: 8 });
    const chosen = await startDecoding(model, [[1, 2, 3]], { expected: 8, likeliest: true });
    expect(chosen.likely).toEqual([argmax(decoding.logits)]);
    const next = await decoding.nextLikeliest([5], 100);
    expect(next!.steps.length).toBeGreaterThan(0);
    expect(next!.steps.length).toBeLessThanOrEqual(end - 3);
    expect(next!.after.timings.newTokens).toBe(next!.steps.length);
    await model.close();
  });
});
