/** `upcycle init` and `--print-settings`: a recipe to start from, and what a command would run with. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { parseRecipeConfig, parseStudyConfig, parseTrainConfig } from "../../src/base/schemas/index.js";
import { start, upcycleJson } from "./upcycle.js";

const dir = mkdtempSync(join(tmpdir(), "upcycle-init-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const text = (file: string): string => readFileSync(join(dir, file), "utf8");

describe("upcycle init", () => {
  it.each([
    ["study", parseStudyConfig, "upcycle study study.yaml"],
    ["train", parseTrainConfig, "upcycle train train.yaml"],
    ["convert", parseRecipeConfig, "upcycle convert MODEL --recipe convert.yaml --out DIR"],
  ] as const)("writes a commented %s recipe that parses, and says how it is run", async (kind, parse, command) => {
    const { code, stdout } = await start(["init", "--kind", kind], dir).outcome;
    expect([code, stdout]).toEqual([0, `wrote ${kind}.yaml; change it, then run\n  ${command}\n`]);
    const recipe = text(`${kind}.yaml`);
    expect(recipe.split("\n").filter((line) => line.includes("#")).length).toBeGreaterThan(3);
    expect(() => parse(recipe, `${kind}.yaml`)).not.toThrow();
    expect(recipe).not.toContain("recipes/" + (kind === "study" ? "own-parent" : kind) + ".yaml");
    const schema = /\$schema=(\S+)/.exec(recipe)![1]!;
    expect(JSON.parse(readFileSync(schema.startsWith("/") ? schema : join(dir, schema), "utf8"))).toHaveProperty(
      "properties",
    );
  });

  it("replaces no file, whatever is in it", async () => {
    writeFileSync(join(dir, "mine.yaml"), "mine");
    const { code, stderr } = await start(["init", "mine.yaml"], dir).outcome;
    expect([code, stderr]).toEqual([
      2,
      "upcycle: mine.yaml: is there already, and init replaces nothing; name another file\n",
    ]);
    expect(text("mine.yaml")).toBe("mine");
  });

  it("refuses a name that no recipe has", async () => {
    const { code, stderr } = await start(["init", "notes.txt"], dir).outcome;
    expect([code, stderr]).toEqual([2, "upcycle: notes.txt: a recipe is a YAML file; name it notes.txt.yaml\n"]);
  });
});

describe("--print-settings", () => {
  it("prints the file of a training with its defaults as YAML, and trains nothing", async () => {
    writeFileSync(
      join(dir, "small.yaml"),
      "out: never\nthreads: 3\nmodel: { hidden: 16, layers: 1, heads: 2, inner: 32 }\ntokenizer: { vocab: 300 }\n" +
        "text: { builtin: [sotu] }\ntraining: { steps: 5, batch: 1, sequence: 16, lr: { peak: 1e-3 } }\n",
    );
    const { code, stdout, stderr } = await start(["train", "small.yaml", "--print-settings"], dir).outcome;
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^# upcycle train: its settings; nothing was run\ncommand: train\n/);
    expect(stdout).toContain("  threads: 3\n");
    expect(stdout).toContain("    ropeTheta: 10000\n");
    expect(() => text("never/run.json")).toThrow();
  });

  it("puts what the command line says before the file, in JSON too", async () => {
    const settings = await upcycleJson("train", join(dir, "small.yaml"), "--threads", "2", "--print-settings");
    expect(settings).toMatchObject({ command: "train", options: { out: "never", threads: 2 }, file: { seed: 0 } });
  });

  it("resolves a recipe of convert, without the model being there", async () => {
    const settings = await upcycleJson("convert", "nowhere", "--recipe", "E8G8T8", "--seed", "7", "--print-settings");
    expect(settings).toMatchObject({
      arguments: { model: "nowhere" },
      options: { recipe: "E8G8T8", seed: 7, shardSize: "5GB", report: true },
      recipe: { name: "E8G8T8", expansion: 8, granularity: 8, topK: 8, order: "topk-softmax", scaling: "exact" },
    });
  });

  it("says of an option without a value what the help says of its default", async () => {
    const { options } = (await upcycleJson("verify", "a", "b", "--print-settings")) as {
      options: Record<string, unknown>;
    };
    expect(options).toMatchObject({ sequence: 256, memory: "half of the machine's" });
    expect(options["threads"]).toBeGreaterThan(0);
  });

  it("refuses what the command would refuse first", async () => {
    const { code, stderr } = await start(["study", "absent.yaml", "--print-settings"], dir).outcome;
    expect([code, stderr]).toEqual([2, "upcycle: absent.yaml: cannot open file: no such file or folder\n"]);
  });
});
