/**
 * What every backend owes, and that all of them compute what the reference computes. Worker threads run the build: `npm
 * run build` comes first.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { at, entryOf, valueAt } from "../../src/base/at.js";
import { GraphBuilder } from "../../src/graph/ir/builder.js";
import { referenceBackend } from "../../src/engine/interpreter/backend.js";
import { planParameters, type ParameterSettings } from "../../src/engine/optimizer/groups.js";
import { extendProgram, logitsProgram, trainProgram, type TrainProgram } from "../../src/graph/programs/programs.js";
import type { RoutingSettings } from "../../src/graph/programs/routing.js";
import type {
  Backend,
  StateKind,
  StepMetrics,
  StepSettings,
  TrainOptions,
  TrainRuntime,
} from "../../src/engine/runtime/runtime.js";
import { backends } from "../support/backends.js";
import { golden, relativeError } from "../support/golden.js";
import { adamw, goldenRun, load, type GoldenRun } from "../support/programs.js";

/** Of `trajectory.json`, see test/golden/README.md. */
interface Trajectory {
  readonly optimizer: { readonly lr: number };
  readonly steps: readonly { readonly loss: number; readonly grad_norm: number }[];
}

const threads = 1;
const kinds: readonly StateKind[] = ["weight", "moment1", "moment2", "average"];

/** Everything that a run keeps; null where it keeps nothing. */
async function stateOf(runtime: TrainRuntime, program: TrainProgram): Promise<Map<string, Float32Array | null>> {
  const out = new Map<string, Float32Array | null>();
  for (const { key } of program.params)
    for (const kind of kinds) out.set(`${kind} ${key}`, await runtime.read(kind, key).catch(() => null));
  return out;
}

interface Scenario {
  readonly model: string;
  readonly parameters?: ParameterSettings;
  readonly options?: Partial<TrainOptions>;
  readonly routing?: RoutingSettings;
  /** Micro-batches of each step. */
  readonly parts?: number;
  readonly settings: (update: number) => StepSettings;
}

const muon = { momentum: 0.95, nesterov: true, scale: "rms" } as const;
const gentle = (update: number): StepSettings => adamw(update, { learningRate: 1e-4, eps: 1e-6 });
const scenarios: Readonly<Record<string, Scenario>> = {
  "a dense model": { model: "train/llama", settings: (update) => adamw(update, { eps: 1e-6 }) },
  "an MoE": { model: "train/mixtral", settings: gentle },
  "decay on all, no clipping": {
    model: "train/qwen3_moe",
    settings: (update) => ({ ...gentle(update), decayOn: "all", clipNorm: null }),
  },
  "accumulation and averages": {
    model: "train/mixtral",
    parts: 2,
    options: { accumulate: true, average: true },
    settings: (update) => ({ ...gentle(update), averageDecay: 0.9 }),
  },
  "routing over a step: exact shares, jitter, a capacity": {
    model: "train/mixtral",
    parts: 2,
    options: { accumulate: true },
    routing: { balance: "global", jitter: true, sinkhorn: false, capacity: { factor: 1, by: "weight" } },
    settings: (update) => ({ ...gentle(update), draw: { seed: 3, step: update, jitter: 0.01 } }),
  },
  "Muon, groups and frozen parts": {
    model: "train/mixtral",
    options: { average: true },
    parameters: {
      optimizer: { method: "muon" },
      groups: { experts: { lr: 2, weightDecay: 0.3 }, router: { freeze: true } },
      freeze: ["layers.0.q"],
    },
    settings: (update) => ({ ...gentle(update), muon, averageDecay: 0.5 }),
  },
  "Muon without Nesterov, spectral, accumulated": {
    model: "train/llama",
    parts: 4,
    options: { accumulate: true },
    parameters: { optimizer: { method: "muon" } },
    settings: (update) => ({
      ...adamw(update, { eps: 1e-6 }),
      muon: { momentum: 0.9, nesterov: false, scale: "spectral" },
    }),
  },
};

async function openScenario(
  backend: Backend,
  run: GoldenRun,
  { parameters = {}, options = {}, parts = 1, routing }: Scenario,
): Promise<{ runtime: TrainRuntime; program: TrainProgram }> {
  const { frozen, tuning } = planParameters(run.spec, parameters);
  const program = trainProgram(run.spec, {
    batch: run.batch / parts,
    sequence: run.sequence,
    auxCoef: 0.01,
    zCoef: 0.001,
    frozen,
    routing,
  });
  return {
    program,
    runtime: await load(
      await backend.openTrain(program, { threads, accumulate: false, tuning, ...options }),
      run.weights,
    ),
  };
}

/** Three steps and an evaluation. */
async function play(backend: Backend, scenario: Scenario) {
  const run = await goldenRun(scenario.model);
  const { runtime, program } = await openScenario(backend, run, scenario);
  const parts = scenario.parts ?? 1;
  const size = run.batch / parts;
  for (const { key } of program.trained)
    if (scenario.options?.average === true) await runtime.write("average", key, entryOf(run.weights, key));
  const steps: StepMetrics[] = [];
  for (let step = 0; step < 3; step++) {
    steps.push(
      await runtime.step(
        Array.from({ length: parts }, (_, i) => run.batchAt(step, i * size, size)),
        scenario.settings(step + 1),
      ),
    );
  }
  const evaluations = [await runtime.evaluate(run.batchAt(4, 0, size))];
  if (scenario.options?.average === true) evaluations.push(await runtime.evaluate(run.batchAt(4, 0, size), "average"));
  const state = await stateOf(runtime, program);
  await runtime.close();
  return { steps, evaluations, state };
}

const near = (a: number | null, b: number | null, tolerance = 1e-5): void => {
  if (a === null || b === null) expect(a).toBe(b);
  else expect(Math.abs(a - b) / Math.max(Math.abs(b), 1e-3)).toBeLessThan(tolerance);
};

const oracle = new Map<string, ReturnType<typeof play>>();

/** State that must exist. */
function present(data: Float32Array | null): Float32Array {
  if (data === null) throw new Error("this state does not exist");
  return data;
}

// Names without quotes, which "$name" would put around them: what selects tests by them begins with a backend's name.
describe.each(backends.map((backend) => [backend.name, backend] as const))("%s", (_, backend) => {
  describe("trains as the reference does", () => {
    it.each(Object.keys(scenarios))("%s", async (name) => {
      const scenario = valueAt(scenarios, name);
      const expected = await (oracle.get(name) ?? entryOf(oracle.set(name, play(referenceBackend, scenario)), name));
      const results = backend === referenceBackend ? expected : await play(backend, scenario);
      for (const part of ["steps", "evaluations"] as const) {
        expect(results[part].length).toBe(expected[part].length);
        results[part].forEach((one, i) => {
          const other = at(expected[part], i);
          for (const loss of ["loss", "balanceLoss", "zLoss"] as const) near(one[loss], other[loss]);
          one.entropy.forEach((value, layer) => near(value, at(other.entropy, layer)));
          expect(one.counts).toEqual(other.counts);
        });
      }
      results.steps.forEach(({ gradNorm, applied, spike }, i) => {
        near(gradNorm, at(expected.steps, i).gradNorm, 1e-4);
        expect({ applied, spike }).toEqual({ applied: true, spike: null });
      });
      expect([...results.state].filter(([, data]) => data === null).map(([key]) => key)).toEqual(
        [...expected.state].filter(([, data]) => data === null).map(([key]) => key),
      );
      for (const [key, data] of expected.state)
        if (data !== null) expect(relativeError(present(entryOf(results.state, key)), data), key).toBeLessThan(1e-4);
    });
  });

  it.each(["train/llama", "train/mixtral"])("%s: the first steps are those of PyTorch", async (name) => {
    const {
      optimizer: { lr },
      steps,
    } = JSON.parse(readFileSync(golden(name, "trajectory.json"), "utf8")) as Trajectory;
    const run = await goldenRun(name);
    const { spec, batch, sequence } = run;
    const program = trainProgram(spec, { batch, sequence, auxCoef: spec.auxLossCoef, zCoef: 0 });
    const runtime = await load(await backend.openTrain(program, { threads, accumulate: false }), run.weights);
    for (const [i, expected] of steps.slice(0, 3).entries()) {
      const { loss, balanceLoss, gradNorm } = await runtime.step(
        [run.batchAt(i)],
        adamw(i + 1, { learningRate: lr, decayOn: "all" }),
      );
      near(loss + spec.auxLossCoef * (balanceLoss ?? 0), expected.loss);
      near(gradNorm, expected.grad_norm, 1e-4);
    }
    await runtime.close();
  });

  describe("a training run", () => {
    const open = async (
      options: Partial<TrainOptions> = {},
    ): Promise<{ run: GoldenRun; program: TrainProgram; runtime: TrainRuntime }> => {
      const run = await goldenRun("train/llama");
      return { run, ...(await openScenario(backend, run, { model: "train/llama", options, settings: adamw })) };
    };

    it("leaves everything as it is at a spike and at numbers that are not finite", async () => {
      const { run, program, runtime } = await open({ average: true });
      const first = await runtime.step([run.batchAt(0)], { ...adamw(1), averageDecay: 0.9 });
      const before = await stateOf(runtime, program);
      const step = (limits: { loss: number; gradNorm: number }) =>
        runtime.step([run.batchAt(0)], { ...adamw(2), averageDecay: 0.9, limits });
      expect(await step({ loss: first.loss / 2, gradNorm: 1e9 })).toMatchObject({ applied: false, spike: "loss" });
      expect(await step({ loss: 1e9, gradNorm: 1e-9 })).toMatchObject({ applied: false, spike: "gradient" });
      expect(await stateOf(runtime, program)).toEqual(before);
      expect(await step({ loss: 1e9, gradNorm: 1e9 })).toMatchObject({ applied: true, spike: null });
      const norm = await runtime.read("weight", "finalNorm");
      await runtime.write("weight", "finalNorm", norm.fill(NaN));
      const moments = await runtime.read("moment1", "layers.0.q");
      expect(await step({ loss: 1e9, gradNorm: 1e9 })).toMatchObject({ applied: false, spike: null, loss: NaN });
      expect(await runtime.read("moment1", "layers.0.q")).toEqual(moments);
      await runtime.close();
    });

    it("is the state that is written to it", async () => {
      const { run, program, runtime } = await open({ average: true });
      await runtime.step([run.batchAt(0)], { ...adamw(1), averageDecay: 0.9 });
      const state = await stateOf(runtime, program);
      const copy = await backend.openTrain(program, { threads, accumulate: false, average: true });
      for (const { key } of program.params)
        for (const kind of kinds) await copy.write(kind, key, present(entryOf(state, `${kind} ${key}`)));
      const settings = { ...adamw(2), averageDecay: 0.9 };
      near(
        (await copy.step([run.batchAt(1)], settings)).loss,
        (await runtime.step([run.batchAt(1)], settings)).loss,
        1e-6,
      );
      near(
        (await copy.evaluate(run.batchAt(2), "average")).loss,
        (await runtime.evaluate(run.batchAt(2), "average")).loss,
        1e-6,
      );
      expect(await runtime.peakMemory()).toBeGreaterThan(1e6);
      await copy.close();
      await runtime.close();
    });

    it("refuses what it does not have, naming it, and goes on", async () => {
      const { run, runtime } = await open();
      const batch = run.batchAt(0);
      const stepWith = (changes: Partial<StepSettings>) => runtime.step([batch], { ...adamw(1), ...changes });
      await expect(runtime.read("weight", "nothing")).rejects.toThrow("no parameter nothing");
      await expect(runtime.write("weight", "embed", new Float32Array(2))).rejects.toThrow(
        /embed has \d+ elements, got 2/,
      );
      await expect(runtime.read("average", "embed")).rejects.toThrow("embed has no average: this run keeps none");
      await expect(runtime.evaluate(batch, "average")).rejects.toThrow("this run keeps no averages");
      await expect(runtime.step([batch, batch], adamw(1))).rejects.toThrow("without gradient accumulation");
      await expect(runtime.step([], adamw(1))).rejects.toThrow("at least one micro-batch");
      await expect(stepWith({ averageDecay: 0.9 })).rejects.toThrow("this run keeps no averages");
      expect((await stepWith({})).applied).toBe(true);
      await runtime.close();
      await expect(stepWith({})).rejects.toThrow("the runtime is closed");
      await runtime.close();
    });

    it("refuses Muon on what is no matrix, and a step without its settings", async () => {
      const tuning = (key: string) => ({ tuning: { [key]: { rate: 1, decay: null, method: "muon" as const } } });
      await expect(open(tuning("finalNorm"))).rejects.toThrow("Muon takes matrices, finalNorm is [32]");
      const { run, runtime } = await open(tuning("layers.0.q"));
      await expect(runtime.step([run.batchAt(0)], adamw(1))).rejects.toThrow("no settings for it");
      await runtime.close();
    });

    it("refuses a graph that reads what nothing defines", async () => {
      const { spec } = await goldenRun("train/llama");
      const program = trainProgram(spec, { batch: 1, sequence: 2, auxCoef: 0, zCoef: 0 });
      const broken = { ...program, graph: { ...program.graph, nodes: program.graph.nodes.slice(5) } };
      await expect(backend.openTrain(broken, { threads, accumulate: false })).rejects.toThrow(
        /never lowered|before it is defined/,
      );
    });
  });

  describe("a forward runtime", () => {
    it.each(["train/llama", "train/mixtral"])(
      "%s: texts that grow behind a cache of keys and values have the logits of the whole",
      async (name) => {
        const { spec, weights, batchAt } = await goldenRun(name);
        const runtime = await backend.openForward({ threads });
        const { ids } = batchAt(0, 0, 2);
        const length = 12;
        const rows = [0, 1].map((row) => ids.subarray(row * 32, row * 32 + length));
        const whole = logitsProgram(spec, { batch: 2, sequence: length });
        const joined = Int32Array.from(rows.flatMap((row) => [...row]));
        await expect(runtime.run("whole", whole, [joined])).rejects.toThrow("weight embed was never written");
        for (const [key, data] of weights) await runtime.write(key, data);
        const expected = await runtime.run("whole", whole, [joined]);
        // The oracle's logits, too.
        const other = await referenceBackend.openForward({ threads });
        for (const [key, data] of weights) await other.write(key, data);
        const oracles = await other.run("whole", whole, [joined]);
        await other.close();
        expected.forEach((value, i) => expect(Math.abs(value - at(oracles, i))).toBeLessThan(1e-5));
        const check = (logits: Float32Array, row: number, position: number): void => {
          const start = (row * length + position) * spec.vocab;
          for (let i = 0; i < spec.vocab; i++)
            expect(Math.abs(at(logits, row * spec.vocab + i) - at(expected, start + i))).toBeLessThan(1e-5);
        };
        const extend = async (
          tokens: number,
          capacity: number,
          lengths: number[],
          counts: number[],
          room: number,
        ): Promise<void> => {
          const feed = new Int32Array(2 * tokens);
          rows.forEach((row, r) => feed.set(row.subarray(lengths[r], at(lengths, r) + at(counts, r)), r * tokens));
          const shape = { batch: 2, tokens, capacity, positions: 32 };
          const feeds = {
            ids: feed,
            lengths: Int32Array.from(lengths),
            counts: Int32Array.from(counts),
            capacity: room,
          };
          const { output, ms } = await runtime.extend(`${tokens} ${capacity}`, extendProgram(spec, shape), feeds);
          expect(ms).toBeGreaterThanOrEqual(0);
          counts.forEach((count, r) => count > 0 && check(output, r, at(lengths, r) + count - 1));
        };
        await expect(extend(1, 8, [0, 0], [1, 1], 8)).rejects.toThrow("there is no past to go on from");
        // Prompts of 5 and 3 tokens, then one at a time; one row stops for a step; the cache grows and is cut again.
        await extend(5, 0, [0, 0], [5, 3], 6);
        await extend(1, 6, [5, 3], [1, 1], 6);
        await expect(extend(1, 6, [6, 4], [1, 1], 6)).rejects.toThrow("the cache has room for 6 keys");
        await extend(1, 16, [6, 4], [1, 0], 16);
        await extend(2, 16, [7, 4], [2, 2], 16);
        await extend(1, 12, [9, 6], [1, 1], 12);
        await runtime.close();
        await expect(runtime.run("whole", whole, [joined])).rejects.toThrow("the runtime is closed");
      },
    );

    it("runs programs of more sizes than it keeps open, and the first ones again with the same numbers", async () => {
      const { spec, weights, batchAt } = await goldenRun("train/llama");
      const runtime = await backend.openForward({ threads });
      for (const [key, data] of weights) await runtime.write(key, data);
      const { ids } = batchAt(0, 0, 2);
      const read = async (tokens: number): Promise<readonly number[]> => {
        const program = extendProgram(spec, { batch: 1, tokens, capacity: 0, positions: 32 });
        const feeds = { ids: ids.slice(0, tokens), lengths: Int32Array.of(0), counts: Int32Array.of(tokens) };
        return [...(await runtime.extend(`${tokens}`, program, { ...feeds, capacity: 32 })).output];
      };
      const first = [await read(1), await read(2)];
      for (let tokens = 3; tokens <= 18; tokens++) await read(tokens);
      expect([await read(1), await read(2)]).toEqual(first);
      await runtime.close();
    });

    it.each(["train/llama", "train/mixtral"])(
      "%s: several texts behind one past have the scores that each has alone",
      async (name) => {
        const { spec, weights, batchAt } = await goldenRun(name);
        const runtime = await backend.openForward({ threads });
        for (const [key, data] of weights) await runtime.write(key, data);
        const { ids } = batchAt(0, 0, 2);
        const past = 5;
        const sizes = [3, 1, 4, 2];
        const width = 16;
        await expect(runtime.repeatCache?.(2) ?? Promise.reject(new Error("no cache"))).rejects.toThrow("no cache");
        const prompt = extendProgram(spec, { batch: 1, tokens: past, capacity: 0, positions: 32 });
        const start = { ids: ids.slice(0, past), lengths: Int32Array.of(0), counts: Int32Array.of(past), capacity: 8 };
        await runtime.extend("prompt", prompt, start);
        await runtime.repeatCache?.(2);
        // The second row has the same texts in another order; what fills up a row sees itself alone.
        const orders = [
          [0, 1, 2, 3],
          [2, 0, 3, 1],
        ];
        const textOf = (text: number): Int32Array => ids.slice(32 + 6 * text, 32 + 6 * text + at(sizes, text));
        const feed = new Int32Array(2 * width);
        const starts = Int32Array.from(feed, (_, i) => i % width);
        const asked: { readonly row: number; readonly text: number; readonly place: number }[] = [];
        orders.forEach((order, row) => {
          let place = 0;
          for (const text of order) {
            feed.set(textOf(text), row * width + place);
            starts.fill(place, row * width + place, row * width + place + at(sizes, text));
            place += at(sizes, text);
            asked.push({ row: row * width + place - 1, text, place: past + at(sizes, text) - 1 });
          }
        });
        const shape = { batch: 2, tokens: width, capacity: 8, positions: 32, branches: true };
        const targets = Int32Array.from(asked, (_, i) => (i * 7 + 1) % spec.vocab);
        const { output } = await runtime.extend(
          "texts",
          extendProgram(spec, shape, { chosen: asked.length, scored: true }),
          {
            ids: feed,
            starts,
            targets,
            lengths: Int32Array.of(past, past),
            counts: Int32Array.of(0, 0),
            rows: Int32Array.from(asked, ({ row }) => row),
            capacity: 8,
          },
        );
        for (const [i, { text, place }] of asked.entries()) {
          const alone = Int32Array.of(...ids.slice(0, past), ...textOf(text));
          const program = logitsProgram(spec, { batch: 1, sequence: alone.length });
          const logits = await runtime.run(`alone ${alone.length}`, program, [alone]);
          const row = [...logits.subarray(place * spec.vocab, (place + 1) * spec.vocab)];
          const sum = row.reduce((total, one) => total + Math.exp(one), 0);
          expect(Math.abs(at(output, 2 * i) - (at(row, at(targets, i)) - Math.log(sum)))).toBeLessThan(1e-5);
          expect(at(output, 2 * i + 1)).toBe(Number(row.indexOf(Math.max(...row)) === at(targets, i)));
        }
        await runtime.close();
      },
    );
  });

  describe("an operation runtime", () => {
    it("runs graphs by name, integers and floats, with memory that is given away", async () => {
      const runtime = await backend.openOperations({ threads });
      const b = new GraphBuilder();
      const chosen = b.input("experts", "int", [3, 1]);
      const x = b.input("x", "f32", [3, 2]);
      const [order, inverse, counts] = b.apply("expertSort", [chosen], { experts: 4, drops: false }) as [
        number,
        number,
        number,
      ];
      const graph = b.finish([order, counts, b.op("dispatch", [x, order, inverse], { k: 1 })]);
      for (let round = 0; round < 3; round++) {
        const memory = runtime.memory(24);
        expect(memory.byteLength).toBeGreaterThanOrEqual(24);
        const rows = new Float32Array(memory, 0, 6);
        rows.set([1, 2, 3, 4, 5, 6]);
        expect(await runtime.run("sort", graph, [Int32Array.of(2, 0, 2), rows], [1])).toEqual([
          Int32Array.of(1, 0, 2),
          Int32Array.of(1, 0, 2, 0),
          Float32Array.of(3, 4, 1, 2, 5, 6),
        ]);
      }
      await runtime.close();
      await expect(runtime.run("sort", graph, [Int32Array.of(2, 0, 2), new Float32Array(6)])).rejects.toThrow(
        "the runtime is closed",
      );
    });
  });
});
