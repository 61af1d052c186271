/** Scripts and manifests that start a run: torchrun on this machine, Slurm, Kubernetes. Texts alone. Pure. */
import type { LaunchConfig } from "../../base/schemas/index.js";
import type { ParallelLayout } from "../../laws/planner/layout-types.js";
import { shellWord } from "../../base/shell.js";
import { iterations, type ReasonedArgument } from "./arguments.js";

/** What a script starts. */
export interface LaunchPlan {
  readonly config: LaunchConfig;
  readonly layout: ParallelLayout;
  /** Words of the model's vocabulary. */
  readonly vocab: number;
  readonly arguments: readonly ReasonedArgument[];
  /** Name, value, reason. */
  readonly environment: readonly (readonly [string, string, string])[];
  readonly gpusPerNode: number;
}

/** Folder of Megatron's checkpoints in a run's folder. */
export const checkpointsOf = ({ out }: Pick<LaunchConfig, "out">): string => `${out}/checkpoints`;

const nodesOf = ({ config, gpusPerNode }: LaunchPlan): number => Math.ceil(config.hardware.gpus / gpusPerNode);
const perNode = ({ config, gpusPerNode }: LaunchPlan): number => Math.min(config.hardware.gpus, gpusPerNode);

/** The lines of arguments, behind the reason that they share. */
export function argumentLines({ arguments: all }: Pick<LaunchPlan, "arguments">): string[] {
  return all.flatMap(({ flag, values, reason }, i) => [
    ...(all[i - 1]?.reason === reason ? [] : [`  # ${reason}`]),
    `  ${[flag, ...values.map(shellWord)].join(" ")}`,
  ]);
}

/** Where to load from: the run's own last checkpoint, or, the first time, the model. */
function loading({ checkpoint, out, training }: LaunchConfig): string[] {
  const save = shellWord(checkpointsOf({ out }));
  return [
    `if [ "$(cat ${save}/latest_checkpointed_iteration.txt 2> /dev/null)" = ${iterations(training)} ]; then`,
    `  echo "all ${iterations(training)} iterations are done"`,
    "  exit 0",
    "fi",
    "# The first start takes weights alone; a later one goes on with the optimizer, the schedule and the data.",
    `if [ -f ${save}/latest_checkpointed_iteration.txt ]; then`,
    `  LOAD=(--load ${save} --save ${save})`,
    "else",
    `  LOAD=(--load ${shellWord(checkpoint)} --finetune --save ${save})`,
    "fi",
  ];
}

function preamble(plan: LaunchPlan): string[] {
  return [
    "set -euo pipefail",
    ...plan.environment.map(([name, value, reason]) => `export ${name}=${shellWord(value)}  # ${reason}`),
    ...loading(plan.config),
    "ARGUMENTS=(",
    ...argumentLines(plan),
    ")",
  ];
}

/** A script for this machine. `more`: arguments behind all others. */
export function localScript(plan: LaunchPlan, more: readonly string[] = []): string {
  const { config } = plan;
  const words = ["torchrun", "--standalone", "--nproc-per-node", String(perNode(plan)), "pretrain_gpt.py"];
  return [
    "#!/usr/bin/env bash",
    ...preamble(plan),
    `cd ${shellWord(config.megatron)}`,
    `exec ${words.join(" ")} "\${ARGUMENTS[@]}" "\${LOAD[@]}"${more.map((word) => ` ${shellWord(word)}`).join("")}`,
    "",
  ].join("\n");
}

/** Minutes before a job's limit at which Megatron saves and ends by itself. */
const spareMinutes = 10;

/** The comment by which jobs of a run are found in Slurm. */
export const slurmMark = (out: string): string => `upcycle:${out}`;

/** A batch script of Slurm; the same job may run again after a node has failed. */
export function slurmScript(plan: LaunchPlan, name: string): string {
  const { config } = plan;
  const { partition, account, minutes, options } = config.slurm!;
  const lines = [
    `--job-name=${name}`,
    `--comment=${shellWord(slurmMark(config.out))}`,
    `--nodes=${nodesOf(plan)}`,
    "--ntasks-per-node=1",
    `--gpus-per-node=${perNode(plan)}`,
    `--time=${minutes}`,
    // Never beside another job of this name, even if two machines start the run at the same moment.
    "--dependency=singleton",
    "--requeue",
    "--open-mode=append",
    `--signal=TERM@120`,
    `--output=${shellWord(`${config.out}/logs/%j.log`)}`,
    ...(partition === undefined ? [] : [`--partition=${partition}`]),
    ...(account === undefined ? [] : [`--account=${account}`]),
    ...options,
  ];
  const limit = Math.max(1, minutes - spareMinutes);
  const torchrun = [
    `torchrun --nnodes ${nodesOf(plan)} --nproc-per-node ${perNode(plan)}`,
    '--rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$HEAD:29500" pretrain_gpt.py',
  ].join(" ");
  return [
    "#!/usr/bin/env bash",
    ...lines.map((line) => `#SBATCH ${line}`),
    ...preamble(plan),
    'HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
    "export HEAD",
    `cd ${shellWord(config.megatron)}`,
    `# Saves and ends ${spareMinutes} minutes before the limit; the next job of the chain goes on.`,
    `srun --kill-on-bad-exit=1 ${torchrun} "\${ARGUMENTS[@]}" "\${LOAD[@]}" --exit-duration-in-mins ${limit}`,
    "",
  ].join("\n");
}

/** A manifest of Kubernetes, as JSON-compatible data. */
export function kubernetesManifest(plan: LaunchPlan, name: string): Record<string, unknown> {
  const { kind, namespace } = plan.config.kubernetes!;
  return kind === "PyTorchJob" ? pytorchJob(plan, name, namespace) : jobSet(plan, name, namespace);
}

function podOf(plan: LaunchPlan, command: string): Record<string, unknown> {
  const { config } = plan;
  const { image, claim } = config.kubernetes!;
  const script = [...preamble(plan), `cd ${shellWord(config.megatron)}`, command].join("\n");
  const volume = claim === undefined ? {} : { volumeMounts: [{ name: "data", mountPath: "/data" }] };
  return {
    spec: {
      restartPolicy: "Never",
      containers: [
        {
          // The operator of PyTorchJob asks for this name.
          name: "pytorch",
          image,
          command: ["bash", "-c", script],
          resources: { limits: { "nvidia.com/gpu": perNode(plan) } },
          ...volume,
        },
      ],
      ...(claim === undefined ? {} : { volumes: [{ name: "data", persistentVolumeClaim: { claimName: claim } }] }),
    },
  };
}

function pytorchJob(plan: LaunchPlan, name: string, namespace: string): Record<string, unknown> {
  const nodes = nodesOf(plan);
  const command =
    `exec torchrun --nnodes ${nodes} --nproc-per-node ${perNode(plan)} --node-rank "$RANK" ` +
    '--master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT" pretrain_gpt.py "${ARGUMENTS[@]}" "${LOAD[@]}"';
  const replica = (replicas: number): Record<string, unknown> => ({
    replicas,
    restartPolicy: "OnFailure",
    template: podOf(plan, command),
  });
  return {
    apiVersion: "kubeflow.org/v1",
    kind: "PyTorchJob",
    metadata: { name, namespace },
    spec: {
      pytorchReplicaSpecs: { Master: replica(1), ...(nodes > 1 ? { Worker: replica(nodes - 1) } : {}) },
    },
  };
}

function jobSet(plan: LaunchPlan, name: string, namespace: string): Record<string, unknown> {
  const nodes = nodesOf(plan);
  const head = `${name}-node-0-0.${name}`;
  const command =
    `exec torchrun --nnodes ${nodes} --nproc-per-node ${perNode(plan)} --node-rank "$JOB_COMPLETION_INDEX" ` +
    `--master-addr ${head} --master-port 29500 pretrain_gpt.py "\${ARGUMENTS[@]}" "\${LOAD[@]}"`;
  return {
    apiVersion: "jobset.x-k8s.io/v1alpha2",
    kind: "JobSet",
    metadata: { name, namespace },
    spec: {
      failurePolicy: { maxRestarts: 100 },
      replicatedJobs: [
        {
          name: "node",
          replicas: 1,
          template: {
            spec: {
              parallelism: nodes,
              completions: nodes,
              completionMode: "Indexed",
              backoffLimit: 0,
              template: podOf(plan, command),
            },
          },
        },
      ],
    },
  };
}
