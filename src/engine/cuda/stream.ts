/** A queue of work of one GPU, with the scratch memory of its products and staging memory for small transfers. */
import type { Device, DeviceMemory } from "./device.js";
import { handleFrom, type Address } from "./native.js";
import { WORKSPACE } from "./products.js";

/** The stream does not wait for the default stream. */
const NON_BLOCKING = 1;
/** A capture that other threads' calls do not disturb. */
const RELAXED = 2;

/** An event that is not asked for times. */
const NO_TIMING = 2;

/** A sequence of launches that is issued as one. */
export interface Recorded extends Disposable {
  launch(): void;
}

/** A stream of the device: launches and copies in order. */
export class Stream implements Disposable {
  readonly handle: Address;
  private scratch: DeviceMemory | undefined;

  constructor(readonly device: Device) {
    device.enter();
    this.handle = device.driver.handle("cuStreamCreate", [NON_BLOCKING]);
  }

  /** Scratch memory of the products on this stream. */
  get workspace(): DeviceMemory {
    return (this.scratch ??= this.device.allocate(WORKSPACE, "scratch memory of products"));
  }

  /** Waits in another thread until everything issued is done. */
  async finished(): Promise<void> {
    await this.device.driver.callLater("cuStreamSynchronize", [this.handle]);
  }

  /** Marks what is issued by now; what it gives back waits, in another thread, until that is done. */
  mark(): () => Promise<void> {
    const { driver } = this.device;
    const event = driver.handle("cuEventCreate", [NO_TIMING]);
    try {
      driver.call("cuEventRecord", [event, this.handle]);
    } catch (cause) {
      driver.release("cuEventDestroy_v2", [event]);
      throw cause;
    }
    return async () => {
      try {
        await driver.callLater("cuEventSynchronize", [event]);
      } finally {
        driver.release("cuEventDestroy_v2", [event]);
      }
    };
  }

  /** What is issued here from now on waits for what is issued on another stream by now. */
  waitFor(other: Stream): void {
    const { driver } = this.device;
    const event = driver.handle("cuEventCreate", [NO_TIMING]);
    try {
      driver.call("cuEventRecord", [event, other.handle]);
      driver.call("cuStreamWaitEvent", [this.handle, event, 0]);
    } finally {
      driver.release("cuEventDestroy_v2", [event]);
    }
  }

  /** Issues a copy of host memory, which is read before the call returns. */
  upload(to: Address, data: ArrayBufferView): void {
    if (data.byteLength > 0) this.device.driver.call("cuMemcpyHtoDAsync_v2", [to, data, data.byteLength, this.handle]);
  }

  /** Copies device memory into host memory; it is there when `finished` is. */
  download(into: ArrayBufferView, from: Address): void {
    if (into.byteLength > 0)
      this.device.driver.call("cuMemcpyDtoHAsync_v2", [into, from, into.byteLength, this.handle]);
  }

  copy(to: Address, from: Address, bytes: number): void {
    if (bytes > 0) this.device.driver.call("cuMemcpyDtoDAsync_v2", [to, from, bytes, this.handle]);
  }

  clear(at: Address, bytes: number): void {
    if (bytes > 0) this.device.driver.call("cuMemsetD8Async", [at, 0, bytes, this.handle]);
  }

  /** Everything that `issue` issues, as one graph. */
  record(issue: () => void): Recorded {
    const { driver } = this.device;
    driver.call("cuStreamBeginCapture_v2", [this.handle, RELAXED]);
    try {
      issue();
    } catch (cause) {
      // What has failed may have ended the capture: to say so would hide why.
      const begun = handleFrom((into) => driver.release("cuStreamEndCapture", [this.handle, into]));
      if (begun !== 0n) driver.release("cuGraphDestroy", [begun]);
      throw cause;
    }
    const graph = handleFrom((into) => driver.call("cuStreamEndCapture", [this.handle, into]));
    let executable: Address;
    try {
      executable = driver.handle("cuGraphInstantiateWithFlags", [graph, 0], "a program as one graph");
    } finally {
      driver.release("cuGraphDestroy", [graph]);
    }
    return {
      launch: () => driver.call("cuGraphLaunch", [executable, this.handle]),
      [Symbol.dispose]: () => driver.release("cuGraphExecDestroy", [executable]),
    };
  }

  [Symbol.dispose](): void {
    this.scratch?.[Symbol.dispose]();
    this.device.driver.release("cuStreamDestroy_v2", [this.handle]);
  }
}
