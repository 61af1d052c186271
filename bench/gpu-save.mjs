// What a checkpoint costs while steps go on: node bench/gpu-save.mjs [--size dense8.5M] [--shape 16x512] [--steps 100]
// [--pairs 20] [--dir DIR]
// -> one JSON line: the median over so many pairs of pieces of a training, each piece so many steps with and without a
// checkpoint that begins with it, of what the checkpoint adds to the piece's time. Both kinds come first in turn.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { cudaBackend } from "../dist/engine/cuda/backend.js";
import { trainProgram } from "../dist/graph/programs/programs.js";
import { saveState, stateLayout } from "../dist/train/saved.js";
import { median, model, sizes, weightOf } from "./gpu-model.mjs";
import { optimizer, startTokens } from "./start.mjs";

const { values: flags } = parseArgs({
  options: {
    size: { type: "string", default: "dense8.5M" },
    shape: { type: "string", default: "16x512" },
    steps: { type: "string", default: "100" },
    pairs: { type: "string", default: "20" },
    dir: { type: "string" },
  },
});
const [batch, sequence] = flags.shape.split("x").map(Number);
const [steps, pairs] = [Number(flags.steps), Number(flags.pairs)];
const spec = model(sizes[flags.size]);
const shape = { batch, sequence, auxCoef: 0.01, zCoef: 0 };
const program = trainProgram(spec, shape);
const runtime = await cudaBackend(0, { precision: "bf16" }).openTrain(program, { threads: 1, accumulate: false });
for (const { key, shape: dims } of program.params) await runtime.write("weight", key, weightOf(key, dims));

const layout = stateLayout({ frozen: new Set(), tuning: {} }, { dtype: "F32", average: false });
const root = flags.dir ?? mkdtempSync(join(tmpdir(), "upcycle-gpu-save-"));
const settings = { ...optimizer, learningRate: 3e-4, decayOn: "matrices", clipNorm: 1 };
const batches = [0, 1, 2, 3].map((index) => {
  const tokens = startTokens(spec.vocab, index, shape);
  return { ids: tokens.slice(0, -1), targets: tokens.slice(1) };
});
let update = 0;
const run = async (count) => {
  let asked = null;
  for (let i = 0; i < count; i++) {
    const before = asked;
    update++;
    asked = runtime.step([batches[update % batches.length]], { ...settings, update });
    if (before !== null) await before;
  }
  await asked;
};

const written = [];
/** A checkpoint of the state as it is now, as the training loop writes one. */
async function save() {
  const snapshot = await runtime.snapshot();
  if (snapshot === null) throw new Error("the GPU has no room for a copy of the state");
  const began = performance.now();
  const progress = { step: update, bestLoss: null, ms: 0, peakRssBytes: 0 };
  const lineage = null;
  return saveState({ dir: join(root, "last"), spec, state: snapshot, lineage, layout, progress })
    .finally(() => snapshot.close())
    .then(() => written.push(performance.now() - began));
}

/** Seconds of a piece; a checkpoint that takes longer than its piece is waited for within it. */
async function piece(saving) {
  const from = performance.now();
  const pending = saving ? await wrapped(save()) : null;
  await run(steps);
  const stepped = performance.now() - from;
  await pending?.done;
  return { stepped, whole: performance.now() - from };
}
/** A promise in a box, so that awaiting the box does not await the promise. */
const wrapped = async (done) => ({ done });

await run(20);
await piece(true);
const [within, whole] = [[], []];
for (let pair = 0; pair < pairs; pair++) {
  const order = pair % 2 === 0 ? [false, true] : [true, false];
  const times = {};
  for (const saving of order) times[saving] = await piece(saving);
  within.push(times.true.stepped / times.false.stepped - 1);
  whole.push(times.true.whole / times.false.whole - 1);
}
await runtime.close();
if (flags.dir === undefined) rmSync(root, { recursive: true });
const percent = (values) => Number((100 * median(values)).toFixed(2));
console.log(
  JSON.stringify({
    size: flags.size,
    batch,
    sequence,
    steps,
    pairs,
    addsPercent: percent(within),
    addsPercentUntilWritten: percent(whole),
    writingMs: Math.round(median(written)),
    each: within.map((value) => Number((100 * value).toFixed(2))),
  }),
);
process.exit(0);
