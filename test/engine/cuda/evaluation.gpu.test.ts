/** An evaluation by the command, whose GPU opens while prompts are built; and programs that run once. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it, vi } from "vitest";
import { evalCommand } from "../../../src/cli/eval.js";
import { cudaBackend } from "../../../src/engine/cuda/backend.js";
import { Stream } from "../../../src/engine/cuda/stream.js";
import { extendProgram, logitsProgram } from "../../../src/graph/programs/programs.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { jsonInProcess, refusalOf } from "../../cli/in-process.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { cudaMachine } from "../../support/cuda.js";
import { golden } from "../../support/golden.js";
import { writeQuiz } from "../../support/quiz.js";

const root = temporaryFolder();
const tiny = fileURLToPath(new URL("../../../models/tiny", import.meta.url));
const words = ["whale", "ship", "sea", "captain"];
const docs = words.map((word, i) => ({
  question: `Which ${word} is it, number ${i}?`,
  choices: [`the ${words[(i + 1) % 4]!}`, `the ${word} of the ship`],
  answer: i % 2,
}));
const taskFile = writeQuiz(root, docs);

interface Results {
  readonly models: readonly {
    readonly results: { readonly quiz: Readonly<Record<string, number>> };
    readonly files: { readonly samples: readonly string[] };
  }[];
}

describe.skipIf(cudaMachine === "no machine")(`on ${cudaMachine}, an evaluation`, () => {
  const asked = (out: string, device: string, ...more: readonly string[]): readonly string[] => [
    ...["eval", tiny, "--tasks", taskFile, "--out", join(root, out), "--threads", "1"],
    ...["--device", device, "--precision", "float32", ...more],
  ];
  const evaluated = async (device: string): Promise<Results["models"][number]> => {
    const results = (await jsonInProcess(evalCommand(), ...asked(device, device))) as unknown as Results;
    return results.models[0]!;
  };

  it("gives the CPU's answers", async () => {
    const [onGpu, onCpu] = [await evaluated("cuda"), await evaluated("cpu")];
    expect(Object.keys(onGpu.results.quiz).join()).toMatch(/\bacc\b/);
    expect(onGpu.results).toEqual(onCpu.results);
    const numbersOf = ({ files }: typeof onGpu): number[] =>
      readFileSync(files.samples[0]!, "utf8")
        .trim()
        .split("\n")
        .flatMap(
          (line) => (JSON.parse(line) as { filtered_resps: readonly (readonly [string, string])[] }).filtered_resps,
        )
        .map(([likelihood]) => Number(likelihood));
    const [found, expected] = [numbersOf(onGpu), numbersOf(onCpu)];
    expect(found).toHaveLength(2 * docs.length);
    for (const [i, value] of expected.entries()) expect(found[i]).toBeCloseTo(value, 3);
  });

  it("is refused for its prompts while the GPU opens, and for a GPU that is not there", async () => {
    expect(await refusalOf(asked("few", "cuda", "--num-fewshot", "100"))).toMatch(/100 examples are asked for/);
    expect(await refusalOf(asked("none", "cuda:99"))).toMatch(/there is no GPU 99/);
  });
});

describe.skipIf(cudaMachine === "no machine")(`on ${cudaMachine}, forward programs`, () => {
  it("are recorded as graphs from their second run on, with the same result", async () => {
    const checkpoint = await openCheckpoint(golden("dense/llama"));
    const { spec } = checkpoint;
    const runtime = await cudaBackend(0, { precision: "float32" }).openForward({ threads: 1 });
    const program = logitsProgram(spec, { batch: 1, sequence: 4 });
    for (const { key } of program.params) await runtime.write(key, await checkpoint.readFloat32(key));
    await checkpoint.close();
    const record = vi.spyOn(Stream.prototype, "record");
    const runs: Float32Array[] = [];
    for (let run = 0; run < 3; run++) {
      runs.push(await runtime.run("all", program, [Int32Array.of(1, 2, 3, 4)]));
      expect(record).toHaveBeenCalledTimes(Math.min(run, 1));
    }
    expect(runs[1]).toEqual(runs[0]);
    expect(runs[2]).toEqual(runs[0]);
    record.mockClear();
    const shape = { batch: 1, tokens: 4, capacity: 0, positions: 16 };
    const feeds = {
      ids: Int32Array.of(1, 2, 3, 4),
      lengths: new Int32Array(1),
      counts: Int32Array.of(4),
      capacity: 16,
    };
    for (let run = 0; run < 2; run++) {
      const { output } = await runtime.extend("prompt", extendProgram(spec, shape), feeds);
      expect(record).toHaveBeenCalledTimes(run);
      expect(Math.max(...output.map((value, i) => Math.abs(value - runs[0]![3 * spec.vocab + i]!)))).toBeLessThan(1e-4);
    }
    record.mockRestore();
    await runtime.close();
  });
});
