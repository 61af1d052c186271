/** One GPU: its context, memory, kernels and products. */
import { inputError } from "../../base/errors.js";
import { bindDriver, leastDriver, type Driver } from "./driver.js";
import { findLibrary, installLine, type FoundLibrary } from "./libraries.js";
import type { Chip } from "./lowering/options.js";
import { machineCode, type ModuleVariant } from "./modules.js";
import { native, type Address } from "./native.js";
import { bindCompiler, type Compiler } from "./nvrtc.js";
import { openProducts, type Products } from "./products.js";

/** Attributes of a device (cuda.h). */
const COMPUTE_MAJOR = 75;
const COMPUTE_MINOR = 76;
const MULTIPROCESSORS = 16;
const MOST_SHARED = 97;
/** Attribute of a function: bytes of dynamic shared memory that it may have. */
const DYNAMIC_SHARED = 8;
/** Shared memory that every kernel may have without asking. */
const USUAL_SHARED = 48 * 1024;
/** The oldest compute capability that kernels are written for. */
const leastCapability = 80;

/** Memory of a device, given back by `Symbol.dispose`. */
export interface DeviceMemory extends Disposable {
  readonly address: Address;
  readonly bytes: number;
}

/** Pinned memory of the host, which the GPU reads and writes by itself. */
export interface PinnedMemory extends Disposable {
  readonly address: Address;
  readonly buffer: ArrayBuffer;
}

/** What is known of a GPU before anything runs on it. */
export interface DeviceFacts {
  readonly ordinal: number;
  readonly name: string;
  /** Compute capability, 90 for 9.0. */
  readonly capability: number;
  readonly multiprocessors: number;
  /** Bytes. */
  readonly memory: number;
  /** 13000 for CUDA 13.0. */
  readonly driver: number;
}

const versionText = (version: number): string => `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;

/** "13.0" */
export const driverVersion = (facts: Pick<DeviceFacts, "driver">): string => versionText(facts.driver);

let driver: Promise<Driver> | undefined;

/**
 * The driver, started. Throws inputError where it is missing or too old, with what to do.
 */
export function startedDriver(): Promise<Driver> {
  const starting = (driver ??= startDriver());
  // One that was not there may be found later, with another UPCYCLE_CUDA.
  starting.catch(() => (driver = undefined));
  return starting;
}

async function startDriver(): Promise<Driver> {
  const library = await findLibrary("driver", process.env);
  if (library === null)
    throw inputError("there is no NVIDIA driver (libcuda.so.1)", { hint: installLine("driver", Infinity) });
  const bound = await bindDriver(library.handle);
  const version = bound.integer("cuDriverGetVersion", []);
  if (version < leastDriver)
    throw inputError(`the driver speaks CUDA ${versionText(version)}, ${versionText(leastDriver)} is needed`, {
      hint: "update NVIDIA's driver: https://www.nvidia.com/drivers",
    });
  await bound.callLater("cuInit", [0]);
  return bound;
}

/** Name, compute capability and memory of a GPU. */
export function factsOf(bound: Driver, ordinal: number): DeviceFacts {
  const device = bound.integer("cuDeviceGet", [ordinal]);
  const attribute = (which: number): number => bound.integer("cuDeviceGetAttribute", [which, device]);
  return {
    ordinal,
    name: bound.deviceName(device),
    capability: attribute(COMPUTE_MAJOR) * 10 + attribute(COMPUTE_MINOR),
    multiprocessors: attribute(MULTIPROCESSORS),
    memory: Number(bound.handle("cuDeviceTotalMem_v2", [device])),
    driver: bound.integer("cuDriverGetVersion", []),
  };
}

/** A library of the toolkit that fits the driver. Throws inputError with the line that installs it. */
async function required(name: "nvrtc" | "cublasLt", version: number): Promise<FoundLibrary> {
  const major = Math.floor(version / 1000);
  const library = await findLibrary(name, process.env, major);
  if (library !== null) return library;
  const what = name === "nvrtc" ? "NVRTC (libnvrtc.so), which compiles kernels" : "cuBLASLt (libcublasLt.so)";
  throw inputError(`${what} was not found for CUDA ${versionText(version)}`, {
    hint: `${installLine(name, major)}, or name its folder in UPCYCLE_CUDA`,
  });
}

/** An open GPU: its context, memory and compiled modules. */
export class Device {
  /** Functions by module and name. */
  private readonly functions = new Map<string, Address>();
  private readonly modules = new Map<string, Promise<Address>>();
  /** Bytes that are allocated, and the most that ever were. */
  private inUse = 0;
  private mostInUse = 0;
  /** Products whose way was chosen, by `tune`. */
  readonly tuned = new Set<string>();

  private constructor(
    readonly driver: Driver,
    readonly facts: DeviceFacts,
    private readonly context: Address,
    private readonly compiler: Compiler,
    readonly products: Products,
    private readonly viewOf: (address: Address, bytes: number) => ArrayBuffer,
  ) {}

  /**
   * Opens a GPU. Throws inputError for one that is not there or too old, and where a library is missing.
   */
  static async open(ordinal: number): Promise<Device> {
    const bound = await startedDriver();
    const count = bound.integer("cuDeviceGetCount", []);
    if (ordinal >= count)
      throw inputError(`there is no GPU ${ordinal}, the driver shows ${count}`, {
        where: `cuda:${ordinal}`,
        hint: "upcycle doctor lists them; CUDA_VISIBLE_DEVICES may hide some",
      });
    const facts = factsOf(bound, ordinal);
    if (facts.capability < leastCapability)
      throw inputError(
        `${facts.name} has compute capability ${facts.capability / 10}, ${leastCapability / 10}.0 is needed`,
        { where: `cuda:${ordinal}`, hint: "--device cpu" },
      );
    // A context takes as long to make as libraries take to open, and both longer than all else here.
    const making = bound.handleLater("cuDevicePrimaryCtxRetain", [bound.integer("cuDeviceGet", [ordinal])]);
    making.catch(() => undefined);
    const compiler = bindCompiler((await required("nvrtc", facts.driver)).handle);
    const products = await required("cublasLt", facts.driver);
    const context = await making;
    bound.call("cuCtxSetCurrent", [context]);
    const koffi = await native();
    return new Device(bound, facts, context, compiler, openProducts(products.handle), (address, bytes) =>
      koffi.view(address, bytes),
    );
  }

  /** What kernels are chosen by. `UPCYCLE_CUDA_CAPABILITY` (such as 80) makes it choose as an older GPU does. */
  get chip(): Chip {
    const { capability, multiprocessors } = this.facts;
    const asked = Number(process.env["UPCYCLE_CUDA_CAPABILITY"] ?? capability);
    return { capability: Math.min(capability, asked), multiprocessors };
  }

  /** Makes this GPU the current one of the calling thread: before every use that may follow another GPU's. */
  enter(): void {
    this.driver.call("cuCtxSetCurrent", [this.context]);
  }

  /** As `enter`, where something is given back: a GPU that has failed does not mind. */
  leave(): void {
    this.driver.release("cuCtxSetCurrent", [this.context]);
  }

  /** Memory with undefined content; `what` says what for in the error of a full GPU. */
  allocate(bytes: number, what: string): DeviceMemory {
    const { driver: bound } = this;
    const address = bound.handle("cuMemAlloc_v2", [Math.max(bytes, 1)], `${what}, ${(bytes / 1e9).toFixed(2)} GB`);
    this.inUse += bytes;
    this.mostInUse = Math.max(this.mostInUse, this.inUse);
    let live = true;
    return {
      address,
      bytes,
      [Symbol.dispose]: () => {
        if (!live) return;
        live = false;
        this.inUse -= bytes;
        bound.release("cuMemFree_v2", [address]);
      },
    };
  }

  /** Bytes that were allocated at most since this was last asked. */
  takePeak(): number {
    const most = this.mostInUse;
    this.mostInUse = this.inUse;
    return most;
  }

  pinned(bytes: number): PinnedMemory {
    const { driver: bound } = this;
    const address = bound.handle("cuMemHostAlloc", [Math.max(bytes, 1), 0]);
    let live = true;
    return {
      address,
      buffer: this.viewOf(address, bytes),
      [Symbol.dispose]: () => {
        if (live) bound.release("cuMemFreeHost", [address]);
        live = false;
      },
    };
  }

  /** Loads modules, compiling those that were not kept. */
  async prepare(modules: Iterable<ModuleVariant>): Promise<void> {
    await Promise.all([...modules].map((variant) => this.load(variant)));
  }

  private load(variant: ModuleVariant): Promise<Address> {
    const name = variantName(variant);
    const known = this.modules.get(name);
    if (known !== undefined) return known;
    const { capability } = this.facts;
    const loaded = machineCode(this.compiler, variant, `sm_${capability}`).then((code) => {
      this.enter();
      const module = this.driver.handle("cuModuleLoadData", [code], name);
      this.handles.set(name, module);
      return module;
    });
    this.modules.set(name, loaded);
    // One that failed is tried again when it is asked for again.
    loaded.catch(() => this.modules.delete(name));
    return loaded;
  }

  private readonly handles = new Map<string, Address>();

  /** A kernel of a module that `prepare` has loaded, allowed so much dynamic shared memory. */
  function(variant: ModuleVariant, kernel: string, shared: number): Address {
    const module = variantName(variant);
    const key = `${module} ${kernel}`;
    const known = this.functions.get(key);
    const loaded = this.handles.get(module);
    if (loaded === undefined) throw new Error(`module ${module} was not prepared`);
    const found = known ?? this.driver.handle("cuModuleGetFunction", [loaded, kernel], key);
    this.functions.set(key, found);
    if (shared > USUAL_SHARED) {
      const most = this.driver.integer("cuDeviceGetAttribute", [MOST_SHARED, this.facts.ordinal]);
      if (shared > most) throw new Error(`${key} asks for ${shared} bytes of shared memory, the GPU has ${most}`);
      this.driver.call("cuFuncSetAttribute", [found, DYNAMIC_SHARED, shared], key);
    }
    return found;
  }
}

const variantName = ({ module, real }: ModuleVariant): string => `${module}.cu ${real}`;

const devices = new Map<number, Promise<Device>>();

/** A GPU of this process, opened once. */
export function device(ordinal: number): Promise<Device> {
  const known = devices.get(ordinal) ?? Device.open(ordinal);
  devices.set(ordinal, known);
  known.catch(() => devices.delete(ordinal));
  return known;
}
