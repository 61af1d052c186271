/**
 * Megatron-Core on two, four or eight GPUs: an upcycled model started in every layout, saved in one and loaded in
 * others, and a sweep of micro-batches beside the planner. Arguments are those of `upcycle launch`.
 *
 *   node bench/megatron/sweep.mjs --gpus 8 --dry-run               every command, its time, and what fits into a call
 *   node bench/megatron/sweep.mjs --gpus 8 --pack DIR --checkout MEGATRON
 *                                                                  all that the machine with the GPUs needs, in DIR
 *
 * There `python3 bench/megatron/sweep.py DIR OUT` carries it out, as far as a call lasts; the same command again goes
 * on. Then, here, `node bench/megatron/analyse.mjs OUT`. `--tiny` is for processors. Needs no GPU.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parseLaunchConfig } from "../../dist/base/schemas/index.js";
import { gpuNamed, hardwareTable } from "../../dist/cli/plan.js";
import { launchPlanOf } from "../../dist/cluster/plan/launch-plan.js";
import { specFromConfig } from "../../dist/model/decoder/config.js";
import { earlierRuns, calibrated, plannerOf, predicted } from "./planner.mjs";
import { batchOf, layoutsOn, modelsOf, recipes } from "./sweep-models.mjs";
import { mockArguments } from "./mock.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Steps of a layout's run (two GPUs take long), of one that is only timed, and of the dense model's training. */
const steps = { layout: { 2: 20, 4: 50, 8: 50 }, timed: 10, dense: 80 };
/** Micro-batches that are timed beside those of the layouts' own runs. */
const microBatches = [1, 2, 4];
/** Micro-batch of each form's own run in a layout, where the batch allows it. */
const ownMicroBatch = { e8g1t2: 2, e8g8t8: 4 };
/** The layout whose checkpoint others load. */
const savedAt = (gpus) => (gpus === 2 ? "pp2" : "tp2pp2ep2");
const loadedAt = (gpus) => `ep${Math.min(gpus, 4)}`;

/**
 * Seconds that we expect before the first step (processes, NCCL, the checkpoint), of an evaluation, and of the work of
 * processors on 6B parameters. These are our own estimates; steps are the planner's, with the constants of
 * bench/results/2026-11-30-megatron-two.json.
 */
const expected = { start: 45, evaluation: 50, unpack: 25, convert: 90, compare: 120, dense: 60 };

/** A machine is lent for half an hour, its start included; a call may last ten minutes, with what is copied. */
const mostSeconds = 27 * 60;
const callSeconds = 560;

/**
 * The launch of a model in a layout, by the code of `upcycle launch`.
 *
 * @param {any} wanted
 */
function launchOf({ model, spec, gpus, degrees, microBatch, count, gpu, tiny, more = {} }) {
  const { sequence, sequences } = batchOf(tiny);
  const isMoe = model !== "dense";
  const text = JSON.stringify({
    out: "{WORK}/run",
    checkpoint: "{WORK}/none",
    data: ["none"],
    tokenizer: "none",
    megatron: "{WORK}/megatron",
    transformerEngine: false,
    training: {
      batch: sequences,
      accumulate: 1,
      sequence,
      steps: count,
      lr: { peak: isMoe ? 1e-4 : 6e-4, warmup: isMoe ? 2 : 8 },
      evalEvery: 1000,
      saveEvery: 1000,
      ...(isMoe ? { auxLoss: 0.01, routing: { balance: "layer" } } : {}),
    },
    hardware: { gpu: "h200-sxm", gpus },
    ...(degrees === null ? {} : { layout: { ...degrees, ...(microBatch === undefined ? {} : { microBatch }) } }),
    arguments: {
      ...mockArguments(spec.vocab),
      // The norms of record.py take it, without which experts are not trained with tensor parallelism.
      ...(isMoe ? { "--sequence-parallel": (degrees?.tp ?? 1) > 1 } : {}),
      ...more,
    },
  });
  const name = `${model} on ${gpus} GPUs`;
  return launchPlanOf(parseLaunchConfig(text, name), spec, gpu, name);
}

/** Words behind pretrain_gpt.py, and the layout for the analysis. */
function megatronRun(name, asked, { load, save, evaluates = false, seconds, after = [] }) {
  const plan = launchOf(asked);
  const words = plan.arguments.flatMap(({ flag, values }) => [flag, ...values]);
  const { sequences } = batchOf(asked.tiny);
  const { layout } = plan;
  return {
    name,
    kind: evaluates ? "evaluation" : "training",
    model: asked.model,
    gpus: asked.gpus,
    degrees: asked.degrees,
    steps: asked.count,
    layout: { ...layout, microBatches: sequences / (layout.dp * layout.microBatch) },
    environment: Object.fromEntries(plan.environment.map(([key, value]) => [key, value])),
    words: [
      ...words.filter((word) => load !== undefined || word !== "--exit-on-missing-checkpoint"),
      ...(load === undefined ? [] : ["--load", load, "--finetune"]),
      ...(save === undefined ? [] : ["--save", save, "--no-save-optim", "--no-save-rng"]),
      ...(evaluates ? ["--skip-train"] : []),
    ],
    seconds,
    after,
    ...(save === undefined ? {} : { makes: save }),
  };
}

/** @type {(name: any, command: any, how: { seconds: number, after?: string[], makes?: any }) => any} */
const shell = (name, command, { seconds, after = [], makes }) => ({
  ...{ name, kind: "command", gpus: 0, command, seconds, after },
  ...(makes === undefined ? {} : { makes }),
});

/** All runs on so many GPUs, in the order in which they matter. */
export async function runsOf(gpus, { tiny = false, checkpoint = "{WORK}" } = {}) {
  if (layoutsOn[gpus] === undefined) throw new Error(`--gpus ${gpus}: known are ${Object.keys(layoutsOn).join(", ")}`);
  const gpu = gpuNamed(await hardwareTable(undefined), "h200-sxm");
  const costOf = await plannerOf("h200-sxm");
  const earlier = JSON.parse(readFileSync(here("../results/2026-11-30-megatron-two.json"), "utf8"));
  const constants = calibrated(earlierRuns(earlier), costOf);
  const specs = Object.fromEntries(
    Object.entries(modelsOf(tiny)).map(([model, config]) => [model, specFromConfig(config, model)]),
  );
  const { sequence, sequences } = batchOf(tiny);
  const stepSeconds = (model, count, layout) =>
    predicted({ model, spec: specs[model], gpus: count, sequence, sequences, layout }, constants, costOf).seconds;
  const run = (name, asked, how) => {
    const made = megatronRun(name, { ...asked, gpu, tiny, spec: specs[asked.model] }, { seconds: 0, ...how });
    const trained = asked.count * stepSeconds(asked.model, asked.gpus, made.layout);
    return {
      ...made,
      seconds: Math.round(how.evaluates === true ? expected.evaluation : expected.start + trained),
      bytes:
        made.kind === "training" ? costOf({ ...made, spec: specs[made.model], sequence, sequences }).bytes.total : 0,
    };
  };
  const forms = Object.keys(recipes);
  const at = (path) => `${checkpoint}/${path}`;
  const upcycle = "{NODE} bin/upcycle.js";
  const fits = (layout, microBatch) => sequences % (layout.dp * microBatch) === 0;

  // Trained on all GPUs, so that the first losses of what is made of it say something.
  const dense = run(
    "dense",
    { model: "dense", gpus, degrees: {}, microBatch: 1, count: tiny ? 30 : steps.dense },
    { save: at("dense"), after: ["unpack"] },
  );
  const made = forms.map((form) =>
    shell(
      `make-${form}`,
      `${upcycle} convert ${at("dense")} --recipe ${recipes[form]} --router topk-softmax --target mixtral ` +
        `--format megatron --out ${at(form)} --no-report --overwrite`,
      { seconds: expected.convert, after: ["dense"], makes: at(form) },
    ),
  );
  const single = ["dense", ...forms].flatMap((model) =>
    // 64 experts one by one take half a minute a step with micro-batches of 1.
    (model === "e8g8t8" ? [4] : microBatches).map((microBatch) =>
      run(
        `${model}-1-mb${microBatch}`,
        { model, gpus: 1, degrees: {}, microBatch, count: steps.timed },
        { load: at(model), after: [model === "dense" ? "dense" : `make-${model}`] },
      ),
    ),
  );
  const layouts = Object.entries(layoutsOn[gpus]);
  const runAt = (form, [name, degrees], microBatch, count, how) =>
    run(`${form}-${gpus}-${name}-mb${microBatch}`, { model: form, gpus, degrees, microBatch, count }, how);
  const largest = (form, degrees) => {
    const { layout } = launchOf({ model: form, spec: specs[form], gpus, degrees, count: steps.timed, gpu, tiny });
    return [ownMicroBatch[form], 2, 1].find((micro) => micro <= ownMicroBatch[form] && fits(layout, micro));
  };
  const own = forms.flatMap((form) =>
    layouts.map((one) => {
      const isSaved = one[0] === savedAt(gpus);
      return runAt(form, one, largest(form, one[1]), tiny ? 6 : steps.layout[gpus], {
        load: at(form),
        ...(isSaved ? { save: at(`saved-${form}`) } : {}),
        after: [`make-${form}`],
      });
    }),
  );
  const saver = (form) => own.find(({ model, makes }) => model === form && makes !== undefined);
  const again = forms.flatMap((form) => {
    const { steps: count, name } = saver(form);
    const how = { load: at(`saved-${form}`), evaluates: true, after: [name] };
    const [target] = layouts.filter(([layout]) => layout === loadedAt(gpus));
    return [
      run(`${form}-again-${gpus}-${target[0]}`, { model: form, gpus, degrees: target[1], microBatch: 1, count }, how),
      run(`${form}-again-1`, { model: form, gpus: 1, degrees: {}, microBatch: 1, count }, how),
    ];
  });
  const home = forms.flatMap((form) => [
    shell(
      `home-${form}`,
      `${upcycle} import ${at(`saved-${form}`)} --like ${at(form)}/release --out ${at(`home-${form}`)} --overwrite ` +
        `&& ${upcycle} export ${at(`home-${form}`)} --format megatron --out ${at(`back-${form}`)} --overwrite`,
      { seconds: 2 * expected.convert, after: [saver(form).name], makes: at(`back-${form}`) },
    ),
    shell(
      `equal-${form}`,
      `{PYTHON} bench/megatron/equal.py ${at(`saved-${form}`)} ${at(`back-${form}`)} {OUT}/equal-${form}.json`,
      { seconds: expected.compare, after: [`home-${form}`] },
    ),
  ]);
  const known = new Set(own.map(({ name }) => name));
  const timed = microBatches.flatMap((microBatch) =>
    forms.flatMap((form) =>
      layouts.flatMap((one) => {
        const { layout } = launchOf({
          model: form,
          spec: specs[form],
          gpus,
          degrees: one[1],
          count: steps.timed,
          gpu,
          tiny,
        });
        if (!fits(layout, microBatch)) return [];
        const found = runAt(form, one, microBatch, steps.timed, { load: at(form), after: [`make-${form}`] });
        return known.has(found.name) ? [] : [found];
      }),
    ),
  );
  const planned = forms.map((form) => {
    const chosen = launchOf({ model: form, spec: specs[form], gpus, degrees: null, count: steps.timed, gpu, tiny });
    const { tp, pp, ep, etp, microBatch } = chosen.layout;
    const asked = { model: form, gpus, degrees: { tp, pp, ep, etp }, microBatch, count: steps.timed };
    return run(`${form}-${gpus}-planned-mb${microBatch}`, asked, { load: at(form), after: [`make-${form}`] });
  });
  const unpack = shell(
    "unpack",
    "mkdir -p {WORK}/megatron && tar -xJf {DIR}/megatron.tar.xz -C {WORK}/megatron && cd {WORK}/megatron && " +
      `RANK=0 {PYTHON} -c 'from megatron.core.datasets.utils import compile_helpers; compile_helpers()'`,
    { seconds: expected.unpack },
  );
  const all = [unpack, dense, ...made, ...single, ...own, ...again, ...home, ...planned];
  // Those that take longest tell least about a layout that anybody would choose.
  for (const one of timed.sort((a, b) => a.seconds - b.seconds))
    if (secondsOf(callsOf([...all, one], gpus, callSeconds)) <= mostSeconds) all.push(one);
  return all;
}

/** Of all calls together. */
export const secondsOf = (calls) => calls.reduce((sum, { seconds }) => sum + seconds, 0);

/**
 * Which runs fit into which call of so many seconds, as `sweep.py` would start them: in their order, several at a time
 * where GPUs are free.
 */
export function callsOf(runs, gpus, seconds) {
  const calls = [];
  const done = new Map();
  let waiting = [...runs];
  while (waiting.length > 0) {
    const [call, busy] = [[], []];
    let clock = 0;
    for (;;) {
      const free = gpus - busy.reduce((sum, { run }) => sum + run.gpus, 0);
      const next = waiting.find(
        (run) =>
          run.after.every((name) => done.has(name)) &&
          run.gpus <= free &&
          clock + run.seconds <= seconds &&
          busy.filter((other) => other.run.gpus === 0).length < (run.gpus === 0 ? 2 : Infinity),
      );
      if (next !== undefined) {
        busy.push({ run: next, end: clock + next.seconds });
        waiting = waiting.filter((run) => run !== next);
        call.push({ name: next.name, from: clock, to: clock + next.seconds });
        continue;
      }
      if (busy.length === 0) break;
      busy.sort((a, b) => a.end - b.end);
      const first = busy.shift();
      clock = first.end;
      done.set(first.run.name, true);
    }
    if (call.length === 0) throw new Error(`${waiting[0].name} takes longer than a call of ${seconds} s`);
    calls.push({ runs: call, seconds: Math.max(...call.map(({ to }) => to)) });
  }
  return calls;
}

function pack(dir, checkout, runs, { gpus, tiny }) {
  mkdirSync(dir, { recursive: true });
  execFileSync("bash", [here("pack.sh"), checkout, join(dir, "megatron.tar.xz"), "d98e8a64"], { stdio: "inherit" });
  const node = join(dir, "node");
  copyFileSync(process.execPath, node);
  // Without its symbols it travels in a third of the size.
  execFileSync("bash", ["-c", 'strip "$0" && xz -T2 -6 -f "$0"', node], { stdio: "inherit" });
  rmSync(node, { force: true });
  writeFileSync(join(dir, "runs.json"), `${JSON.stringify({ gpus, tiny, runs }, null, 1)}\n`);
  console.log(`then, on ${gpus} GPUs, with dist/ and ${dir} there: python3 bench/megatron/sweep.py ${dir} OUT`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values: flags } = parseArgs({
    options: {
      gpus: { type: "string" },
      "dry-run": { type: "boolean", default: false },
      pack: { type: "string" },
      checkout: { type: "string" },
      seconds: { type: "string", default: String(callSeconds) },
      tiny: { type: "boolean", default: false },
    },
  });
  const gpus = Number(flags.gpus);
  const runs = await runsOf(gpus, { tiny: flags.tiny });
  if (flags["dry-run"]) {
    const calls = callsOf(runs, gpus, Number(flags.seconds));
    for (const [i, call] of calls.entries()) {
      console.log(`call ${i + 1}: about ${call.seconds} s`);
      for (const { name, from, to } of call.runs) {
        /** @type {any} */
        const run = runs.find((one) => one.name === name);
        console.log(`  ${String(from).padStart(4)}-${String(to).padStart(4)} s  ${name} (${run.gpus} GPUs)`);
        const variables = Object.entries(run.environment ?? {}).map(([key, value]) => `${key}=${value} `);
        console.log(
          run.command === undefined
            ? `      ${variables.join("")}torchrun --nproc-per-node ${run.gpus} pretrain_gpt.py ${run.words.join(" ")}`
            : `      ${run.command}`,
        );
      }
    }
    const minutes = Math.ceil(secondsOf(calls) / 60);
    console.log(`${runs.length} runs in ${calls.length} calls, about ${minutes} minutes; nothing was run`);
  }
  if (flags.pack !== undefined) {
    if (flags.checkout === undefined) throw new Error("--pack DIR needs --checkout MEGATRON, a git repository of it");
    pack(resolve(flags.pack), flags.checkout, runs, { gpus, tiny: flags.tiny });
  }
}
