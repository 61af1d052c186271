// What a checkpoint costs a training on a GPU:
// node bench/gpu-save.mjs [--size dense8.5M] [--shape 16x512] [--steps 100] [--pairs 20] [--dir DIR]
// -> one JSON line. A run of the training loop saves every 2 x STEPS steps, so that a piece of STEPS steps that begins
// with a checkpoint (its check of the loss, its copy, its writing while steps go on) and one without take turns. The
// median over the pairs is of what the checkpoint adds to the piece's time.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { cudaBackend } from "../dist/engine/cuda/backend.js";
import { trainRun } from "../dist/train/run.js";
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
const root = flags.dir ?? mkdtempSync(join(tmpdir(), "upcycle-gpu-save-"));

/** When copies of the state were asked for, and how long each was in use: until its checkpoint was on disk. */
const written = [];
const backend = cudaBackend(0, { precision: "bf16" });
const watched = {
  ...backend,
  openTrain: async (program, options) => {
    const runtime = await backend.openTrain(program, options);
    const snapshot = runtime.snapshot.bind(runtime);
    runtime.snapshot = async () => {
      const began = performance.now();
      const copy = await snapshot();
      if (copy === null) throw new Error("the GPU has no room for a copy of the state");
      const close = copy.close.bind(copy);
      copy.close = () => {
        written.push(performance.now() - began);
        return close();
      };
      return copy;
    };
    return runtime;
  },
};

const text = Int32Array.from([0, 1, 2, 3].flatMap((i) => [...startTokens(spec.vocab, i, { batch, sequence })]));
// The first pair warms up, and the last checkpoint is waited for.
const all = 2 * steps * (pairs + 2);
const events = trainRun({
  dir: join(root, "run"),
  spec,
  threads: 1,
  seed: 1,
  carry: undefined,
  documentEnd: 0,
  backend: watched,
  evaluationTokens: batch * sequence,
  identity: { bench: "gpu-save" },
  text: { train: text, heldOut: startTokens(spec.vocab, 5, { batch, sequence }) },
  initial: ({ key, shape }) => Promise.resolve(weightOf(key, shape)),
  block: {
    steps: all,
    batch,
    sequence,
    accumulate: 1,
    lr: { peak: 3e-4, schedule: "constant", warmup: 0, final: 0.1 },
    optimizer: { ...optimizer, clip: 1, method: "adamw" },
    auxLoss: 0.01,
    zLoss: 0,
    evalEvery: all,
    saveEvery: 2 * steps,
  },
});
/** When each piece had answered, and the longest that this thread was held up within it. */
const ends = [];
const held = [];
const delay = monitorEventLoopDelay({ resolution: 1 });
delay.enable();
for await (const event of events) {
  if (event.type !== "step" || event.step % steps !== 0) continue;
  ends.push(performance.now());
  held.push(delay.max / 1e6);
  delay.reset();
}
if (flags.dir === undefined) rmSync(root, { recursive: true });

// Piece i ends with step (i + 1) * STEPS; the first to begin with a checkpoint is number 2.
const took = (piece) => ends[piece] - ends[piece - 1];
const saved = Array.from({ length: pairs }, (_, pair) => 4 + 2 * pair);
const added = saved.map((piece) => took(piece) / took(piece + 1) - 1);
const percent = (value) => Number((100 * value).toFixed(2));
console.log(
  JSON.stringify({
    size: flags.size,
    batch,
    sequence,
    steps,
    pairs,
    addsPercent: percent(median(added)),
    pieceMs: Number(median(saved.map((piece) => took(piece + 1))).toFixed(1)),
    writingMs: Math.round(median(written)),
    // The longest that the loop's thread was held up in a piece, with a checkpoint and without.
    heldUpMs: [0, 1].map((i) => Number(median(saved.map((piece) => held[piece + i])).toFixed(1))),
    each: added.map(percent),
  }),
);
process.exit(0);
