/** `upcycle demo`: the main claim shown on the model that comes along, in seconds. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { resultOf } from "../base/events.js";
import { compact, duration, fixed, percent, significant, table, wrap } from "../base/format.js";
import { shellPath } from "../base/shell.js";
import { displayWidth } from "../base/width.js";
import { generate } from "../evals/generate.js";
import { openModel } from "../evals/model.js";
import { onnxruntimeBackend } from "../engine/onnxruntime/backend.js";
import { exists } from "../files/io/atomic.js";
import { countParams } from "../model/cost/params.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { PreservationReport } from "../model/results/preservation.js";
import { upcycling, type ConversionDetails, type ConversionPlan } from "../surgery/convert/convert.js";
import { makeByWorkflow, type WorkflowResult } from "../surgery/convert/workflow.js";
import { upcycleRecipe } from "../surgery/planning/recipe.js";
import { withTokenizer } from "../text/tokenizer/load.js";
import { textStream } from "../text/tokenizer/stream.js";
import { openContext, shownPath } from "./context.js";
import { defaultThreads, wholeNumber, withExample, withJson, withThreads, type CommonFlags } from "./options.js";
import { workflowView } from "./workflow.js";

/** The small trained model that comes with the package; recipes/tiny.yaml made it. */
export const tinyModel = fileURLToPath(new URL("../../models/tiny", import.meta.url));

const recipeWords = "E8G1T2";
const usualOut = join("runs", "demo");

interface DemoFlags extends CommonFlags {
  readonly out: string;
  readonly prompt: string;
  readonly seed: number;
}

/** The command `demo` with its options and its help. */
export function demoCommand(): Command {
  const command = new Command("demo")
    .description("upcycle the small model that comes along, prove it, let both write: a few seconds")
    .option("--out <dir>", "folder to make; the usual one is made anew each time", usualOut)
    .option("--prompt <text>", "text that both models go on from", "The Congress of the United States")
    .option("--seed <n>", "of the choices of words", wholeNumber("--seed", 0), 0)
    .action(execute);
  return withExample(withJson(withThreads(command)), "upcycle demo");
}

async function execute(_: unknown, command: Command): Promise<void> {
  const flags: DemoFlags = command.opts();
  const context = openContext({ json: flags.json, stopping: "finishing the parts in hand" });
  const { terminal, json, signal } = context;
  const threads = flags.threads ?? defaultThreads();
  const started = performance.now();
  const { out, prompt, seed } = flags;
  const surgery = upcycling({ source: tinyModel, parents: [], recipe: upcycleRecipe(recipeWords) });
  const result = await resultOf(
    makeByWorkflow(surgery, {
      backend: onnxruntimeBackend,
      threads: { prompts: 1, calibration: threads, writing: 1, proof: threads },
      out,
      // Only a folder that holds a model and nothing else is ever replaced.
      overwrite: out === usualOut && (await exists(out)),
      report: true,
      signal,
    }),
    workflowView(terminal),
  );
  const written = await bothWrite([tinyModel, result.made.dir], { prompt, seed, threads, signal });
  terminal.settle();
  const seconds = (performance.now() - started) / 1000;
  if (json) return terminal.json(documentOf(result, { prompt, seed, written, seconds }));
  terminal.out(shownLines(result, { prompt, seed, written, seconds }, terminal.columns));
}

interface Shown {
  readonly prompt: string;
  readonly seed: number;
  /** What the parent and the child made of the prompt. */
  readonly written: readonly string[];
  readonly seconds: number;
}

interface Writing {
  readonly prompt: string;
  readonly seed: number;
  readonly threads: number;
  readonly signal: AbortSignal;
}

const newTokens = 36;

/** What each model makes of one prompt with one seed, one after the other. */
async function bothWrite(
  dirs: readonly string[],
  { prompt, seed, threads, signal }: Writing,
): Promise<readonly string[]> {
  return withTokenizer(tinyModel, { signal }, async (tokenizer) => {
    const ids = await tokenizer.encode(prompt, { addSpecialTokens: true });
    const texts: string[] = [];
    for (const dir of dirs) {
      const model = await openModel(dir, onnxruntimeBackend, threads);
      try {
        const stream = textStream(tokenizer, ids);
        const settings = { maxNewTokens: newTokens, temperature: 0.7, topK: 20, seed, stop: model.spec.tokens.eos };
        let text = prompt;
        for await (const id of generate(model, ids, { ...settings, signal })) text += await stream.push(id);
        texts.push(text + (await stream.end()));
      } finally {
        await model.close();
      }
    }
    return texts;
  });
}

type Made = WorkflowResult<ConversionPlan, ConversionDetails>;

function documentOf({ made, proof }: Made, { prompt, seed, written, seconds }: Shown): Record<string, unknown> {
  const { source, target } = made.plan;
  const [parent, child] = written;
  return {
    model: made.dir,
    parent: tinyModel,
    recipe: recipeWords,
    params: countParams(target),
    parentParams: countParams(source),
    ...proof,
    generated: { prompt, seed, parent, child },
    seconds,
  };
}

function shownLines({ made, proof }: Made, { written, seed, seconds }: Shown, columns: number): string[] {
  const { source, target } = made.plan;
  const preservation = proof?.preservation ?? null;
  return [
    `${recipeWords}: 8 copies of every FFN as experts, a router that sends each token to 2`,
    "",
    ...sizeTable(source, target, columns),
    "",
    ...(preservation === null ? [] : [...proofLines(preservation, columns), ""]),
    `Both go on from the same words, with seed ${seed}:`,
    ...sideBySide(written, columns),
    "",
    `Made, measured and written in ${duration(seconds)}: ${shownPath(made.dir)}`,
    "",
    ...nextSteps(shownPath(made.dir)),
  ];
}

/** The lines that say most; `upcycle verify` has them all. */
function proofLines(report: PreservationReport, columns: number): readonly string[] {
  const { tokens, source, parentLoss, childLoss, relative, klDivergence, topAgreement, verdict } = report;
  return [
    `Was the function kept? Measured on ${tokens} tokens of ${source}:`,
    `loss, parent and child    ${fixed(parentLoss, 4)} and ${fixed(childLoss, 4)} nats`,
    `largest logit difference  ${significant(relative)} of the largest logit`,
    `KL divergence             ${significant(klDivergence)} nats`,
    `same likeliest token      ${topAgreement === 1 ? "always" : percent(topAgreement, 4)}`,
    ...wrap(verdict.words, columns),
  ];
}

function sizeTable(parent: DecoderSpec, child: DecoderSpec, columns: number): readonly string[] {
  const [dense, moe] = [countParams(parent), countParams(child)];
  return table(
    [
      ["", `parent (${parent.family})`, `child (${child.family})`],
      ["parameters", compact(dense.total), compact(moe.total)],
      ["active per token", compact(dense.active), compact(moe.active)],
    ],
    ["left", "right", "right"],
    columns,
  );
}

const gap = " | ";

/** Texts as columns of one width, under their names. */
function sideBySide(texts: readonly string[], columns: number): string[] {
  const width = Math.floor((columns - gap.length) / 2);
  const [parent = [], child = []] = texts.map((text) => wrap(text.replace(/\s+/g, " "), width));
  const rows = Array.from({ length: Math.max(parent.length, child.length) }, (_, i) => [parent[i], child[i]] as const);
  return [["parent", "child"] as const, ...rows].map(([left = "", right = ""]) =>
    `${left}${" ".repeat(width - displayWidth(left))}${gap}${right}`.trimEnd(),
  );
}

/** Commands that work next, as they are typed where this one was: a checkout has no `upcycle` but that of npx. */
function nextSteps(dir: string): string[] {
  const upcycle = process.env["npm_command"] === "exec" ? "npx upcycle" : "upcycle";
  return [
    "Next: more of its text, what is in the folder, whether further training pays",
    "(four arms, two seeds, minutes), and the same with your own model:",
    "",
    `  ${upcycle} generate ${shellPath(dir)} --prompt "My fellow citizens"`,
    `  ${upcycle} inspect ${shellPath(dir)}`,
    `  ${upcycle} quickstart`,
    `  ${upcycle} convert MODEL --recipe ${recipeWords} --out DIR`,
  ];
}
