/** `upcycle export-onnx`: a model as an ONNX file. */
import { Command } from "commander";
import { inputError } from "../base/errors.js";
import { resultOf } from "../base/events.js";
import { bytes, compact, duration, percent, wrap } from "../base/format.js";
import {
  exportOnnx,
  requireOnnxPlace,
  type Exported,
  type ExportKind,
  type WeightPlace,
} from "../surgery/convert/export-onnx.js";
import type { NamedPort } from "../graph/programs/export.js";
import { openContext, shownPath } from "./context.js";
import { modelSource, orAdapted, shownModel } from "./model-folder.js";
import { oneOf, realNumber, wholeNumber, withExample, withJson, type CommonFlags } from "./options.js";

interface ExportFlags extends CommonFlags {
  readonly out: string;
  readonly batch: number;
  readonly sequence: number;
  readonly rows?: "all" | "last";
  readonly loss?: boolean;
  readonly training?: boolean;
  readonly auxLoss?: number;
  readonly zLoss?: number;
  readonly weights: WeightPlace;
  readonly overwrite?: boolean;
}

/** The command with its options and its help. */
export function exportOnnxCommand(): Command {
  const command = new Command("export-onnx")
    .description("write a model's graph and weights as an ONNX file, for onnxruntime anywhere")
    .argument("<model>", `model folder, ${orAdapted}`)
    .requiredOption("--out <file>", "file to make, such as model.onnx")
    .option("--batch <n>", "sequences that a run takes", wholeNumber("--batch", 1, 65536), 1)
    .option("--sequence <n>", "tokens of each", wholeNumber("--sequence", 1, 1 << 20), 128)
    .option(
      "--rows <which>",
      "logits of all tokens, or of each sequence's last (default: all)",
      oneOf("--rows", ["all", "last"]),
    )
    .option("--loss", "also take targets and give their mean loss")
    .option("--training", "the whole training graph: losses and gradients")
    .option(
      "--aux-loss <c>",
      "coefficient of the load-balancing loss (default: the config's)",
      realNumber("--aux-loss", 0),
    )
    .option("--z-loss <c>", "coefficient of the router z-loss (default: 0)", realNumber("--z-loss", 0))
    .option(
      "--weights <where>",
      "inside; beside, in FILE.data (also above 2 GiB); or inputs, fed to a run",
      oneOf("--weights", ["inside", "beside", "inputs"]),
      "inside",
    )
    .option("--overwrite", "replace the file if it is there")
    .action(execute);
  const remark = [
    "Inputs are ids [batch, sequence] (int64), and targets where there are losses (negative ones are ignored). " +
      "Outputs are logits, and loss; with --training loss,",
    "balance_loss, z_loss, expert_counts.LAYER, router_entropy.LAYER and gradient.TENSOR. Weights are float32, " +
      "named by slot. Text shorter than the sequence is filled",
    "up behind its end: no token sees a later one. The graphs use operators of onnxruntime's com.microsoft " +
      "domain, which its builds for Node.js, Python and the browser have.",
  ].join(" ");
  return withExample(withJson(command), "upcycle export-onnx models/moe --out moe.onnx --sequence 256", remark);
}

async function execute(name: string, flags: ExportFlags): Promise<void> {
  const graph = kindOf(flags);
  const { out, weights, overwrite } = flags;
  await requireOnnxPlace(out, overwrite);
  const source = await modelSource(name, flags.json);
  const { terminal, json, signal } = openContext({ json: flags.json, stopping: "removing what was begun" });
  const result = await resultOf(exportOnnx({ source, out, graph, weights, overwrite, signal }), ({ done, total }) =>
    terminal.progress(`${percent(done / total, 3)} of ${bytes(total, 3)}  writing`),
  );
  if (result.damage !== null) terminal.note(`warning: ${shownModel(source)}: ${result.damage}`);
  if (json) return terminal.json({ ...result, graph });
  terminal.settle();
  terminal.out(resultLines(result, terminal.columns));
}

function resultLines(result: Exported, columns: number): string[] {
  const portWords = (ports: readonly NamedPort[]): string =>
    ports.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
  const gradients = result.outputs.filter(({ name }) => name.startsWith("gradient."));
  const others = result.outputs.filter((port) => !gradients.includes(port));
  const more = gradients.length === 0 ? "" : ` and ${gradients.length} gradients`;
  return [
    `${compact(result.parameters)} parameters, ${bytes(result.bytes, 3)}, written in ${duration(result.seconds)}`,
    ...wrap(`inputs: ${portWords(result.inputs)}`, columns),
    ...wrap(`outputs: ${portWords(others)}${more}`, columns),
    ...(result.data === null ? [] : [`weights: ${shownPath(result.data)} (keep it beside the model)`]),
    `model: ${shownPath(result.out)}`,
  ];
}

/** The graph that the flags ask for. Throws inputError for flags that do not go together. */
function kindOf({ batch, sequence, rows, loss = false, training = false, auxLoss, zLoss }: ExportFlags): ExportKind {
  if (!training) {
    const stray = auxLoss !== undefined ? "--aux-loss" : zLoss !== undefined ? "--z-loss" : undefined;
    if (stray !== undefined)
      throw inputError("is only for a training graph", { where: stray, hint: "add --training, or leave it out" });
    return { kind: "forward", batch, sequence, rows: rows ?? "all", loss };
  }
  if (rows !== undefined)
    throw inputError("a training graph has no logits", { where: "--rows", hint: "leave out --rows or --training" });
  if (loss) throw inputError("a training graph gives its loss anyhow", { where: "--loss", hint: "leave out --loss" });
  return { kind: "training", batch, sequence, auxCoef: auxLoss, zCoef: zLoss ?? 0 };
}
