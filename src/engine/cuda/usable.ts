/** Whether this process can use a GPU, without paying for a look where there is none. */
import { existsSync } from "node:fs";
import { UpcycleError } from "../../base/errors.js";
import { device, startedDriver } from "./device.js";

/** Files that an NVIDIA driver makes for its devices: on Linux, in containers alike, and in Windows' Linux. */
const deviceFiles = ["/dev/nvidiactl", "/dev/dxg"];

/** Whether looking for a GPU makes sense here. */
export function mayHaveGpu(env: Readonly<Record<string, string | undefined>>): boolean {
  const named = env["UPCYCLE_CUDA"];
  return (named !== undefined && named !== "") || deviceFiles.some((path) => existsSync(path));
}

/** GPU 0 can be used; or why not, in one line; or there is none. */
export type Usability = { readonly usable: true } | { readonly usable: false; readonly reason: string | null };

/** Opens a GPU that was asked for by number. Throws inputError where it does not exist or cannot be used. */
export async function requireGpu(ordinal: number): Promise<void> {
  await device(ordinal);
}

/** The first GPU with what was found of it: whether the backend can use it, or why not. */
export async function firstGpu(): Promise<Usability> {
  if (!mayHaveGpu(process.env)) return { usable: false, reason: null };
  try {
    const driver = await startedDriver();
    if (driver.integer("cuDeviceGetCount", []) === 0) return { usable: false, reason: null };
  } catch {
    return { usable: false, reason: null };
  }
  try {
    await device(0);
    return { usable: true };
  } catch (error) {
    if (error instanceof UpcycleError) return { usable: false, reason: error.line };
    throw error;
  }
}
