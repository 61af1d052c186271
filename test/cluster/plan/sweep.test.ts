/**
 * The sweep of layouts on several GPUs (bench/megatron/sweep.mjs, sweep.py, analyse.mjs) without any: its plan, its
 * carrying out with a trainer that only writes Megatron-LM's lines, and its analysis of logs that are made up here,
 * which are examples and no measurements.
 */
import { execFile, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { argumentsIn, settingsOfArguments } from "../../../src/model/decoder/megatron-arguments.js";
import { present } from "../../support/present.js";

interface Run {
  readonly name: string;
  readonly kind: "command" | "training" | "evaluation";
  readonly model?: string;
  readonly gpus: number;
  readonly steps?: number;
  readonly words?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly command?: string;
  readonly after: readonly string[];
  readonly makes?: string;
  readonly seconds: number;
  readonly layout?: { readonly tp: number; readonly pp: number; readonly ep: number; readonly etp: number };
}
interface Line {
  readonly what: string;
  readonly verdict: "holds" | "does not hold" | "not run";
  readonly wrong: readonly string[];
  readonly missing: readonly string[];
}
interface Folder {
  readonly summary: { readonly plan: object; readonly machine: object; readonly runs: readonly object[] };
  readonly logs: Readonly<Record<string, string>>;
  readonly records: Readonly<Record<string, string>>;
}
interface SweepModule {
  runsOf(gpus: number, options?: { readonly tiny?: boolean }): Promise<Run[]>;
  callsOf(runs: readonly Run[], gpus: number, seconds: number): { runs: { name: string }[]; seconds: number }[];
}
interface Analysis {
  readonly lines: readonly Line[];
  readonly rows: readonly { readonly run: string; readonly offTime: number; readonly offMemory: number }[];
}
interface AnalysisModule {
  analysed(folders: readonly Folder[]): Promise<Analysis>;
  markdownOf(found: object): string;
}

const bench = (name: string): string => fileURLToPath(new URL(`../../../bench/megatron/${name}`, import.meta.url));
const root = fileURLToPath(new URL("../../../", import.meta.url));
const load = async <T>(name: string): Promise<T> => (await import(bench(name))) as T;
let sweep: SweepModule;
let analysis: AnalysisModule;
beforeAll(async () => {
  sweep = await load("sweep.mjs");
  analysis = await load("analyse.mjs");
});

const valueOf = ({ words = [] }: Run, flag: string): string | undefined => words[words.indexOf(flag) + 1];

describe("the plan of a sweep", () => {
  const degrees = {
    2: ["1/1/2/1", "1/2/1/1", "2/1/2/1", "1/1/1/2"],
    4: ["1/1/4/1", "2/1/4/1", "2/2/2/1", "1/1/2/2"],
    8: ["1/1/4/1", "1/1/8/1", "2/1/4/1", "2/2/2/1", "1/1/4/2"],
  };
  it.each([2, 4, 8] as const)(
    "on %i GPUs starts both forms in every layout, by what upcycle launch gives",
    async (gpus) => {
      const runs = await sweep.runsOf(gpus);
      for (const form of ["e8g1t2", "e8g8t8"]) {
        const count = gpus === 2 ? 20 : 50;
        const long = runs.filter(({ model, steps, kind }) => model === form && steps === count && kind === "training");
        const words = long.map((run) =>
          ["tensor-model", "pipeline-model", "expert-model", "expert-tensor"]
            .map((kind) => valueOf(run, `--${kind}-parallel-size`))
            .join("/"),
        );
        expect(words).toEqual(degrees[gpus]);
        for (const run of long) {
          const settings = settingsOfArguments(argumentsIn(present(run.words).join(" ")));
          expect(settings["num_experts"]).toBe(form === "e8g1t2" ? 8 : 64);
          expect(run.words).toContain("--exit-on-missing-checkpoint");
          expect(run.words?.includes("--sequence-parallel")).toBe(present(run.layout).tp > 1);
          expect(run.environment).toEqual(present(run.layout).tp > 1 ? { CUDA_DEVICE_MAX_CONNECTIONS: "1" } : {});
        }
        // What one of them saves is loaded in another, and on one GPU.
        const saver = present(long.find(({ makes }) => makes !== undefined));
        const again = runs.filter(({ kind, model }) => kind === "evaluation" && model === form);
        expect(again.map((run) => [valueOf(run, "--load"), run.gpus])).toEqual([
          [saver.makes, gpus],
          [saver.makes, 1],
        ]);
      }
      expect(new Set(runs.map(({ name }) => name)).size).toBe(runs.length);
    },
  );

  it.each([4, 8])("on %i GPUs fits what decides into calls of 600 s and half an hour in all", async (gpus) => {
    const runs = await sweep.runsOf(gpus);
    const calls = sweep.callsOf(runs, gpus, 560);
    expect(calls.flatMap((call) => call.runs).length).toBe(runs.length);
    for (const { seconds } of calls) expect(seconds).toBeLessThanOrEqual(560);
    expect(calls.reduce((sum, { seconds }) => sum + seconds, 0)).toBeLessThan(1800);
  });
});

/** A log as Megatron-LM writes it, with the head of a real one. */
function exampleLog(
  { steps = 0, kind, makes, words = [] }: Run,
  { first = 2.5, milliseconds = 500, gigabytes = 50, validation = 2.2, more = [] as string[], until = steps },
): string {
  const real = readFileSync(new URL("../../golden/megatron/logs/moe_scratch.log", import.meta.url), "utf8");
  const head = real.slice(0, real.indexOf("------------------------ arguments"));
  const time = (iteration: number): number => (iteration <= 3 ? 9 * milliseconds : milliseconds);
  const loss = (iteration: number): string => (first / iteration ** 0.1).toExponential(6);
  const line = (iteration: number): string =>
    ` [2026-11-30 10:00:00.000000] iteration ${String(iteration).padStart(8)}/${String(steps).padStart(8)} | ` +
    `consumed samples: ${iteration * 16} | elapsed time per iteration (ms): ${time(iteration)} | ` +
    `learning rate: 1.000000E-04 | global batch size:    16 | lm loss: ${loss(iteration)} | ` +
    "loss scale: 1.0 | grad norm: 0.500 | number of skipped iterations:   0 | number of nan iterations:   0 |";
  return [
    head,
    ...(words.includes("--load") ? ["  successfully loaded checkpoint from X [ t 1/1, p 1/1 ] at iteration 0"] : []),
    ...more,
    ...(kind === "training" ? Array.from({ length: until }, (_, i) => line(i + 1)) : []),
    ...(makes === undefined ? [] : ["  successfully saved checkpoint from iteration 50 to X [ t 1/1, p 1/1 ]"]),
    ` validation loss at iteration ${steps} on validation set | lm loss value: ${validation.toExponential(6)} | `,
    `peak memory of rank 0: allocated 1 reserved 2 device ${gigabytes * 1e9}`,
    "",
  ].join("\n");
}

describe("the analysis of a sweep", () => {
  type Changes = (run: Run) => Parameters<typeof exampleLog>[1] | null;
  interface Planner {
    plannerOf(name: string): Promise<(run: object) => { seconds: { total: number }; bytes: { total: number } }>;
  }
  let planned: (run: Run) => { milliseconds: number; gigabytes: number };
  let runs: Run[];
  beforeAll(async () => {
    runs = await sweep.runsOf(8);
    const { plannerOf } = await load<Planner>("planner.mjs");
    const costOf = await plannerOf("h200-sxm");
    const { modelsOf } = await load<{ modelsOf(tiny: boolean): Record<string, object> }>("sweep-models.mjs");
    const { specFromConfig } = await import("../../../src/model/decoder/config.js");
    planned = (run) => {
      const spec = specFromConfig(modelsOf(false)[present(run.model)], "example");
      const cost = costOf({ ...run, spec, sequence: 2048, sequences: 16 });
      // Twice as slow as the planner's default, and 2 GB more.
      return { milliseconds: 2000 * cost.seconds.total, gigabytes: (cost.bytes.total + 2e9) / 1e9 };
    };
  });
  const found = (changes: Changes = () => ({}), records: Folder["records"] = equalRecords): Promise<Analysis> => {
    const trained = runs.filter(({ kind }) => kind !== "command");
    const logs = trained.flatMap((run): [string, string][] => {
      const own = changes(run);
      return own === null ? [] : [[run.name, exampleLog(run, { ...planned(run), ...own })]];
    });
    return analysis.analysed([
      {
        summary: {
          plan: { gpus: 8, tiny: false, runs },
          machine: { gpus: [], torch: "" },
          runs: logs.map(([name]) => ({ name, code: 0, seconds: 60 })),
        },
        logs: Object.fromEntries(logs),
        records,
      },
    ]);
  };
  const equal = JSON.stringify({ tensors: 12, values: 100, differing: [] });
  const equalRecords = { "equal-e8g1t2": equal, "equal-e8g8t8": equal };
  const wrongOf = ({ lines }: Analysis): string[] => lines.flatMap(({ wrong }) => wrong);

  it("finds that all holds where the logs say so", async () => {
    const all = await found();
    expect(all.lines.map(({ verdict }) => verdict)).toEqual(Array.from({ length: 11 }, () => "holds"));
    for (const { offTime, offMemory } of all.rows) {
      expect(Math.abs(offTime)).toBeLessThan(0.01);
      expect(Math.abs(offMemory)).toBeLessThan(0.01);
    }
    expect(analysis.markdownOf({ ...all, gpus: 8, machine: { gpus: [], torch: "" }, example: true })).toContain(
      "not a measurement",
    );
  });

  it("names a layout whose first loss differs, whose steps are missing, and what loads to another loss", async () => {
    const own = (run: Run, name: string): boolean => run.name.startsWith(`e8g8t8-8-${name}-`) && run.steps === 50;
    const all = await found((run) =>
      own(run, "tp2ep4")
        ? { first: 2.52 }
        : own(run, "etp2")
          ? { until: 49 }
          : run.name === "e8g1t2-again-1"
            ? { validation: 2.3 }
            : own(run, "ep8")
              ? { more: ["load_return: <All keys matched successfully>"] }
              : {},
    );
    const wrong = wrongOf(all);
    expect(wrong.some((words) => /^e8g8t8-8-tp2ep4-mb\d: 2\.520000, one GPU 2\.500000$/.test(words))).toBe(true);
    expect(wrong.some((words) => /^e8g8t8-8-etp2-mb\d: 49 steps, the last one 49$/.test(words))).toBe(true);
    expect(wrong).toContain("e8g1t2-again-1: 2.300000, saved with 2.200000");
    expect(wrong.some((words) => /^e8g8t8-8-ep8-mb\d: .*load_return/.test(words))).toBe(true);
    expect(all.lines.filter(({ verdict }) => verdict === "does not hold").length).toBe(3);
  });

  it("says what was not run, and never that it holds", async () => {
    const all = await found((run) => (run.gpus === 8 && run.name.startsWith("e8g1t2") ? null : {}), {});
    const of = (what: string): Line => present(all.lines.find((line) => line.what.startsWith(what)));
    expect(of("e8g1t2: every layout starts").verdict).toBe("not run");
    expect(of("e8g8t8: every layout starts").verdict).toBe("holds");
    expect(of("e8g1t2: the import").missing).toEqual(["equal-e8g1t2"]);
    expect(of("step times").verdict).toBe("not run");
  });

  it("measures the planner: a run that is slower than predicted, and takes more memory", async () => {
    const slow = (await found()).rows.find(({ run }) => run.startsWith("e8g1t2-8-ep8"));
    const name = present(slow).run;
    const all = await found((run) =>
      run.name === name
        ? { milliseconds: 1.5 * planned(run).milliseconds, gigabytes: 1.2 * planned(run).gigabytes }
        : {},
    );
    const wrong = wrongOf(all);
    expect(wrong.some((words) => words.startsWith(`${name}: step time off by -0.33`))).toBe(true);
    expect(wrong.some((words) => words.startsWith(`${name}: memory off by -0.16`))).toBe(true);
  });
});

const python = "python3";
/** sweep.py needs its standard library alone. */
const hasPython = spawnSync(python, ["--version"]).status === 0;

describe.skipIf(!hasPython)("carrying a sweep out, without GPUs", () => {
  const folder = mkdtempSync(join(tmpdir(), "upcycle-sweep-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const stub = fileURLToPath(new URL("../../support/stub-trainer.mjs", import.meta.url));
  const carryOut = async (work: string, out: string, seconds = 100): Promise<{ code: number; text: string }> => {
    const words = [bench("sweep.py"), join(folder, "pack"), join(folder, out), "--work", join(folder, work)];
    const options = { cwd: root, env: { ...process.env, STUB_MEASURES: "1" } };
    return promisify(execFile)(
      python,
      [...words, "--seconds", String(seconds), "--node", process.execPath, "--trainer", `${process.execPath} ${stub}`],
      options,
    ).then(
      ({ stdout }) => ({ code: 0, text: stdout }),
      (error: { code: number; stdout: string }) => ({ code: error.code, text: error.stdout }),
    );
  };

  it("runs everything once, goes on in another call and another machine, and is analysed", async () => {
    const tracker = "latest_checkpointed_iteration.txt";
    const instead = ({ name, makes }: Run): string =>
      makes !== undefined
        ? `mkdir -p ${makes}/release && printf release > ${makes}/${tracker}`
        : name.startsWith("equal-")
          ? `echo '{"tensors":3,"values":9,"differing":[]}' > {OUT}/${name}.json`
          : "true";
    const planned = (await sweep.runsOf(2, { tiny: true })).filter(
      ({ name, model, gpus, steps }) => model === undefined || name === "dense" || (gpus === 2 && steps === 6),
    );
    const names = new Set(planned.map(({ name }) => name));
    const runs = planned.map((run) => ({
      ...run,
      ...(run.kind === "command" ? { command: instead(run) } : {}),
      seconds: run.name.startsWith("equal-") ? 50 : 1,
      after: run.after.filter((name) => names.has(name)),
    }));
    mkdirSync(join(folder, "pack"));
    writeFileSync(join(folder, "pack", "runs.json"), JSON.stringify({ gpus: 2, tiny: true, runs }));
    const first = await carryOut("work", "out", 40);
    expect(first.text).toContain("left for another call: 2 ['equal-e8g1t2', 'equal-e8g8t8']");
    const second = await carryOut("work", "out");
    expect(second.text).toContain("2 ran; failed: []; left for another call: 0");
    // Another machine has nothing of it, and repeats nothing that is known.
    writeFileSync(join(folder, "pack", "earlier.json"), readFileSync(join(folder, "out", "summary.json")));
    expect((await carryOut("elsewhere", "again")).text).toContain("0 ran; failed: []; left for another call: 0");

    const analyse = promisify(execFile)(process.execPath, [bench("analyse.mjs"), join(folder, "out"), "--example"]);
    const { code, stdout } = (await analyse.catch((error: unknown) => error)) as { code: number; stdout: string };
    expect(code).toBe(1);
    expect(stdout).toContain("not a measurement");
    for (const form of ["e8g1t2", "e8g8t8"]) {
      expect(stdout).toMatch(new RegExp(`${form}: every layout trains 6 steps \\| holds`));
      expect(stdout).toMatch(new RegExp(`${form}: the import equals what was saved, bit for bit \\| holds`));
      expect(stdout).toMatch(new RegExp(`${form}: every layout starts[^|]+\\| not run \\| not run: a run on one GPU`));
    }
  });
});
