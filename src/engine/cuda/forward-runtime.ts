/** Forward graphs over one set of weights on a GPU, and the cache of keys and values of a text that goes on. */
import { at } from "../../base/at.js";
import { elements, typeOf, type Graph } from "../../graph/ir/ir.js";
import type { ExtendProgram, LogitsProgram, ParamInfo } from "../../graph/programs/programs.js";
import { cacheShape, extendInputs, presentFrom, routingOf } from "../runtime/cache.js";
import type { Extended, ExtendFeeds, ForwardRuntime, LikelyTokens } from "../runtime/runtime.js";
import { bestList, moveList, type CacheLayout } from "./lowering/cache.js";
import { touched, type LaunchList, type Storage } from "./lowering/launches.js";
import { aligned } from "./lowering/memory.js";
import type { CudaLowerOptions } from "./lowering/options.js";
import { lowerToLaunches } from "./lowering/lower.js";
import type { Device, DeviceMemory } from "./device.js";
import { ForwardWeights } from "./forward-weights.js";
import type { Address } from "./native.js";
import { allOrNone, allOrNoneLater } from "./owned.js";
import { DeviceProgram, runOnce } from "./program.js";
import { Stream, type Recorded } from "./stream.js";
import { Turns } from "./turns.js";

/** A program with memory for what is fed and what comes out, but for weights and cache. */
interface Opened extends Disposable {
  readonly program: DeviceProgram;
  readonly feeds: Feeds;
  readonly results: readonly DeviceMemory[];
  /** Whether it has run before. */
  hasRun?: boolean;
}

interface Extension extends Opened {
  /** A step that takes the likeliest token of each row as its next input; recorded when it is first asked for. */
  greedy?: Greedy;
}

interface Greedy extends Disposable {
  readonly step: Recorded;
  /** Tokens that were taken [steps, B], and the line that comes next. */
  readonly chosen: DeviceMemory;
  readonly line: DeviceMemory;
}

/** Keys and values of layer 0, of layer 1, ...: [B, kvHeads, capacity, size] each. */
interface Cache {
  readonly batch: number;
  readonly capacity: number;
  readonly data: readonly DeviceMemory[];
}

/** Programs of new tokens that stay open: each has the memory of its activations. */
const MOST_EXTENSIONS = 16;
/** How a graph is bound beside its feeds and parameters. */
interface Binding {
  readonly cache?: { readonly layout: CacheLayout; readonly parts: readonly Address[] };
  /** How many of the graph's inputs, in front, are fed; the parts of the cache that it has come behind them. */
  readonly fed: number;
  readonly past: readonly Address[];
  /** Sizes in bytes of what is fed beside the graph's inputs. */
  readonly more: readonly number[];
  /** How many of the graph's outputs, in front, come out. */
  readonly results: number;
}

/** Place of the lengths among the inputs of a program with a past. */
const LENGTHS_INPUT = 2;
/** Attention keeps no scores, so a prompt is read as a whole as long as its activations have room. */
const TOKENS_AT_ONCE = 1 << 16;
/** Steps that are asked for at once at most. */
const MOST_STEPS = 64;

const bytesOf = (graph: Graph, id: number): number => 4 * elements(typeOf(graph, id).shape);

const disposeAll = (things: readonly Disposable[]): void => {
  for (const thing of things) thing[Symbol.dispose]();
};

const disposeExtension = (extension: Extension): void => {
  extension.greedy?.[Symbol.dispose]();
  extension[Symbol.dispose]();
};

/** Runs a program; from the second run on as one graph, since recording costs more than one run gains by it. */
function launch(opened: Opened): void {
  if (opened.hasRun === true) opened.program.launch();
  else opened.program.issue();
  opened.hasRun = true;
}

/** Places of the graph's inputs that a list reads as they are. */
function readInputs({ launches, buffers }: LaunchList): ReadonlySet<number> {
  const ids = new Set(launches.flatMap((launch) => touched(launch).map(([id]) => id)));
  return new Set(
    [...ids].flatMap((id) => {
      const { home } = at(buffers, id);
      return home.kind === "input" ? [home.index] : [];
    }),
  );
}

/** What is fed to a program: pieces of one buffer, which travel together. */
class Feeds implements Disposable {
  private readonly memory: DeviceMemory;
  private readonly host: Uint8Array;
  private readonly places: readonly number[];
  readonly addresses: readonly Address[];

  constructor(
    device: Device,
    private readonly stream: Stream,
    private readonly sizes: readonly number[],
  ) {
    let bytes = 0;
    this.places = sizes.map((size) => {
      const place = bytes;
      bytes += aligned(size);
      return place;
    });
    this.memory = device.allocate(bytes, "inputs");
    this.host = new Uint8Array(bytes);
    this.addresses = this.places.map((place) => this.memory.address + BigInt(place));
  }

  upload(feeds: readonly ArrayBufferView[]): void {
    const { sizes, places, host } = this;
    if (sizes.length !== feeds.length) throw new Error(`the program takes ${sizes.length} inputs, got ${feeds.length}`);
    for (const [i, data] of feeds.entries()) {
      const size = at(sizes, i);
      if (data.byteLength !== size) throw new Error(`input ${i} has ${size} bytes, got ${data.byteLength}`);
      host.set(new Uint8Array(data.buffer, data.byteOffset, size), at(places, i));
    }
    this.stream.upload(this.memory.address, host);
  }

  [Symbol.dispose](): void {
    this.memory[Symbol.dispose]();
  }
}

/** Forward graphs over one set of weights on a GPU. */
export class CudaForwardRuntime implements ForwardRuntime {
  readonly tokensAtOnce = TOKENS_AT_ONCE;
  private readonly weights: ForwardWeights;
  private readonly programs = new Map<string, Opened>();
  private readonly extensions = new Map<string, Extension>();
  private readonly stream: Stream;
  private readonly turns: Turns;
  private cache: Cache | undefined;

  constructor(
    private readonly device: Device,
    private readonly lowering: CudaLowerOptions = {},
  ) {
    this.stream = new Stream(device);
    this.turns = new Turns(device);
    this.weights = new ForwardWeights(device, this.stream, lowering.precision === "bf16");
  }

  /** What keys and values are kept as. */
  private get storage(): Storage {
    return this.lowering.precision === "bf16" ? "bf16" : "f32";
  }

  write(key: string, data: Float32Array): Promise<void> {
    return this.turns.next(async () => {
      if (!this.weights.keepsPlace(key, data.length)) this.forgetPrograms();
      await this.weights.write(key, data);
    });
  }

  /** Programs are bound to the addresses of weights. */
  private forgetPrograms(): void {
    this.forgetExtensions();
    disposeAll([...this.programs.values()]);
    this.programs.clear();
  }

  private forgetExtensions(): void {
    for (const extension of this.extensions.values()) disposeExtension(extension);
    this.extensions.clear();
  }

  /** Where parameters' bfloat16 lies, by their place among the inputs, of which `first` come before. */
  private halvesOf(params: readonly ParamInfo[], first: number): ReadonlyMap<number, Address> {
    if (this.storage === "f32") return new Map();
    return new Map(params.map(({ key }, i) => [first + i, this.weights.halfOf(key)]));
  }

  /** Addresses of parameters in float32 where a list reads them so; the others give it up. */
  private async floatsOf(list: LaunchList, params: readonly ParamInfo[], first: number): Promise<Address[]> {
    const read = readInputs(list);
    const addresses: Address[] = [];
    for (const [i, { key }] of params.entries()) {
      const isRead = read.has(first + i);
      if (!isRead) this.weights.giveUpFloats(key);
      addresses.push(isRead ? await this.weights.floatsOf(key) : 0n);
    }
    return addresses;
  }

  /** A graph whose inputs are what is fed, then parts of the cache, then parameters. */
  private async open(graph: Graph, params: readonly ParamInfo[], binding: Binding): Promise<Opened> {
    const { device, stream } = this;
    const { fed, past, more, cache, results: count } = binding;
    const first = fed + past.length;
    const halves = this.halvesOf(params, first);
    const places = new Map([...halves].map(([index, address]) => [index, Number(address / 2n)]));
    const list = lowerToLaunches(graph, {
      ...this.lowering,
      chip: device.chip,
      ...(halves.size === 0 ? {} : { layout: { halves: places, outputs: new Map() } }),
      ...(cache === undefined ? {} : { cache: cache.layout }),
    });
    const floats = await this.floatsOf(list, params, first);
    const sizes = [...graph.inputs.slice(0, fed).map((id) => bytesOf(graph, id)), ...more];
    // The graph and the cache read the same lengths.
    const lengths = past.length === 0 ? -1 : LENGTHS_INPUT;
    return allOrNoneLater(async (owned) => {
      const feeds = owned.keep(new Feeds(device, stream, sizes));
      const shared = feeds.addresses.slice(fed);
      const results = graph.outputs
        .slice(0, count)
        .map((id) => owned.keep(device.allocate(bytesOf(graph, id), "results")));
      const program = owned.keep(
        await DeviceProgram.open(stream, list, {
          inputs: [
            ...feeds.addresses.slice(0, fed).map((own, i) => (i === lengths ? (shared[0] ?? own) : own)),
            ...past,
            ...floats,
          ],
          outputs: results.map(({ address }) => address),
          halves,
          ...(cache === undefined ? {} : { cache: [...shared, ...cache.parts] }),
        }),
      );
      return { program, feeds, results, [Symbol.dispose]: () => owned[Symbol.dispose]() };
    });
  }

  private async download(memory: DeviceMemory): Promise<Float32Array> {
    const result = new Float32Array(memory.bytes / 4);
    this.stream.download(result, memory.address);
    await this.stream.finished();
    return result;
  }

  run(name: string, { graph, params }: LogitsProgram, feeds: readonly Int32Array[]): Promise<Float32Array> {
    return this.turns.next(async () => {
      const binding = { fed: graph.inputs.length - params.length, past: [], more: [], results: graph.outputs.length };
      const opened = this.programs.get(name) ?? (await this.open(graph, params, binding));
      this.programs.set(name, opened);
      opened.feeds.upload(feeds);
      launch(opened);
      return this.download(at(opened.results, 0));
    });
  }

  extend(name: string, program: ExtendProgram, feeds: ExtendFeeds): Promise<Extended> {
    return this.turns.next(async () => {
      const opened = await this.ready(name, program, feeds);
      const started = performance.now();
      opened.feeds.upload(this.fedTo(program, feeds));
      launch(opened);
      const outputs: Float32Array[] = [];
      for (const result of opened.results) outputs.push(await this.download(result));
      // Integers come as their bits.
      const routing = routingOf(
        program,
        (index) => new Int32Array(at(outputs, index).buffer),
        (index) => at(outputs, index),
      );
      return { output: at(outputs, 0), routing, ms: performance.now() - started };
    });
  }

  likeliest(name: string, program: ExtendProgram, feeds: ExtendFeeds, steps: number): Promise<LikelyTokens> {
    const { batch, tokens } = program.shape;
    if (steps > (tokens === 1 ? MOST_STEPS : 1)) throw new Error(`${tokens} tokens, ${steps} steps at once`);
    return this.turns.next(async () => {
      const opened = await this.ready(name, program, feeds);
      const greedy = (opened.greedy ??= await this.greedyOf(opened, program));
      const { stream } = this;
      const started = performance.now();
      opened.feeds.upload(this.fedTo(program, feeds));
      stream.clear(greedy.line.address, 4);
      for (let step = 0; step < steps; step++) greedy.step.launch();
      const ids = new Int32Array(steps * batch);
      stream.download(ids, greedy.chosen.address);
      await stream.finished();
      return { ids, ms: performance.now() - started };
    });
  }

  /** The program of new tokens behind the cache that it needs. */
  private async ready(name: string, program: ExtendProgram, { capacity }: ExtendFeeds): Promise<Extension> {
    const cache = await this.cacheFor(program, capacity);
    const known = this.extensions.get(name);
    const [oldest] = this.extensions;
    if (known === undefined && oldest !== undefined && this.extensions.size >= MOST_EXTENSIONS) {
      this.extensions.delete(oldest[0]);
      disposeExtension(oldest[1]);
    }
    const opened = known ?? (await this.openExtension(program, cache));
    // The last one used stands last.
    this.extensions.delete(name);
    this.extensions.set(name, opened);
    return opened;
  }

  /** What is fed to an extension: the graph's integers, lengths and counts. */
  private fedTo(program: ExtendProgram, feeds: ExtendFeeds): Int32Array[] {
    const { lengths, counts } = feeds;
    return [...extendInputs(program, feeds, this.cache?.capacity ?? 0), lengths, counts];
  }

  private async openExtension(program: ExtendProgram, { capacity, data }: Cache): Promise<Extension> {
    const { graph, params, shape } = program;
    const parts = data.map(({ address }) => address);
    const past = shape.capacity === 0 ? [] : parts;
    const fed = graph.inputs.length - params.length - past.length;
    const layout: CacheLayout = {
      shapes: data.map((_, i) => cacheShape(program, i, capacity)),
      firstInput: past.length === 0 ? null : fed,
      firstOutput: presentFrom(program),
    };
    const more = [4 * shape.batch, 4 * shape.batch];
    const binding = { cache: { layout, parts }, fed, past, more, results: presentFrom(program) };
    return { ...(await this.open(graph, params, binding)) };
  }

  /** A step whose last launches choose the next one's tokens. */
  private async greedyOf({ program, feeds, results }: Extension, { shape, graph }: ExtendProgram): Promise<Greedy> {
    const { device, stream } = this;
    const { batch, positions } = shape;
    const vocab = elements(typeOf(graph, at(graph.outputs, 0)).shape) / batch;
    return allOrNoneLater(async (owned) => {
      const take = (bytes: number): DeviceMemory => owned.keep(device.allocate(bytes, "tokens"));
      const [chosen, line, unused] = [take(4 * MOST_STEPS * batch), take(4), take(4 * batch)];
      stream.clear(unused.address, unused.bytes);
      // Ids, positions, lengths and rows, which the graph reads; lengths of both, and counts. Only steps go on from
      // there.
      const goesOn = shape.tokens === 1 && shape.capacity > 0;
      const state = [0, 1, 4, 5].map((place) => (goesOn ? at(feeds.addresses, place) : unused.address));
      const list = bestList({ batch, vocab, positions, steps: MOST_STEPS });
      const best = owned.keep(
        await DeviceProgram.open(stream, list, {
          inputs: [at(results, 0).address, chosen.address, line.address, ...state],
          outputs: [],
        }),
      );
      const step = owned.keep(
        stream.record(() => {
          program.issue();
          best.issue();
        }),
      );
      return { step, chosen, line, [Symbol.dispose]: () => owned[Symbol.dispose]() };
    });
  }

  /** The cache that a program runs behind: see `cacheFor` in engine/runtime/cache.ts. */
  private async cacheFor(program: ExtendProgram, capacity: number): Promise<Cache> {
    const { batch, capacity: past } = program.shape;
    const { cache } = this;
    if (past === 0) {
      if (cache?.batch === batch && cache.capacity === capacity) return cache;
      this.replaceCache(this.emptyCache(program, batch, capacity));
    } else {
      if (cache === undefined) throw new Error("there is no past to go on from");
      if (cache.capacity === past) return cache;
      this.replaceCache(await this.movedCache(program, cache, past));
    }
    if (this.cache === undefined) throw new Error("the cache was lost");
    return this.cache;
  }

  repeatCache(rows: number): Promise<void> {
    return this.turns.next(async () => {
      const { cache } = this;
      if (cache === undefined) throw new Error("there is no cache to repeat");
      const data = await allOrNoneLater(async (owned) => {
        const copies = cache.data.map(({ address, bytes }) => {
          const all = owned.keep(this.device.allocate(bytes * rows, "keys and values"));
          for (let row = 0; row < rows; row++) this.stream.copy(all.address + BigInt(row * bytes), address, bytes);
          return all;
        });
        await this.stream.finished();
        return copies;
      });
      this.replaceCache({ batch: rows, capacity: cache.capacity, data });
    });
  }

  private emptyCache(program: ExtendProgram, batch: number, capacity: number): Cache {
    const size = this.storage === "bf16" ? 2 : 4;
    const data = allOrNone((owned) =>
      Array.from({ length: 2 * program.layers }, (_, i) =>
        owned.keep(this.device.allocate(size * elements(cacheShape(program, i, capacity)), "keys and values")),
      ),
    );
    return { batch, capacity, data };
  }

  private async movedCache(program: ExtendProgram, cache: Cache, capacity: number): Promise<Cache> {
    return allOrNoneLater(async (owned) => {
      const target = this.emptyCache(program, cache.batch, capacity);
      for (const part of target.data) owned.keep(part);
      const list = moveList(
        cache.data.map((_, i) => cacheShape(program, i, cache.capacity)),
        capacity,
        this.storage,
      );
      const ends = {
        inputs: cache.data.map(({ address }) => address),
        outputs: target.data.map(({ address }) => address),
      };
      await runOnce(this.stream, list, ends);
      return target;
    });
  }

  private replaceCache(cache: Cache | undefined): void {
    this.forgetExtensions();
    disposeAll(this.cache?.data ?? []);
    this.cache = cache;
  }

  close(): Promise<void> {
    return this.turns.close(() => {
      this.replaceCache(undefined);
      this.forgetPrograms();
      disposeAll([this.weights, this.stream]);
    });
  }
}
