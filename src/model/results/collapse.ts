/** When experts count as dead and routers as collapsed, in logs, alerts and reports alike. */
import { fixed, significant } from "../../base/format.js";
import { meanOf } from "../../base/mean.js";

/** An expert with less than this share of an equal load counts as dead. */
export const deadShare = 0.01;
/** More than this share of a layer's experts dead is a collapse of its router. */
const collapsedShare = 0.5;
/** Up to this many times its value where all is balanced, a load-balancing loss counts as near to it. */
const nearBalanced = 1.1;

/** Experts of a layer that get hardly any token, by their shares of all choices. */
export const deadExperts = (load: readonly number[]): number[] =>
  load.flatMap((share, expert) => (share * load.length < deadShare ? [expert] : []));

/** Whether the router of a layer with so many experts, so many of them dead, has collapsed. */
export const isCollapsed = (dead: number, experts: number): boolean => dead > collapsedShare * experts;

/** Layers whose routers have collapsed while a load-balancing loss over all layers together did not show it. */
export interface UnseenCollapse {
  /** Numbers of the layers among the MoE layers. */
  readonly layers: readonly number[];
  readonly balanceLoss: number;
  /** Of the loss, where all experts are chosen equally often: K. */
  readonly balanced: number;
}

/**
 * Judges a load [MoE layers, experts] beside the loss over all layers together (`balance: model`), of layers with so
 * many experts per token. Null where no router has collapsed, or the loss shows it.
 */
export function unseenCollapse(
  load: readonly (readonly number[])[],
  balanceLoss: number,
  topK: readonly number[],
): UnseenCollapse | null {
  const balanced = meanOf(topK);
  const layers = load.flatMap((layer, i) => (isCollapsed(deadExperts(layer).length, layer.length) ? [i] : []));
  return layers.length > 0 && balanceLoss <= nearBalanced * balanced ? { layers, balanceLoss, balanced } : null;
}

/** "MoE layers 0, 1 and 3" */
function layersNamed(layers: readonly number[]): string {
  const last = layers.at(-1) ?? 0;
  return layers.length < 2 ? `MoE layer ${last}` : `MoE layers ${layers.slice(0, -1).join(", ")} and ${last}`;
}

/** The collapse in a sentence without its end, with what to do. */
export const unseenWords = ({ layers, balanceLoss, balanced }: UnseenCollapse): string =>
  `more than half of the experts of ${layersNamed(layers)} get hardly any token, while the load-balancing loss over ` +
  `all layers together is ${fixed(balanceLoss)}, near ${significant(balanced, 3)}, where it is balanced: ` +
  "balance: model does not see layers apart; balance: layer does";
