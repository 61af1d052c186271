/** Writes the dense model that the conversion benchmark starts from: Llama-shaped, 542M parameters, bfloat16, seeded. */
import { randomStream } from "../dist/base/random.js";
import { areaWeights, writeCheckpoint } from "../dist/checkpoint/write.js";
import { plainAttention, plainRope } from "../dist/spec/plain.js";
import { plainBlocks, rmsNorm } from "../dist/spec/types.js";

/** 8 layers, hidden 2048, FFN 5632, vocabulary 32000, 32 query heads on 8 key and value heads of 64. `changes` for other sizes. */
export function sourceSpec({ layers = 8, hidden = 2048, inner = 5632, vocab = 32000, heads = 32, kvHeads = 32 } = {}) {
  const layer = { window: null, rope: plainRope(10000, hidden / heads), ffn: { kind: "dense", inner, bias: false, activation: "silu", gated: true } };
  return {
    family: "llama", vocab, hidden, tiedHead: false, ...plainBlocks, norm: rmsNorm(1e-5), maxPositions: 2048,
    attn: { ...plainAttention({ heads, kvHeads, headDim: hidden / heads }) },
    layers: Array.from({ length: layers }, () => layer),
    tokens: { bos: 1, eos: [2], pad: null }, initStd: 0.02, auxLossCoef: 0,
  };
}

/** Values of std 0.02 in bfloat16: one drawn block, begun at another place for each row, so that no two rows are equal. */
export async function writeSource(dir, spec, { overwrite = true } = {}) {
  const drawn = new Float32Array(1 << 18);
  randomStream(1, "bench").normals(drawn, 0, 0, 0.02);
  const bits = new Uint32Array(drawn.buffer);
  const block = new Uint16Array(2 * bits.length);
  for (let i = 0; i < block.length; i++) block[i] = bits[i % bits.length] >>> 16;
  const bytes = new Uint8Array(block.buffer);
  const area = async ({ key }, { rowStart, rowCount, columnCount }, _dtype, into) => {
    const base = [...key].reduce((hash, char) => (hash * 31 + char.charCodeAt(0)) >>> 0, 7);
    for (let row = 0; row < rowCount; row++) {
      for (let done = 0; done < columnCount; done += 1 << 18) {
        const count = Math.min(1 << 18, columnCount - done);
        const from = (base + (rowStart + row) * 7919 + done) % (1 << 18);
        into.set(bytes.subarray(2 * from, 2 * (from + count)), 2 * (row * columnCount + done));
      }
    }
    return into.subarray(0, 2 * rowCount * columnCount);
  };
  await writeCheckpoint({ dir, spec, dtype: "BF16", weights: areaWeights(area), overwrite });
}
