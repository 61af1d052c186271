/**
 * The machine that tests of the CUDA backend run on: a GPU where there is one; else the CPU, by libraries that stand in
 * for the driver, NVRTC and cuBLASLt (test/support/cuda-on-cpu) and compile the kernels with g++; else none.
 * Import this before anything opens a device.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startedDriver } from "../../src/engine/cuda/device.js";

export type CudaMachine = "a GPU" | "the CPU" | "no machine";

const folder = fileURLToPath(new URL("./cuda-on-cpu/", import.meta.url));

/** Builds the stand-in libraries, once for each content: the environment in which a process finds them, or null. */
export function emulation(): Readonly<Record<string, string>> | null {
  if (process.platform !== "linux" || process.arch !== "x64") return null;
  if (spawnSync("g++", ["--version"], { stdio: "ignore" }).status !== 0) return null;
  const source = join(folder, "libraries.cpp");
  const hash = createHash("sha256").update(readFileSync(source)).digest("hex").slice(0, 16);
  const target = join(process.env["UPCYCLE_TEST_KEPT"] ?? tmpdir(), `upcycle-cuda-on-cpu-${hash}`);
  const library = join(target, "libcuda.so.1");
  if (!existsSync(library)) {
    mkdirSync(target, { recursive: true });
    const partial = join(target, `partial-${process.pid}.so`);
    execFileSync("g++", ["-std=c++17", "-O2", "-w", "-fPIC", "-shared", "-o", partial, source, "-ldl"]);
    for (const name of ["libnvrtc.so.13", "libcublasLt.so.13"])
      if (!existsSync(join(target, name))) symlinkSync("libcuda.so.1", join(target, name));
    renameSync(partial, library);
  }
  return { UPCYCLE_CUDA: target, UPCYCLE_EMULATOR_HEADER: join(folder, "kernel.h") };
}

async function hasGpu(): Promise<boolean> {
  try {
    return (await startedDriver()).integer("cuDeviceGetCount", []) > 0;
  } catch {
    return false;
  }
}

async function choose(): Promise<CudaMachine> {
  if (process.env["UPCYCLE_CUDA_TESTS"] !== "cpu" && (await hasGpu())) return "a GPU";
  const environment = emulation();
  Object.assign(process.env, environment ?? {});
  return environment === null ? "no machine" : "the CPU";
}

export const cudaMachine: CudaMachine = await choose();

/**
 * Whether a GPU gets all golden models and as many random cases as it has time for. `UPCYCLE_CUDA_TESTS=short` leaves
 * it with those of the emulation, for compute-sanitizer, under which everything takes many times as long.
 */
export const isThorough = cudaMachine === "a GPU" && process.env["UPCYCLE_CUDA_TESTS"] !== "short";
