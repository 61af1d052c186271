/** What the numbers were measured on. */
import { arch, cpus, platform, release } from "node:os";
import { toolVersion } from "../surgery/convert/version.js";
import { onnxruntimeVersion } from "../engine/onnxruntime/session.js";
import type { StudyResult } from "../model/results/result.js";

/** What the machine and the programs are that a study runs on. */
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
