/** The machine that a training runs on, and what of it computes. */
import { arch, cpus, platform, release } from "node:os";
import type { Backend } from "../engine/runtime/runtime.js";
import type { Machine } from "../model/results/machine.js";

/** Node's version, the platform, the processor, and the names of what computes, of which there is at least one. */
export function machineOf(backends: readonly [Backend, ...Backend[]]): Machine {
  const { numerics } = backends[0];
  const names = [...new Set(backends.map(({ name }) => name))].join(", ");
  return {
    node: process.versions.node,
    platform: `${platform()} ${release()} ${arch()}`,
    cpu: `${cpus()[0]?.model.trim() ?? "unknown"} x ${cpus().length}`,
    device: names === numerics ? names : `${numerics} on ${names}`,
  };
}
