/** The machine and the programs that a study's numbers were measured with. */
import { arch, cpus, platform, release } from "node:os";
import { toolVersion } from "../surgery/convert/version.js";
import type { StudyOptions } from "./types.js";
import type { StudyResult } from "../model/results/result.js";

/** The versions of the programs, the platform, the processor and what trained, for the result. */
export async function environment({
  threads,
  backends,
}: Pick<StudyOptions, "threads" | "backends">): Promise<StudyResult["environment"]> {
  const { numerics } = backends[0];
  const names = [...new Set(backends.map(({ name }) => name))].join(", ");
  // The engine's native library, for which the help of a study does not wait.
  const { onnxruntimeVersion } = await import("../engine/onnxruntime/session.js");
  return {
    upcycle: toolVersion,
    node: process.versions.node,
    onnxruntime: onnxruntimeVersion,
    platform: `${platform()} ${release()} ${arch()}`,
    cpu: `${cpus()[0]?.model.trim() ?? "unknown"} x ${cpus().length}`,
    threads,
    device: names === numerics ? names : `${numerics} on ${names}`,
  };
}
