/**
 * How products are made best: cuBLASLt's proposals are timed on the GPU, once for each size, and what was chosen is
 * kept on disk. Other ways add up in another order, so equal bits need equal choices: that is why they are kept.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { at } from "../../base/at.js";
import { graphCache, graphCacheFolder, type GraphCache } from "../cache/graph-cache.js";
import type { ProductLaunch } from "./lowering/launches.js";
import type { Address } from "./native.js";
import { sizesKey, type Product, type ProductPlan } from "./products.js";
import type { Stream } from "./stream.js";

/** Another proposal than the first is taken where it needs at most this share of the first one's time. */
const WORTH = 0.97;
/** Runs that are timed, behind one that is not. */
const RUNS = 5;

/** A product and the operands that it is timed with; its output is overwritten. */
export interface TunedProduct {
  readonly launch: ProductLaunch;
  readonly operands: Parameters<Product>[0];
}

/** How a product uses its addend, which is part of its name. */
export const useOf = ({ addend }: Pick<ProductLaunch, "addend">): string => (addend === null ? "" : "added to");

/** Place of the time that is worth choosing: the first, unless another is clearly shorter. */
export function worthChoosing(times: readonly number[]): number {
  const first = times[0] ?? Infinity;
  const best = Math.min(...times);
  return best < WORTH * first ? times.indexOf(best) : 0;
}

/**
 * Where choices are kept, in the folder of the graphs: a folder of their own, whose limit they do not come near. Among
 * the graphs, which are a million times as large, they would be removed to make room, and a run that goes on would add
 * up in another order. Earlier versions kept them there.
 */
export function choiceCache(folder: string): GraphCache {
  const [own, shared] = [graphCache(join(folder, "choices")), graphCache(folder)];
  return {
    async read(key) {
      const known = await own.read(key);
      if (known !== undefined) return known;
      const earlier = await shared.read(key);
      if (earlier !== undefined) await own.write(key, [earlier]);
      return earlier;
    },
    write: (key, parts) => own.write(key, parts),
  };
}

/**
 * Chooses how each product is made that was not chosen before. Nothing is timed where nothing can be kept, and under
 * `UPCYCLE_CUDA_TUNE=off`.
 */
export async function tune(stream: Stream, products: readonly TunedProduct[]): Promise<void> {
  const folder = graphCacheFolder(process.env);
  if (folder === null || process.env["UPCYCLE_CUDA_TUNE"] === "off") return;
  const cache = choiceCache(folder);
  const { device } = stream;
  for (const { launch, operands } of products) {
    const name = `${sizesKey(launch)} ${useOf(launch)}`;
    const plan = device.products.plan(launch, useOf(launch));
    if (launch.compute === "f32" || plan.candidates.length < 2 || device.tuned.has(name)) continue;
    device.tuned.add(name);
    const key = createHash("sha256")
      .update(JSON.stringify(["products", device.facts.name, device.products.version, name]))
      .digest("hex");
    const kept = await cache.read(key);
    if (kept?.byteLength === plan.algorithm.byteLength) {
      plan.algorithm = kept;
      continue;
    }
    plan.algorithm = await keptChoice(cache, key, await fastest(stream, plan, operands));
  }
}

/**
 * The choice that stays: where another command has chosen meanwhile, its choice, so that all of them, and whoever goes
 * on with their runs, add up in one order.
 */
export async function keptChoice(cache: GraphCache, key: string, choice: Uint8Array): Promise<Uint8Array> {
  const others = await cache.read(key);
  if (others?.byteLength === choice.byteLength) return others;
  await cache.write(key, [choice]);
  return choice;
}

/** The candidate that is worth choosing. */
async function fastest(stream: Stream, plan: ProductPlan, operands: TunedProduct["operands"]): Promise<Uint8Array> {
  const { device } = stream;
  const { driver } = device;
  device.enter();
  const events = plan.candidates.flatMap((): Address[] => [0, 1].map(() => driver.handle("cuEventCreate", [0])));
  const record = (index: number): void => driver.call("cuEventRecord", [at(events, index), stream.handle]);
  for (const [i, candidate] of plan.candidates.entries()) {
    plan.algorithm = candidate;
    plan.run(operands, stream.handle, stream.workspace.address);
    record(2 * i);
    for (let run = 0; run < RUNS; run++) plan.run(operands, stream.handle, stream.workspace.address);
    record(2 * i + 1);
  }
  await stream.finished();
  device.enter();
  const elapsed = new Float32Array(1);
  const times = plan.candidates.map((_, i) => {
    driver.call("cuEventElapsedTime_v2", [elapsed, at(events, 2 * i), at(events, 2 * i + 1)]);
    return elapsed[0] ?? Infinity;
  });
  for (const event of events) driver.release("cuEventDestroy_v2", [event]);
  return at(plan.candidates, worthChoosing(times));
}
