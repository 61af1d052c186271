/**
 * A model as one graph for other programs: inputs and outputs with names that say what they are.
 *
 * Letters: B batch, S sequence, V vocabulary, E experts.
 */
import { at, entryOf } from "../../base/at.js";
import { typeOf, type Graph, type ValueId } from "../ir/ir.js";
import { prune, verify } from "../ir/passes.js";
import { buildDecoder } from "../nn/decoder.js";
import { headLoss } from "../nn/head.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { logitsOf, trainProgram, type ParamInfo } from "./programs.js";

interface ExportShape {
  /** B */
  readonly batch: number;
  /** S */
  readonly sequence: number;
}

/** What an exported forward graph gives, for a batch of fixed sizes. */
export interface ForwardExport extends ExportShape {
  /** Logits of every position [B, S, V], or of the last one of each sequence [B, V]. */
  readonly rows: "all" | "last";
  /** Also takes `targets`, and gives the mean `loss` over those that are not negative. */
  readonly loss: boolean;
}

/** Which loss an exported training graph differentiates, for a batch of fixed sizes. */
export interface TrainingExport extends ExportShape {
  /** Coefficient of the load-balancing loss in what is differentiated. */
  readonly auxCoef: number;
  /** Coefficient of the router z-loss. */
  readonly zCoef: number;
}

/** An input or output of an exported graph. */
export interface NamedPort {
  readonly name: string;
  readonly shape: readonly number[];
}

/** A graph with names for its inputs and outputs. */
export interface ExportedGraph {
  readonly graph: Graph;
  /** In the graph's order: what a run is fed, then all parameters, named by slot key. */
  readonly inputs: readonly NamedPort[];
  readonly outputs: readonly NamedPort[];
  /** The parameters, and which inputs of the graph they are. */
  readonly params: readonly (ParamInfo & { readonly id: ValueId })[];
}

/** `ids` [B, S] -> `logits`; with `loss` also `targets` [B, S] -> `loss` []. */
export function forwardExport(spec: DecoderSpec, { batch, sequence, rows, loss }: ForwardExport): ExportedGraph {
  const decoder = buildDecoder(spec, { batch, sequence });
  const { builder: b, ids, hidden, head, params } = decoder;
  const last = Int32Array.from({ length: batch }, (_, row) => (row + 1) * sequence - 1);
  const logits = logitsOf(b, spec, decoder, rows === "all" ? null : b.constant(last, [batch], "int"));
  const targets = loss ? b.input("targets", "int", [batch * sequence]) : null;
  const mean = targets === null ? [] : [headLoss(b, spec, hidden, head, targets)];
  const feeds = targets === null ? [ids] : [ids, targets];
  const graph = prune({ ...b.finish([logits, ...mean]), inputs: [...feeds, ...params.map(({ id }) => id)] });
  verify(graph);
  return named(
    graph,
    [batch, sequence],
    params.map(({ slot }) => ({ key: slot.key, shape: slot.shape })),
    [
      { name: "logits", shape: rows === "all" ? [batch, sequence, spec.vocab] : [batch, spec.vocab] },
      ...(loss ? [{ name: "loss", shape: [] }] : []),
    ],
  );
}

/**
 * `ids`, `targets` [B, S] -> `loss` [], of an MoE `balance_loss` (where its layers share one), `z_loss` [],
 * `expert_counts.LAYER` [E] and `router_entropy.LAYER` [], then `gradient.SLOT` of loss + auxCoef * balance_loss +
 * zCoef * z_loss, in the slot's shape.
 */
export function trainingExport(spec: DecoderSpec, { batch, sequence, auxCoef, zCoef }: TrainingExport): ExportedGraph {
  const {
    graph,
    params,
    outputs: { loss, balance, z, counts, entropy },
    gradients,
    trained,
  } = trainProgram(spec, { batch, sequence, auxCoef, zCoef });
  const layers = spec.layers.flatMap(({ ffn }, layer) => (ffn.kind === "moe" ? [layer] : []));
  const names = new Map<number, string>([[loss, "loss"]]);
  if (balance !== null) names.set(balance, "balance_loss");
  if (z !== null) names.set(z, "z_loss");
  counts.forEach((place, i) => names.set(place, `expert_counts.${layers[i]}`));
  entropy.forEach((place, i) => names.set(place, `router_entropy.${layers[i]}`));
  trained.forEach(({ key }, i) => names.set(gradients + i, `gradient.${key}`));
  return named(
    graph,
    [batch, sequence],
    params,
    graph.outputs.map((id, i) => ({ name: entryOf(names, i), shape: typeOf(graph, id).shape })),
  );
}

function named(
  graph: Graph,
  tokens: readonly number[],
  params: readonly ParamInfo[],
  outputs: readonly NamedPort[],
): ExportedGraph {
  const fed = graph.inputs.length - params.length;
  return {
    graph,
    outputs,
    inputs: [
      ...["ids", "targets"].slice(0, fed).map((name) => ({ name, shape: tokens })),
      ...params.map(({ key, shape }) => ({ name: key, shape })),
    ],
    params: params.map((param, i) => ({ ...param, id: at(graph.inputs, fed + i) })),
  };
}
