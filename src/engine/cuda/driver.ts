/** CUDA's driver: typed calls, whose failures become one-line errors. Addresses and handles are 64-bit integers. */
import { inputError, stopError, type UpcycleError } from "../../base/errors.js";
import {
  handleFrom,
  host,
  i32,
  integerFrom,
  native,
  size,
  text,
  textFrom,
  u32,
  u64,
  type Address,
  type LibraryHandle,
  type NativeValue,
  type StatusFunction,
} from "./native.js";

/** Functions of the driver that are called, and what they take (cuda.h). */
const signatures = {
  cuInit: [u32],
  cuDriverGetVersion: [host],
  cuDeviceGetCount: [host],
  cuDeviceGet: [host, i32],
  cuDeviceGetName: [host, i32, i32],
  cuDeviceGetAttribute: [host, i32, i32],
  cuDeviceTotalMem_v2: [host, i32],
  cuDevicePrimaryCtxRetain: [host, i32],
  cuDevicePrimaryCtxRelease_v2: [i32],
  cuCtxSetCurrent: [u64],
  cuMemGetInfo_v2: [host, host],
  cuMemAlloc_v2: [host, size],
  cuMemFree_v2: [u64],
  cuMemHostAlloc: [host, size, u32],
  cuMemFreeHost: [u64],
  cuMemcpyHtoDAsync_v2: [u64, host, size, u64],
  cuMemcpyDtoHAsync_v2: [host, u64, size, u64],
  cuMemcpyDtoDAsync_v2: [u64, u64, size, u64],
  cuMemsetD8Async: [u64, "uint8_t", size, u64],
  cuModuleLoadData: [host, host],
  cuModuleUnload: [u64],
  cuModuleGetFunction: [host, u64, text],
  cuFuncSetAttribute: [u64, i32, i32],
  cuTensorMapEncodeTiled: [u64, i32, u32, u64, host, host, host, host, i32, i32, i32, i32],
  cuLaunchKernel: [u64, u32, u32, u32, u32, u32, u32, u32, u64, u64, u64],
  cuLaunchKernelEx: [u64, u64, u64, u64],
  cuStreamCreate: [host, u32],
  cuStreamDestroy_v2: [u64],
  cuStreamSynchronize: [u64],
  cuStreamWaitEvent: [u64, u64, u32],
  cuStreamBeginCapture_v2: [u64, i32],
  cuStreamEndCapture: [u64, host],
  cuGraphInstantiateWithFlags: [host, u64, "unsigned long long"],
  cuGraphDestroy: [u64],
  cuGraphExecDestroy: [u64],
  cuGraphLaunch: [u64, u64],
  cuEventCreate: [host, u32],
  cuEventDestroy_v2: [u64],
  cuEventRecord: [u64, u64],
  cuEventSynchronize: [u64],
  cuEventElapsedTime_v2: [host, u64, u64],
} as const;

/** The name of a function of the CUDA driver that the backend calls. */
export type DriverCall = keyof typeof signatures;

/** CUresult codes that mean something to the user. */
const codes = { outOfMemory: 2, noDevice: 100, invalidDevice: 101, noBinary: 209, unsupportedPtx: 222 } as const;

/** Driver API version that the calls above need: 12.0. */
export const leastDriver = 12_000;

/** The CUDA driver's functions, typed; a status that is no success becomes an error. */
export class Driver {
  private readonly functions: Readonly<Record<DriverCall, StatusFunction>>;
  private readonly names: StatusFunction;
  private readonly texts: StatusFunction;

  constructor(
    library: LibraryHandle,
    private readonly stringAt: (address: Address) => string,
  ) {
    const bind = (name: string, args: readonly string[]): StatusFunction => library.func(name, i32, [...args]);
    this.functions = Object.fromEntries(
      Object.entries(signatures).map(([name, args]) => [name, bind(name, args)]),
    ) as Record<DriverCall, StatusFunction>;
    this.names = bind("cuGetErrorName", [i32, host]);
    this.texts = bind("cuGetErrorString", [i32, host]);
  }

  /** Calls a function. Throws stopError for any status but success; `what` says what it was for. */
  call(name: DriverCall, args: readonly NativeValue[], what?: string): void {
    const status = this.functions[name](...args);
    if (status !== 0) throw this.failure(name, status, what);
  }

  /**
   * Gives something back. A status other than success is of no use: it says again what an earlier call has said, and
   * must not hide it.
   */
  release(name: DriverCall, args: readonly NativeValue[]): void {
    this.functions[name](...args);
  }

  /** As `call`, in another thread; for functions that wait. */
  callLater(name: DriverCall, args: readonly NativeValue[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.functions[name].async(...args, (error: unknown, status: number) => {
        if (error !== null && error !== undefined) reject(error instanceof Error ? error : new Error("a call failed"));
        else if (status !== 0) reject(this.failure(name, status));
        else resolve();
      });
    });
  }

  handle(name: DriverCall, args: readonly NativeValue[], what?: string): Address {
    return handleFrom((into) => this.call(name, [into, ...args], what));
  }

  /** As `handle`, in another thread; for functions that take long. */
  async handleLater(name: DriverCall, args: readonly NativeValue[]): Promise<Address> {
    const into = new BigUint64Array(1);
    await this.callLater(name, [into, ...args]);
    return into[0] ?? 0n;
  }

  integer(name: DriverCall, args: readonly NativeValue[]): number {
    return integerFrom((into) => this.call(name, [into, ...args]));
  }

  deviceName(device: number): string {
    return textFrom(256, (into) => this.call("cuDeviceGetName", [into, 256, device]));
  }

  /** Bytes of the current device's memory: free and in all. */
  memory(): { readonly free: number; readonly total: number } {
    const [free, total] = [new BigUint64Array(1), new BigUint64Array(1)];
    this.call("cuMemGetInfo_v2", [free, total]);
    return { free: Number(free[0]), total: Number(total[0]) };
  }

  private nameOf(lookup: StatusFunction, status: number): string {
    const address = handleFrom((into) => void lookup(status, into));
    return address === 0n ? "unknown" : this.stringAt(address);
  }

  private failure(name: string, status: number, what?: string): UpcycleError {
    const where = what === undefined ? name : `${what} (${name})`;
    const said = `${this.nameOf(this.names, status)}: ${this.nameOf(this.texts, status)}`;
    switch (status) {
      case codes.outOfMemory:
        return stopError(`the GPU's memory is full (${said})`, {
          where,
          hint: "lower batch or sequence, or raise accumulate to keep the tokens of a step",
        });
      case codes.noDevice:
      case codes.invalidDevice:
        return inputError(`there is no such GPU (${said})`, { where, hint: "upcycle doctor says what was found" });
      case codes.noBinary:
      case codes.unsupportedPtx:
        return stopError(`the driver cannot run these kernels (${said})`, { where, hint: "update NVIDIA's driver" });
      default:
        return stopError(`the GPU failed (${said})`, {
          where,
          hint: "the last checkpoint is kept: resume from it, and see nvidia-smi and dmesg for the GPU's state",
        });
    }
  }
}

/** Binds the functions of a driver's library. */
export async function bindDriver(library: LibraryHandle): Promise<Driver> {
  const koffi = await native();
  return new Driver(library, (address) => koffi.decode.string(address));
}
