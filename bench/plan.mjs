/**
 * Measures how long a plan takes after the process has started: `npm run bench:plan [-- --out FILE]`.
 *
 * For each model it times the first plan of a fresh process, as a command needs it, and takes the median of 20 more, as
 * a slider of the page needs them. A plan computes losses with 500 draws of the coefficients, D*, layouts of three
 * models, and the sensitivity to each assumption. The benchmark prints a table and writes bench/results/DATE-plan.json.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { dirname } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const cases = [
  ["llama-3.2-1b", 8],
  ["llama-2-7b", 64],
  ["llama-3.1-70b", 512],
];
const target = 0.1;

const { values: flags } = parseArgs({
  options: { one: { type: "string" }, gpus: { type: "string" }, out: { type: "string" } },
});
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

if (flags.one !== undefined) {
  const [{ makePlan }, { publishedCoefficients }, { presets, shapeSpec }, { defaultSpeed }, { parseRecipeName }] =
    await Promise.all(
      [
        "laws/planner/plan",
        "laws/planner/coefficients",
        "laws/planner/shape",
        "laws/planner/speed",
        "surgery/planning/recipe",
      ].map((name) => import(`../dist/${name}.js`)),
    );
  const gpu = {
    name: "h100-sxm",
    title: "H100",
    peak: 989.4e12,
    memory: 80e9,
    hbm: 3.35e12,
    intra: 450e9,
    inter: 50e9,
    perNode: 8,
    price: 2.5,
    sources: {},
  };
  const preset = presets.find(({ id }) => id === flags.one);
  const request = {
    name: preset.id,
    spec: shapeSpec(preset.shape),
    size: null,
    seen: preset.seen,
    recipes: ["E8G1T2", "E8G8T8"].map(parseRecipeName),
    gpu,
    currency: "USD",
    gpus: Number(flags.gpus),
    budget: { tokens: null, gpuHours: null, money: 50e3, days: null },
    sequence: 4096,
    batchTokens: null,
    speed: defaultSpeed,
    mfu: { dense: null, moe: null },
    coefficients: publishedCoefficients(),
    parentPeak: null,
    draws: 500,
    seed: 0,
    level: 0.9,
  };
  const seconds = Array.from({ length: 21 }, () => {
    const [start, cpu] = [performance.now(), process.cpuUsage()];
    makePlan(request);
    const { user, system } = process.cpuUsage(cpu);
    return { wall: (performance.now() - start) / 1000, cpu: (user + system) / 1e6 };
  });
  console.log(JSON.stringify(seconds));
} else {
  const loadBefore = loadavg()[0];
  const results = cases.map(([model, gpus]) => {
    // Five processes: the first plan of a process depends most on what else the machine does.
    const runs = Array.from({ length: 5 }, () =>
      JSON.parse(
        spawnSync(process.execPath, [here("plan.mjs"), "--one", String(model), "--gpus", String(gpus)], {
          encoding: "utf8",
        }).stdout,
      ),
    );
    const of = (clock) => ({
      first: median(runs.map(([first]) => first[clock])),
      later: median(runs.flatMap(([, ...rest]) => rest.map((one) => one[clock]))),
    });
    return { model, gpus, wall: of("wall"), cpu: of("cpu"), all: runs };
  });
  const ms = (seconds) => `${(1000 * seconds).toFixed(0).padStart(4)} ms`;
  console.log(
    `load before ${loadBefore.toFixed(2)}; where it is more than the cores are, processor time (all threads of ` +
      "the process) says more than wall time",
  );
  for (const { model, gpus, wall, cpu } of results) {
    const met = [
      ["first", wall.first],
      ["later", wall.later],
    ].map(([name, seconds]) => `${name} ${seconds <= target ? "met" : "MISSED"}`);
    console.log(
      `${`${model}, ${gpus} GPUs`.padEnd(28)} first ${ms(wall.first)} (processor ${ms(cpu.first)}), later ` +
        `${ms(wall.later)} (${ms(cpu.later)})   target ${1000 * target} ms: ${met.join(", ")}`,
    );
  }
  const date = new Date().toISOString();
  const out = flags.out ?? here(`results/${date.slice(0, 10)}-plan.json`);
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(
    out,
    `${JSON.stringify(
      {
        date,
        hardware: {
          cpu: cpus()[0]?.model,
          cores: cpus().length,
          memoryBytes: totalmem(),
          system: `${process.platform} ${release()}`,
          loadBefore,
        },
        versions: { node: process.versions.node },
        target,
        results,
      },
      null,
      1,
    )}\n`,
  );
}
