/** What a training run owns on the GPU: weights, moments, averages and gradients, by kind one buffer each. */
import { entryOf } from "../../base/at.js";
import { elements } from "../../graph/ir/ir.js";
import type { ParamInfo } from "../../graph/programs/programs.js";
import { keepsState, missingState, unknownParameter, usesMuon, type StateOptions } from "../optimizer/state.js";
import type { StateKind } from "../runtime/runtime.js";
import { CHUNK, CHUNK_BYTES } from "./lowering/update.js";
import type { Device, DeviceMemory } from "./device.js";
import type { Address } from "./native.js";
import { allOrNone } from "./owned.js";
import type { Stream } from "./stream.js";

/** `accumulated` is the sum of the gradients of a step's micro-batches. */
export type RegionKind = StateKind | "gradient" | "accumulated";

const kinds = ["weight", "moment1", "moment2", "average", "gradient", "accumulated"] as const;

/** Kinds as they are called in messages. */
const kindWords: Readonly<Record<RegionKind, string>> = {
  weight: "weights",
  moment1: "first moments",
  moment2: "second moments",
  average: "averages",
  gradient: "gradients",
  accumulated: "sums of gradients",
};

/** Kinds of state that checkpoints hold. */
export const stateKinds = ["weight", "moment1", "moment2", "average"] as const satisfies readonly StateKind[];

/** Parameters begin at multiples of so many elements: of 256 bytes, as bfloat16, too. */
const ALIGN = 128;

/** Which state a training keeps of its parameters. */
export interface StateSettings extends StateOptions {
  readonly accumulate: boolean;
  /** Whether weights are kept as bfloat16, too, at the places of their float32. */
  readonly halves: boolean;
}

/** Bytes of a weight as bfloat16. */
const HALF_BYTES = 2;

/** First element of each parameter's region of a kind, and elements of all regions. */
export interface RegionLayout {
  readonly offsets: ReadonlyMap<string, number>;
  readonly floats: number;
}

/** Where the parameters' regions of a kind lie. */
export function regionLayout(params: readonly ParamInfo[], options: StateSettings, kind: RegionKind): RegionLayout {
  const offsets = new Map<string, number>();
  let floats = 0;
  for (const { key, shape } of params) {
    if (!keeps(options, key, kind)) continue;
    offsets.set(key, floats);
    floats += Math.ceil(elements(shape) / ALIGN) * ALIGN;
  }
  return { offsets, floats };
}

/** Bytes of all that a training keeps of its parameters, by what it is. */
export function stateBytes(params: readonly ParamInfo[], options: StateSettings): ReadonlyMap<string, number> {
  const sizes = kinds.map((kind) => [kindWords[kind], 4 * regionLayout(params, options, kind).floats] as const);
  const weights = regionLayout(params, options, "weight").floats;
  return new Map([...sizes, ["weights in bfloat16", options.halves ? HALF_BYTES * weights : 0]]);
}

/** Whether a parameter has a region of this kind. */
function keeps(options: StateSettings, key: string, kind: RegionKind): boolean {
  if (kind === "gradient" || kind === "accumulated")
    return options.frozen?.has(key) !== true && (kind === "gradient" || options.accumulate);
  return keepsState(options, key, kind);
}

/** Weights, moments and averages of a training on a GPU. */
export class DeviceTrainState implements Disposable {
  /** First element of each parameter's region, by kind. */
  private readonly offsets: Readonly<Record<RegionKind, ReadonlyMap<string, number>>>;
  private readonly memory: Readonly<Record<RegionKind, DeviceMemory>>;
  /** Weights as bfloat16, each at the place that it has among the float32 ones; of no bytes where none are kept. */
  readonly halves: DeviceMemory;
  /** Parameters with a gradient; those of AdamW come first. */
  readonly moving: readonly ParamInfo[];

  constructor(
    device: Device,
    private readonly stream: Stream,
    readonly params: readonly ParamInfo[],
    private readonly options: StateSettings,
  ) {
    const layouts = kinds.map((kind) => [kind, regionLayout(params, options, kind)] as const);
    this.offsets = Object.fromEntries(layouts.map(([kind, { offsets }]) => [kind, offsets])) as typeof this.offsets;
    const halves = options.halves ? HALF_BYTES * regionLayout(params, options, "weight").floats : 0;
    [this.memory, this.halves] = allOrNone((owned) => {
      const take = (bytes: number, what: string): DeviceMemory => owned.keep(device.allocate(bytes, what));
      const memory = Object.fromEntries(
        layouts.map(([kind, { floats }]) => [kind, take(floats * 4, `${kindWords[kind]} of all parameters`)]),
      ) as typeof this.memory;
      const taken = [memory, take(halves, "weights in bfloat16")] as const;
      for (const kind of kinds) stream.clear(memory[kind].address, memory[kind].bytes);
      return taken;
    });
    const trained = params.filter(({ key }) => this.offsets.gradient.has(key));
    this.moving = [
      ...trained.filter(({ key }) => !usesMuon(options, key)),
      ...trained.filter(({ key }) => usesMuon(options, key)),
    ];
  }

  /** Bytes of all regions of a kind. */
  bytesOf(kind: RegionKind): number {
    return this.memory[kind].bytes;
  }

  base(kind: RegionKind): Address {
    return this.memory[kind].address;
  }

  /** First element of a parameter's region, or null where it has none. */
  offsetOf(kind: RegionKind, key: string): number | null {
    return this.offsets[kind].get(key) ?? null;
  }

  addressOf(kind: RegionKind, key: string): Address {
    return this.base(kind) + BigInt(4 * entryOf(this.offsets[kind], key));
  }

  /** Bytes of what a checkpoint may hold. */
  savedBytes(): number {
    return stateKinds.reduce((sum, kind) => sum + this.memory[kind].bytes, 0);
  }

  /** Address of a parameter's bfloat16. */
  halfOf(key: string): Address {
    return this.halves.address + BigInt(HALF_BYTES * entryOf(this.offsets.weight, key));
  }

  /** Address and number of elements. Throws for a parameter that has no such region. */
  region(kind: StateKind, key: string): { readonly address: Address; readonly count: number } {
    const param = this.params.find((each) => each.key === key);
    if (param === undefined) throw unknownParameter(key);
    if (this.offsetOf(kind, key) === null) throw missingState(key, kind, this.options.frozen?.has(key) === true);
    return { address: this.addressOf(kind, key), count: elements(param.shape) };
  }

  /** Entries of the table of chunks (see optimizer.cu), and how many of them are AdamW's. */
  chunks(gradients: "gradient" | "accumulated"): {
    readonly table: Uint8Array;
    readonly all: number;
    readonly adamw: number;
  } {
    const entries: DataView[] = [];
    let adamw = 0;
    for (const [parameter, { key, shape }] of this.moving.entries()) {
      const size = elements(shape);
      for (let first = 0; first < size; first += CHUNK) {
        const entry = new DataView(new ArrayBuffer(CHUNK_BYTES));
        for (const [i, kind] of (["weight", gradients, "moment1", "moment2", "average"] as const).entries()) {
          const offset = this.offsetOf(kind, key);
          entry.setBigInt64(8 * i, offset === null ? -1n : BigInt(offset + first), true);
        }
        entry.setInt32(40, Math.min(CHUNK, size - first), true);
        entry.setInt32(44, parameter, true);
        entries.push(entry);
      }
      if (!usesMuon(this.options, key)) adamw = entries.length;
    }
    const table = new Uint8Array(entries.length * CHUNK_BYTES);
    entries.forEach(({ buffer }, i) => table.set(new Uint8Array(buffer), i * CHUNK_BYTES));
    return { table, all: entries.length, adamw };
  }

  async read(kind: StateKind, key: string): Promise<Float32Array> {
    const { address, count } = this.region(kind, key);
    const data = new Float32Array(count);
    this.stream.download(data, address);
    await this.stream.finished();
    return data;
  }

  [Symbol.dispose](): void {
    for (const kind of kinds) this.memory[kind][Symbol.dispose]();
    this.halves[Symbol.dispose]();
  }
}
