/** Small graphs with everything they need as inputs, on a GPU. */
import { at } from "../../base/at.js";
import { elements, typeOf, type Graph } from "../../graph/ir/ir.js";
import type { ArrayData, OperationRuntime } from "../runtime/runtime.js";
import type { CudaLowerOptions } from "./lowering/options.js";
import { lowerToLaunches } from "./lowering/lower.js";
import type { Device, DeviceMemory } from "./device.js";
import { allOrNoneLater } from "./owned.js";
import { DeviceProgram } from "./program.js";
import { Stream } from "./stream.js";
import { Turns } from "./turns.js";

interface Opened extends Disposable {
  readonly program: DeviceProgram;
  readonly fed: readonly DeviceMemory[];
  readonly results: readonly DeviceMemory[];
  readonly bytes: number;
}

/** Memory that programs may keep between their runs: a share of the GPU's, and no more than this. */
const MOST_KEPT = 4e9;
const KEPT_SHARE = 1 / 8;

/**
 * Single graphs without state, run on a GPU. Weights of a model that is larger than the GPU pass through the memory of
 * a few programs: those that ran longest ago are given up for others.
 */
export class CudaOperationRuntime implements OperationRuntime {
  /** The one that ran last stands last. */
  private readonly programs = new Map<string, Opened>();
  private readonly stream: Stream;
  private readonly turns: Turns;

  constructor(
    private readonly device: Device,
    private readonly lowering: CudaLowerOptions = {},
  ) {
    this.stream = new Stream(device);
    this.turns = new Turns(device);
  }

  private async open(graph: Graph): Promise<Opened> {
    const list = lowerToLaunches(graph, { ...this.lowering, chip: this.device.chip });
    return allOrNoneLater(async (owned) => {
      const memory = (id: number): DeviceMemory =>
        owned.keep(this.device.allocate(4 * elements(typeOf(graph, id).shape), "an operation's values"));
      const [fed, results] = [graph.inputs.map(memory), graph.outputs.map(memory)];
      const addresses = (of: readonly DeviceMemory[]): bigint[] => of.map(({ address }) => address);
      const ends = { inputs: addresses(fed), outputs: addresses(results) };
      const program = owned.keep(await DeviceProgram.open(this.stream, list, ends));
      const bytes = [program.arena, ...fed, ...results].reduce((sum, taken) => sum + taken.bytes, 0);
      return { program, fed, results, bytes, [Symbol.dispose]: () => owned[Symbol.dispose]() };
    });
  }

  /** The program of a name; others make room for it. */
  private async take(name: string, graph: Graph): Promise<Opened> {
    const known = this.programs.get(name);
    this.programs.delete(name);
    const opened = known ?? (await this.open(graph));
    const room = Math.min(MOST_KEPT, KEPT_SHARE * this.device.facts.memory);
    let kept = [...this.programs.values()].reduce((sum, { bytes }) => sum + bytes, opened.bytes);
    for (const [other, program] of this.programs) {
      if (kept <= room) break;
      kept -= program.bytes;
      program[Symbol.dispose]();
      this.programs.delete(other);
    }
    this.programs.set(name, opened);
    return opened;
  }

  run(name: string, graph: Graph, feeds: readonly ArrayData[]): Promise<readonly ArrayData[]> {
    return this.turns.next(async () => {
      const opened = await this.take(name, graph);
      for (const [i, { address, bytes }] of opened.fed.entries()) {
        const data = at(feeds, i);
        if (data.byteLength !== bytes) throw new Error(`input ${i} has ${bytes} bytes, got ${data.byteLength}`);
        this.stream.upload(address, data);
      }
      // A graph may be large and used once: recording it would cost more than issuing it.
      opened.program.issue();
      const results = graph.outputs.map((id, i): ArrayData => {
        const { dtype, shape } = typeOf(graph, id);
        const data = dtype === "int" ? new Int32Array(elements(shape)) : new Float32Array(elements(shape));
        this.stream.download(data, at(opened.results, i).address);
        return data;
      });
      await this.stream.finished();
      return results;
    });
  }

  memory(bytes: number): ArrayBuffer {
    return new ArrayBuffer(bytes);
  }

  close(): Promise<void> {
    return this.turns.close(() => {
      for (const opened of this.programs.values()) opened[Symbol.dispose]();
      this.stream[Symbol.dispose]();
    });
  }
}
