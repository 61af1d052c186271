/** Kernels from their sources to machine code, which is kept on disk by content and architecture as graphs are. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { graphCache, graphCacheFolder } from "../cache/graph-cache.js";
import type { KernelModule, Storage } from "./lowering/launches.js";
import type { Compiler } from "./nvrtc.js";

const sourceOf = (file: string): string => readFileSync(new URL(`./kernels/${file}`, import.meta.url), "utf8");

/** Modules that use what compute capability 9.0 alone has. */
const hopperModules: ReadonlySet<KernelModule> = new Set<KernelModule>(["flash-hopper", "ragged"]);

/** What all kernels share, then a module's own source, whose lines keep their numbers in messages. */
export function moduleSource(module: KernelModule): string {
  const shared = hopperModules.has(module) ? ["common.cuh", "hopper.cuh"] : ["common.cuh"];
  return [...shared, `${module}.cu`].map((file) => `#line 1 "${file}"\n${sourceOf(file)}`).join("\n");
}

/** A module compiled for one element type of activations. */
export interface ModuleVariant {
  readonly module: KernelModule;
  readonly real: Storage;
}

/** Machine code of a module for an architecture such as "sm_90". */
export async function machineCode(
  compiler: Compiler,
  { module, real }: ModuleVariant,
  architecture: string,
): Promise<Uint8Array> {
  const source = moduleSource(module);
  const target = hopperModules.has(module) ? `${architecture}a` : architecture;
  const options = [`--gpu-architecture=${target}`, "--std=c++17", ...(real === "bf16" ? ["-DA=bf16"] : [])];
  const key = createHash("sha256")
    .update(JSON.stringify(["kernels", compiler.version, options]))
    .update(source)
    .digest("hex");
  const folder = graphCacheFolder(process.env);
  const cache = folder === null ? null : graphCache(folder);
  const known = await cache?.read(key);
  if (known !== undefined) return known;
  const code = await compiler.compile(source, `${module}.cu`, options);
  await cache?.write(key, [code]);
  return code;
}
