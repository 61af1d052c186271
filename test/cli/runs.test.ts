/** `upcycle runs` on a study of three runs and a training, made once. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { refusalOf } from "./in-process.js";
import { writeText } from "./tiny.js";
import { start, upcycle, upcycleJson } from "./upcycle.js";

const root = temporaryFolder();
const file = join(root, "study.yaml");
const dir = join(root, "runs");
const block = (steps: number): string =>
  `{ steps: ${steps}, batch: 2, sequence: 16, lr: { peak: 1e-2, warmup: 2 }, evalEvery: 5, saveEvery: 2 }`;
writeFileSync(
  file,
  `name: tiny
seeds: [0]
threads: 1
text: { files: [${writeText(root)}], heldOut: 0.1 }
tokenizer: { vocab: 300 }
model: { hidden: 16, layers: 1, heads: 2, inner: 32 }
pretrain: ${block(12)}
continue: ${block(10)}
evaluation: { tokens: 128 }
arms:
  dense: { kind: dense }
  moe: { kind: upcycled, recipe: E2G1T1, continue: { lr: { peak: 2e-3 } } }
questions: [{ ask: Is it better?, compare: moe, with: dense, spread: 0.01 }]
`,
);
const words = ["study", file, "--out", dir, "--device", "cpu"];

interface Listed {
  readonly runs: readonly { readonly path: string; readonly kind: string; readonly loss: number }[];
}
const listed = async (...more: readonly string[]): Promise<Listed["runs"]> =>
  ((await upcycleJson("runs", "list", dir, ...more)) as unknown as Listed).runs;

beforeAll(async () => {
  // Killed three times at work, a study goes on; the comparison with one that was left alone is bench/soak-study.mjs.
  for (const text of ["step 5/12", "step 10/10", "E2G1T1"]) {
    const running = start(words);
    await running.saw(text).catch(() => undefined);
    running.process.kill("SIGKILL");
    await running.outcome;
  }
  expect((await upcycle(...words, "--log", "csv,tensorboard")).code).toBe(0);
}, 120_000);

describe("a study that was killed", () => {
  it("ends with the numbers of one that was left alone", async () => {
    const alone = join(root, "alone");
    await upcycle("study", file, "--out", alone, "--device", "cpu");
    const losses = (folder: string): unknown => {
      const { arms, parents } = JSON.parse(readFileSync(join(folder, "result.json"), "utf8")) as {
        arms: { runs: { points: unknown }[] }[];
        parents: { points: unknown }[];
      };
      return [parents.map(({ points }) => points), arms.map(({ runs }) => runs.map(({ points }) => points))];
    };
    expect(losses(dir)).toEqual(losses(alone));
  }, 60_000);
});

describe("upcycle study", () => {
  it("--dry-run says what is there and what each question can detect, and writes nothing", async () => {
    const { code, stdout } = await upcycle(...words, "--dry-run");
    expect(code).toBe(0);
    expect(stdout).toMatch(/parent parent +there +384 /);
    expect(stdout).toContain("0 of 3 trainings to do");
    const nowhere = join(root, "nowhere");
    const facts = (await upcycleJson("study", file, "--out", nowhere, "--dry-run")) as unknown as {
      runs: unknown[];
      tokens: number;
      questions: { pairs: number; smallestDetectable: unknown }[];
    };
    expect([facts.runs.length, facts.tokens]).toEqual([3, 12 * 32 + 2 * 10 * 32]);
    // One pair detects nothing.
    expect(facts.questions).toMatchObject([{ pairs: 1, smallestDetectable: null }]);
    expect(existsSync(nowhere)).toBe(false);
  });

  it("--report and --only refuse what is not there, without looking for a GPU", async () => {
    const onGpu = ["--out", join(root, "reported"), "--store", dir, "--device", "cuda", "--precision", "bf16"];
    expect(await refusalOf(["study", file, ...onGpu, "--report"])).toContain("no training of this study is there");
    expect(await refusalOf(["study", file, "--out", dir, "--only", "dense,,"])).toContain("a name is empty");
    const misnamed = await refusalOf(["study", file, "--out", dir, "--device", "cpu", "--only", "dense/5"]);
    expect(misnamed).toContain('"dense/5" is no training of this study');
  });

  it("writes tables and figures beside the page", () => {
    expect(readdirSync(join(dir, "figures")).sort()).toEqual([
      "loss-flops.png",
      "loss-flops.svg",
      "loss-tokens.png",
      "loss-tokens.svg",
    ]);
    expect(readFileSync(join(dir, "report.md"), "utf8")).toMatch(/\| continued dense \|/);
    expect(readFileSync(join(dir, "tables.tex"), "utf8")).toContain("\\begin{tabular}{lrrrrrrrr}");
  });
});

describe("upcycle runs", () => {
  it("lists runs with their state, as the default too, by conditions and in an order", async () => {
    const runs = await listed();
    expect(runs.map(({ kind }) => kind)).toEqual(["dense", "moe", "dense"]);
    expect((await upcycle("runs", dir)).stdout).toMatch(/^run +state +kind +params/);
    expect((await listed("--filter", "kind=moe")).map(({ path }) => path)).toEqual([at(runs, 1).path]);
    expect(await listed("--filter", "training.lr.peak=0.002")).toHaveLength(1);
    expect(await listed("--filter", "training.lr.peak<0.005", "--filter", "kind=dense")).toEqual([]);
    const byLoss = (await listed("--sort", "loss")).map(({ loss }) => loss);
    expect(byLoss).toEqual([...byLoss].sort((a, b) => a - b));
    expect((await upcycle("runs", "list", dir, "--filter", "what")).stderr).toMatch(/--filter: "what" is no condition/);
    for (const misspelt of ["lss<3", "stat!=finished"]) {
      const { code, stderr } = await upcycle("runs", "list", dir, "--filter", misspelt);
      expect([code, stderr]).toEqual([
        2,
        expect.stringMatching(/--filter: no run here has "(lss|stat)"; name one of name, /),
      ]);
    }
    expect((await upcycle("runs", "list", root.concat("/none"))).code).toBe(2);
  });

  it("compares: first the settings that differ, then the numbers", async () => {
    const [dense, moe] = await listed();
    const { stdout } = await upcycle("runs", "compare", dense!.path, moe!.path);
    const [settings = "", numbers = ""] = stdout.split("\nmeasured");
    expect(settings).toMatch(/training\.lr\.peak +0\.01 +0\.002/);
    expect(settings).toMatch(/kind +dense +upcycled/);
    expect(settings).not.toContain("training.batch");
    expect(numbers).toMatch(/best loss/);
    expect((await upcycle("runs", "compare", dense!.path)).stderr).toContain("at least two runs");
  });

  it("exports metrics of all runs below a folder", async () => {
    const out = join(root, "exported");
    const { written } = (await upcycleJson("runs", "export", dir, "--format", "csv,tensorboard", "--out", out)) as {
      written: string[];
    };
    expect(written).toHaveLength(6);
    const [csv] = written.filter((name) => name.includes("moe") && name.endsWith("metrics.csv"));
    const run = (await listed())[1]!.path;
    const live = readFileSync(join(run, "metrics.csv"), "utf8");
    const losses = (text: string): string[] => text.split("\n").map((line) => line.split(",").slice(3).join());
    expect(losses(readFileSync(csv!, "utf8"))).toEqual(losses(live));
  });

  it("prunes only after a yes, only what a run writes, and a study makes it again", async () => {
    const [dense, moe] = (await listed()).map(({ path }) => path) as [string, string];
    const refused = await upcycle("runs", "prune", dir, "--filter", "kind=moe");
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringMatching(/to be removed: 1 run .*add --yes/)]);
    expect(existsSync(join(moe, "last"))).toBe(true);
    writeFileSync(join(moe, "last", "notes.txt"), "mine");
    writeFileSync(join(moe, "mine.txt"), "mine");
    const pruned = await upcycle("runs", "prune", dir, "--filter", "kind=moe", "--all", "--yes");
    expect([pruned.code, pruned.stderr]).toEqual([0, expect.stringContaining("something that no run writes")]);
    expect(readdirSync(moe).sort()).toEqual(["last", "mine.txt"]);
    expect(readdirSync(join(moe, "last"))).toEqual(["notes.txt"]);
    await upcycle("runs", "prune", dense, "--yes");
    expect(readdirSync(dense).sort()).toEqual([
      "events.out.tfevents.upcycle",
      "metrics.csv",
      "metrics.jsonl",
      "run.json",
    ]);
  });
});
