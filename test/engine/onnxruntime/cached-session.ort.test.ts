import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { at } from "../../../src/base/at.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import { transposable } from "../../../src/graph/onnx/lower.js";
import { graphCache } from "../../../src/engine/cache/graph-cache.js";
import { openSession, shapedTensor, type Session } from "../../../src/engine/onnxruntime/session.js";
import { plainAttention, plainRope } from "../../../src/model/decoder/plain.js";
import {
  plainBlocks,
  plainExperts,
  rmsNorm,
  softmaxRouter,
  type DecoderSpec,
} from "../../../src/model/decoder/types.js";
import { trainProgram } from "../../../src/graph/programs/programs.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "graphs-"));
  vi.stubEnv("UPCYCLE_CACHE", folder);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

/** Small tensors, many nodes. */
const moe = (experts: number): DecoderSpec => ({
  family: "mixtral",
  vocab: 32,
  hidden: 16,
  tiedHead: false,
  norm: rmsNorm(1e-5),
  ...plainBlocks,
  maxPositions: 16,
  attn: plainAttention({ heads: 2, kvHeads: 2, headDim: 8 }),
  tokens: { bos: null, eos: [], pad: null },
  initStd: 0.02,
  auxLossCoef: 0.01,
  layers: Array.from({ length: 2 }, () => ({
    window: null,
    rope: plainRope(10000, 8),
    ffn: {
      kind: "moe",
      activation: "silu",
      ffnDim: 8,
      experts,
      topK: 2,
      router: softmaxRouter("topk-softmax"),
      ...plainExperts,
      shared: null,
    },
  })),
});
const programOf = (experts: number) =>
  trainProgram(moe(experts), { batch: 2, sequence: 16, auxCoef: 0.01, zCoef: 0.001 });
const program = programOf(64);

/** Losses and gradients of one step, on data that are the same in every call. */
async function outputs(session: Session): Promise<Uint8Array[]> {
  let state = 1;
  const next = (): number => (state = (state * 48271) % 2147483647) / 2147483647;
  const inputs = program.graph.inputs.map((id) => {
    const { dtype, shape } = at(program.graph.values, id);
    const length = shape.reduce((a, b) => a * b, 1);
    return shapedTensor(
      dtype === "f32"
        ? Float32Array.from({ length }, () => next() - 0.5)
        : Int32Array.from({ length }, () => Math.floor(next() * 32)),
      shape,
    );
  });
  const results = await session.run(inputs, []);
  const copies = results.map(({ data }) => {
    const { buffer, byteOffset, byteLength } = data as Float32Array;
    return new Uint8Array(buffer, byteOffset, byteLength).slice();
  });
  await session.close();
  return copies;
}
const open = (threads = 1): Promise<Session> => openSession(program.graph, { threads });

it.each([1, 2])(
  "losses and gradients are the same to the last bit from the cache, with %i threads",
  async (threads) => {
    vi.stubEnv("UPCYCLE_CACHE", "off");
    const plain = await outputs(await open(threads));
    expect(plain.length).toBeGreaterThan(program.gradients);
    expect(at(plain, plain.length - 1).some((byte) => byte !== 0)).toBe(true);
    expect(await readdir(folder)).toEqual([]);
    vi.stubEnv("UPCYCLE_CACHE", folder);
    expect(await outputs(await open(threads))).toEqual(plain);
    const [name, ...others] = await readdir(folder);
    expect(others).toEqual([]);
    const before = await readFile(join(folder, name!));
    expect(await outputs(await open(threads))).toEqual(plain);
    expect(await readFile(join(folder, name!))).toEqual(before);
  },
);

it("what is kept is what opens: another graph under the name answers in its place", async () => {
  await (await open()).close();
  const [name] = await readdir(folder);
  const cache = graphCache(folder);
  await (await openSession(programOf(4).graph, { threads: 1 })).close();
  const other = (await readdir(folder)).find((one) => one !== name)!;
  await cache.write(name!.replace(".graph", ""), [(await cache.read(other.replace(".graph", "")))!]);
  // Its inputs are not those of the program, so a run shows which graph it is.
  await expect(open().then(outputs)).rejects.toThrow();
});

it("lowers anew what is damaged", async () => {
  const plain = await outputs(await open());
  const [name] = await readdir(folder);
  const path = join(folder, name!);
  const good = await readFile(path);
  const damaged = Buffer.from(good);
  damaged[damaged.length >> 1]! ^= 255;
  await writeFile(path, damaged);
  expect(await outputs(await open())).toEqual(plain);
  expect(await readFile(path)).toEqual(good);
});

it("tells graphs apart by what they hold, and by what is transposed", async () => {
  await (await open()).close();
  const weight = transposable(program.graph).values().next().value!;
  await (await openSession(program.graph, { threads: 1, transposed: new Set([weight]) })).close();
  const other = trainProgram(moe(64), { batch: 2, sequence: 16, auxCoef: 0.02, zCoef: 0.001 });
  await (await openSession(other.graph, { threads: 1 })).close();
  expect(await readdir(folder)).toHaveLength(3);
});

it("opens without a folder to write to, and keeps no small graph", async () => {
  await writeFile(join(folder, "file"), "");
  vi.stubEnv("UPCYCLE_CACHE", join(folder, "file"));
  expect((await outputs(await open())).length).toBeGreaterThan(0);
  vi.stubEnv("UPCYCLE_CACHE", join(folder, "none"));
  const b = new GraphBuilder();
  const x = b.input("x", "f32", [2]);
  await (await openSession(b.finish([b.add(x, x)]), { threads: 1 })).close();
  expect(await readdir(folder)).toEqual(["file"]);
});
