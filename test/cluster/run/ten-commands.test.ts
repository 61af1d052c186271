/**
 * The ten commands of docs/cluster.md, from a Hugging Face model to a run on Slurm and back, as they stand there: with
 * the model and the text that come along, and a fake cluster on the PATH.
 */
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { start, type Outcome } from "../../cli/upcycle.js";

const here = (path: string): string => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const root = mkdtempSync(join(tmpdir(), "upcycle-ten-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** The commands of the section, one a line. */
function commands(): string[] {
  const page = readFileSync(here("docs/cluster.md"), "utf8");
  const section = page.slice(page.indexOf("## From a model to a run on Slurm"));
  return /```\n([\s\S]*?)```/.exec(section)![1]!.trim().split("\n");
}

/** Programs of a cluster of one node that runs a job at once; the trainer is a stand-in. */
function writeCluster(bin: string): void {
  mkdirSync(bin);
  const trainer = here("test/support/stub-trainer.mjs");
  const programs = {
    sbatch:
      'script="${!#}"; out=$(sed -n "s/^#SBATCH --output=//p" "$script" | tr -d "\\047"); n=$RANDOM; ' +
      'SLURM_JOB_ID=$n SLURM_JOB_NODELIST=here bash "$script" > "${out//%j/$n}" 2>&1; echo $n',
    squeue: "exit 0",
    scontrol: "echo here",
    srun: 'while [ "$1" != torchrun ]; do shift; done; exec "$@"',
    torchrun: `while [ "$1" != pretrain_gpt.py ]; do shift; done; exec ${process.execPath} ${trainer} "$@"`,
  };
  for (const [name, body] of Object.entries(programs)) {
    writeFileSync(join(bin, name), `#!/bin/bash\n${body}\n`);
    chmodSync(join(bin, name), 0o755);
  }
}

describe("the ten commands of docs/cluster.md", () => {
  it("lead from a model to a run on Slurm, and back", { timeout: 600_000 }, async () => {
    const [model, bin] = [join(root, "parent"), join(root, "bin")];
    cpSync(here("models/tiny"), model, { recursive: true });
    mkdirSync(join(root, "text"));
    // Few documents: the whole text would take half a minute.
    writeFileSync(
      join(root, "text", "a.jsonl"),
      `${JSON.stringify({ text: "The Congress of the United States. ".repeat(400) })}\n`,
    );
    mkdirSync(join(root, "recipes"));
    copyFileSync(here("recipes/launch.yaml"), join(root, "recipes/launch.yaml"));
    mkdirSync(join(root, "Megatron-LM"));
    writeFileSync(join(root, "Megatron-LM/pretrain_gpt.py"), "");
    writeCluster(bin);
    const env = { PATH: `${bin}:${process.env["PATH"]}`, STUB_STEP_MS: "1", COLUMNS: "80" };
    const listed = commands();
    expect(listed.length).toBe(10);

    for (const line of listed) {
      const words = line
        .replaceAll("hf://meta-llama/Llama-3.1-8B", "parent")
        .replace("text/*.jsonl", "text/a.jsonl")
        .replace("--d1 15T", "--d1 15B")
        .replace("--tokens 100B", "--tokens 1B")
        .split(/ +/);
      if (words[0] === "cp") {
        // A user's own sizes: the cluster, the length, a short sequence.
        const text = readFileSync(join(root, words[1]!), "utf8")
          .replace("/opt/Megatron-LM", "Megatron-LM")
          .replace("accumulate: 1024", "accumulate: 8")
          .replace("sequence: 8192", "sequence: 64")
          .replace("tokens: 100000000000", "tokens: 20480")
          .replace("warmup: 500", "warmup: 2")
          .replace("saveEvery: 500", "saveEvery: 20")
          .replace("gpus: 64", "gpus: 2")
          .replace("jobs: 8", "jobs: 1");
        writeFileSync(join(root, words[2]!), text);
        continue;
      }
      expect(words.shift()).toBe("upcycle");
      if (words[0] === "watch") words.push("--once");
      // The second command measures what the first one would.
      if (words[0] === "convert") words.push("--no-report");
      if (words[0] === "import") trained();
      const { code, stdout, stderr }: Outcome = await start(words, root, { env }).outcome;
      expect(code, `${line}\n${stderr}`).toBe(0);
      if (words[0] === "verify") expect(stdout).toContain("The two models compute the same function, up to rounding.");
      if (words[0] === "watch") expect(stdout).toContain("step 40 of 40");
    }
    expect(existsSync(join(root, "models/llama-8x8b/config.json"))).toBe(true);
  });

  /** The stand-in saves no weights: those that it was given stand for them. */
  function trained(): void {
    const saved = join(root, "runs/llama-8x8b/checkpoints/iter_0000040");
    expect(existsSync(saved)).toBe(true);
    cpSync(join(root, "megatron/llama-8x8b/release"), saved, { recursive: true });
  }
});
