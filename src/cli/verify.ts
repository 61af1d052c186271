/** `upcycle verify` */
import { Command } from "commander";
import { compact, grouped, significant, table, wrap } from "../base/format.js";
import { countParams } from "../cost/params.js";
import { compareModels } from "../evals/compare.js";
import { openModel, type RunnableModel } from "../evals/model.js";
import { sampleTokens } from "../evals/sample-tokens.js";
import { onnxruntimeBackend } from "../ort/backend.js";
import type { Preservation } from "../report/result.js";
import { openContext } from "./context.js";
import { collect, defaultThreads, wholeNumber, withExample, withJson, withThreads, type CommonFlags } from "./options.js";

interface VerifyFlags extends CommonFlags {
  readonly text?: readonly string[];
  readonly tokens: number;
  readonly sequence: number;
}

/** What float32 arithmetic in another order leaves of exact preservation, as a fraction of the largest logit. */
const ROUNDING = 1e-5;

const textHelp = "text to measure on: .txt, .jsonl, .jsonl.gz or a folder; may be given again " +
  "(default: built-in text, or random ids for a model without tokenizer)";

export function verifyCommand(): Command {
  const command = new Command("verify")
    .description("measure how far an MoE model's function is from its dense parent's")
    .argument("<dense>", "folder of the dense parent")
    .argument("<moe>", "folder of the upcycled model")
    .option("--text <file>", textHelp, collect)
    .option("--tokens <n>", "tokens to predict", wholeNumber("--tokens", 1), 4096)
    .option("--sequence <n>", "tokens per sequence, at most the model's positions", wholeNumber("--sequence", 1), 256)
    .action(execute);
  return withExample(withJson(withThreads(command)), "upcycle verify models/dense models/moe --text book.txt");
}

async function execute(denseDir: string, moeDir: string, flags: VerifyFlags): Promise<void> {
  const { terminal, json } = openContext({ json: flags.json });
  const threads = flags.threads ?? defaultThreads();
  terminal.note("opening the models");
  const dense = await openModel(denseDir, onnxruntimeBackend, threads);
  try {
    const moe = await openModel(moeDir, onnxruntimeBackend, threads);
    try {
      // One more than is predicted: nothing predicts the first.
      const { tokens, source } = await sampleTokens({ dir: denseDir, spec: dense.spec, files: flags.text ?? [], limit: flags.tokens + 1 });
      const sequence = Math.min(flags.sequence, dense.spec.maxPositions, moe.spec.maxPositions, tokens.length - 1);
      terminal.note(`measuring on ${grouped(tokens.length - 1)} tokens of ${source}`);
      const found = await compareModels(dense, moe, tokens, { sequence, limitTokens: flags.tokens });
      if (json) terminal.out(JSON.stringify(summary(found, source)));
      else show(dense, moe, found).forEach((line) => terminal.out(line));
    } finally {
      await moe.close();
    }
  } finally {
    await dense.close();
  }
}

const relativeError = ({ maxAbsLogitDiff, maxAbsLogit }: Preservation): number => maxAbsLogitDiff / maxAbsLogit;

function summary(found: Preservation, source: string): Record<string, unknown> {
  const { parentLoss: denseLoss, childLoss: moeLoss, maxAbsLogitDiff, meanAbsLogitDiff, maxAbsLogit, tokens } = found;
  return { maxAbsLogitDiff, meanAbsLogitDiff, denseLoss, moeLoss, maxAbsLogit, relative: relativeError(found), tokens, source };
}

function show(dense: RunnableModel, moe: RunnableModel, found: Preservation): string[] {
  const row = ({ spec }: RunnableModel, loss: number): string[] => {
    const { total, active } = countParams(spec);
    return [spec.family, compact(total), compact(active), loss.toFixed(5)];
  };
  const models = [
    ["", "family", "parameters", "active", "loss"],
    ["dense", ...row(dense, found.parentLoss)],
    ["MoE", ...row(moe, found.childLoss)],
  ];
  const relative = relativeError(found);
  return [
    table(models, ["left", "left", "right", "right", "right"]),
    "",
    `largest logit difference  ${significant(found.maxAbsLogitDiff)}, ${significant(relative)} of the largest logit`,
    `largest logit             ${significant(found.maxAbsLogit)}`,
    `mean logit difference     ${significant(found.meanAbsLogitDiff)}`,
    "",
    ...wrap(verdict(relative), 80),
  ];
}

function verdict(relative: number): string {
  if (!Number.isFinite(relative)) return "A logit is not a number: one of the models has diverged or is damaged.";
  if (relative === 0) return "The two models compute the same function, to the last bit.";
  if (relative <= ROUNDING) return "The two models compute the same function, up to rounding.";
  return `The two models do not compute the same function: logits differ by up to ${significant(100 * relative)} % of the largest.`;
}
