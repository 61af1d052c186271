/** The machine and the programs that a study's numbers were measured with. */
import { machineOf } from "../train/machine.js";
import { toolVersion } from "../surgery/convert/version.js";
import type { Machine } from "../model/results/machine.js";
import type { ArmResult, StudyResult } from "../model/results/result.js";
import type { StudyOptions } from "./types.js";

/** The programs' versions, and where the runs were trained, which may be elsewhere: see `StudyResult`. */
export async function environment(
  { threads, backends }: Pick<StudyOptions, "threads" | "backends">,
  arms: readonly Pick<ArmResult, "runs">[],
): Promise<StudyResult["environment"]> {
  const here = machineOf(backends);
  const recorded = arms.flatMap(({ runs }) => runs.flatMap(({ machine }) => machine ?? []));
  const machines = recorded.length === 0 ? [here] : recorded;
  const each = (key: keyof Machine): string => [...new Set(machines.map((machine) => machine[key]))].sort().join("; ");
  // The engine's native library, for which the help of a study does not wait.
  const { onnxruntimeVersion } = await import("../engine/onnxruntime/session.js");
  return {
    upcycle: toolVersion,
    node: each("node"),
    onnxruntime: onnxruntimeVersion,
    platform: each("platform"),
    cpu: each("cpu"),
    threads,
    device: each("device"),
  };
}
