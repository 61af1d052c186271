/** Forward graphs over one set of weights on a GPU, and the cache of keys and values of a text that goes on. */
import { at } from "../../base/at.js";
import { elements, typeOf, type Graph } from "../../graph/ir/ir.js";
import type { ExtendProgram, LogitsProgram, ParamInfo } from "../../graph/programs/programs.js";
import { cacheShape, extendInputs } from "../runtime/cache.js";
import type { Extended, ExtendFeeds, ForwardRuntime } from "../runtime/runtime.js";
import { appendList, moveList } from "./lowering/cache.js";
import type { CudaLowerOptions } from "./lowering/options.js";
import { lowerToLaunches } from "./lowering/lower.js";
import type { Device, DeviceMemory } from "./device.js";
import { DeviceProgram } from "./program.js";
import { Stream } from "./stream.js";
import { Turns } from "./turns.js";

/** A program with memory for what is fed and what comes out, but for weights and cache. */
interface Opened extends Disposable {
  readonly program: DeviceProgram;
  readonly fed: readonly DeviceMemory[];
  readonly results: readonly DeviceMemory[];
}

interface Extension extends Opened {
  readonly append: DeviceProgram;
  readonly lengths: DeviceMemory;
  readonly counts: DeviceMemory;
  /** The cache that it is bound to. */
  readonly cache: Cache;
}

/** Keys and values of layer 0, of layer 1, ...: [B, kvHeads, capacity, size] each. */
interface Cache {
  readonly batch: number;
  readonly capacity: number;
  readonly data: readonly DeviceMemory[];
}

/** Programs of new tokens that stay open: each has the memory of its activations. */
const MOST_EXTENSIONS = 16;

const bytesOf = (graph: Graph, id: number): number => 4 * elements(typeOf(graph, id).shape);

const disposeAll = (things: readonly Disposable[]): void => {
  for (const thing of things) thing[Symbol.dispose]();
};

/** Forward graphs over one set of weights on a GPU. */
export class CudaForwardRuntime implements ForwardRuntime {
  private readonly weights = new Map<string, DeviceMemory>();
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
  }

  write(key: string, data: Float32Array): Promise<void> {
    return this.turns.next(async () => {
      const known = this.weights.get(key);
      if (known !== undefined && known.bytes !== data.byteLength) {
        this.forgetPrograms();
        known[Symbol.dispose]();
        this.weights.delete(key);
      }
      const memory = this.weights.get(key) ?? this.device.allocate(data.byteLength, `weight ${key}`);
      this.weights.set(key, memory);
      this.stream.upload(memory.address, data);
      await this.stream.finished();
    });
  }

  /** Programs are bound to the addresses of weights. */
  private forgetPrograms(): void {
    disposeAll([...this.programs.values(), ...this.extensions.values()]);
    this.programs.clear();
    this.extensions.clear();
  }

  private addressesOf(params: readonly ParamInfo[]): bigint[] {
    return params.map(({ key }) => {
      const memory = this.weights.get(key);
      if (memory === undefined) throw new Error(`weight ${key} was never written`);
      return memory.address;
    });
  }

  /** A graph whose inputs are what is fed, then `bound`, then parameters. */
  private async open(graph: Graph, params: readonly ParamInfo[], bound: readonly bigint[]): Promise<Opened> {
    const weights = this.addressesOf(params);
    const list = lowerToLaunches(graph, { ...this.lowering, chip: this.device.chip });
    const count = graph.inputs.length - params.length - bound.length;
    const fed = graph.inputs.slice(0, count).map((id) => this.device.allocate(bytesOf(graph, id), "inputs"));
    const results = graph.outputs.map((id) => this.device.allocate(bytesOf(graph, id), "results"));
    try {
      const program = await DeviceProgram.open(this.stream, list, {
        inputs: [...fed.map(({ address }) => address), ...bound, ...weights],
        outputs: results.map(({ address }) => address),
      });
      return { program, fed, results, [Symbol.dispose]: () => disposeAll([program, ...fed, ...results]) };
    } catch (cause) {
      disposeAll([...fed, ...results]);
      throw cause;
    }
  }

  private feed(fed: readonly DeviceMemory[], feeds: readonly ArrayBufferView[]): void {
    if (fed.length !== feeds.length) throw new Error(`the program takes ${fed.length} inputs, got ${feeds.length}`);
    for (const [i, data] of feeds.entries()) {
      const { address, bytes } = at(fed, i);
      if (data.byteLength !== bytes) throw new Error(`input ${i} has ${bytes} bytes, got ${data.byteLength}`);
      this.stream.upload(address, data);
    }
  }

  run(name: string, { graph, params }: LogitsProgram, feeds: readonly Int32Array[]): Promise<Float32Array> {
    return this.turns.next(async () => {
      const opened = this.programs.get(name) ?? (await this.open(graph, params, []));
      this.programs.set(name, opened);
      this.feed(opened.fed, feeds);
      opened.program.launch();
      const { address, bytes } = at(opened.results, 0);
      const result = new Float32Array(bytes / 4);
      this.stream.download(result, address);
      await this.stream.finished();
      return result;
    });
  }

  extend(name: string, program: ExtendProgram, feeds: ExtendFeeds): Promise<Extended> {
    return this.turns.next(async () => {
      const cache = await this.cacheFor(program, feeds.capacity);
      const ints = extendInputs(program, feeds, cache.capacity);
      const opened = await this.extension(name, program, cache);
      const started = performance.now();
      this.feed(opened.fed, ints);
      this.stream.upload(opened.lengths.address, feeds.lengths);
      this.stream.upload(opened.counts.address, feeds.counts);
      opened.program.launch();
      opened.append.launch();
      const { address, bytes } = at(opened.results, 0);
      const output = new Float32Array(bytes / 4);
      this.stream.download(output, address);
      await this.stream.finished();
      return { output, ms: performance.now() - started };
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
      const data = cache.data.map(({ address, bytes }) => {
        const all = this.device.allocate(bytes * rows, "keys and values");
        for (let row = 0; row < rows; row++) this.stream.copy(all.address + BigInt(row * bytes), address, bytes);
        return all;
      });
      await this.stream.finished();
      this.replaceCache({ batch: rows, capacity: cache.capacity, data });
    });
  }

  private emptyCache(program: ExtendProgram, batch: number, capacity: number): Cache {
    const data = Array.from({ length: 2 * program.layers }, (_, i) =>
      this.device.allocate(4 * elements(cacheShape(program, i, capacity)), "keys and values"),
    );
    return { batch, capacity, data };
  }

  private async movedCache(program: ExtendProgram, cache: Cache, capacity: number): Promise<Cache> {
    const target = this.emptyCache(program, cache.batch, capacity);
    const list = moveList(
      cache.data.map((_, i) => cacheShape(program, i, cache.capacity)),
      capacity,
    );
    const move = await DeviceProgram.open(this.stream, list, {
      inputs: cache.data.map(({ address }) => address),
      outputs: target.data.map(({ address }) => address),
    });
    move.issue();
    await this.stream.finished();
    move[Symbol.dispose]();
    return target;
  }

  private replaceCache(cache: Cache | undefined): void {
    disposeAll([...this.extensions.values(), ...(this.cache?.data ?? [])]);
    this.extensions.clear();
    this.cache = cache;
  }

  private async extension(name: string, program: ExtendProgram, cache: Cache): Promise<Extension> {
    const known = this.extensions.get(name);
    if (known !== undefined) {
      // The last one used stands last.
      this.extensions.delete(name);
      this.extensions.set(name, known);
      return known;
    }
    const [oldest] = this.extensions;
    if (oldest !== undefined && this.extensions.size >= MOST_EXTENSIONS) {
      this.extensions.delete(oldest[0]);
      oldest[1][Symbol.dispose]();
    }
    const { batch, tokens, capacity } = program.shape;
    const past = capacity === 0 ? [] : cache.data.map(({ address }) => address);
    const opened = await this.open(program.graph, program.params, past);
    const [lengths, counts] = [0, 1].map(() => this.device.allocate(4 * batch, "lengths")) as [
      DeviceMemory,
      DeviceMemory,
    ];
    const list = appendList(
      cache.data.map((_, i) => cacheShape(program, i, cache.capacity)),
      tokens,
    );
    const fresh = opened.results.slice(1).map(({ address }) => address);
    const append = await DeviceProgram.open(this.stream, list, {
      inputs: [lengths.address, counts.address, ...fresh],
      outputs: cache.data.map(({ address }) => address),
    });
    const made: Extension = {
      ...opened,
      append,
      lengths,
      counts,
      cache,
      [Symbol.dispose]: () => disposeAll([opened, append, lengths, counts]),
    };
    this.extensions.set(name, made);
    return made;
  }

  close(): Promise<void> {
    return this.turns.close(() => {
      this.replaceCache(undefined);
      this.forgetPrograms();
      disposeAll([...this.weights.values(), this.stream]);
    });
  }
}
