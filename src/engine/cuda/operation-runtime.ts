/** Small graphs with everything they need as inputs, on a GPU. */
import { at } from "../../base/at.js";
import { elements, typeOf, type Graph } from "../../graph/ir/ir.js";
import type { ArrayData, OperationRuntime } from "../runtime/runtime.js";
import type { CudaLowerOptions } from "./lowering/options.js";
import { lowerToLaunches } from "./lowering/lower.js";
import type { Device, DeviceMemory } from "./device.js";
import { DeviceProgram } from "./program.js";
import { Stream } from "./stream.js";
import { Turns } from "./turns.js";

interface Opened {
  readonly program: DeviceProgram;
  readonly fed: readonly DeviceMemory[];
  readonly results: readonly DeviceMemory[];
}

/** Single graphs without state, run on a GPU. */
export class CudaOperationRuntime implements OperationRuntime {
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
    const memory = (id: number): DeviceMemory =>
      this.device.allocate(4 * elements(typeOf(graph, id).shape), "an operation's values");
    const [fed, results] = [graph.inputs.map(memory), graph.outputs.map(memory)];
    const addresses = (of: readonly DeviceMemory[]): bigint[] => of.map(({ address }) => address);
    const program = await DeviceProgram.open(this.stream, list, {
      inputs: addresses(fed),
      outputs: addresses(results),
    });
    return { program, fed, results };
  }

  run(name: string, graph: Graph, feeds: readonly ArrayData[]): Promise<readonly ArrayData[]> {
    return this.turns.next(async () => {
      const opened = this.programs.get(name) ?? (await this.open(graph));
      this.programs.set(name, opened);
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
      for (const { program, fed, results } of this.programs.values())
        for (const thing of [program, ...fed, ...results]) thing[Symbol.dispose]();
      this.stream[Symbol.dispose]();
    });
  }
}
