/** The commands, as far as they are known before their code is loaded. */
import { Command } from "commander";

/** What the help of the whole program says of a command, and how its code is loaded. */
export interface CommandEntry {
  /** The arguments as the command's own usage has them. */
  readonly arguments: string;
  readonly description: string;
  readonly load: () => Promise<Command>;
}

/**
 * All commands in the order of the help. Arguments and descriptions are those of the commands themselves, which a test
 * compares. So the help, `--version` and a mistyped name wait for no command's code, and a command waits for its own
 * code alone.
 */
export const commandEntries: Readonly<Record<string, CommandEntry>> = {
  demo: {
    arguments: "",
    description: "upcycle the small model that comes along, prove it, let both write: a few seconds",
    load: async () => (await import("./demo.js")).demoCommand(),
  },
  quickstart: {
    arguments: "",
    description: "the main job on text that comes along: train a dense model, upcycle it, train on, report",
    load: async () => (await import("./study.js")).quickstartCommand(),
  },
  init: {
    arguments: "[file]",
    description: "write a commented recipe to start from: a study, a training or a conversion",
    load: async () => (await import("./init.js")).initCommand(),
  },
  study: {
    arguments: "<file>",
    description: "run a study: parents, arms and seeds on further tokens, questions, a report",
    load: async () => (await import("./study.js")).studyCommand(),
  },
  train: {
    arguments: "<file>",
    description: "train a new model, or an existing one further, on text",
    load: async () => (await import("./train.js")).trainCommand(),
  },
  runs: {
    arguments: "[command]",
    description: "list, compare, export and prune what was trained",
    load: async () => (await import("./runs.js")).runsCommand(),
  },
  studio: {
    arguments: "[dir]",
    description: "show runs, experts, models and reports on a local page while they happen",
    load: async () => (await import("./studio.js")).studioCommand(),
  },
  convert: {
    arguments: "[model]",
    description: "upcycle a dense model folder into a mixture-of-experts model folder",
    load: async () => (await import("./convert.js")).convertCommand(),
  },
  merge: {
    arguments: "<model>",
    description: "average the experts of an MoE, or pick one, into a dense model folder",
    load: async () => (await import("./merge.js")).mergeCommand(),
  },
  verify: {
    arguments: "<dense> <moe>",
    description: "measure how far an MoE model's function is from its dense parent's",
    load: async () => (await import("./verify.js")).verifyCommand(),
  },
  diff: {
    arguments: "<a> <b>",
    description: "compare two models tensor by tensor, and their configs",
    load: async () => (await import("./diff.js")).diffCommand(),
  },
  inspect: {
    arguments: "<model>",
    description: "say what a model folder holds; reads no weights",
    load: async () => (await import("./inspect.js")).inspectCommand(),
  },
  experts: {
    arguments: "<model>",
    description: "say what the experts of an MoE do, how alike they are, and what it costs to drop or merge some",
    load: async () => (await import("./experts.js")).expertsCommand(),
  },
  forward: {
    arguments: "<model>",
    description: "compute the logits of given token ids, file to file",
    load: async () => (await import("./forward.js")).forwardCommand(),
  },
  export: {
    arguments: "<model>",
    description: "write a model as it is, dense or MoE, as a checkpoint that Megatron-Core loads",
    load: async () => (await import("./export.js")).exportCommand(),
  },
  import: {
    arguments: "<dir>",
    description: "write a checkpoint of Megatron-Core as a Hugging Face model folder",
    load: async () => (await import("./import.js")).importCommand(),
  },
  data: {
    arguments: "[command]",
    description: "prepare text for training on a cluster",
    load: async () => (await import("./data.js")).dataCommand(),
  },
  launch: {
    arguments: "[file]",
    description: "start a training with Megatron-LM: here, on Slurm or on Kubernetes",
    load: async () => (await import("./launch.js")).launchCommand(),
  },
  watch: {
    arguments: "<log...>",
    description: "follow logs of Megatron-LM, Megatron Bridge or NeMo: losses, speed, what goes wrong",
    load: async () => (await import("./watch.js")).watchCommand(),
  },
  "export-onnx": {
    arguments: "<model>",
    description: "write a model's graph and weights as an ONNX file, for onnxruntime anywhere",
    load: async () => (await import("./export-onnx.js")).exportOnnxCommand(),
  },
  generate: {
    arguments: "<model>",
    description: "let a model go on from a prompt, or from several at once",
    load: async () => (await import("./generate.js")).generateCommand(),
  },
  perplexity: {
    arguments: "<model> <file>",
    description: "measure a model's perplexity on long text, by a window that slides in strides",
    load: async () => (await import("./perplexity.js")).perplexityCommand(),
  },
  eval: {
    arguments: "[model...]",
    description: "evaluate models on tasks of the LM Evaluation Harness, with its prompts and its numbers",
    load: async () => (await import("./eval.js")).evalCommand(),
  },
  fit: {
    arguments: "<file>",
    description: "fit a scaling law to losses of trained models",
    load: async () => (await import("./fit.js")).fitCommand(),
  },
  plan: {
    arguments: "[model]",
    description: "predict losses, cost and layout of upcycling a dense model",
    load: async () => (await import("./plan.js")).planCommand(),
  },
  targets: {
    arguments: "<model>",
    description: "say which MoE families can hold an upcycled model, exactly or not, and which programs run it",
    load: async () => (await import("./targets.js")).targetsCommand(),
  },
  doctor: {
    arguments: "",
    description: "say which GPUs can be used, what is missing, and the line that installs it",
    load: async () => (await import("./doctor.js")).doctorCommand(),
  },
  completion: {
    arguments: "<shell>",
    description: "print a script that completes commands, options and files in a shell",
    load: async () => (await import("./completion.js")).completionCommand(commandEntries),
  },
};

/** The names of all commands. */
export const commandNames: readonly string[] = Object.keys(commandEntries);

/** The command of this name; undefined where there is none. */
export const commandNamed = (name: string): CommandEntry | undefined =>
  Object.hasOwn(commandEntries, name) ? commandEntries[name] : undefined;

/** Stubs of all commands, in the order of the help. */
export const stubs = (): Command[] => Object.entries(commandEntries).map(([name, entry]) => stub(name, entry));

/** A command that has what the help of the whole program and its suggestions need, and does nothing. */
export function stub(name: string, { arguments: words, description }: CommandEntry): Command {
  const command = new Command(name).description(description).option("--json");
  return words === "" ? command : command.arguments(words);
}
