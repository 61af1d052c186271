/**
 * Compares the speed of reading a prompt and of generating tokens with Hugging Face transformers, with the same model,
 * token ids and number of threads, and greedy decoding:
 *
 *   node bench/generate.mjs [--python PATH] [--threads 2] [--prompt 256] [--new 64] [--batch 1,8] [--rounds 5]
 *     [--write FILE]
 *
 * Without --python only Upcycle is measured. Times are medians over the rounds. transformers runs its eager loop with
 * its own cache; compilation is counted for neither.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeCheckpoint } from "../dist/files/checkpoint/write.js";
import { startDecoding } from "../dist/evals/decoding.js";
import { openModel } from "../dist/evals/model.js";
import { onnxruntimeBackend } from "../dist/engine/onnxruntime/backend.js";
import { argmax } from "../dist/text/tokens/sample.js";
import { specs } from "./sizes.mjs";
import { startWeight } from "./start.mjs";

const { values } = parseArgs({
  options: {
    python: { type: "string" },
    threads: { type: "string", default: "2" },
    prompt: { type: "string", default: "256" },
    new: { type: "string", default: "64" },
    batch: { type: "string", default: "1,8" },
    rounds: { type: "string", default: "5" },
    write: { type: "string" },
  },
});
const [threads, prompt, fresh, rounds] = [values.threads, values.prompt, values.new, values.rounds].map(Number);
const median = (times) => [...times].sort((a, b) => a - b)[times.length >> 1];
const folder = mkdtempSync(join(tmpdir(), "upcycle-bench-"));
const results = [];

async function ours(model, batch) {
  const { vocab } = model.spec;
  const prompts = Array.from({ length: batch }, (_, row) =>
    Array.from({ length: prompt }, (_, i) => (37 * i + 11 * row + 5) % vocab),
  );
  const [reads, writes] = [[], []];
  let texts = [];
  for (let round = 0; round <= rounds; round++) {
    let decoding = await startDecoding(model, prompts, fresh);
    const choose = () => prompts.map((_, row) => argmax(decoding.logits.subarray(row * vocab, (row + 1) * vocab)));
    texts = [choose()];
    while (texts.length < fresh) {
      decoding = await decoding.next(texts.at(-1));
      texts.push(choose());
    }
    // The first round compiles and warms up.
    if (round === 0) continue;
    reads.push(decoding.timings.promptMs);
    writes.push(decoding.timings.newMs);
  }
  return {
    promptTokensPerSecond: (batch * prompt * 1000) / median(reads),
    tokensPerSecond: (batch * (fresh - 1) * 1000) / median(writes),
    ids: prompts.map((_, row) => texts.map((ids) => ids[row])),
  };
}

function theirs(dir, batch) {
  const script = fileURLToPath(new URL("./torch/generate.py", import.meta.url));
  const args = [script, dir, threads, prompt, fresh, batch, rounds].map(String);
  const { status, stdout, stderr } = spawnSync(values.python, args, {
    encoding: "utf8",
    env: { ...process.env, OMP_NUM_THREADS: String(threads) },
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout.trim().split("\n").at(-1));
}

try {
  for (const size of ["dense", "moe", "fine"]) {
    const spec = { ...specs[size], maxPositions: 4096 };
    const dir = join(folder, size);
    await writeCheckpoint({
      dir,
      spec,
      dtype: "F32",
      weights: (slot) => Promise.resolve(startWeight(slot.key, slot.shape)),
    });
    for (const batch of values.batch.split(",").map(Number)) {
      const model = await openModel(dir, onnxruntimeBackend, threads);
      const { ids, ...upcycle } = await ours(model, batch);
      await model.close();
      const result = { size, batch, upcycle };
      if (values.python !== undefined) {
        const { ids: expected, ...transformers } = theirs(dir, batch);
        const same = ids.flat().filter((id, i) => id === expected.flat()[i]).length / ids.flat().length;
        Object.assign(result, {
          transformers,
          sameTokens: same,
          ratio: {
            prompt: upcycle.promptTokensPerSecond / transformers.promptTokensPerSecond,
            generation: upcycle.tokensPerSecond / transformers.tokensPerSecond,
          },
        });
      }
      results.push(result);
      console.log(JSON.stringify(result));
    }
  }
  if (values.write !== undefined) {
    const record = {
      date: new Date().toISOString().slice(0, 10),
      cpu: cpus()[0].model,
      cores: cpus().length,
      node: process.version,
      threads,
      prompt,
      new: fresh,
      rounds,
      results,
    };
    writeFileSync(values.write, `${JSON.stringify(record, null, 2)}\n`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
