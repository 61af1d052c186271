/** Reading the golden models that Hugging Face transformers computed. */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseSafetensors } from "./safetensors.js";

const goldenDir = fileURLToPath(new URL("../golden/", import.meta.url));

export interface GoldenTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array;
}

/** All F32 and I32 tensors of a small file. */
export function readTensors(path: string): Map<string, GoldenTensor> {
  const file = new Uint8Array(readFileSync(path));
  return new Map(
    [...parseSafetensors(file, path).tensors].map(([name, { dtype, shape, begin, end }]) => {
      const bytes = file.slice(begin, end).buffer;
      return [name, { shape, data: dtype === "I32" ? new Int32Array(bytes) : new Float32Array(bytes) }];
    }),
  );
}

const modelsOf = (kind: string): string[] =>
  readdirSync(join(goldenDir, kind))
    .sort()
    .map((name) => `${kind}/${name}`);

/** Models with expected logits and loss. */
export const goldenModels = ["dense", "moe"].flatMap(modelsOf);

/** Models with first gradients and a training trajectory. */
export const goldenTrajectories = modelsOf("train");

/** Every golden model folder. */
export const goldenFolders = [...goldenModels, ...goldenTrajectories];

/** Names of a golden model's weight files. */
export function weightFiles(name: string): string[] {
  return readdirSync(golden(name))
    .filter((file) => /^model.*\.safetensors$/.test(file))
    .sort();
}

export const golden = (name: string, ...file: string[]): string => join(goldenDir, name, ...file);

/** ||a - b|| / ||b|| */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < b.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    norm += b[i]! ** 2;
  }
  return Math.sqrt(difference / Math.max(norm, 1e-30));
}

/**
 * Inputs and next-token targets of sequences [B, S]; the last position of each has no target, as in transformers' loss.
 */
export function shifted(ids: ArrayLike<number>, sequence: number): { ids: Int32Array; targets: Int32Array } {
  const all = Int32Array.from(ids);
  return { ids: all, targets: all.map((_, i) => (i % sequence === sequence - 1 ? -1 : all[i + 1]!)) };
}

/** Of `trajectory.json`, see test/golden/README.md. */
export interface Trajectory {
  readonly optimizer: {
    lr: number;
    betas: [number, number];
    eps: number;
    weight_decay: number;
    clip_grad_norm: number;
  };
  readonly steps: readonly { loss: number; aux_loss: number | null; grad_norm: number }[];
}

/** Golden gradients of one expert: transformers 5 holds [E, 2M, H] gate and up rows, and [E, H, M], in memory. */
export function goldenGradient(gradients: ReadonlyMap<string, GoldenTensor>, name: string): Float32Array {
  const direct = gradients.get(name);
  if (direct !== undefined) return direct.data as Float32Array;
  const match = /^(.*)\.(?:block_sparse_moe|mlp)\.(?:experts\.(\d+)\.(\w+)|gate)\.weight$/.exec(name);
  if (match === null) throw new Error(`no golden gradient for ${name}`);
  const [, layer, expert, part] = match;
  if (expert === undefined) return gradients.get(`${layer}.mlp.gate.weight`)!.data as Float32Array;
  const down = part === "w2" || part === "down_proj";
  const { data, shape } = gradients.get(`${layer}.mlp.experts.${down ? "down_proj" : "gate_up_proj"}`)!;
  const size = shape[1]! * shape[2]!;
  const whole = data.subarray(Number(expert) * size, (Number(expert) + 1) * size) as Float32Array;
  if (down) return whole;
  const up = part === "w3" || part === "up_proj";
  return up ? whole.subarray(size / 2) : whole.subarray(0, size / 2);
}
