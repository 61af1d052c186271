/** The first weights and the tokens of the training benchmark: every engine that is measured starts from these. */
import { randomStream } from "../dist/base/random.js";
import { writeTensorFile } from "../dist/files/io/tensor-file.js";
import { slotsOf } from "../dist/model/tensors/slots.js";
import { shape } from "./sizes.mjs";

/** AdamW of every engine; the decay falls on all parameters. */
export const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 };

/** Steps after which the data begin again. */
const PERIOD = 20;

/**
 * @param {string} key
 * @param {readonly number[]} dims
 */
export function startWeight(key, dims) {
  const data = new Float32Array(dims.reduce((a, b) => a * b, 1));
  if (dims.length === 1) return data.fill(1);
  randomStream(0, key).normals(data, 0, 0, key.endsWith("router") ? 0.1 : 0.04);
  return data;
}

/**
 * The tokens of one step, and the one that follows them; low ids are frequent.
 *
 * @param {number} vocab
 * @param {number} step
 * @param {{ batch: number, sequence: number }} [size]
 */
export function startTokens(vocab, step, { batch, sequence } = shape) {
  const stream = randomStream(0, "tokens");
  const count = batch * sequence;
  const first = (step % PERIOD) * count;
  return Int32Array.from({ length: count + 1 }, (_, i) => Math.floor(stream.uniformAt(first + i) ** 2 * vocab));
}

/** Both as a safetensors file: weights by slot key, `tokens` [PERIOD, batch * sequence + 1]. */
export async function writeStart(spec, path) {
  const slots = slotsOf(spec);
  const weights = new Map(slots.map(({ key, shape: dims }) => [key, dims]));
  /** @type {readonly import("../dist/files/formats/safetensors.js").TensorMeta[]} */
  const tensors = [
    ...slots.map(({ key, shape: dims }) => ({ name: key, dtype: /** @type {const} */ ("F32"), shape: dims })),
    { name: "tokens", dtype: "I32", shape: [PERIOD, shape.batch * shape.sequence + 1] },
  ];
  await writeTensorFile(path, tensors, async (name) => {
    const dims = weights.get(name);
    const data = dims === undefined ? allTokens(spec.vocab) : startWeight(name, dims);
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  });
}

function allTokens(vocab) {
  const count = shape.batch * shape.sequence + 1;
  const all = new Int32Array(PERIOD * count);
  for (let step = 0; step < PERIOD; step++) all.set(startTokens(vocab, step), step * count);
  return all;
}
