/** A copy of a training's state on the GPU, which leaves it piece by piece while steps go on. */
import { entryOf } from "../../base/at.js";
import type { StateKind, StateSnapshot } from "../runtime/runtime.js";
import type { Device, DeviceMemory, PinnedMemory } from "./device.js";
import type { Address } from "./native.js";
import { Stream } from "./stream.js";
import { stateKinds, type DeviceTrainState } from "./train-state.js";

/** Bytes of pinned memory that are kept; what needs more goes through ordinary memory, which the host has to copy. */
const MOST_PINNED = 8 * 2 ** 30;

/** Copies are kept where the GPU has so many times their bytes free beside them. */
const ROOMY = 2;

/** Memory of a copy of the state, by kind. */
type StateCopies = ReadonlyMap<StateKind, DeviceMemory>;

/** Pinned memory by size, given out and taken back; allocating it is slow. */
export class StagingPool implements Disposable {
  private readonly free = new Map<number, PinnedMemory[]>();
  private bytes = 0;
  /** Copies of the state that the last checkpoint has left, where the GPU has room to keep them. */
  private copies: StateCopies | null = null;
  /** The stream that copies leave the GPU on. */
  readonly stream: Stream;

  constructor(private readonly device: Device) {
    this.stream = new Stream(device);
  }

  /** Memory of a size, or null where the pool is full. */
  take(bytes: number): PinnedMemory | null {
    const known = this.free.get(bytes)?.pop();
    if (known !== undefined) return known;
    if (this.bytes + bytes > MOST_PINNED) return null;
    const memory = this.device.pinned(bytes);
    this.bytes += bytes;
    return memory;
  }

  /** Memory on the GPU for copies of these sizes; that of the last checkpoint where it was kept. */
  takeCopies(sizes: ReadonlyMap<StateKind, number>): StateCopies {
    const kept = this.copies;
    this.copies = null;
    if (kept !== null) return kept;
    const copies = new Map<StateKind, DeviceMemory>();
    try {
      for (const [kind, bytes] of sizes) copies.set(kind, this.device.allocate(bytes, "a copy of the state"));
    } catch (cause) {
      for (const copy of copies.values()) copy[Symbol.dispose]();
      throw cause;
    }
    return copies;
  }

  /** Giving memory of the GPU back makes it wait, so copies are kept where that leaves much more than they take. */
  giveBackCopies(copies: StateCopies): void {
    const bytes = [...copies.values()].reduce((sum, copy) => sum + copy.bytes, 0);
    let isKept = false;
    try {
      isKept = this.copies === null && this.device.driver.memory().free > ROOMY * bytes;
    } finally {
      if (isKept) this.copies = copies;
      else for (const copy of copies.values()) copy[Symbol.dispose]();
    }
  }

  /** Whether copies were kept, so that none have to be allocated. */
  get holdsCopies(): boolean {
    return this.copies !== null;
  }

  giveBack(memory: PinnedMemory): void {
    const size = memory.buffer.byteLength;
    this.free.set(size, [...(this.free.get(size) ?? []), memory]);
  }

  [Symbol.dispose](): void {
    for (const list of this.free.values()) for (const memory of list) memory[Symbol.dispose]();
    this.free.clear();
    for (const copy of this.copies?.values() ?? []) copy[Symbol.dispose]();
    this.copies = null;
    this.stream[Symbol.dispose]();
  }
}

/** The state as it was when this was made. */
export class DeviceSnapshot implements StateSnapshot {
  private readonly copies: StateCopies;
  private readonly taken: PinnedMemory[] = [];
  private closed = false;

  /** Issues the copies behind what is issued already. Throws stopError where the GPU's memory is full. */
  constructor(
    training: Stream,
    private readonly state: DeviceTrainState,
    private readonly pool: StagingPool,
  ) {
    this.copies = pool.takeCopies(new Map(stateKinds.map((kind) => [kind, state.bytesOf(kind)])));
    try {
      for (const [kind, copy] of this.copies) training.copy(copy.address, state.base(kind), copy.bytes);
      pool.stream.waitFor(training);
    } catch (cause) {
      for (const copy of this.copies.values()) copy[Symbol.dispose]();
      throw cause;
    }
  }

  async read(kind: StateKind, key: string): Promise<Float32Array> {
    const { stream } = this.pool;
    const { address, count } = this.state.region(kind, key);
    const from: Address = entryOf(this.copies, kind).address + (address - this.state.base(kind));
    stream.device.enter();
    const pinned = this.pool.take(4 * count);
    const data = pinned === null ? new Float32Array(count) : new Float32Array(pinned.buffer, 0, count);
    if (pinned !== null) this.taken.push(pinned);
    stream.download(data, from);
    await stream.finished();
    return data;
  }

  /** Gives the copies back; what was read loses its content. */
  close(): Promise<void> {
    if (this.closed) return Promise.resolve();
    this.closed = true;
    this.pool.stream.device.leave();
    for (const memory of this.taken) this.pool.giveBack(memory);
    this.pool.giveBackCopies(this.copies);
    return Promise.resolve();
  }
}
