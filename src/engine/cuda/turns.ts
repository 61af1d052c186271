/** Calls of a runtime follow one another, each with the runtime's GPU as the current one. */
import type { Device } from "./device.js";

/** Lets asynchronous callers use one device in turn. */
export class Turns {
  private last: Promise<unknown> = Promise.resolve();
  private closed = false;

  constructor(private readonly device: Device) {}

  /** Does `work` when all before it is done. Rejects after `close`. */
  next<T>(work: () => Promise<T>): Promise<T> {
    const result = this.last.then(() => {
      if (this.closed) throw new Error("the runtime is closed");
      this.device.enter();
      return work();
    });
    this.last = result.catch(() => undefined);
    return result;
  }

  /** Frees everything, once, when all before is done. */
  close(free: () => void): Promise<void> {
    const result = this.last.then(() => {
      if (this.closed) return;
      this.closed = true;
      this.device.leave();
      free();
    });
    this.last = result.catch(() => undefined);
    return result;
  }
}
