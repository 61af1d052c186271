/**
 * The head with its loss, in runs of tokens, so that [tokens, vocabulary] never exists. Where the graph has the
 * gradient, too, loss and gradient are made together. N tokens, H hidden, V vocabulary.
 */
import { matrixSizes, typeOf, type Node, type NodeOf, type ValueId } from "../../../graph/ir/ir.js";
import { EIGHT, bytesPer, float, int, nothing, operand, reads, writes } from "./arguments.js";
import { useKey, type Context } from "./context.js";
import type { Argument, BufferId, Storage } from "./launches.js";

/** Logits that exist at once. */
const MOST_LOGITS = 1 << 26;
/** Fewer tokens than this make slow products. */
const LEAST_TOKENS = 128;
/** Threads that share a row of logits. */
const THREADS = 512;

/** Threads that share a row which they hold in registers, and the numbers of eights that each may hold. */
const HELD_THREADS = 1024;
const heldEights: readonly number[] = [1, 2, 4, 8];

/** The kernel that reads rows of so many logits once, or null where none does. */
function heldKernel(real: Storage, vocab: number, softcap: number | null): string | null {
  const eights = heldEights.find((count) => vocab <= count * EIGHT * HELD_THREADS);
  return real === "bf16" && vocab % EIGHT === 0 && softcap === null && eights !== undefined
    ? `crossEntropyHeld${eights}`
    : null;
}

const keyOf = ({ in: [x, head, targets], attrs }: NodeOf<"headCrossEntropy" | "headCrossEntropyGrad">): string =>
  useKey("head", [x, head, targets], attrs);

const isGradientOf =
  (key: string) =>
  (node: Node): node is NodeOf<"headCrossEntropyGrad"> =>
    node.prim === "headCrossEntropyGrad" && keyOf(node) === key;

interface Head {
  readonly x: ValueId;
  readonly head: ValueId;
  readonly targets: ValueId;
  readonly softcap: number | null;
}

interface Gradients {
  readonly dloss: BufferId;
  readonly dx: BufferId;
  readonly dhead: BufferId;
}

/** Tokens whose logits exist at once. */
function runLength(c: Context, tokens: number, vocab: number): number {
  const { mostLogits = MOST_LOGITS } = c.options;
  return Math.min(tokens, Math.max(LEAST_TOKENS, Math.floor(mostLogits / vocab / LEAST_TOKENS) * LEAST_TOKENS));
}

/** Launches losses, gradients, or both. */
function crossEntropy(
  c: Context,
  { x, head, targets, softcap }: Head,
  loss: BufferId | null,
  gradients: Gradients | null,
): void {
  const [tokens, hidden] = matrixSizes(typeOf(c.graph, x));
  const [vocab] = matrixSizes(typeOf(c.graph, head));
  const run = runLength(c, tokens, vocab);
  const real = c.realOf(x);
  const [counted, losses, logits] = [c.scratch(1), c.scratch(tokens), c.scratch(run * vocab, real)];
  const one = { module: "head", grid: [1, 1, 1], block: 1024 } as const;
  c.kernel({ ...one, kernel: "countTargets", arguments: [reads(c.of(targets)), writes(counted), int(tokens)] });
  const [rows, weights] = [c.as(x, real), c.as(head, real)];
  const stored = real;
  for (let first = 0; first < tokens; first += run) {
    const m = Math.min(run, tokens - first);
    const [from, table, part] = [operand(rows, first * hidden, real), operand(weights), operand(logits)];
    c.product({ m, n: vocab, k: hidden }, { transB: true, real, stored }, { a: from, b: table, out: part });
    const held = gradients === null ? null : heldKernel(real, vocab, softcap);
    if (held !== null && gradients !== null)
      c.kernel({
        module: "head",
        kernel: held,
        real,
        grid: [m, 1, 1],
        block: HELD_THREADS,
        bytes: bytesPer[real] * m * vocab * 2,
        flops: 5 * m * vocab,
        arguments: [
          { kind: "pointer", buffer: logits, access: "update" },
          at(reads(c.of(targets)), first),
          loss === null ? nothing : at(writes(losses), first),
          reads(counted),
          reads(gradients.dloss),
          int(vocab),
        ],
      });
    else
      c.kernel({
        module: "head",
        kernel: "crossEntropy",
        real,
        grid: [m, 1, 1],
        block: THREADS,
        bytes: bytesPer[real] * m * vocab * (gradients === null ? 1 : 2),
        flops: 5 * m * vocab,
        arguments: [
          { kind: "pointer", buffer: logits, access: "update" },
          at(reads(c.of(targets)), first),
          loss === null ? nothing : at(writes(losses), first),
          reads(counted),
          gradients === null ? nothing : reads(gradients.dloss),
          int(vocab),
          float(softcap ?? 0),
          int(Number(gradients !== null)),
        ],
      });
    if (gradients === null) continue;
    c.product(
      { m, n: hidden, k: vocab },
      { real, stored },
      { a: part, b: table, out: operand(gradients.dx, first * hidden, real) },
    );
    c.product(
      { m: vocab, n: hidden, k: m },
      { transA: true, real },
      { a: part, b: from, addend: first > 0 ? operand(gradients.dhead) : null, out: operand(gradients.dhead) },
    );
  }
  if (loss === null) return;
  c.kernel({
    ...one,
    kernel: "meanLoss",
    arguments: [reads(losses), reads(counted), writes(loss), int(tokens)],
  });
}

/** A pointer from element `first` on. */
const at = (argument: Argument, first: number): Argument =>
  argument.kind === "pointer" ? { ...argument, offset: first * 4 } : argument;

const headOf = ({ in: [x, head, targets], attrs }: NodeOf<"headCrossEntropy" | "headCrossEntropyGrad">): Head => ({
  x,
  head,
  targets,
  softcap: attrs.softcap,
});

/** The loss is left to its gradient where the graph has one and nothing but its outputs needs the loss. */
export function lowerHeadCrossEntropy(c: Context, node: NodeOf<"headCrossEntropy">): void {
  const [loss] = node.out;
  const key = keyOf(node);
  const together = c.graph.nodes.some(isGradientOf(key)) && c.readersOf(loss).length === 0;
  const to = c.define(loss);
  if (together) c.kept.set(key, [to]);
  else crossEntropy(c, headOf(node), to, null);
}

/** Appends the launches of `headCrossEntropyGrad`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerHeadCrossEntropyGrad(c: Context, node: NodeOf<"headCrossEntropyGrad">): void {
  const [, , , dloss] = node.in;
  const [dx, dhead] = node.out;
  const [loss = null] = c.kept.get(keyOf(node)) ?? [];
  crossEntropy(c, headOf(node), loss, {
    dloss: c.of(dloss),
    dx: c.define(dx, c.realOf(node.in[0])),
    dhead: c.define(dhead),
  });
}

/** Appends the launches of `headScores`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerHeadScores(c: Context, node: NodeOf<"headScores">): void {
  const [x, head, targets, bias] = node.in;
  const { softcap } = node.attrs;
  const [tokens, hidden] = matrixSizes(typeOf(c.graph, x));
  const [vocab] = matrixSizes(typeOf(c.graph, head));
  const run = runLength(c, tokens, vocab);
  const real = c.realOf(x);
  const logits = c.scratch(run * vocab);
  const scores = c.define(node.out[0]);
  const [rows, weights] = [c.as(x, real), operand(c.as(head, real))];
  for (let first = 0; first < tokens; first += run) {
    const m = Math.min(run, tokens - first);
    c.product(
      { m, n: vocab, k: hidden },
      { transB: true, real },
      { a: operand(rows, first * hidden, real), b: weights, out: operand(logits) },
    );
    c.kernel({
      module: "head",
      kernel: "headScores",
      grid: [m, 1, 1],
      block: THREADS,
      bytes: 8 * m * vocab,
      flops: 5 * m * vocab,
      arguments: [
        reads(logits),
        at(reads(c.of(targets)), first),
        bias === undefined ? nothing : reads(c.of(bias)),
        at(writes(scores), 2 * first),
        int(vocab),
        float(softcap ?? 0),
      ],
    });
  }
}
