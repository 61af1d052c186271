/** The onnxruntime backend: each runtime lives in a worker thread of its own. */
import { Worker } from "node:worker_threads";
import { at } from "../../base/at.js";
import { receivedError } from "../../base/errors.js";
import { limitError, moduleArguments, requireThreadRoom } from "../../files/io/limits.js";
import { threadModule } from "../../files/io/thread-module.js";
import type { TrainProgram } from "../../graph/programs/programs.js";
import type { Backend, ForwardRuntime, OperationRuntime, TrainRuntime } from "../runtime/runtime.js";
import { disableTelemetry } from "./telemetry.js";
import type { Call, Reply } from "./worker.js";

/** Buffers that are kept for later feeds: one at work and one being filled, of two sizes each. */
const mostSpare = 4;

/** Calls methods of the runtime hosted by `worker.ts`. */
class Remote {
  private readonly worker: Worker;
  private readonly waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  /** Memory that has come back from the thread, smallest first. */
  private readonly spare: ArrayBuffer[] = [];
  private next = 0;
  private failure: Error | undefined;

  constructor() {
    requireThreadRoom("the engine");
    disableTelemetry();
    this.worker = new Worker(threadModule("engine/onnxruntime/worker.js"), { execArgv: moduleArguments() });
    this.worker.unref();
    this.worker.on("message", ({ id, result, error, returned }: Reply) => {
      this.keep(returned);
      const call = this.waiting.get(id);
      if (call === undefined) return;
      this.waiting.delete(id);
      if (this.waiting.size === 0) this.worker.unref();
      if (error === undefined) call.resolve(result);
      else call.reject(receivedError(error));
    });
    this.worker.on("error", (error: unknown) =>
      this.fail(limitError(error) ?? (error instanceof Error ? error : new Error(String(error)))),
    );
    this.worker.on("exit", (code) => this.fail(new Error(`the engine's thread ended with code ${code}`)));
  }

  private fail(error: Error): void {
    this.failure ??= error;
    for (const { reject } of this.waiting.values()) reject(this.failure);
    this.waiting.clear();
  }

  /** Calls a method of the runtime; arguments are copied to its thread. */
  call<T>(method: string, ...args: readonly unknown[]): Promise<T> {
    return this.send(method, args, []);
  }

  private keep(buffers: readonly ArrayBuffer[]): void {
    this.spare.push(...buffers);
    this.spare.sort((a, b) => a.byteLength - b.byteLength);
    this.spare.splice(0, this.spare.length - mostSpare);
  }

  /** At least so many bytes, such as have come back from the thread. */
  memory(bytes: number): ArrayBuffer {
    const place = this.spare.findIndex(({ byteLength }) => byteLength >= bytes);
    const [buffer = new ArrayBuffer(bytes)] = place < 0 ? [] : this.spare.splice(place, 1);
    return buffer;
  }

  /** Buffers in `given` move to the thread instead of being copied, and serve `memory` when they are back. */
  send<T>(method: string, args: readonly unknown[], given: ArrayBuffer[]): Promise<T> {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      const id = this.next++;
      this.waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.worker.ref();
      this.worker.postMessage({ id, method, args, given } satisfies Call, given);
    });
  }

  /** The first call, which gives the thread its runtime; a thread without one is of no use. */
  async open(method: string, ...args: readonly unknown[]): Promise<void> {
    try {
      await this.call(method, ...args);
    } catch (cause) {
      await this.worker.terminate();
      throw cause;
    }
  }

  /** Ends the thread; harmless where it has ended already, so that cleaning up never hides why. */
  async end(): Promise<void> {
    try {
      if (this.failure === undefined) await this.call("close");
    } finally {
      this.failure ??= new Error("the runtime is closed");
      await this.worker.terminate();
    }
  }
}

/** The backend that runs on onnxruntime, on CPUs. */
export const onnxruntimeBackend: Backend = {
  name: "onnxruntime",
  numerics: "onnxruntime",
  async openTrain(program: TrainProgram, options): Promise<TrainRuntime> {
    const remote = new Remote();
    await remote.open("openTrain", program, options);
    return {
      step: (batches, settings) => remote.call("step", batches, settings),
      evaluate: (batch, weights) => remote.call("evaluate", batch, weights),
      read: (kind, key) => remote.call("read", kind, key),
      write: (kind, key, data) => remote.call("write", kind, key, data),
      peakMemory: () => remote.call("peakMemory"),
      close: () => remote.end(),
    };
  },
  async openForward(options): Promise<ForwardRuntime> {
    const remote = new Remote();
    await remote.open("openForward", options);
    const sentNames = new Set<string>();
    /** The worker keeps programs by name, so each is sent only once. */
    const once = <P>(name: string, program: P): P | null => {
      if (sentNames.has(name)) return null;
      sentNames.add(name);
      return program;
    };
    return {
      write: (key, data) => remote.call("write", key, data),
      run: (name, program, feeds) => remote.call("run", name, once(name, program), feeds),
      extend: (name, program, feeds) => remote.call("extend", name, once(name, program), feeds),
      repeatCache: (rows) => remote.call("repeatCache", rows),
      close: () => remote.end(),
    };
  },
  async openOperations(options): Promise<OperationRuntime> {
    const remote = new Remote();
    await remote.open("openOperations", options);
    return {
      run: (name, graph, feeds, given = []) =>
        remote.send(
          "run",
          [name, graph, feeds],
          given.map((i) => at(feeds, i).buffer as ArrayBuffer),
        ),
      memory: (bytes) => remote.memory(bytes),
      close: () => remote.end(),
    };
  },
};
