/** A launch list bound to memory of a GPU, ready to be issued again and again. */
import { at, entryOf } from "../../base/at.js";
import type { PinnedMemory, DeviceMemory } from "./device.js";
import type { Driver } from "./driver.js";
import type {
  Argument,
  Buffer as Region,
  BufferId,
  KernelLaunch,
  Launch,
  LaunchList,
  ProductLaunch,
} from "./lowering/launches.js";
import { aligned } from "./lowering/memory.js";
import type { ModuleVariant } from "./modules.js";
import type { Address } from "./native.js";
import { allOrNone, allOrNoneLater, Owned } from "./owned.js";
import type { Recorded, Stream } from "./stream.js";
import { tune, useOf, type TunedProduct } from "./tuning.js";

/** Addresses of a graph's inputs and outputs, in its order. */
export interface Bindings {
  readonly inputs: readonly Address[];
  readonly outputs: readonly Address[];
  /** Inputs as bfloat16, by their place among the inputs, where the list reads them so. */
  readonly halves?: ReadonlyMap<number, Address>;
  /** The cache of keys and values, see `CacheLayout`. */
  readonly cache?: readonly Address[];
  /** Memory of a program on the same stream that this one may use, too, where it is large enough. */
  readonly arena?: DeviceMemory | undefined;
}

/** What one launch took, and the bytes and floating-point operations that it has to move and do. */
export interface MeasuredLaunch {
  readonly name: string;
  readonly ms: number;
  readonly bytes: number;
  readonly flops: number;
}

/** Bytes of an argument's place, and of a pointer. */
const SLOT = 8;

/** Words of a launch that may begin early: CUlaunchConfig, then one CUlaunchAttribute (cuda.h). */
const CONFIG_SLOTS = 8;
const EARLY_SLOTS = CONFIG_SLOTS + 9;
/** CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, and the compute capability that has it. */
const EARLY = 6;
const EARLY_CAPABILITY = 90;

/** Bytes of a tensor map, and what it is told (CUtensorMapDataType and others of cuda.h). */
const MAP_BYTES = 128;
const BFLOAT16 = 9;
const SWIZZLE_128_BYTES = 3;
const PROMOTION_256_BYTES = 3;
/** Columns of a box: 128 bytes. */
const BOX_COLUMNS = 64;

type Maps = Argument & { readonly kind: "maps" };

const modulesOf = (launches: readonly Launch[]): ModuleVariant[] =>
  launches.flatMap((launch) => (launch.kind === "kernel" ? [launch] : []));

const fillModule: ModuleVariant = { module: "elementwise", real: "f32" };

const isFill = ({ home }: Region): boolean => home.kind === "constant" && typeof home.words === "number";

/** A launch list that is ready to run: its memory, kernels and recorded CUDA graph. */
export class DeviceProgram implements Disposable {
  /** Where values come to lie; its own, or lent by another program. */
  readonly arena: DeviceMemory;
  private readonly owned = new Owned();
  private readonly constants: DeviceMemory;
  private readonly tables: DeviceMemory;
  private readonly maps: DeviceMemory;
  /** Arguments of all launches, and arrays of their addresses. */
  private readonly block: PinnedMemory;
  private readonly issuers: readonly (() => void)[];
  private recorded: Recorded | undefined;

  /** Loads the kernels, takes memory and writes constants. Throws stopError where the GPU's memory is full. */
  static async open(stream: Stream, list: LaunchList, bindings: Bindings): Promise<DeviceProgram> {
    await stream.device.prepare([...modulesOf(list.launches), fillModule]);
    stream.device.enter();
    return allOrNoneLater(async (owned) => {
      const program = owned.keep(new DeviceProgram(stream, list, bindings));
      await tune(stream, program.tunedProducts()).finally(() => stream.device.leave());
      return program;
    });
  }

  private tunedProducts(): TunedProduct[] {
    return this.list.launches.flatMap((launch) =>
      launch.kind === "product" ? [{ launch, operands: this.operandsOf(launch) }] : [],
    );
  }

  private constructor(
    private readonly stream: Stream,
    private readonly list: LaunchList,
    private readonly bindings: Bindings,
  ) {
    const { device } = stream;
    const constantPlaces = new Map<BufferId, number>();
    let bytes = 0;
    for (const [id, buffer] of list.buffers.entries()) {
      if (buffer.home.kind !== "constant") continue;
      constantPlaces.set(id, bytes);
      bytes += aligned(buffer.bytes);
    }
    const lent = bindings.arena !== undefined && bindings.arena.bytes >= list.arena ? bindings.arena : null;
    this.constantPlaces = constantPlaces;
    const slots = list.launches.reduce(
      (sum, launch) =>
        sum +
        (launch.kind === "kernel" ? 2 * launch.arguments.length + (this.beginsEarly(launch) ? EARLY_SLOTS : 0) : 0),
      0,
    );
    try {
      this.arena = lent ?? this.owned.keep(device.allocate(list.arena, "a program's values"));
      this.constants = this.owned.keep(device.allocate(bytes, "a program's constants"));
      this.writeConstants();
      const tables = this.collectTables();
      this.tables = this.owned.keep(device.allocate(tables.length * SLOT, "tables of addresses"));
      stream.upload(this.tables.address, BigUint64Array.from(tables));
      this.maps = this.owned.keep(this.makeMaps());
      this.block = this.owned.keep(device.pinned(slots * SLOT));
      this.issuers = this.bind();
    } catch (cause) {
      this.owned[Symbol.dispose]();
      throw cause;
    }
  }

  private readonly constantPlaces: ReadonlyMap<BufferId, number>;

  private addressOf(id: BufferId): Address {
    const { home } = at(this.list.buffers, id);
    switch (home.kind) {
      case "arena":
        return this.arena.address + BigInt(entryOf(this.list.places, id));
      case "constant":
        return this.constants.address + BigInt(entryOf(this.constantPlaces, id));
      case "input":
        return at(this.bindings.inputs, home.index);
      case "output":
        return at(this.bindings.outputs, home.index);
      case "cache":
        return at(this.bindings.cache ?? [], home.index);
      case "half":
        return entryOf(this.bindings.halves ?? new Map<number, Address>(), home.index);
    }
  }

  private writeConstants(): void {
    for (const id of this.constantPlaces.keys()) {
      const buffer = at(this.list.buffers, id);
      if (buffer.home.kind !== "constant") continue;
      const { words } = buffer.home;
      if (typeof words === "number") continue;
      this.stream.upload(this.addressOf(id), words);
    }
    this.fillConstants();
  }

  /** Constants of one repeated word are written by the GPU. */
  private fillConstants(): void {
    const { device } = this.stream;
    const fill = device.function(fillModule, "fillWords", 0);
    const arguments_ = device.pinned(6 * SLOT);
    try {
      this.launchFills(fill, arguments_);
    } finally {
      arguments_[Symbol.dispose]();
    }
  }

  private launchFills(fill: Address, arguments_: PinnedMemory): void {
    const { device } = this.stream;
    const view = new DataView(arguments_.buffer);
    for (let i = 0; i < 3; i++) view.setBigUint64((3 + i) * SLOT, arguments_.address + BigInt(i * SLOT), true);
    for (const id of this.constantPlaces.keys()) {
      const buffer = at(this.list.buffers, id);
      if (buffer.home.kind !== "constant" || typeof buffer.home.words !== "number" || !isFill(buffer)) continue;
      const count = buffer.bytes / 4;
      view.setBigUint64(0, this.addressOf(id), true);
      view.setUint32(SLOT, buffer.home.words, true);
      view.setBigInt64(2 * SLOT, BigInt(count), true);
      const grid = Math.min(1 << 14, Math.ceil(count / 256));
      const place = arguments_.address + BigInt(3 * SLOT);
      device.driver.call("cuLaunchKernel", [fill, grid, 1, 1, 256, 1, 1, 0, this.stream.handle, place, 0]);
    }
  }

  private collectTables(): Address[] {
    return this.list.launches.flatMap((launch) =>
      launch.kind !== "kernel"
        ? []
        : launch.arguments.flatMap((argument) =>
            argument.kind === "table" ? argument.buffers.map((id) => this.addressOf(id)) : [],
          ),
    );
  }

  /** Tensor maps of all launches, in their order. */
  private makeMaps(): DeviceMemory {
    const { device } = this.stream;
    const wanted = this.list.launches.flatMap((launch) =>
      launch.kind === "kernel"
        ? launch.arguments.flatMap((argument) =>
            argument.kind === "maps" ? argument.buffers.map((id) => [argument, this.addressOf(id)] as const) : [],
          )
        : [],
    );
    const encoded = device.pinned(wanted.length * MAP_BYTES);
    try {
      for (const [i, [maps, address]] of wanted.entries())
        encodeMap(device.driver, encoded.address + BigInt(i * MAP_BYTES), maps, address);
      return allOrNone((owned) => {
        const made = owned.keep(device.allocate(wanted.length * MAP_BYTES, "tensor maps"));
        this.stream.upload(made.address, new Uint8Array(encoded.buffer, 0, wanted.length * MAP_BYTES).slice());
        return made;
      });
    } finally {
      encoded[Symbol.dispose]();
    }
  }

  private bind(): (() => void)[] {
    const view = new DataView(this.block.buffer);
    const state = { slot: 0, table: 0, map: 0 };
    return this.list.launches.map((launch) =>
      launch.kind === "kernel" ? this.bindKernel(launch, view, state) : this.bindProduct(launch),
    );
  }

  private bindKernel(
    launch: KernelLaunch,
    view: DataView,
    state: { slot: number; table: number; map: number },
  ): () => void {
    const { device, handle } = this.stream;
    const { grid, block, shared, arguments: args } = launch;
    const first = state.slot * SLOT;
    for (const [index, argument] of args.entries()) {
      this.writeArgument(view, first + index * SLOT, argument, state);
      view.setBigUint64(first + (args.length + index) * SLOT, this.block.address + BigInt(first + index * SLOT), true);
    }
    state.slot += 2 * args.length;
    const pointers = this.block.address + BigInt(first + args.length * SLOT);
    const kernel = device.function(launch, launch.kernel, shared);
    const what = `${launch.module}.${launch.kernel}`;
    if (this.beginsEarly(launch)) {
      const config = state.slot * SLOT;
      state.slot += EARLY_SLOTS;
      this.writeConfig(view, config, launch);
      const early = [this.block.address + BigInt(config), kernel, pointers, 0n] as const;
      return () => device.driver.call("cuLaunchKernelEx", early, what);
    }
    const call = [kernel, ...grid, block, 1, 1, shared, handle, pointers, 0] as const;
    return () => device.driver.call("cuLaunchKernel", call, what);
  }

  /** Whether a launch need not wait for the one before it to end. */
  private beginsEarly({ overlaps }: KernelLaunch): boolean {
    return overlaps === true && this.stream.device.chip.capability >= EARLY_CAPABILITY;
  }

  private writeConfig(view: DataView, place: number, { grid, block, shared }: KernelLaunch): void {
    for (const [i, value] of [...grid, block, 1, 1, shared].entries()) view.setUint32(place + 4 * i, value, true);
    const attribute = place + CONFIG_SLOTS * SLOT;
    view.setBigUint64(place + 4 * SLOT, this.stream.handle, true);
    view.setBigUint64(place + 5 * SLOT, this.block.address + BigInt(attribute), true);
    view.setUint32(place + 6 * SLOT, 1, true);
    view.setUint32(attribute, EARLY, true);
    view.setInt32(attribute + SLOT, 1, true);
  }

  private writeArgument(
    view: DataView,
    place: number,
    argument: Argument,
    state: { table: number; map: number },
  ): void {
    switch (argument.kind) {
      case "pointer":
        return view.setBigUint64(place, this.addressOf(argument.buffer) + BigInt(argument.offset ?? 0), true);
      case "table":
        view.setBigUint64(place, this.tables.address + BigInt(state.table * SLOT), true);
        state.table += argument.buffers.length;
        return;
      case "maps":
        view.setBigUint64(place, this.maps.address + BigInt(state.map * MAP_BYTES), true);
        state.map += argument.buffers.length;
        return;
      case "null":
        return view.setBigUint64(place, 0n, true);
      case "int":
        return view.setInt32(place, argument.value, true);
      case "long":
        return view.setBigInt64(place, BigInt(argument.value), true);
      case "float":
        return view.setFloat32(place, argument.value, true);
    }
  }

  private bindProduct(launch: ProductLaunch): () => void {
    const { device, handle, workspace } = this.stream;
    const plan = device.products.plan(launch, useOf(launch));
    const operands = this.operandsOf(launch);
    return () => plan.run(operands, handle, workspace.address);
  }

  private operandsOf({ a, b, addend, out }: ProductLaunch): TunedProduct["operands"] {
    const place = ({ buffer, offset }: ProductLaunch["a"]): Address => this.addressOf(buffer) + BigInt(offset);
    return { a: place(a), b: place(b), addend: addend && place(addend), out: place(out) };
  }

  /** Issues every launch; the GPU may still be at work afterwards. */
  issue(): void {
    for (const issue of this.issuers) issue();
  }

  /** Milliseconds that each launch takes, one after the other, outside of a graph; and what it costs by the list. */
  async measure(): Promise<readonly MeasuredLaunch[]> {
    const { driver } = this.stream.device;
    const events = Array.from({ length: this.issuers.length + 1 }, () => driver.handle("cuEventCreate", [0]));
    const record = (event: Address | undefined): void =>
      driver.call("cuEventRecord", [event ?? 0n, this.stream.handle]);
    record(events[0]);
    for (const [i, issue] of this.issuers.entries()) {
      issue();
      record(events[i + 1]);
    }
    await this.stream.finished();
    const elapsed = new Float32Array(1);
    const times = this.list.launches.map((launch, i): MeasuredLaunch => {
      driver.call("cuEventElapsedTime_v2", [elapsed, at(events, i), at(events, i + 1)]);
      const name = launch.kind === "kernel" ? launch.kernel : `product ${launch.m}x${launch.n}x${launch.k}`;
      return { name, ms: elapsed[0] ?? 0, bytes: launch.bytes, flops: launch.flops };
    });
    for (const event of events) driver.call("cuEventDestroy_v2", [event]);
    return times;
  }

  /** As `issue`, as one graph, which is recorded at the first call. */
  launch(): void {
    this.recorded ??= this.stream.record(() => this.issue());
    this.recorded.launch();
  }

  [Symbol.dispose](): void {
    this.recorded?.[Symbol.dispose]();
    this.recorded = undefined;
    this.owned[Symbol.dispose]();
  }
}

/** Runs a launch list once, and waits for it. */
export async function runOnce(stream: Stream, list: LaunchList, bindings: Bindings): Promise<void> {
  const program = await DeviceProgram.open(stream, list, bindings);
  try {
    program.issue();
    await stream.finished();
  } finally {
    stream.device.leave();
    program[Symbol.dispose]();
  }
}

/** Writes the tensor map of a matrix at `address`; `into` is memory of the host at a multiple of 64. */
function encodeMap(driver: Driver, into: Address, { rows, columns, boxRows, apart }: Maps, address: Address): void {
  driver.call(
    "cuTensorMapEncodeTiled",
    [
      ...[into, BFLOAT16, 2, address + BigInt(2 * (apart?.first ?? 0))],
      BigUint64Array.of(BigInt(columns), BigInt(rows)),
      BigUint64Array.of(BigInt(2 * (apart?.stride ?? columns))),
      Uint32Array.of(BOX_COLUMNS, boxRows),
      Uint32Array.of(1, 1),
      ...[0, SWIZZLE_128_BYTES, PROMOTION_256_BYTES, 0],
    ],
    `a tensor map of ${rows}x${columns}`,
  );
}
