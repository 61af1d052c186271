/**
 * Whatever call of the driver fails: all that was taken of the GPU is given back, once. The GPU is one that computes
 * nothing; it counts.
 */
import { describe, expect, it } from "vitest";
import { stopError } from "../../../src/base/errors.js";
import { Device } from "../../../src/engine/cuda/device.js";
import { CudaForwardRuntime } from "../../../src/engine/cuda/forward-runtime.js";
import { CudaOperationRuntime } from "../../../src/engine/cuda/operation-runtime.js";
import { CudaTrainRuntime } from "../../../src/engine/cuda/train-runtime.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import { elements } from "../../../src/graph/ir/ir.js";
import { extendProgram, trainProgram } from "../../../src/graph/programs/programs.js";
import { adamw } from "../../support/programs.js";
import { denseSpec, moeSpec } from "../../support/runs.js";

/** What is taken by one function of the driver, and given back by another. */
const givesBack: Readonly<Record<string, string>> = {
  cuMemFree_v2: "cuMemAlloc_v2",
  cuMemFreeHost: "cuMemHostAlloc",
  cuStreamDestroy_v2: "cuStreamCreate",
  cuEventDestroy_v2: "cuEventCreate",
  cuGraphDestroy: "cuStreamEndCapture",
  cuGraphExecDestroy: "cuGraphInstantiateWithFlags",
};
const takes = new Set(Object.values(givesBack));

/** Calls that are many and alike. */
const isLaunch = (name: string): boolean => /^cuLaunch|^cublas|^cuTensorMap/.test(name);

/** A driver whose calls do nothing, and one of which fails. */
class CountingDriver {
  /** Names of the calls that can fail, in their order. */
  readonly calls: string[] = [];
  /** What was taken and not given back: its address, and by what. */
  readonly live = new Map<bigint, string>();
  /** What was given back and was not there. */
  readonly stray: string[] = [];
  private last = 0n;

  constructor(private readonly failing: number) {}

  private made(name: string): bigint {
    this.last += 1n << 40n;
    if (takes.has(name)) this.live.set(this.last, name);
    return this.last;
  }

  call(name: string, args: readonly unknown[]): void {
    if (this.calls.push(name) === this.failing) throw stopError(`call ${this.failing} (${name}) failed`);
    if (givesBack[name] !== undefined) this.release(name, args);
    if (name === "cuStreamEndCapture") (args[1] as BigUint64Array)[0] = this.made(name);
  }

  callLater(name: string, args: readonly unknown[]): Promise<void> {
    return Promise.resolve().then(() => this.call(name, args));
  }

  handle(name: string, args: readonly unknown[]): bigint {
    this.call(name, args);
    return this.made(name);
  }

  integer(name: string, args: readonly unknown[]): number {
    this.call(name, args);
    return 1 << 20;
  }

  release(name: string, args: readonly unknown[]): void {
    const [address] = args as readonly bigint[];
    const taken = givesBack[name];
    if (taken === undefined || address === undefined) return;
    if (this.live.get(address) === taken) this.live.delete(address);
    else this.stray.push(`${name} ${address}`);
  }

  memory(): { readonly free: number; readonly total: number } {
    this.call("cuMemGetInfo_v2", []);
    return { free: 1e12, total: 1e12 };
  }
}

/** A GPU with that driver, whose kernels are compiled. */
function deviceOf(driver: CountingDriver): Device {
  const facts = { ordinal: 0, name: "none", capability: 90, multiprocessors: 132, memory: 1e12, driver: 13_000 };
  const candidate = new Uint8Array(64);
  const plan = {
    candidates: [candidate],
    algorithm: candidate,
    run: () => driver.call("cublasLtMatmul", []),
  };
  const products = { version: "13.0.0", plan: () => plan, close: () => undefined };
  const viewOf = (_: bigint, bytes: number): ArrayBuffer => new ArrayBuffer(bytes);
  const made = Reflect.construct(Device, [driver, facts, 1n, {}, products, viewOf]) as Device;
  return Object.assign(made, { prepare: () => Promise.resolve(), function: () => 1n });
}

/** Runs `use` once for each call that may fail; what was left behind, by the call that had failed. */
async function leftBehind(use: (device: Device) => Promise<void>): Promise<string[]> {
  const whole = new CountingDriver(0);
  await use(deviceOf(whole));
  const left = [...whole.live.values(), ...whole.stray].map((what) => `without a failure: ${what}`);
  let launches = 0;
  for (const [index, name] of whole.calls.entries()) {
    if (isLaunch(name) && launches++ % 60 !== 0) continue;
    const driver = new CountingDriver(index + 1);
    await use(deviceOf(driver)).catch((cause: unknown) => {
      if (!(cause as Error).message.startsWith("call ")) throw cause;
    });
    const what = [...driver.live.values(), ...driver.stray];
    if (what.length > 0) left.push(`call ${index + 1} (${name}): ${what.join(", ")}`);
  }
  return left;
}

const cases = [
  ["a dense model in float32", denseSpec, undefined],
  ["a mixture in bfloat16", moeSpec, "bf16"],
] as const;

describe.each(cases)("of %s", (_, spec, precision) => {
  it("a training that fails at any call leaves nothing on the GPU", async () => {
    const program = trainProgram(spec, { batch: 1, sequence: 8, auxCoef: 0.01, zCoef: 0.001 });
    const batch = { ids: new Int32Array(8), targets: new Int32Array(8) };
    const options = { threads: 1, accumulate: true, average: true, precision };
    const left = await leftBehind(async (device) => {
      const runtime = await CudaTrainRuntime.open(device, program, options);
      try {
        await runtime.step([batch, batch], { ...adamw(1), averageDecay: 0.9 });
        await runtime.evaluate(batch);
        const copy = await runtime.snapshot();
        try {
          await copy?.read("weight", program.params[0]!.key);
        } finally {
          await copy?.close();
        }
      } finally {
        await runtime.close();
      }
    });
    expect(left).toEqual([]);
  }, 60_000);

  it("decoding that fails at any call leaves nothing on the GPU", async () => {
    const shapes = { batch: 1, positions: 32 };
    const prompt = extendProgram(spec, { ...shapes, tokens: 4, capacity: 0 });
    const [token, later] = [16, 24].map((capacity) => extendProgram(spec, { ...shapes, tokens: 1, capacity }));
    const feeds = (tokens: number, length: number, capacity: number) => ({
      ids: new Int32Array(tokens),
      lengths: Int32Array.of(length),
      counts: Int32Array.of(tokens),
      capacity,
    });
    const left = await leftBehind(async (device) => {
      const runtime = new CudaForwardRuntime(device, { precision });
      try {
        for (const { key, shape } of prompt.params) await runtime.write(key, new Float32Array(elements(shape)));
        await runtime.extend("prompt", prompt, feeds(4, 0, 16));
        await runtime.likeliest("token", token!, feeds(1, 4, 16), 2);
        await runtime.likeliest("later", later!, feeds(1, 6, 24), 2);
        await runtime.repeatCache(2);
      } finally {
        await runtime.close();
      }
    });
    expect(left).toEqual([]);
  }, 60_000);
});

it("an operation that fails at any call leaves nothing on the GPU", async () => {
  const b = new GraphBuilder();
  const x = b.input("x", "f32", [4, 8]);
  const graph = b.finish([b.add(x, b.scale(x, 2))]);
  const left = await leftBehind(async (device) => {
    const runtime = new CudaOperationRuntime(device);
    try {
      await runtime.run("sum", graph, [new Float32Array(32)]);
    } finally {
      await runtime.close();
    }
  });
  expect(left).toEqual([]);
});
