/** What this machine has of CUDA, what is missing, and the line that installs it. */
import { UpcycleError } from "../../base/errors.js";
import { cudaBackend } from "./backend.js";
import { bindDriver, leastDriver } from "./driver.js";
import { driverVersion, factsOf, type DeviceFacts } from "./device.js";
import { findLibrary, installLine, type FoundLibrary, type LibraryName } from "./libraries.js";
import { koffiVersion, native } from "./native.js";
import { bindCompiler } from "./nvrtc.js";
import { productsVersion } from "./products.js";
import { selfTest, type SelfTest } from "./self-test.js";

/** A library, or why there is none. */
export interface LibraryReport {
  readonly name: LibraryName;
  /** As NVIDIA counts it, or null where it was not found. */
  readonly version: string | null;
  readonly path: string | null;
  /** Where it was found. */
  readonly source: string | null;
}

/** What `upcycle doctor` says of one GPU. */
export interface GpuReport extends Omit<DeviceFacts, "driver"> {
  readonly selfTest: SelfTest | null;
  /** Why it cannot be used, in one line; null: it can. */
  readonly problem: string | null;
}

/** Something missing, and what to do about it. */
export interface Missing {
  readonly what: string;
  readonly install: string;
}

/** What `upcycle doctor` says of libraries and GPUs. */
export interface CudaReport {
  readonly koffi: string | null;
  readonly libraries: readonly LibraryReport[];
  readonly gpus: readonly GpuReport[];
  readonly missing: readonly Missing[];
  /** The device that `--device auto` takes. */
  readonly auto: string;
  /** False where there is a GPU that cannot be used. */
  readonly healthy: boolean;
}

const absent = (name: LibraryName): LibraryReport => ({ name, version: null, path: null, source: null });
const report = ({ name, path, source }: FoundLibrary, version: string): LibraryReport => ({
  name,
  version,
  path,
  source,
});

const lineOf = (error: unknown): string =>
  error instanceof UpcycleError ? error.line : error instanceof Error ? error.message : String(error);

/** Looks for everything and runs the self-test on every GPU. Never throws for something that is missing. */
export async function examine(env: Readonly<Record<string, string | undefined>>): Promise<CudaReport> {
  try {
    await native();
  } catch {
    const missing = [{ what: "koffi, which calls CUDA's libraries", install: `npm install koffi@${koffiVersion}` }];
    return { koffi: null, libraries: [], gpus: [], missing, auto: "cpu", healthy: true };
  }
  const driver = await findLibrary("driver", env);
  if (driver === null) {
    const missing = [{ what: "NVIDIA's driver (libcuda.so.1)", install: installLine("driver", Infinity) }];
    return {
      koffi: koffiVersion,
      libraries: [absent("driver")],
      gpus: [],
      missing,
      auto: "cpu",
      healthy: true,
    };
  }
  return examineLibraries(driver, env);
}

async function examineLibraries(
  driver: FoundLibrary,
  env: Readonly<Record<string, string | undefined>>,
): Promise<CudaReport> {
  const bound = await bindDriver(driver.handle);
  const version = bound.integer("cuDriverGetVersion", []);
  const major = Math.floor(version / 1000);
  const [nvrtc, products] = [await findLibrary("nvrtc", env, major), await findLibrary("cublasLt", env, major)];
  const isOld = version < leastDriver;
  // Which libraries an old driver's successor needs is known once that is there.
  const missing: Missing[] = [
    ...(isOld ? [{ what: "a newer driver, for CUDA 12.0 at least", install: driverLine }] : []),
    ...(!isOld && nvrtc === null
      ? [{ what: "NVRTC, which compiles kernels", install: installLine("nvrtc", major) }]
      : []),
    ...(!isOld && products === null
      ? [{ what: "cuBLASLt, for products", install: installLine("cublasLt", major) }]
      : []),
  ];
  const libraries = [
    report(driver, driverVersion({ driver: version })),
    nvrtc === null ? absent("nvrtc") : report(nvrtc, bindCompiler(nvrtc.handle).version),
    products === null ? absent("cublasLt") : report(products, productsVersion(products.handle)),
  ];
  const gpus = await examineGpus(bound, missing);
  const usable = gpus.find(({ problem }) => problem === null);
  return {
    koffi: koffiVersion,
    libraries,
    gpus,
    missing,
    auto: gpus[0] !== undefined && usable === gpus[0] ? "cuda:0" : "cpu",
    healthy: gpus.every(({ problem }) => problem === null),
  };
}

const driverLine = installLine("driver", Infinity);

async function examineGpus(
  bound: Awaited<ReturnType<typeof bindDriver>>,
  missing: readonly Missing[],
): Promise<GpuReport[]> {
  let count: number;
  try {
    bound.call("cuInit", [0]);
    count = bound.integer("cuDeviceGetCount", []);
  } catch {
    return [];
  }
  const gpus: GpuReport[] = [];
  for (let ordinal = 0; ordinal < count; ordinal++) {
    const { name, capability, multiprocessors, memory } = factsOf(bound, ordinal);
    const facts = { ordinal, name, capability, multiprocessors, memory };
    if (missing.length > 0) {
      gpus.push({ ...facts, selfTest: null, problem: `missing: ${missing.map(({ what }) => what).join("; ")}` });
      continue;
    }
    try {
      const result = await selfTest(cudaBackend(ordinal));
      const problem = result.agrees ? null : `it computes wrongly: off by ${result.difference.toExponential(1)}`;
      gpus.push({ ...facts, selfTest: result, problem });
    } catch (error) {
      gpus.push({ ...facts, selfTest: null, problem: lineOf(error) });
    }
  }
  return gpus;
}
