/** `upcycle convert MOE --expert-multiply M`: a mixture of more experts out of a mixture. */
import { inputError } from "../base/errors.js";
import { bytes, compact, duration, folded } from "../base/format.js";
import type { ModelSource } from "../files/checkpoint/model-source.js";
import type { WriteDtype } from "../files/checkpoint/write.js";
import { multiplyExperts, planMultiplying, type MultiplyingPlan } from "../surgery/convert/multiply.js";
import { countParams } from "../model/cost/params.js";
import { explainExpectation } from "../surgery/planning/explain.js";
import type { MultiplyRecipe } from "../surgery/planning/multiply.js";
import type { openContext } from "./context.js";
import { shownPath } from "./context.js";
import { defaultThreads } from "./options.js";
import { conversionView } from "./progress.js";
import { proofLines, prove, requireText } from "./proof.js";

export interface MultiplyFlags {
  readonly expertMultiply?: number;
  readonly topk?: number;
  readonly routerStd?: number;
  readonly seed?: number;
  readonly out?: string;
  readonly shardSize?: number;
  readonly overwrite?: boolean;
  readonly threads?: number;
  readonly dryRun?: boolean;
  readonly report: boolean;
  readonly text?: readonly string[];
}

/** Options of `convert` that mean something here. */
const known: ReadonlySet<string> = new Set([
  "expertMultiply",
  "topk",
  "routerStd",
  "seed",
  "out",
  "dtype",
  "shardSize",
  "overwrite",
  "threads",
  "dryRun",
  "report",
  "text",
  "json",
  "debug",
]);

/** Throws `input` for flags of recipes for dense models. */
export function multiplyRecipe(flags: MultiplyFlags): MultiplyRecipe {
  const other = Object.keys(flags).find((flag) => !known.has(flag));
  if (other !== undefined) {
    const name = `--${other.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    throw inputError("does not go with --expert-multiply, which copies experts as they are", {
      where: name,
      hint: "leave it out; --topk, --router-std and --seed do",
    });
  }
  return {
    copies: flags.expertMultiply!,
    topK: flags.topk ?? null,
    routerStd: flags.routerStd ?? 0,
    seed: flags.seed ?? 0,
  };
}

/** `--out` is there unless it is a dry run. */
export async function runMultiply(
  source: ModelSource,
  recipe: MultiplyRecipe,
  dtype: WriteDtype | undefined,
  flags: MultiplyFlags,
  { terminal, json, signal }: ReturnType<typeof openContext>,
): Promise<void> {
  const options = { source, recipe, dtype, maxShardBytes: flags.shardSize };
  if (flags.dryRun === true) {
    const planned = await planMultiplying(options);
    if (json) terminal.json({ dryRun: true, ...facts(planned) });
    else
      terminal.out(
        [
          ...lines(planned),
          ...planned.warnings.map((warning) => `warning: ${warning}`),
          "dry run: nothing was written",
        ].flatMap((line) => folded(line, terminal.columns)),
      );
    return;
  }
  const { out, text, threads } = flags;
  if (flags.report && text !== undefined) await requireText(source, text);
  const made = await multiplyExperts({
    ...options,
    out: out!,
    signal,
    threads: threads ?? 1,
    overwrite: flags.overwrite,
    onEvent: conversionView(terminal),
  });
  // The card says what is expected; what was measured lies beside it.
  const proof = flags.report
    ? await prove({ dir: made.dir, card: () => made.card }, source, {
        text,
        threads: threads ?? defaultThreads(),
        terminal,
        signal,
      })
    : null;
  if (json)
    terminal.json({
      dryRun: false,
      model: made.dir,
      weightFiles: made.weightFiles,
      seconds: made.seconds,
      ...facts(made),
      ...proof,
    });
  else {
    const files = made.weightFiles.length === 1 ? "1 weight file" : `${made.weightFiles.length} weight files`;
    terminal.out([
      ...lines(made).flatMap((line) => folded(line, terminal.columns)),
      `${files} written in ${duration(made.seconds)}`,
      ...(proof === null ? [] : proofLines(proof, terminal.columns)),
      `model: ${shownPath(made.dir)}`,
    ]);
  }
}

function facts({ plan, dtype, weightBytes, warnings }: MultiplyingPlan): Record<string, unknown> {
  const { recipe, source, target, expected, how } = plan;
  return {
    recipe,
    family: target.family,
    how,
    dtype: dtypeName(dtype),
    weightBytes,
    expected,
    warnings,
    params: countParams(target),
    parentParams: countParams(source),
  };
}

function lines({ plan, dtype, weightBytes }: MultiplyingPlan): string[] {
  const { total, active } = countParams(plan.target);
  const size =
    `parameters: ${compact(total)}, ${compact(active)} active (of ${compact(countParams(plan.source).total)}); ` +
    `${bytes(weightBytes, 3)} as ${dtypeName(dtype)}`;
  return [plan.how, size, explainExpectation(plan.expected)];
}

const dtypeName = (dtype: WriteDtype): string => ({ F32: "float32", BF16: "bfloat16", F16: "float16" })[dtype];
