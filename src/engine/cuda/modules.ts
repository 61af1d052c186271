/** Kernels from their sources to machine code, which is kept on disk by content and architecture as graphs are. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { graphCache, graphCacheFolder } from "../cache/graph-cache.js";
import type { KernelModule, Storage } from "./lowering/launches.js";
import type { Compiler } from "./nvrtc.js";

const sourceOf = (file: string): string => readFileSync(new URL(`./kernels/${file}`, import.meta.url), "utf8");

/** Sources that use what compute capability 9.0 alone has. */
const hopperSources: ReadonlySet<string> = new Set(["flash-hopper", "ragged"]);

/** Sources that work in the tiles of tiles.cuh. */
const tiledSources: ReadonlySet<string> = new Set(["attention-tiled", "attention-gradients"]);

/**
 * A module's source, and the macros that choose the part of it that is compiled: the sizes of heads take seconds each,
 * compile beside each other, and most programs need one.
 */
function partOf(module: KernelModule): { readonly source: string; readonly macros: readonly string[] } {
  const [, source, head, capped] = /^([a-z-]+)-(\d+)(-capped)?$/.exec(module) ?? [];
  if (source === undefined) return { source: module, macros: [] };
  const cap = tiledSources.has(source) ? [] : [`-DSOFT_CAP=${capped === undefined ? 0 : 1}`];
  return { source, macros: [`-DHEAD_SIZE=${head}`, ...cap] };
}

/** What all kernels share, then a module's own source, whose lines keep their numbers in messages. */
function sourceText(source: string): string {
  const hopper = hopperSources.has(source) ? ["hopper.cuh"] : [];
  const tiles = tiledSources.has(source) ? ["tiles.cuh"] : [];
  return ["common.cuh", ...hopper, ...tiles, `${source}.cu`]
    .map((file) => `#line 1 "${file}"\n${sourceOf(file)}`)
    .join("\n");
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
  const part = partOf(module);
  const source = sourceText(part.source);
  const target = hopperSources.has(part.source) ? `${architecture}a` : architecture;
  const type = real === "bf16" ? ["-DA=bf16"] : [];
  const options = [`--gpu-architecture=${target}`, "--std=c++17", ...type, ...part.macros];
  const key = createHash("sha256")
    .update(JSON.stringify(["kernels", compiler.version, options]))
    .update(source)
    .digest("hex");
  const folder = graphCacheFolder(process.env);
  const cache = folder === null ? null : graphCache(folder);
  const known = await cache?.read(key);
  if (known !== undefined) return known;
  const code = await compiler.compile(source, `${part.source}.cu`, options);
  await cache?.write(key, [code]);
  return code;
}
