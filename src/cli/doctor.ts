/** `upcycle doctor` */
import { Command } from "commander";
import { bytes, labelled } from "../base/format.js";
import { examine, type CudaReport, type GpuReport, type LibraryReport } from "../engine/cuda/doctor.js";
import type { LibraryName } from "../engine/cuda/libraries.js";
import { openContext } from "./context.js";
import { withExample, withJson, type CommonFlags } from "./options.js";

const labelWidth = 11;

const remark =
  "Exit code 1: there is a GPU and it cannot be used. A machine without a GPU is well, everything runs on its CPU.";

/** The command `doctor` with its options and its help. */
export function doctorCommand(): Command {
  const command = new Command("doctor")
    .description("say which GPUs can be used, what is missing, and the line that installs it")
    .action(execute);
  return withExample(withJson(command), "upcycle doctor", remark);
}

async function execute({ json: asJson }: CommonFlags): Promise<void> {
  const { terminal, json } = openContext({ json: asJson });
  const found = await examine(process.env);
  if (json) terminal.json(found);
  else for (const [label, text] of describe(found)) terminal.out(labelled(label, text, labelWidth, terminal.columns));
  if (!found.healthy) process.exitCode = 1;
}

const names: Readonly<Record<LibraryName, string>> = { driver: "driver", nvrtc: "NVRTC", cublasLt: "cuBLASLt" };

const libraryWords = ({ version, path, source }: LibraryReport): string =>
  version === null ? "not found" : `${version} (${path}, by ${source})`;

function gpuWords({ name, capability, multiprocessors, memory, selfTest, problem }: GpuReport): string {
  const chip = `compute capability ${(capability / 10).toFixed(1)}, ${multiprocessors} multiprocessors`;
  const facts = `${name}, ${chip}, ${bytes(memory)}`;
  if (problem !== null) return `${facts}: cannot be used: ${problem}`;
  if (selfTest === null) return facts;
  const { difference, seconds } = selfTest;
  return `${facts}: works, within ${difference.toExponential(1)} of the interpreter (${seconds.toFixed(1)} s)`;
}

function describe({ koffi, libraries, gpus, missing, auto }: CudaReport): [string, string][] {
  return [
    ["koffi", koffi ?? "not installed"],
    ...libraries.map((each): [string, string] => [names[each.name], libraryWords(each)]),
    ...(gpus.length === 0
      ? [["GPU", "none that CUDA shows; everything runs on the CPU"] as [string, string]]
      : gpus.map((gpu): [string, string] => [`GPU ${gpu.ordinal}`, gpuWords(gpu)])),
    ...missing.map(({ what, install }): [string, string] => ["missing", `${what}: ${install}`]),
    ["auto", `--device auto takes ${auto}`],
  ];
}
