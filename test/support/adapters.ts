/** LoRA adapters of the golden models (`test/golden/adapters`), and the models that they make. */
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Checkpoint } from "../../src/files/checkpoint/open.js";
import { encodeSafetensors, type Dtype } from "../../src/files/formats/safetensors.js";
import { parseSafetensors } from "./safetensors.js";
import { convertBytes, floatBytes, type FloatDtype } from "../../src/files/numeric/dtype.js";
import { placements, storedTensors } from "../../src/model/tensors/placement.js";
import { putSlot } from "./put-slot.js";
import { golden } from "./golden.js";

/** Golden model that each is an adapter of. */
export const adapterBases = { llama: "llama", rslora: "llama", phi3: "phi3", gpt2: "gpt2" } as const;
export type AdapterCase = keyof typeof adapterBases;
export const adapterCases = Object.keys(adapterBases) as AdapterCase[];
export const adapterDir = (name: AdapterCase): string => golden("adapters", name);
export const baseDir = (name: AdapterCase): string => golden(`dense/${adapterBases[name]}`);

interface StoredBytes {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** The tensors of a small file. */
export function tensorsOf(path: string): Map<string, StoredBytes> {
  const file = new Uint8Array(readFileSync(path));
  return new Map(
    [...parseSafetensors(file, path).tensors].map(([name, { dtype, shape, begin, end }]) => [
      name,
      { dtype, shape, bytes: file.slice(begin, end) },
    ]),
  );
}

export function writeTensors(path: string, tensors: ReadonlyMap<string, StoredBytes>): void {
  writeFileSync(path, encodeSafetensors([...tensors].map(([name, tensor]) => ({ name, ...tensor }))));
}

/** A copy of a golden float32 model in another precision. */
export function rounded(name: string, dir: string, dtype: FloatDtype): string {
  cpSync(golden(name), dir, { recursive: true });
  const path = join(dir, "model.safetensors");
  writeTensors(
    path,
    new Map(
      [...tensorsOf(path)].map(([key, { shape, bytes }]) => [
        key,
        { dtype, shape, bytes: convertBytes("F32", dtype, bytes) },
      ]),
    ),
  );
  return dir;
}

/** A stored tensor put together from the slots that lie in it, as float32. */
export async function storedBytes(model: Checkpoint, name: string): Promise<Uint8Array> {
  const slots = storedTensors(model.spec).get(name)!;
  const whole = new Uint8Array(slots[0]!.shape.reduce((a, b) => a * b, floatBytes.F32));
  for (const place of slots) {
    const { dtype, bytes } = await model.readBytes(place.slot.key);
    const own = convertBytes(dtype, "F32", bytes);
    if (place.layout === null) whole.set(own);
    else putSlot(place, whole, own, floatBytes.F32);
  }
  return whole;
}

/** A folder of the merged model in float32, of one that is open with its adapter. */
export async function mergedFolder(model: Checkpoint, dir: string): Promise<string> {
  cpSync(model.dir, dir, { recursive: true });
  const path = join(dir, "model.safetensors");
  rmSync(path);
  const tensors = new Map<string, StoredBytes>();
  for (const { name, shape } of placements(model.spec))
    tensors.set(name, { dtype: "F32", shape, bytes: await storedBytes(model, name) });
  writeTensors(path, tensors);
  return dir;
}

/** A copy of an adapter, its config and its tensors changed. */
export function changedAdapter(
  name: AdapterCase,
  dir: string,
  config: Readonly<Record<string, unknown>>,
  change: (tensors: Map<string, StoredBytes>) => void = () => undefined,
): string {
  cpSync(adapterDir(name), dir, { recursive: true });
  const path = join(dir, "adapter_config.json");
  writeFileSync(path, JSON.stringify({ ...(JSON.parse(readFileSync(path, "utf8")) as object), ...config }, null, 2));
  const file = join(dir, "adapter_model.safetensors");
  const tensors = tensorsOf(file);
  change(tensors);
  writeTensors(file, tensors);
  return dir;
}
