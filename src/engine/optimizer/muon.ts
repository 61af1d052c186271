/**
 * Muon's direction: a matrix with the singular vectors of the momentum and singular values near 1, by Newton-Schulz
 * iteration (Jordan et al. 2024; the quintic of github.com/KellerJordan/Muon, which torch.optim.Muon runs too, there in
 * bfloat16, here in float32).
 */
import { GraphBuilder } from "../../graph/ir/builder.js";
import type { Graph } from "../../graph/ir/ir.js";
import { verify } from "../../graph/ir/passes.js";
import type { Slot } from "../../model/tensors/slots.js";
import type { MuonScale } from "../runtime/runtime.js";

/** Coefficients of the quintic x <- A x + B x³ + C x⁵. */
const [A, B, C] = [3.4445, -4.775, 2.0315];
const STEPS = 5;
/** Smallest norm that a matrix is divided by. */
export const MUON_EPS = 1e-7;

/**
 * Graph of one input X [m, n], of Frobenius norm at most 1, and one output: the iterate X <- aX + (bS + cS^2)X, S = X
 * Xᵀ, after five steps.
 */
export function newtonSchulz(rows: number, columns: number): Graph {
  const b = new GraphBuilder();
  const input = b.input("x", "f32", [rows, columns]);
  const times = (x: number, y: number, transA = false, transB = false): number =>
    b.op("matmul", [x, y], { transA, transB });
  // A tall matrix is multiplied from the right, so that S has the smaller size either way.
  const tall = rows > columns;
  let x = input;
  for (let step = 0; step < STEPS; step++) {
    const s = tall ? times(x, x, true) : times(x, x, false, true);
    const inner = b.add(b.scale(s, B), b.scale(times(s, s), C));
    x = b.add(b.scale(x, A), tall ? times(x, inner) : times(inner, x));
  }
  const graph = b.finish([x]);
  verify(graph);
  return graph;
}

/**
 * Factor on the learning rate of a matrix [rows, columns]. `rms`: 0.2 sqrt(max(rows, columns)), with which an update
 * has about the root mean square of an AdamW update, so that both share learning rate and decay (Liu et al. 2025,
 * Moonlight, equation 4). `spectral`: sqrt(max(1, rows / columns)), Jordan's own.
 */
export function muonScale(scale: MuonScale, rows: number, columns: number): number {
  return scale === "rms" ? 0.2 * Math.sqrt(Math.max(rows, columns)) : Math.sqrt(Math.max(1, rows / columns));
}

/** Matrices whose rows stand for themselves: they are looked up or compared one by one. */
const vectorLike = new Set<string>(["embed", "positions", "head", "router", "sharedRouter"]);

/**
 * Whether Muon moves a parameter: it does so for hidden matrices. Embeddings, head and routers stay with AdamW, as do
 * norms and biases.
 */
export function takesMuon({ at, shape }: Slot): boolean {
  return shape.length === 2 && !vectorLike.has(at.part);
}
