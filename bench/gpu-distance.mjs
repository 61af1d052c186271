// How far training in bfloat16 is from float32, ours and PyTorch's:
// node bench/gpu-distance.mjs --python PYTHON [--models DIR[,DIR]] [--trained DIR[,DIR]] [--only NAMES]
//   [--jobs 16] [--out FILE]
// -> JSON. For each model of --models (folders with expected.safetensors, as in test/golden) the first gradients of all
// weights together, ||bf16 - f32|| / ||f32||, and the root mean square of what the losses of a short training in
// bfloat16 differ from those in float32, each side against its own float32. For each of --trained (with
// trajectory.json) the same of the losses from the float32 ones of PyTorch there. PyTorch computes by transformers
// under autocast, once with the residual stream in float32, once with embeddings and so the stream in bfloat16, as the
// training step has it that speed is compared with (bench/gpu_anchor.py). `ratio` is ours over PyTorch's, `median` that
// over models. Models are shared out over so many processes of both engines, side by side; FILE has what has come so
// far. Where UPCYCLE_CUDA names the stand-ins of the tests (test/support/cuda.ts) ours computes on the CPU, by the same
// kernels.
import { spawn } from "node:child_process";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { cudaBackend } from "../dist/engine/cuda/backend.js";
import { device } from "../dist/engine/cuda/device.js";
import { CudaOperationRuntime } from "../dist/engine/cuda/operation-runtime.js";
import { openCheckpoint } from "../dist/files/checkpoint/open.js";
import { trainProgram } from "../dist/graph/programs/programs.js";
import { median } from "./gpu-model.mjs";

const golden = fileURLToPath(new URL("../test/golden/", import.meta.url));
const { values: flags, positionals } = parseArgs({
  options: {
    python: { type: "string", default: "python3" },
    models: { type: "string", default: `${join(golden, "dense")},${join(golden, "moe")}` },
    trained: { type: "string", default: join(golden, "train") },
    only: { type: "string" },
    jobs: { type: "string", default: String(Math.min(16, cpus().length)) },
    out: { type: "string" },
    // What a process of ours is asked for: a kind and folders.
    measure: { type: "string" },
  },
  allowPositionals: true,
});

const foldersOf = (list, file) =>
  list
    .split(",")
    .flatMap((root) => readdirSync(root).map((name) => join(root, name)))
    .filter((folder) => existsSync(join(folder, file)))
    .filter((folder) => flags.only?.split(",").includes(basename(folder)) ?? true);

/** 32-bit tensors of a small safetensors file by name. */
function tensors(path) {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + length).toString());
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== "__metadata__")
      .map(
        ([
          name,
          {
            dtype,
            shape,
            data_offsets: [begin, end],
          },
        ]) => {
          const bytes = Uint8Array.from(file.subarray(8 + length + begin, 8 + length + end)).buffer;
          return [name, { shape, data: dtype === "F32" ? new Float32Array(bytes) : new Int32Array(bytes) }];
        },
      ),
  );
}

/** Sequences and their next tokens; the last position of each has none, as in transformers' loss. */
function shifted(data, sequence) {
  const ids = Int32Array.from(data);
  return { ids, targets: ids.map((_, i) => (i % sequence === sequence - 1 ? -1 : ids[i + 1])) };
}

async function opened(folder, shape) {
  const checkpoint = await openCheckpoint(folder);
  const program = trainProgram(checkpoint.spec, { ...shape, auxCoef: checkpoint.spec.auxLossCoef, zCoef: 0 });
  const weights = new Map();
  for (const { key } of program.params) weights.set(key, await checkpoint.readFloat32(key));
  await checkpoint.close();
  return { spec: checkpoint.spec, program, weights };
}

/** Relative distance of our first gradients in bfloat16 from those in float32. */
async function gradientDistance(folder) {
  const { data, shape } = tensors(join(folder, "expected.safetensors")).get("input_ids");
  const [batch, sequence] = shape;
  const { program, weights } = await opened(folder, { batch, sequence });
  const { ids, targets } = shifted(data, sequence);
  const feeds = [ids, targets, ...program.params.map(({ key }) => weights.get(key))];
  const results = [];
  for (const precision of /** @type {const} */ (["float32", "bf16"])) {
    const runtime = new CudaOperationRuntime(await device(0), { precision });
    results.push(await runtime.run("train", program.graph, feeds));
    await runtime.close();
  }
  let [difference, norm] = [0, 0];
  for (const i of program.trained.keys()) {
    const [a, b] = results.map((each) => each[program.gradients + i]);
    for (let j = 0; j < a.length; j++) {
      difference += (a[j] - b[j]) ** 2;
      norm += a[j] ** 2;
    }
  }
  return Math.sqrt(difference / norm);
}

/** Losses of our training on the batches. */
async function losses({ spec, program, weights }, precision, batches, optimizer) {
  const runtime = await cudaBackend(0, { precision }).openTrain(program, { threads: 1, accumulate: false });
  for (const [key, values] of weights) await runtime.write("weight", key, values);
  const found = [];
  for (const [i, batch] of batches.entries()) {
    const { loss, balanceLoss } = await runtime.step([batch], {
      learningRate: optimizer.lr,
      beta1: optimizer.betas[0],
      beta2: optimizer.betas[1],
      eps: optimizer.eps,
      weightDecay: optimizer.weight_decay,
      decayOn: "all",
      clipNorm: optimizer.clip_grad_norm,
      update: i + 1,
    });
    found.push(loss + spec.auxLossCoef * (balanceLoss ?? 0));
  }
  await runtime.close();
  return found;
}

const rootMeanSquare = (found, expected) =>
  Math.sqrt(expected.reduce((sum, value, i) => sum + (found[i] - value) ** 2, 0) / expected.length);

/** Of our losses in bfloat16 from a golden trajectory. */
async function trajectoryDistance(folder) {
  const { optimizer, steps } = JSON.parse(readFileSync(join(folder, "trajectory.json"), "utf8"));
  const { data, shape } = tensors(join(folder, "batches.safetensors")).get("input_ids");
  const [, batch, sequence] = shape;
  const size = batch * sequence;
  const batches = steps.map((_, step) => shifted(data.subarray(step * size, (step + 1) * size), sequence));
  const found = await losses(await opened(folder, { batch, sequence }), "bf16", batches, optimizer);
  return rootMeanSquare(
    found,
    steps.map(({ loss }) => loss),
  );
}

/** A short training, as gpu_distance.py has it: each batch is the golden one with its tokens moved on. */
const optimizer = { lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, clip_grad_norm: 1, steps: 8, shift: 7 };

/** Of our losses in bfloat16 from those in float32; and where these begin. */
async function lossDistance(folder) {
  const { data, shape } = tensors(join(folder, "expected.safetensors")).get("input_ids");
  const [batch, sequence] = shape;
  const model = await opened(folder, { batch, sequence });
  const moved = (step) => data.map((id) => (id + optimizer.shift * step) % model.spec.vocab);
  const batches = Array.from({ length: optimizer.steps }, (_, step) => shifted(moved(step), sequence));
  const [found, expected] = [
    await losses(model, "bf16", batches, optimizer),
    await losses(model, "float32", batches, optimizer),
  ];
  return { distance: rootMeanSquare(found, expected), first: expected[0] };
}

const measures = {
  gradients: async (folder) => ({ distance: await gradientDistance(folder) }),
  losses: lossDistance,
  trajectory: async (folder) => ({ distance: await trajectoryDistance(folder) }),
};

/** Calls `found(folder, answer)` for each line of a process, which answers for one folder after the other. */
async function ask(command, args, folders, found) {
  const child = spawn(command, [...args, ...folders], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, OPTIMIZER: JSON.stringify(optimizer) },
  });
  const ended = new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  let next = 0;
  for await (const line of createInterface({ input: child.stdout })) found(folders[next++], JSON.parse(line));
  const status = await ended;
  for (const folder of folders.slice(next)) found(folder, { error: `a process ended with status ${status}` });
}

/** Every so manieth of a list, beginning with each of the first ones. */
const sharesOf = (list, count) =>
  Array.from({ length: Math.min(count, list.length) }, (_, i) => list.filter((_, j) => j % count === i));

/** The rows of a kind, and the ratios of those that both engines have. */
class Comparison {
  ours = new Map();
  torch = new Map();

  constructor(kind, folders) {
    this.kind = kind;
    this.folders = folders;
  }

  rowOf(folder) {
    const [ours, torch] = [this.ours.get(folder), this.torch.get(folder)];
    const model = basename(folder);
    if (ours === undefined || torch === undefined) return [];
    const { first, ...distances } = torch;
    const apart = Math.abs((ours.first ?? 0) - (first ?? 0)) > 1e-3;
    const failed = torch.error ?? ours.error ?? (apart ? `begins at ${ours.first}, in PyTorch at ${first}` : undefined);
    return [failed === undefined ? { model, ours: ours.distance, torch: distances } : { model, failed }];
  }

  get result() {
    const rows = this.folders.flatMap((folder) => this.rowOf(folder));
    const ratios = (stream) =>
      rows.flatMap(({ ours, torch }) => (torch === undefined || !(torch[stream] > 0) ? [] : [ours / torch[stream]]));
    const ratio = (stream) => ({ median: median(ratios(stream)), models: ratios(stream).length });
    return { ratio: { "stream in float32": ratio("float32"), "stream in bfloat16": ratio("bfloat16") }, rows };
  }
}

async function measureAll() {
  const models = foldersOf(flags.models, "expected.safetensors");
  const all = {
    gradients: new Comparison("gradients", models),
    losses: new Comparison("losses", models),
    trajectories: new Comparison("trajectory", foldersOf(flags.trained, "trajectory.json")),
  };
  const facts = { date: new Date().toISOString().slice(0, 10), device: (await device(0)).facts.name };
  const result = () => ({
    ...facts,
    ...Object.fromEntries(Object.entries(all).map(([key, { result }]) => [key, result])),
  });
  const script = fileURLToPath(new URL("gpu_distance.py", import.meta.url));
  const jobs = Number(flags.jobs);
  // Shares of the processes that each kind gets; PyTorch's are the slower ones.
  const shares = { gradients: [0.2, 0.1], losses: [0.35, 0.15], trajectories: [0.15, 0.05] };
  const asked = Object.entries(all).flatMap(([key, comparison]) => {
    const [torch, ours] = shares[key].map((share) => Math.max(1, Math.round(share * jobs)));
    const { kind, folders } = comparison;
    const take = (side) => (folder, answer) => {
      comparison[side].set(folder, answer);
      if (flags.out !== undefined) writeFileSync(flags.out, `${JSON.stringify(result(), null, 1)}\n`);
    };
    const own = fileURLToPath(import.meta.url);
    return [
      ...sharesOf(folders, torch).map((share) => () => ask(flags.python, [script, kind], share, take("torch"))),
      ...sharesOf(folders, ours).map(
        (share) => () => ask(process.execPath, [own, "--measure", kind], share, take("ours")),
      ),
    ];
  });
  const next = async () => {
    for (let one = asked.shift(); one !== undefined; one = asked.shift()) await one();
  };
  await Promise.all(Array.from({ length: jobs }, next));
  console.log(JSON.stringify(result()));
}

if (flags.measure === undefined) await measureAll();
else
  for (const folder of positionals) {
    const answer = await measures[flags.measure](folder).catch((cause) => ({ error: cause.line ?? String(cause) }));
    console.log(JSON.stringify(answer));
  }
process.exit(0);
