/**
 * Writes the dense model that the conversion benchmark (`convert.mjs`) starts from, and a LoRA adapter for it. The
 * model has the shape of Llama, 542M parameters in bfloat16, and random weights from a seed.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { randomStream } from "../dist/base/random.js";
import { rectangleWeights, writeCheckpoint } from "../dist/files/checkpoint/write.js";
import { encodeSafetensors } from "../dist/files/formats/safetensors.js";
import { plainAttention, plainRope } from "../dist/model/decoder/plain.js";
import { plainBlocks, rmsNorm } from "../dist/model/decoder/types.js";
import { namedSlots } from "../dist/model/tensors/names.js";

/**
 * 8 layers, hidden 2048, FFN 5632, vocabulary 32000, 32 query heads on 8 key and value heads of 64. `changes` for other
 * sizes.
 */
export function sourceSpec({ layers = 8, hidden = 2048, ffnDim = 5632, vocab = 32000, heads = 32, kvHeads = 32 } = {}) {
  const layer = {
    window: null,
    rope: plainRope(10000, hidden / heads),
    ffn: { kind: "dense", ffnDim, bias: false, activation: "silu", gated: true },
  };
  return {
    family: "llama",
    vocab,
    hidden,
    tiedHead: false,
    ...plainBlocks,
    norm: rmsNorm(1e-5),
    maxPositions: 2048,
    attn: { ...plainAttention({ heads, kvHeads, headDim: hidden / heads }) },
    layers: Array.from({ length: layers }, () => layer),
    tokens: { bos: 1, eos: [2], pad: null },
    initStd: 0.02,
    auxLossCoef: 0,
  };
}

/**
 * Values of std 0.02 in bfloat16: one drawn block, begun at another place for each row, so that no two rows are equal.
 */
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
  await writeCheckpoint({ dir, spec, dtype: "BF16", weights: rectangleWeights(area), overwrite });
}

/** A LoRA adapter as PEFT saves it, float32, on every linear module of every layer. */
export function writeAdapter(dir, spec, rank) {
  const random = randomStream(1, "bench adapter");
  let drawn = 0;
  const factor = (name, shape) => {
    const values = new Float32Array(shape[0] * shape[1]);
    random.normals(values, drawn, 0, 0.02);
    drawn += values.length;
    return { name, dtype: "F32", shape, bytes: new Uint8Array(values.buffer) };
  };
  const modules = namedSlots(spec).flatMap(({ slot: { shape }, names: [name] }) =>
    /_proj\.weight$/.test(name) ? [{ name: `base_model.model.${name.slice(0, -".weight".length)}`, shape }] : [],
  );
  const tensors = modules.flatMap(({ name, shape: [out, width] }) => [
    factor(`${name}.lora_A.weight`, [rank, width]),
    factor(`${name}.lora_B.weight`, [out, rank]),
  ]);
  mkdirSync(dir);
  writeFileSync(
    join(dir, "adapter_config.json"),
    JSON.stringify({
      peft_type: "LORA",
      task_type: "CAUSAL_LM",
      r: rank,
      lora_alpha: 2 * rank,
      target_modules: "all-linear",
    }),
  );
  writeFileSync(join(dir, "adapter_model.safetensors"), encodeSafetensors(/** @type {any} */ (tensors)));
}
