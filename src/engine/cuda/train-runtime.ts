/** A training run on a GPU. All state lies there; a step reads tokens and gives back a few numbers. */
import { at, entryOf } from "../../base/at.js";
import { elements, typeOf, type Graph } from "../../graph/ir/ir.js";
import type { LossOutputs, TrainProgram } from "../../graph/programs/programs.js";
import { averagesMissing, checkLength, checkStep, checkTuning, frozenOf } from "../optimizer/state.js";
import { stepFeeds, type RunAhead } from "../routing/routing-feeds.js";
import { averageLosses, readLosses } from "../runtime/metrics.js";
import type {
  LossMetrics,
  MicroBatch,
  StateKind,
  StateSnapshot,
  StepMetrics,
  StepSettings,
  TrainOptions,
  TrainRuntime,
} from "../runtime/runtime.js";
import type { Device, DeviceMemory } from "./device.js";
import type { CudaLowerOptions, Layout } from "./lowering/options.js";
import { lowerToLaunches } from "./lowering/lower.js";
import type { LaunchList } from "./lowering/launches.js";
import { aligned } from "./lowering/memory.js";
import type { Address } from "./native.js";
import { allOrNoneLater, Owned } from "./owned.js";
import { DeviceProgram, type MeasuredLaunch } from "./program.js";
import { STEP_VALUES, requireMemory, type MemoryNeeds } from "./needs.js";
import { peakFlops } from "./peaks.js";
import { WORKSPACE } from "./products.js";
import { DeviceSnapshot, StagingPool } from "./snapshot.js";
import { StepMemory } from "./step-memory.js";
import { StepUpdate, verdictOf } from "./step-update.js";
import { Stream } from "./stream.js";
import { DeviceTrainState, regionLayout, stateBytes, type RegionLayout, type StateSettings } from "./train-state.js";
import { Turns } from "./turns.js";

/** Places of a graph's first outputs, one after the other, in bytes; and the bytes of all of them. */
function outputPlaces(graph: Graph, count: number): { readonly places: readonly number[]; readonly bytes: number } {
  const places: number[] = [];
  let bytes = 0;
  for (const id of graph.outputs.slice(0, count)) {
    places.push(bytes);
    bytes += aligned(4 * elements(typeOf(graph, id).shape));
  }
  return { places, bytes };
}

/** Numbers of a graph's outputs in host memory that was copied from the GPU. */
function reader(graph: Graph, places: readonly number[], data: ArrayBuffer): (index: number) => number[] {
  return (index) => {
    const { dtype, shape } = typeOf(graph, at(graph.outputs, index));
    const count = elements(shape);
    const from = at(places, index);
    return Array.from(dtype === "int" ? new Int32Array(data, from, count) : new Float32Array(data, from, count));
  };
}

/** A loss graph on the GPU, with its own memory for what comes out. */
interface LossRun {
  readonly program: DeviceProgram;
  readonly results: DeviceMemory;
  readonly read: (data: ArrayBuffer) => (index: number) => number[];
}

/** What a training run is opened with, and in what it computes. */
export type CudaTrainOptions = TrainOptions & Pick<CudaLowerOptions, "precision" | "chip">;

/** A training run on a GPU, which owns weights, gradients and optimizer state there. */
export class CudaTrainRuntime implements TrainRuntime {
  private readonly state: DeviceTrainState;
  private readonly owned = new Owned();
  private readonly frozen: ReadonlySet<string>;
  private readonly tokens: { readonly ids: DeviceMemory; readonly targets: DeviceMemory };
  private readonly feeds: readonly DeviceMemory[];
  private readonly metrics: ReturnType<typeof outputPlaces>;
  private readonly losses: DeviceMemory;
  private slots: DeviceMemory;
  /** What `prepare` opens. */
  private update: StepUpdate | undefined;
  private training: DeviceProgram | undefined;
  private adding: DeviceProgram | undefined;
  /** Makes weights' bfloat16 of their float32, and whether that is due. */
  private rounding: DeviceProgram | undefined;
  private stale = true;
  /** Steps that have not answered, the last one that was asked for, and memory of those that have. */
  private readonly answers = new Set<Promise<StepMetrics>>();
  private lastAnswer: Promise<unknown> = Promise.resolve();
  private readonly idle: StepMemory[] = [];
  /** Host memory through which checkpoints leave the GPU; kept from one to the next. */
  private staging: StagingPool | undefined;
  private readonly evaluations = new Map<string, Promise<LossRun>>();
  private peakRss = 0;
  private readonly turns: Turns;

  private constructor(
    private readonly device: Device,
    private readonly stream: Stream,
    private readonly program: TrainProgram,
    private readonly options: CudaTrainOptions,
  ) {
    this.turns = new Turns(device);
    this.frozen = frozenOf(program);
    const { owned } = this;
    owned.keep(stream);
    const { graph } = program;
    this.metrics = outputPlaces(graph, program.gradients);
    const take = (bytes: number, what: string): DeviceMemory => owned.keep(device.allocate(bytes, what));
    const input = (index: number): DeviceMemory =>
      take(4 * elements(typeOf(graph, at(graph.inputs, index)).shape), "a program's inputs");
    try {
      this.state = owned.keep(new DeviceTrainState(device, stream, program.params, stateSettings(program, options)));
      this.tokens = { ids: input(0), targets: input(1) };
      this.feeds = program.feeds.map((_, index) => input(2 + index));
      this.losses = take(this.metrics.bytes, "a step's numbers");
      this.slots = take(this.metrics.bytes, "a step's numbers");
    } catch (cause) {
      owned[Symbol.dispose]();
      throw cause;
    }
  }

  /** Throws stopError where the GPU's memory does not hold the run. */
  static async open(device: Device, program: TrainProgram, options: CudaTrainOptions): Promise<CudaTrainRuntime> {
    checkTuning(program, options);
    const chosen = { ...options, chip: device.chip };
    const list = lowerToLaunches(program.graph, { ...chosen, layout: trainLayout(program, options) });
    device.enter();
    requireMemory(needsOf(program, options, list), device.driver.memory().free, `cuda:${device.facts.ordinal}`);
    const runtime = new CudaTrainRuntime(device, new Stream(device), program, chosen);
    try {
      await runtime.prepare(list);
      return runtime;
    } catch (cause) {
      await runtime.close();
      throw cause;
    }
  }

  private async prepare(list: LaunchList): Promise<void> {
    const { stream, program, state, losses, metrics } = this;
    const outputs = [
      ...metrics.places.map((place) => losses.address + BigInt(place)),
      ...program.trained.map(({ key }) => state.addressOf("gradient", key)),
    ];
    const halves = this.halves(program.feeds.length);
    this.training = this.owned.keep(
      await DeviceProgram.open(stream, list, { inputs: this.inputs("weight"), outputs, halves }),
    );
    await this.makeUpdate().prepare();
    await stream.finished();
  }

  /** The update reads every micro-batch's loss, so it is made anew where a step has more of them than any before. */
  private makeUpdate(): StepUpdate {
    const { stream, state, options, metrics, slots, program } = this;
    const place = at(metrics.places, program.outputs.loss);
    this.update = new StepUpdate(stream, state, options, {
      address: slots.address + BigInt(place),
      stride: metrics.bytes / 4,
    });
    return this.update;
  }

  private inputs(kind: "weight" | "average", feeds = this.feeds): Address[] {
    const { tokens, state, program, frozen } = this;
    return [
      tokens.ids.address,
      tokens.targets.address,
      ...feeds.map(({ address }) => address),
      ...program.params.map(({ key }) => state.addressOf(frozen.has(key) ? "weight" : kind, key)),
    ];
  }

  /** Weights as bfloat16 among the inputs of a graph with so many feeds. */
  private halves(feeds: number): ReadonlyMap<number, Address> {
    const { program, state } = this;
    if (state.halves.bytes === 0) return new Map();
    return new Map(program.params.map(({ key }, i) => [FIRST_FEED + feeds + i, state.halfOf(key)]));
  }

  /** Makes the weights' bfloat16 anew where weights were written. */
  private async freshen(): Promise<void> {
    const { stream, state } = this;
    if (!this.stale || state.halves.bytes === 0) return;
    const bytes = state.bytesOf("weight");
    if (this.rounding === undefined) {
      const ends = { inputs: [state.base("weight")], outputs: [state.halves.address] };
      this.rounding = this.owned.keep(await DeviceProgram.open(stream, roundingList(bytes), ends));
    }
    this.rounding.issue();
    this.stale = false;
  }

  private feed({ ids, targets }: MicroBatch, routing: readonly Float32Array[] = []): void {
    this.stream.upload(this.tokens.ids.address, ids);
    this.stream.upload(this.tokens.targets.address, targets);
    this.feedRouting(routing);
  }

  private feedRouting(routing: readonly Float32Array[] = []): void {
    for (const [i, data] of routing.entries()) this.stream.upload(at(this.feeds, i).address, data);
  }

  private updateFor(batches: number): StepUpdate {
    const { metrics, device, update } = this;
    if (update !== undefined && this.slots.bytes >= batches * metrics.bytes) return update;
    update?.[Symbol.dispose]();
    this.update = undefined;
    this.slots[Symbol.dispose]();
    this.slots = this.owned.keep(device.allocate(batches * metrics.bytes, "a step's numbers"));
    return this.makeUpdate();
  }

  /** A step is issued when those before it are, not when they have answered: the GPU goes from one to the next. */
  step(batches: readonly MicroBatch[], settings: StepSettings): Promise<StepMetrics> {
    // Steps end one after the other, and are waited for so: each wait takes one of the few threads that files need.
    const before = this.lastAnswer;
    const answer = this.turns
      .next(() => this.issueStep(batches, settings))
      .then(async (answered) => {
        await before;
        return answered();
      });
    this.answers.add(answer);
    const forget = (): void => void this.answers.delete(answer);
    this.lastAnswer = answer.then(forget, forget);
    return answer;
  }

  /** Memory for a step of so many micro-batches, which no step under way uses. */
  private memoryFor(batches: number): StepMemory {
    const found = this.idle.findIndex((memory) => memory.batches === batches);
    if (found >= 0) return at(this.idle.splice(found, 1), 0);
    const perBatch = this.tokens.ids.bytes / 4;
    return this.owned.keep(new StepMemory(this.device, batches, perBatch, this.metrics.bytes * batches));
  }

  /** Issues a step; what it gives back waits for its numbers. */
  private async issueStep(batches: readonly MicroBatch[], settings: StepSettings): Promise<() => Promise<StepMetrics>> {
    const { program, stream, metrics, losses, training, tokens } = this;
    checkStep(this.options, batches, settings);
    const update = this.updateFor(batches.length);
    if (training === undefined) throw new Error("the runtime was not prepared");
    await this.freshen();
    const routing = await stepFeeds(program, batches, settings.draw, (batch, own) => this.ahead(batch, own));
    const memory = this.memoryFor(batches.length);
    const places = { ids: tokens.ids.address, targets: tokens.targets.address };
    for (const [micro, batch] of batches.entries()) {
      this.device.enter();
      memory.upload(stream, micro, batch, places);
      this.feedRouting(routing.next(micro));
      training.launch();
      stream.copy(this.slots.address + BigInt(micro * metrics.bytes), losses.address, metrics.bytes);
      if (this.options.accumulate) await this.accumulate(micro);
      if (program.shares === null) continue;
      const own = new ArrayBuffer(metrics.bytes);
      stream.download(new Uint8Array(own), losses.address);
      await stream.finished();
      routing.done(reader(program.graph, metrics.places, own));
    }
    await update.issue(settings, batches.length, memory.verdict);
    stream.download(memory.losses, this.slots.address);
    const reached = stream.mark();
    return async () => {
      await reached();
      this.peakRss = Math.max(this.peakRss, process.memoryUsage.rss());
      const data = memory.losses.slice().buffer;
      const verdict = verdictOf(memory.verdict);
      this.idle.push(memory);
      const parts = batches.map((_, micro) => {
        const own = data.slice(micro * metrics.bytes, (micro + 1) * metrics.bytes);
        return readLosses(program.outputs, reader(program.graph, metrics.places, own));
      });
      return { ...averageLosses(parts), ...verdict };
    };
  }

  /** What each launch of forward and backward pass and of the last update takes, on the tokens that were last given. */
  profile(): Promise<readonly MeasuredLaunch[]> {
    return this.turns.next(async () => {
      if (this.training === undefined) throw new Error("the runtime was not prepared");
      const pass = await this.training.measure();
      return [...pass, ...((await this.update?.measure()) ?? [])];
    });
  }

  /** accumulated = gradient, or += gradient. */
  private async accumulate(micro: number): Promise<void> {
    const { state, stream } = this;
    const [from, to] = [state.base("gradient"), state.base("accumulated")];
    const bytes = state.bytesOf("gradient");
    if (micro === 0) {
      stream.copy(to, from, bytes);
      return;
    }
    if (this.adding === undefined) {
      const ends = { inputs: [to, from], outputs: [] };
      this.adding = this.owned.keep(await DeviceProgram.open(stream, addition(bytes), ends));
    }
    this.adding.issue();
  }

  /** Runs a loss graph with the tokens and feeds that were last given. */
  private async lossRun(
    name: string,
    graph: Graph,
    inputs: readonly Address[],
    halves: ReadonlyMap<number, Address>,
  ): Promise<LossRun> {
    const known = this.evaluations.get(name);
    if (known !== undefined) return known;
    const made = allOrNoneLater(async (owned): Promise<LossRun> => {
      const { places, bytes } = outputPlaces(graph, graph.outputs.length);
      const results = owned.keep(this.device.allocate(bytes, "losses"));
      const outputs = places.map((place) => results.address + BigInt(place));
      const layout = halves.size === 0 ? {} : { layout: halvesLayout(this.program, this.options, halves) };
      const list = lowerToLaunches(graph, { ...this.options, ...layout });
      // Evaluation and training take turns, and so do their values.
      const arena = this.training?.arena;
      const program = await DeviceProgram.open(this.stream, list, { inputs, outputs, halves, arena });
      this.owned.keep(results);
      this.owned.keep(program);
      return { program, results, read: (data) => reader(graph, places, data) };
    });
    this.evaluations.set(name, made);
    // One that failed is tried again when it is asked for again.
    made.catch(() => this.evaluations.delete(name));
    return made;
  }

  private async numbersOf({ program, results, read }: LossRun): Promise<(index: number) => number[]> {
    this.device.enter();
    program.launch();
    const data = new ArrayBuffer(results.bytes);
    this.stream.download(new Uint8Array(data), results.address);
    await this.stream.finished();
    return read(data);
  }

  private readonly ahead: RunAhead = async (batch, routing) => {
    const { shares } = this.program;
    if (shares === null) throw new Error("this program's shares need nothing ahead");
    const run = await this.lossRun(
      "shares",
      shares.graph,
      this.inputs("weight"),
      this.halves(this.program.feeds.length),
    );
    this.feed(batch, routing);
    const read = await this.numbersOf(run);
    return shares.graph.outputs.map((_, index) => read(index));
  };

  evaluate(batch: MicroBatch, kind: "weight" | "average" = "weight"): Promise<LossMetrics> {
    return this.turns.next(async () => {
      if (kind === "average" && this.options.average !== true) throw averagesMissing();
      const { graph, outputs }: { readonly graph: Graph; readonly outputs: LossOutputs } = this.program.evaluation;
      await this.freshen();
      const halves = kind === "weight" ? this.halves(0) : new Map<number, Address>();
      const run = await this.lossRun(kind, graph, this.inputs(kind, []), halves);
      this.feed(batch);
      return readLosses(outputs, await this.numbersOf(run));
    });
  }

  read(kind: StateKind, key: string): Promise<Float32Array> {
    return this.turns.next(() => this.state.read(kind, key));
  }

  write(kind: StateKind, key: string, data: Float32Array): Promise<void> {
    return this.turns.next(async () => {
      const { address, count } = this.state.region(kind, key);
      checkLength(key, count, data);
      this.stream.upload(address, data);
      if (kind === "weight") this.stale = true;
      await this.stream.finished();
    });
  }

  get peakFlops(): number | null {
    return peakFlops(this.device.facts.name);
  }

  /** A copy on the GPU, read through a stream of its own; null where the GPU has no room for it. */
  snapshot(): Promise<StateSnapshot | null> {
    return this.turns.next(() => {
      this.staging ??= new StagingPool(this.device);
      const { free } = this.device.driver.memory();
      const holds = this.staging.holdsCopies || free >= this.state.savedBytes() + LEAST_FREE;
      if (!holds) return Promise.resolve(null);
      return Promise.resolve(new DeviceSnapshot(this.stream, this.state, this.staging));
    });
  }

  peakMemory(): Promise<number> {
    return this.turns.next(() => Promise.resolve(this.peakRss));
  }

  readonly queues = true;

  async close(): Promise<void> {
    await Promise.allSettled(this.answers);
    return this.turns.close(() => {
      this.update?.[Symbol.dispose]();
      this.staging?.[Symbol.dispose]();
      this.owned[Symbol.dispose]();
    });
  }
}

/** Bytes that a copy of the state leaves free on the GPU. */
const LEAST_FREE = 512 << 20;

/** Place of the first feed among a graph's inputs: behind ids and targets. */
const FIRST_FEED = 2;

/** What is kept of the parameters of a training. */
const stateSettings = (program: TrainProgram, options: CudaTrainOptions): StateSettings => ({
  ...options,
  frozen: frozenOf(program),
  halves: options.precision === "bf16",
});

/** Bytes that a training takes of a GPU, by what they are for. */
function needsOf(program: TrainProgram, options: CudaTrainOptions, list: LaunchList): MemoryNeeds {
  const constants = list.buffers.reduce((sum, { bytes, home }) => sum + (home.kind === "constant" ? bytes : 0), 0);
  return new Map([
    ...stateBytes(program.params, stateSettings(program, options)),
    [STEP_VALUES, list.arena],
    ["constants and scratch memory of products", constants + WORKSPACE],
  ]);
}

/** Where a training's weights and gradients lie. */
function trainLayout(program: TrainProgram, options: CudaTrainOptions): Layout {
  const settings = stateSettings(program, options);
  if (!settings.halves) return { halves: new Map(), outputs: new Map() };
  const [weights, gradients] = (["weight", "gradient"] as const).map((kind) =>
    regionLayout(program.params, settings, kind),
  ) as [RegionLayout, RegionLayout];
  const first = FIRST_FEED + program.feeds.length;
  return {
    halves: new Map(program.params.map(({ key }, i) => [first + i, entryOf(weights.offsets, key)])),
    outputs: new Map(program.trained.map(({ key }, i) => [program.gradients + i, entryOf(gradients.offsets, key)])),
  };
}

/** Where weights lie among the inputs of a graph without gradients. */
function halvesLayout(program: TrainProgram, options: CudaTrainOptions, halves: ReadonlyMap<number, Address>): Layout {
  const { offsets } = regionLayout(program.params, stateSettings(program, options), "weight");
  const places = program.params.map(({ key }) => entryOf(offsets, key));
  return { halves: new Map([...halves.keys()].map((index, i) => [index, at(places, i)])), outputs: new Map() };
}

/** The bfloat16 of so many bytes of float32. */
function roundingList(bytes: number): LaunchList {
  const count = bytes / 4;
  return {
    buffers: [
      { bytes, home: { kind: "input", index: 0 } },
      { bytes: bytes / 2, home: { kind: "output", index: 0 } },
    ],
    places: new Map(),
    arena: 0,
    launches: [
      {
        kind: "kernel",
        module: "elementwise",
        kernel: "toBf16",
        real: "f32",
        grid: [Math.min(1 << 14, Math.ceil(count / 2048)), 1, 1],
        block: 256,
        shared: 0,
        bytes: (bytes * 3) / 2,
        flops: 0,
        arguments: [
          { kind: "pointer", buffer: 0, access: "read" },
          { kind: "pointer", buffer: 1, access: "write" },
          { kind: "long", value: count },
        ],
      },
    ],
  };
}

/** a += b over so many bytes. */
function addition(bytes: number): LaunchList {
  const elementsOf = bytes / 4;
  return {
    buffers: [0, 1].map((index) => ({ bytes, home: { kind: "input", index } })),
    places: new Map(),
    arena: 0,
    launches: [
      {
        kind: "kernel",
        module: "elementwise",
        kernel: "binarySame",
        real: "f32",
        grid: [Math.min(1 << 14, Math.ceil(elementsOf / 256)), 1, 1],
        block: 256,
        shared: 0,
        bytes: 3 * bytes,
        flops: elementsOf,
        arguments: [
          { kind: "pointer", buffer: 0, access: "read" },
          { kind: "pointer", buffer: 1, access: "read" },
          { kind: "pointer", buffer: 0, access: "update" },
          { kind: "int", value: 0 },
          { kind: "long", value: elementsOf },
        ],
      },
    ],
  };
}
