/** Golden models changed a little: parents that differ. */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { randomStream } from "../../src/base/random.js";
import { golden } from "./golden.js";

/**
 * A copy of a golden float32 model whose weights are multiplied by 1 + 0.2 times normal deviates of `seed` (0: not
 * changed), its config by `config`.
 */
export function perturbed(
  name: string,
  dir: string,
  seed: number,
  config: Readonly<Record<string, unknown>> = {},
): string {
  cpSync(golden(name), dir, { recursive: true });
  const path = join(dir, "config.json");
  writeFileSync(path, JSON.stringify({ ...(JSON.parse(readFileSync(path, "utf8")) as object), ...config }));
  if (seed === 0) return dir;
  const file = join(dir, "model.safetensors");
  const bytes = readFileSync(file);
  const begin = 8 + Number(bytes.readBigUInt64LE(0));
  const deviates = new Float64Array((bytes.length - begin) / 4);
  randomStream(seed, "perturbed").normals(deviates, 0, 1, 0.2);
  deviates.forEach((factor, i) => bytes.writeFloatLE(bytes.readFloatLE(begin + 4 * i) * factor, begin + 4 * i));
  writeFileSync(file, bytes);
  return dir;
}
