/** The machine and the programs that a study's numbers were measured with. */
import { arch, cpus, platform, release } from "node:os";
import { toolVersion } from "../surgery/convert/version.js";
import { onnxruntimeVersion } from "../engine/onnxruntime/session.js";
import type { StudyResult } from "../model/results/result.js";

/** The versions of the programs, the platform and the processor, for the result. */
export function environment(threads: number): StudyResult["environment"] {
  return {
    upcycle: toolVersion,
    node: process.versions.node,
    onnxruntime: onnxruntimeVersion,
    platform: `${platform()} ${release()} ${arch()}`,
    cpu: `${cpus()[0]?.model.trim() ?? "unknown"} x ${cpus().length}`,
    threads,
  };
}
