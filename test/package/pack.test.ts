/** The package as others get it: packed, installed outside the checkout, run, imported and type-checked. */
import { execFileSync, execSync, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { golden } from "../support/golden.js";
import { copyModel } from "../cli/upcycle.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const project = realpathSync(mkdtempSync(join(tmpdir(), "upcycle-pack-")));
const modules = join(project, "node_modules");
const installed = join(modules, "upcycle");
const node = (...args: string[]): string => execFileSync(process.execPath, args, { cwd: project, encoding: "utf8" });

afterAll(() => rmSync(project, { recursive: true, force: true }));

/** Dependencies are linked from the checkout: the test needs no network. */
function linkDependencies(): void {
  for (const name of readdirSync(join(root, "node_modules"))) {
    if (name === "upcycle" || name.startsWith(".")) continue;
    symlinkSync(join(root, "node_modules", name), join(modules, name), "junction");
  }
}

beforeAll(() => {
  mkdirSync(modules, { recursive: true });
  linkDependencies();
  // The build has been made already (test/global-setup.ts).
  execSync(`npm pack --ignore-scripts --silent --pack-destination "${project}"`, { cwd: root, stdio: "pipe" });
  const tarball = readdirSync(project).find((name) => name.endsWith(".tgz"))!;
  execSync(`tar -xzf ${tarball}`, { cwd: project });
  renameSync(join(project, "package"), installed);
  writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module", dependencies: { upcycle: "*" } }));
});

describe("the packed package", () => {
  it("holds what runs and nothing of the workshop", () => {
    const files = readdirSync(installed, { recursive: true, encoding: "utf8" });
    expect(files).toEqual(
      expect.arrayContaining([
        "package.json",
        "LICENSE",
        join("dist", "index.d.ts"),
        join("bin", "upcycle.js"),
        join("dist", "bundle", "main.js"),
        join("dist", "bundle", "LICENSES.txt"),
        join("recipes", "quickstart.yaml"),
        join("docs", "usage.md"),
        join("texts", "sotu.jsonl.gz"),
        join("models", "tiny", "model.safetensors"),
      ]),
    );
    expect(
      files.filter((file) => /^(src|test|bench|node_modules|shared)\b|\.ts$/.test(file) && !file.endsWith(".d.ts")),
    ).toEqual([]);
  });

  it("has the licence of every package whose code is bundled beside that code", () => {
    const text = readFileSync(join(installed, "dist", "bundle", "LICENSES.txt"), "utf8");
    for (const name of ["commander", "yaml", "zod"]) {
      const folder = join(root, "node_modules", name);
      const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { version: string };
      expect(text).toContain(`\n${name} ${version} (`);
      expect(text).toContain(readFileSync(join(folder, "LICENSE"), "utf8").trim());
    }
  });

  it("runs outside the checkout", () => {
    const { bin } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as { bin: { upcycle: string } };
    const main = join(installed, bin.upcycle);
    expect(readFileSync(main, "utf8").startsWith("#!/usr/bin/env node\n")).toBe(true);
    expect(node(main, "--help")).toContain("quickstart");
    const model = copyModel(golden("moe/mixtral"), join(project, "mixtral"));
    expect(JSON.parse(node(main, "inspect", model, "--json"))).toMatchObject({
      dir: model,
      spec: { family: "mixtral" },
    });
  });

  it("shows what it does on the model and the text that come along", () => {
    const main = join(installed, "bin", "upcycle.js");
    const { preservation } = JSON.parse(node(main, "demo", "--json")) as { preservation: { relative: number } };
    expect(preservation.relative).toBeLessThan(1e-5);
    expect(node(main, "init")).toContain("wrote study.yaml");
    const schema = /\$schema=(\S+)/.exec(readFileSync(join(project, "study.yaml"), "utf8"))![1]!;
    expect(existsSync(join(project, schema))).toBe(true);
  });

  it("is a library whose first example works", () => {
    const example = /```js\n([\s\S]*?)```/
      .exec(readFileSync(join(installed, "dist", "index.d.ts"), "utf8"))![1]!
      .replace(/^ \* ?/gm, "");
    expect(example.trim().split("\n").length).toBeLessThanOrEqual(8);
    writeFileSync(join(project, "example.js"), example);
    copyModel(golden("dense/llama"), join(project, "dense"));
    expect(Number(node("example.js"))).toBeLessThan(1e-4);
    expect(existsSync(join(project, "moe", "upcycle.json"))).toBe(true);
  });

  it("type-checks for a strict consumer, its own declarations included", () => {
    writeFileSync(
      join(project, "consumer.ts"),
      `
import { backward, countParams, GraphBuilder, openCheckpoint, parseStudyConfig, planUpcycle, runStudy, specFromConfig, trainRun, UpcycleError, upcycleRecipe } from "upcycle";
import type { Backend, DecoderSpec, RunResult, StudyConfig, StudyEvent, StudyResult, TrainEvent } from "upcycle";

export async function activeAfter(dir: string, recipe: string): Promise<number> {
  const checkpoint = await openCheckpoint(dir);
  const spec: DecoderSpec = checkpoint.spec;
  await checkpoint.close();
  return countParams(planUpcycle(spec, upcycleRecipe(recipe, { order: "softmax-topk", seed: 1 })).target).active;
}
export async function lastLoss(config: StudyConfig, backend: Backend): Promise<number | undefined> {
  const events: AsyncGenerator<StudyEvent, StudyResult> = runStudy({ config, dir: "run", backends: [backend], threads: 2, command: "" });
  const next = await events.next();
  return next.done === true ? next.value.arms[0]?.runs[0]?.finalLoss : undefined;
}
export const start: (...options: Parameters<typeof trainRun>) => AsyncGenerator<TrainEvent, RunResult> = trainRun;
export const builder: GraphBuilder = new GraphBuilder();
export { backward };
export const arms: string[] = Object.keys(parseStudyConfig("", "x.yaml").arms);
export const exit = (error: unknown): number => (error instanceof UpcycleError ? error.exitCode : 1);
// @ts-expect-error a router order that does not exist
upcycleRecipe("E8G1T2", { order: "topk" });
specFromConfig({}, "config.json");
`,
    );
    const options = {
      target: "ES2022",
      lib: ["ES2023"],
      module: "NodeNext",
      moduleResolution: "NodeNext",
      types: ["node"],
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: false,
      noEmit: true,
    };
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["consumer.ts"] }));
    const tsc = join(dirname(fileURLToPath(import.meta.resolve("typescript/package.json"))), "bin", "tsc");
    const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", project], { encoding: "utf8" });
    expect([status, stdout]).toEqual([0, ""]);
  });
});
