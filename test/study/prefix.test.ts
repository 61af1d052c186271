/** Runs that begin with a copy of another, while other commands work in the same store. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, it } from "vitest";
import type { TrainingBlock } from "../../src/base/schemas/index.js";
import { previousName } from "../../src/files/io/atomic.js";
import { Prefixes } from "../../src/study/prefix.js";
import { temporaryFolder } from "../files/io/temporary.js";

const root = temporaryFolder();
const training = (steps: number): TrainingBlock =>
  ({ steps, lr: { schedule: "constant", peak: 1, warmup: 0 } }) as unknown as TrainingBlock;
const identity = { key: "longer", prefix: "same" };

/** A store with one run, `arms/a/short`, of so many steps. */
function storeOf(name: string, steps: number): { store: string; run: string; longer: string } {
  const store = join(root, name);
  const run = join(store, "arms", "a", "short");
  mkdirSync(join(run, "last"), { recursive: true });
  writeFileSync(join(run, "run.json"), JSON.stringify({ key: "short", prefix: "same", training: training(1e9) }));
  writeFileSync(join(run, "metrics.jsonl"), "");
  for (const file of ["model.safetensors", "optimizer.safetensors"]) writeFileSync(join(run, "last", file), `${steps}`);
  writeFileSync(join(run, "last", "training.json"), JSON.stringify({ step: steps, ms: 0 }));
  return { store, run, longer: join(store, "arms", "a", "longer") };
}

it("a run whose replacement of the checkpoint was cut off is copied as it is, and left so", async () => {
  const { store, run, longer } = storeOf("cut", 7);
  const last = join(run, "last");
  renameSync(last, previousName(last));
  writeFileSync(join(run, ".last.replacing"), "upcycle replaces the folder with number 1\n");
  await new Prefixes(store).adopt({ dir: longer, identity, training: training(100) });
  expect(readFileSync(join(longer, "last", "model.safetensors"), "utf8")).toBe("7");
  expect([existsSync(last), existsSync(previousName(last))]).toEqual([false, true]);
});

it("a copy is of one checkpoint, also where another command replaces it meanwhile", async () => {
  const { store, run, longer } = storeOf("busy", 1);
  const atomic = pathToFileURL(join(process.cwd(), "dist/files/io/atomic.js")).href;
  const program = `
    import { writeFileSync } from "node:fs";
    import { join } from "node:path";
    import { stageDirectory } from ${JSON.stringify(atomic)};
    const last = ${JSON.stringify(join(run, "last"))};
    for (let step = 2, end = Date.now() + 4000; Date.now() < end; step++) {
      const staged = await stageDirectory(last, { overwrite: "checkpoint" });
      for (const name of ["model", "optimizer"])
        writeFileSync(join(staged.path, name + ".safetensors"), String(step).padEnd(4e6));
      writeFileSync(join(staged.path, "training.json"), JSON.stringify({ step, ms: 0 }));
      await staged.commit();
    }`;
  const writer = spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let told = "";
  writer.stderr.setEncoding("utf8").on("data", (part: string) => (told += part));
  const ended = once(writer, "close");
  const stamps: (readonly number[])[] = [];
  while (writer.exitCode === null) {
    const dir = `${longer}-${stamps.length}`;
    await new Prefixes(store).adopt({ dir, identity, training: training(1e9) });
    const stamp = (name: string): number => Number(readFileSync(join(dir, "last", `${name}.safetensors`), "utf8"));
    const { step } = JSON.parse(readFileSync(join(dir, "last", "training.json"), "utf8")) as { step: number };
    stamps.push([step, stamp("model"), stamp("optimizer")]);
  }
  await ended;
  expect(told).toBe("");
  expect(stamps.length).toBeGreaterThan(2);
  for (const [step, ...files] of stamps) expect(files).toEqual([step, step]);
});
