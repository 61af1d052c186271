/** Launch lists as text, and what their memory plans owe; nothing here needs a GPU. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { lowerToLaunches } from "../../../../src/engine/cuda/lowering/lower.js";
import { touched, type LaunchList } from "../../../../src/engine/cuda/lowering/launches.js";
import { livesOf } from "../../../../src/engine/cuda/lowering/memory.js";
import type { Layout } from "../../../../src/engine/cuda/lowering/options.js";
import { printLaunches } from "../../../../src/engine/cuda/lowering/print.js";
import { cacheShape } from "../../../../src/engine/runtime/cache.js";
import { GraphBuilder } from "../../../../src/graph/ir/builder.js";
import type { Prim } from "../../../../src/graph/ir/ir.js";
import { extendProgram, trainProgram, type TrainProgram } from "../../../../src/graph/programs/programs.js";
import { cases, makeCase } from "../../../graph/ir/cases.js";
import { goldenRun } from "../../../support/programs.js";

/** Buffers of the arena that live at once and share memory, in words. */
function clashes({ buffers, places, launches }: LaunchList): string[] {
  const lives = [...livesOf(launches)].filter(([id]) => places.has(id));
  return lives.flatMap(([a, lifeA], i) =>
    lives.slice(i + 1).flatMap(([b, lifeB]) => {
      const [from, other] = [places.get(a)!, places.get(b)!];
      const apart = from + buffers[a]!.bytes <= other || other + buffers[b]!.bytes <= from;
      const inTurn = lifeA.last < lifeB.first || lifeB.last < lifeA.first;
      return apart || inTurn ? [] : [`${a} and ${b}`];
    }),
  );
}

/** Reads of buffers of the arena that nothing has written before. */
function unwritten({ buffers, launches }: LaunchList): string[] {
  const written = new Set<number>();
  return launches.flatMap((launch, index) => {
    const bad = touched(launch).flatMap(([id, access]) =>
      access === "write" || buffers[id]!.home.kind !== "arena" || written.has(id) ? [] : [`${id} at launch ${index}`],
    );
    for (const [id, access] of touched(launch)) if (access !== "read") written.add(id);
    return bad;
  });
}

/** Parameters and their gradients one behind the other, as a training has them. */
function neighbouring(program: TrainProgram): Layout {
  const places = (infos: readonly { shape: readonly number[] }[], first: number) => {
    let offset = 0;
    return new Map(
      infos.map(({ shape }, i) => {
        const entry = [first + i, offset] as const;
        offset += shape.reduce((product, size) => product * size, 1);
        return entry;
      }),
    );
  };
  return { halves: places(program.params, 2), outputs: places(program.trained, program.gradients) };
}

const hopper = { capability: 90, multiprocessors: 132 } as const;

describe("a launch list", () => {
  it.each(["train/llama", "train/mixtral"])("of a training step of %s prints as it did", async (name) => {
    const { spec } = await goldenRun(name);
    const program = trainProgram(spec, { batch: 2, sequence: 8, auxCoef: 0.01, zCoef: 0.001 });
    const file = `./launches-${name.replace("/", "-")}.txt`;
    await expect(`${printLaunches(lowerToLaunches(program.graph))}\n`).toMatchFileSnapshot(file);
  });

  it("in bfloat16 keeps weights' gradients in float32, and converts each value once", async () => {
    const { spec } = await goldenRun("train/llama");
    const program = trainProgram(spec, { batch: 2, sequence: 8, auxCoef: 0.01, zCoef: 0.001 });
    const text = `${printLaunches(lowerToLaunches(program.graph, { precision: "bf16" }))}\n`;
    await expect(text).toMatchFileSnapshot("./launches-train-llama-bf16.txt");
    const conversions = [...text.matchAll(/toBf16<[^>]*>\((\S+),/g)].map(([, from]) => from);
    // Inputs of the graph are its weights.
    const weights = conversions.filter((from) => from!.startsWith("i"));
    expect(new Set(weights).size).toBe(weights.length);
    for (const line of text.split("\n")) if (/ product TN /.test(line)) expect(line).toContain("->f32");
  });

  it("for compute capability 9.0 multiplies experts' rows by wgmma, and fuses what lies around", async () => {
    const { spec } = await goldenRun("train/mixtral");
    const program = trainProgram(spec, { batch: 2, sequence: 8, auxCoef: 0.01, zCoef: 0.001 });
    const list = lowerToLaunches(program.graph, { precision: "bf16", chip: hopper });
    await expect(`${printLaunches(list)}\n`).toMatchFileSnapshot("./launches-train-mixtral-hopper.txt");
    expect(clashes(list)).toEqual([]);
    expect(unwritten(list)).toEqual([]);
    const kernels = list.launches.map((launch) => (launch.kind === "kernel" ? launch.kernel : ""));
    const count = (name: string): number => kernels.filter((kernel) => kernel === name).length;
    const layers = spec.layers.length;
    expect(["raggedGated", "dispatchScaled", "dispatch"].map(count)).toEqual([layers, layers, layers]);
    // Forwards with the weights, backwards without.
    expect(count("combine")).toBe(2 * layers);
    // Down forwards; gradients of the gated unit, and of what was dispatched, by way of gates and ups at once.
    expect(count("raggedProduct")).toBe(layers);
    expect(count("raggedProductTurned")).toBe(2 * layers);
    expect(count("raggedWeightGradientNarrow")).toBe(3 * layers);
    expect(kernels.filter((kernel) => /^(swiglu|scaleRows|grouped.*|scaleRowsGrad)$/.test(kernel))).toEqual([]);
  });

  it("for compute capability 9.0 takes attention by wgmma but where scores are capped", () => {
    const kernelsOf = (softcap: number | null, headDim: number): string[] => {
      const b = new GraphBuilder();
      const [q, k, v, dout] = ["q", "k", "v", "dout"].map((name) => b.input(name, "f32", [200, 2 * headDim])) as [
        number,
        number,
        number,
        number,
      ];
      const attrs = { batch: 2, sequence: 100, heads: 2, kvHeads: 2, headDim, valueDim: headDim, scale: 1 } as const;
      const all = { ...attrs, window: null, softcap, sinks: false };
      const out = b.op("attention", [q, k, v], all);
      const graph = b.finish([out, ...b.apply("attentionGrad", [q, k, v, dout], all)]);
      const { launches } = lowerToLaunches(graph, { precision: "bf16", chip: hopper });
      return launches.flatMap((one) =>
        one.kind === "kernel" && /flash|attention/.test(one.module) ? [`${one.module}.${one.kernel}`] : [],
      );
    };
    const names = ["flash64", "flashGradQ64", "flashGradKV64"];
    expect(kernelsOf(null, 64)).toEqual(names.map((name) => `flash-hopper-64.${name}`));
    expect(kernelsOf(null, 128)[0]).toBe("flash-hopper-128.flash128");
    expect(kernelsOf(2, 64)[0]).toBe("flash-64-capped.flash64Capped");
    expect(kernelsOf(null, 40)[0]).toBe("attention-tiled-64.attention64");
  });

  it.each([
    [hopper, null, 0],
    [hopper, 2, 1],
    [{ capability: 80, multiprocessors: 132 }, null, 1],
  ] as const)("for %o and a soft cap of %s turns query and key in place where attention reads them", async (...row) => {
    const [chip, softcap, copies] = row;
    const { spec } = await goldenRun("train/llama");
    const attn = { ...spec.attn, headDim: 64, softcap };
    const layers = spec.layers.map((layer) => ({ ...layer, rope: { ...layer.rope!, rotary: 64 } }));
    const program = trainProgram({ ...spec, attn, layers }, { batch: 2, sequence: 8, auxCoef: 0, zCoef: 0 });
    const list = lowerToLaunches(program.graph, { precision: "bf16", chip, layout: neighbouring(program) });
    expect(clashes(list)).toEqual([]);
    expect(unwritten(list)).toEqual([]);
    const turns = list.launches.filter((launch) => launch.kind === "kernel" && launch.kernel === "ropeTogether");
    expect(turns.length).toBe(2 * layers.length);
    for (const turn of turns.slice(0, layers.length)) {
      const written = new Set(touched(turn).flatMap(([id, access]) => (access === "read" ? [] : [id])));
      expect(written.size).toBe(1 + 2 * copies);
    }
  });

  it.each([
    ["compute capability 8.0", { capability: 80, multiprocessors: 132 }, 8, 64],
    ["rows of 12 elements", hopper, 8, 12],
    ["more experts than fit into shared memory", hopper, 7000, 64],
  ] as const)("takes the kernels of 8.0 for %s", (_, chip, experts, size) => {
    const b = new GraphBuilder();
    const [x, chosen] = [b.input("x", "f32", [40, size]), b.input("chosen", "int", [40, 1])];
    const [, , counts] = b.apply("expertSort", [chosen], { experts, drops: false });
    const weights = Array.from({ length: experts }, (_, i) => b.input(`w${i}`, "f32", [16, size]));
    const y = b.op("groupedMatmul", [x, counts, ...weights], { transB: true });
    const list = lowerToLaunches(b.finish([y]), { precision: "bf16", chip });
    expect(list.launches.filter((launch) => launch.kind === "kernel" && launch.module === "ragged")).toEqual([]);
  });

  it.each(["train/llama", "train/mixtral"])(
    "of %s in bfloat16 never adds what lies where a product's rounded result goes",
    async (name) => {
      const { spec } = await goldenRun(name);
      const program = trainProgram(spec, { batch: 2, sequence: 8, auxCoef: 0.01, zCoef: 0, recompute: "layer" });
      const layout = neighbouring(program);
      const { launches } = lowerToLaunches(program.graph, { precision: "bf16", chip: hopper, layout });
      const sums = launches.flatMap((launch) =>
        launch.kind === "product" && launch.stored === "bf16" && launch.addend !== null ? [launch] : [],
      );
      expect(sums.length).toBeGreaterThan(0);
      for (const { addend, out } of sums) expect(addend!.buffer).not.toBe(out.buffer);
    },
  );

  it("of neighbouring weights multiplies once for all of them, forwards and backwards", async () => {
    const { spec } = await goldenRun("train/llama");
    const heads = { ...spec.attn, headDim: 16 };
    const rope = { ...spec.layers[0]!.rope!, rotary: 16 };
    const wide = { ...spec, attn: heads, layers: spec.layers.map((layer) => ({ ...layer, rope })) };
    const program = trainProgram(wide, { batch: 2, sequence: 8, auxCoef: 0, zCoef: 0 });
    const layout = neighbouring(program);
    const list = lowerToLaunches(program.graph, { precision: "bf16", layout });
    const text = printLaunches(list);
    await expect(`${text}\n`).toMatchFileSnapshot("./launches-train-llama-joint.txt");
    const count = (pattern: RegExp): number => [...text.matchAll(pattern)].length;
    const layers = wide.layers.length;
    // Forwards: query, key and value; output; gate and up; down; and the head. Backwards twice as many.
    expect(count(/ product /g)).toBe(3 * (4 * layers + 1));
    expect(count(/ropeTogether/g)).toBe(2 * layers);
    expect(count(/toBf16|binarySame|copyRows/g)).toBe(0);
    expect(clashes(list)).toEqual([]);
    expect(unwritten(list)).toEqual([]);
  });

  it.each(["llama", "mixtral"])("of one new token in bfloat16 reads each weight once: %s", async (name) => {
    const { spec } = await goldenRun(`train/${name}`);
    const heads = { ...spec.attn, headDim: 32 };
    const layers = spec.layers.map((layer) => ({ ...layer, rope: { ...layer.rope!, rotary: 32 } }));
    const wide = { ...spec, attn: heads, layers };
    const program = extendProgram(wide, { batch: 2, tokens: 1, capacity: 128, positions: 128 });
    const [fed, parts] = [4, 2 * program.layers];
    const halves = new Map(program.params.map((_, i) => [fed + parts + i, 1024 * i] as const));
    const list = lowerToLaunches(program.graph, {
      precision: "bf16",
      chip: hopper,
      layout: { halves, outputs: new Map() },
      cache: {
        shapes: Array.from({ length: parts }, (_, i) => cacheShape(program, i, 128)),
        firstInput: fed,
        firstOutput: 1,
      },
    });
    await expect(`${printLaunches(list)}\n`).toMatchFileSnapshot(`./launches-decode-${name}.txt`);
    expect(clashes(list)).toEqual([]);
    expect(unwritten(list)).toEqual([]);
    const kernels = list.launches.map((launch) => (launch.kind === "kernel" ? launch.kernel : "product"));
    const each = name === "llama" ? 5 : 8;
    // Embedding, cosines, sines; the last norm, its rows, the head.
    expect(kernels).toHaveLength(each * wide.layers.length + 6);
    expect(kernels).not.toContain("product");
    const readAs = (kind: string): number[] =>
      list.launches.flatMap((launch) =>
        touched(launch).flatMap(([id]) => {
          const { home } = list.buffers[id]!;
          return home.kind === kind && "index" in home ? [home.index] : [];
        }),
      );
    const read = readAs("half");
    expect(new Set(read).size).toBe(read.length);
    const parameters = readAs("input").filter((index) => index >= fed);
    // Norms and routers stay in float32.
    expect(parameters.filter((index) => program.params[index - fed - parts]!.shape.length > 1)).toHaveLength(
      name === "llama" ? 0 : wide.layers.length,
    );
  });

  it("of tokens behind a cache prints as it did", async () => {
    const { spec } = await goldenRun("train/llama");
    const program = extendProgram(spec, { batch: 2, tokens: 1, capacity: 16, positions: 32 });
    await expect(`${printLaunches(lowerToLaunches(program.graph))}\n`).toMatchFileSnapshot("./launches-extend.txt");
  });

  it.each(["train/llama", "train/mixtral"])(
    "of %s keeps live values apart and reads what was written",
    async (name) => {
      const { spec } = await goldenRun(name);
      const list = lowerToLaunches(trainProgram(spec, { batch: 2, sequence: 8, auxCoef: 0.01, zCoef: 0.001 }).graph);
      expect(clashes(list)).toEqual([]);
      expect(unwritten(list)).toEqual([]);
      const all = list.buffers.reduce((sum, { home, bytes }) => sum + (home.kind === "arena" ? bytes : 0), 0);
      expect(list.arena).toBeLessThan(0.6 * all);
    },
  );

  it.each(Object.keys(cases) as Prim[])("of random cases of %s keeps live values apart", (prim) => {
    fc.assert(
      fc.property(fc.gen(), (draw) => {
        const list = lowerToLaunches(makeCase(prim, draw).graph);
        expect(clashes(list)).toEqual([]);
        expect(unwritten(list)).toEqual([]);
      }),
      { numRuns: 20 },
    );
  });

  it("copies outputs that are inputs, constants or another output, and computes over values that end", () => {
    const b = new GraphBuilder();
    const x = b.input("x", "f32", [4]);
    const y = b.scale(b.op("sigmoid", [b.scale(x, 2)], {}), 3);
    const list = lowerToLaunches(b.finish([x, b.constant([7], [2]), y, b.reshape(y, [2, 2])]));
    const text = printLaunches(list);
    expect(list.arena).toBe(256);
    expect(text).toMatch(/unary<1,1,1 x 256>\(i0, =a@0/);
    expect(text).toMatch(/unary<1,1,1 x 256>\(a@0, =a@0/);
    expect(text).toMatch(/unary<1,1,1 x 256>\(a@0, =o2/);
    expect(text).toMatch(/copyWords<1,1,1 x 256>\(i0, =o0, 4\)/);
    expect(text).toMatch(/copyWords<1,1,1 x 256>\(o2, =o3, 4\)/);
  });

  it("makes loss and gradient of a head in one pass over its logits", () => {
    const b = new GraphBuilder();
    const [x, head] = [b.input("x", "f32", [300, 8]), b.input("head", "f32", [50, 8])];
    const targets = b.input("targets", "int", [300]);
    const loss = b.op("headCrossEntropy", [x, head, targets], { softcap: null });
    const gradients = b.apply("headCrossEntropyGrad", [x, head, targets, b.constant([1], [])], { softcap: null });
    const list = lowerToLaunches(b.finish([loss, ...gradients]), { mostLogits: 128 * 50 });
    const products = list.launches.filter(({ kind }) => kind === "product");
    // Three runs of tokens, each with logits and two gradients.
    expect(products.length).toBe(9);
  });
});

describe("a graph in which many ways lead from a value to its end", () => {
  // Each sum of a value and its double is another fork: 2 to the power of 64 ways in all.
  it("is lowered in bfloat16 without following each of them", () => {
    const b = new GraphBuilder();
    let x = b.linear(b.input("a", "f32", [8, 8]), b.input("b", "f32", [8, 8]));
    for (let fork = 0; fork < 64; fork++) x = b.add(x, b.scale(x, 2));
    const graph = b.finish([b.linear(x, b.input("c", "f32", [8, 8]))]);
    expect(lowerToLaunches(graph, { precision: "bf16" }).launches.length).toBeGreaterThan(128);
  });
});
