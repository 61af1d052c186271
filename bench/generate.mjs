/**
 * Compares the speed of reading a prompt and of generating tokens with Hugging Face transformers, with the same model
 * and token ids, and greedy decoding. On the CPU, with the same number of threads:
 *
 *   node bench/generate.mjs [--python PATH] [--threads 2] [--prompt 256] [--new 64] [--batch 1,8] [--rounds 5]
 *     [--write FILE]
 *
 * On a GPU, in bfloat16 (--precision), against a static cache and torch.compile on the same GPU:
 *
 *   node bench/generate.mjs --device cuda [--python PATH] [--prompt 512] [--new 128] [--batch 1,8,64] [--rounds 7]
 *     [--sizes dense135M,dense956M,E8G1T2] [--modes reduce-overhead,graph] [--launches] [--after FILE] [--write FILE]
 *
 * --launches prints what each kind of launch of a prompt and of a step takes on its own, outside of a graph. --after
 * begins the rounds once FILE is there, so that transformers may compile while others use the GPU.
 *
 * Without --python only Upcycle is measured. Times are medians over the rounds; on a GPU the engines take turns, and
 * the fastest mode of transformers counts. On the CPU transformers runs its eager loop with its own cache. Compilation
 * is counted for nobody.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeCheckpoint } from "../dist/files/checkpoint/write.js";
import { startDecoding } from "../dist/evals/decoding.js";
import { openModel } from "../dist/evals/model.js";
import { onnxruntimeBackend } from "../dist/engine/onnxruntime/backend.js";
import { cudaBackend } from "../dist/engine/cuda/backend.js";
import { CudaForwardRuntime } from "../dist/engine/cuda/forward-runtime.js";
import { argmax } from "../dist/text/tokens/sample.js";
import { median, model as decoder, sizes, weightOf } from "./gpu-model.mjs";
import { specs } from "./sizes.mjs";
import { startWeight } from "./start.mjs";

const { values } = parseArgs({
  options: {
    python: { type: "string" },
    device: { type: "string", default: "cpu" },
    precision: { type: "string", default: "bf16" },
    sizes: { type: "string", default: "dense135M,dense956M,E8G1T2" },
    modes: { type: "string", default: "reduce-overhead,graph" },
    threads: { type: "string", default: "2" },
    prompt: { type: "string" },
    new: { type: "string" },
    batch: { type: "string" },
    rounds: { type: "string" },
    launches: { type: "boolean", default: false },
    after: { type: "string" },
    write: { type: "string" },
  },
});
const onGpu = values.device !== "cpu";
const usual = onGpu
  ? { prompt: "512", new: "128", batch: "1,8,64", rounds: "7" }
  : { prompt: "256", new: "64", batch: "1,8", rounds: "5" };
const [threads, prompt, fresh, rounds] = [
  values.threads,
  ...["prompt", "new", "rounds"].map((name) => values[name] ?? usual[name]),
].map(Number);
const batches = (values.batch ?? usual.batch).split(",").map(Number);
const folder = mkdtempSync(join(tmpdir(), "upcycle-bench-"));
const results = [];

/** A head whose rows all differ: equal ones would make logits equal, and a choice among equals is nobody's. */
/** @param {readonly number[]} dims */
function distinctRows([rows, size]) {
  const data = new Float32Array(rows * size);
  let state = 1;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    data[i] = state * 2 ** -31 * 0.07;
  }
  return data;
}

const promptsOf = (vocab, batch) =>
  Array.from({ length: batch }, (_, row) => Array.from({ length: prompt }, (_, i) => (37 * i + 11 * row + 5) % vocab));

/** One round on a GPU: milliseconds of the prompt and of what follows, as a caller sees them; and the tokens. */
async function roundOnGpu(model, prompts) {
  let start = performance.now();
  let decoding = await startDecoding(model, prompts, { expected: fresh, likeliest: true });
  const promptMs = performance.now() - start;
  const texts = [decoding.likely];
  start = performance.now();
  while (texts.length < fresh) {
    const found = await decoding.nextLikeliest(texts.at(-1), fresh - texts.length);
    texts.push(...found.steps);
    decoding = found.after;
  }
  return { promptMs, newMs: performance.now() - start, ids: prompts.map((_, row) => texts.map((ids) => ids[row])) };
}

/** transformers in a process that answers each line with a round; what it says first, and how to ask it. */
function opponent(dir, batch, mode) {
  const script = fileURLToPath(new URL("./torch/generate_gpu.py", import.meta.url));
  const child = spawn(values.python, [script, dir, prompt, fresh, batch, mode].map(String), {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async () => {
    const { done, value } = await lines.next();
    return done ? null : JSON.parse(value);
  };
  const ready = answer();
  return {
    batch,
    ready,
    round: () => {
      child.stdin.write("round\n");
      return answer();
    },
    close: () => child.stdin.end(),
  };
}

/** Speeds out of rounds. */
const speeds = (batch, all) => ({
  promptTokensPerSecond: (batch * prompt * 1000) / median(all.map(({ promptMs }) => promptMs)),
  tokensPerSecond: (batch * (fresh - 1) * 1000) / median(all.map(({ newMs }) => newMs)),
});

/** The programs of a prompt and of a step that a model has open. */
let extensions = new Map();
const { likeliest } = CudaForwardRuntime.prototype;
CudaForwardRuntime.prototype.likeliest = function (...asked) {
  // It is private, and nobody else needs it.
  extensions = this["extensions"];
  return likeliest.apply(this, asked);
};

/** Milliseconds of the launches of each kind, and how many they are, by program. */
async function launchTimes() {
  const programs = {};
  for (const [name, { program }] of extensions) {
    await program.measure();
    const kinds = new Map();
    for (const { name: kind, ms, bytes, flops } of await program.measure()) {
      const sum = kinds.get(kind) ?? { count: 0, ms: 0, limitMs: 0 };
      const limitMs = Math.max(bytes / 4.2e9, flops / 790e9);
      kinds.set(kind, { count: sum.count + 1, ms: sum.ms + ms, limitMs: sum.limitMs + limitMs });
    }
    const rows = [...kinds].toSorted(([, a], [, b]) => b.ms - a.ms);
    programs[name] = rows.map(
      ([kind, { count, ms, limitMs }]) => `${count} ${kind}: ${ms.toFixed(3)} of ${limitMs.toFixed(3)}`,
    );
  }
  return programs;
}

async function measureOnGpu(name, dir, opponents) {
  const precision = /** @type {import("../dist/engine/cuda/lowering/options.js").Precision} */ (values.precision);
  const backend = cudaBackend(Number(/\d+$/.exec(values.device)?.[0] ?? 0), { precision });
  const model = await openModel(dir, backend, threads);
  for (const batch of batches) {
    const prompts = promptsOf(model.spec.vocab, batch);
    const start = performance.now();
    await roundOnGpu(model, prompts);
    const firstMs = performance.now() - start;
    await roundOnGpu(model, prompts);
    const asked = [];
    for (const one of opponents.filter((each) => each.batch === batch)) {
      const ready = await one.ready;
      if (ready !== null) asked.push({ ...one, ready, rounds: [] });
    }
    const own = [];
    for (let round = 0; round < rounds; round++) {
      own.push(await roundOnGpu(model, prompts));
      for (const one of asked) {
        const answer = await one.round();
        if (answer !== null) one.rounds.push(answer);
      }
    }
    const upcycle = { ...speeds(batch, own), firstRoundMs: firstMs };
    const transformers = asked.map(({ ready, rounds: all }) => ({
      ...ready,
      ...speeds(batch, all),
      reader: all.at(-1)?.reader,
      sameTokens:
        all
          .at(-1)
          ?.ids.flat()
          .filter((id, i) => id === own.at(-1).ids.flat()[i]).length /
        (batch * fresh),
    }));
    const best = (key) => Math.max(...transformers.map((each) => each[key]));
    const ratio = {
      prompt: upcycle.promptTokensPerSecond / best("promptTokensPerSecond"),
      generation: upcycle.tokensPerSecond / best("tokensPerSecond"),
    };
    const result = { size: name, batch, upcycle, ...(transformers.length === 0 ? {} : { transformers, ratio }) };
    results.push(result);
    console.log(JSON.stringify(result));
    if (values.launches) console.log(JSON.stringify(await launchTimes(), null, 1));
    for (const one of asked) one.close();
  }
  await model.close();
}

async function onTheGpu() {
  const models = [];
  for (const name of values.sizes.split(",")) {
    const spec = decoder(sizes[name]);
    const dir = join(folder, name);
    await writeCheckpoint({
      dir,
      spec,
      dtype: "BF16",
      weights: ({ key, shape }) => Promise.resolve(key === "head" ? distinctRows(shape) : weightOf(key, shape)),
    });
    models.push({ name, dir });
  }
  // All compile side by side before anything is measured.
  const opponents =
    values.python === undefined
      ? []
      : models.flatMap(({ dir }) =>
          batches.flatMap((batch) => values.modes.split(",").map((mode) => ({ dir, ...opponent(dir, batch, mode) }))),
        );
  await Promise.all(opponents.map(({ ready }) => ready));
  while (values.after !== undefined && !existsSync(values.after)) await new Promise((done) => setTimeout(done, 100));
  for (const { name, dir } of models)
    await measureOnGpu(
      name,
      dir,
      opponents.filter((one) => one.dir === dir),
    );
}

async function ours(model, batch) {
  const { vocab } = model.spec;
  const prompts = promptsOf(vocab, batch);
  const [reads, writes] = [[], []];
  let texts = [];
  for (let round = 0; round <= rounds; round++) {
    let decoding = await startDecoding(model, prompts, { expected: fresh });
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

async function onTheCpu() {
  for (const size of ["dense", "moe", "fine"]) {
    const spec = { ...specs[size], maxPositions: 4096 };
    const dir = join(folder, size);
    await writeCheckpoint({
      dir,
      spec,
      dtype: "F32",
      weights: (slot) => Promise.resolve(startWeight(slot.key, slot.shape)),
    });
    for (const batch of batches) {
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
}

try {
  await (onGpu ? onTheGpu() : onTheCpu());
  if (values.write !== undefined) {
    const record = {
      date: new Date().toISOString().slice(0, 10),
      cpu: cpus()[0].model,
      cores: cpus().length,
      node: process.version,
      ...(onGpu ? { device: values.device, precision: values.precision } : { threads }),
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
