/**
 * In which precision each tensor of a new model is written. A tensor keeps the one that its source is stored in where
 * that is finer than the rest (float32 norms or routers beside bfloat16 matrices), so that nothing is rounded on disk;
 * what changes is named. transformers (`dtype="auto"`, 5.18) and vLLM read such files and load all tensors in the one
 * precision of config.json.
 */
import { at } from "../../base/at.js";
import type { Checkpoint } from "../../files/checkpoint/open.js";
import type { WriteDtype } from "../../files/checkpoint/write.js";
import { floatBytes, type FloatDtype } from "../../files/numeric/dtype.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { tensorNames } from "../../model/tensors/names.js";
import { isRouter, keepsFloat32 } from "../../model/tensors/precision.js";
import type { Slot } from "../../model/tensors/slots.js";
import { sourceKeys, type Expr } from "../planning/expr.js";
import type { PlannedSlot } from "../planning/plan.js";
import { formatFactor } from "../planning/scaling.js";
import { dtypeNames } from "./card.js";
import { ownDtype } from "./execute.js";
import type { Parents } from "./parents.js";

/** What was asked for; left out: as the base is stored. */
interface AskedPrecision {
  readonly dtype?: WriteDtype | undefined;
  readonly routerDtype?: WriteDtype | undefined;
}

/** The precisions of a new model. */
export interface Precisions {
  /** That of config.json, and of all tensors but those that have another. */
  readonly dtype: WriteDtype;
  readonly slotDtype: (slot: Slot) => WriteDtype;
  /** What of the sources is rounded without having been asked for, and what stays finer than the rest. */
  readonly warnings: readonly string[];
  /** Every tensor that is rounded, asked for or not, in words; empty: none is. */
  readonly rounded: readonly string[];
}

/** What is to be made of the sources. */
interface Planned {
  readonly target: DecoderSpec;
  readonly outputs: readonly PlannedSlot[];
}

/** Decides about the precisions of a plan's outputs. */
export function precisionsOf(parents: Parents, { target, outputs }: Planned, asked: AskedPrecision): Precisions {
  const [base] = parents;
  const dtype = asked.dtype ?? ownDtype(base);
  const stored = new Map(outputs.map(({ slot, value }) => [slot.key, storedIn(parents, value)] as const));
  const slotDtype = (slot: Slot): WriteDtype => {
    if (asked.routerDtype !== undefined && isRouter(slot)) return asked.routerDtype;
    if (keepsFloat32(target, slot)) return "F32";
    if (asked.dtype !== undefined) return dtype;
    // What further parents give has the precision of the base.
    const own = stored.get(slot.key)?.base ?? [];
    return own.length > 0 && own.every((one) => floatBytes[one] >= 4) ? "F32" : dtype;
  };
  const storedFiner = ({ slot }: PlannedSlot): string | null => {
    const from = (stored.get(slot.key)?.all ?? []).find((one) => loses(one, slotDtype(slot)));
    return from === undefined ? null : `stored in ${storedNames[from]}`;
  };
  const whyRounded = (output: PlannedSlot): string | null =>
    storedFiner(output) ?? (slotDtype(output.slot) === "F32" ? null : computedFiner(parents, output.value));
  const lines = { target, outputs, slotDtype };
  const rounded = roundedWords(lines, whyRounded);
  if (asked.dtype !== undefined) return { dtype, slotDtype, warnings: [], rounded };
  const finer = outputs.flatMap(({ slot }) =>
    slotDtype(slot) === "F32" && dtype !== "F32" && !keepsFloat32(target, slot) ? [slot] : [],
  );
  const warnings = [...finerWords(target, finer, dtype, asked), ...roundedWords(lines, storedFiner)];
  return { dtype, slotDtype, warnings, rounded };
}

/**
 * What is done to values of 16 bits that gives values between them: factors other than powers of two, sums, an adapter.
 * In float32 the same is a rounding like those of the arithmetic itself.
 */
function computedFiner(parents: Parents, value: Expr): string | null {
  const isMerged = parents.some((parent, index) =>
    sourceKeys(value, index).some((key) => parent.dtypeOf(key) === "F32" && parent.storedDtypeOf(key) !== "F32"),
  );
  return isMerged ? "changed by an adapter" : inexactStep(value);
}

/** The first step of an expression whose results are between the values of its precision. */
function inexactStep(expr: Expr): string | null {
  if (expr.op === "scale" && !Number.isInteger(Math.log2(Math.abs(expr.by))))
    return `multiplied by ${formatFactor(expr.by)}`;
  if (expr.op === "offset") return `moved by ${formatFactor(expr.by)}`;
  const inner = "parts" in expr ? expr.parts : "of" in expr ? [expr.of] : [];
  return inner.map(inexactStep).find((words) => words !== null) ?? null;
}

/** The precisions that what an expression reads is stored in: of the base's tensors, and of all. */
interface StoredPrecisions {
  readonly base: readonly FloatDtype[];
  readonly all: readonly FloatDtype[];
}

function storedIn(parents: Parents, value: PlannedSlot["value"]): StoredPrecisions {
  const of = (parent: Checkpoint, index: number): FloatDtype[] =>
    sourceKeys(value, index).map((key) => parent.storedDtypeOf(key));
  const [base, ...others] = parents.map(of);
  const all = [...(base ?? []), ...others.flat()];
  return { base: others.some((one) => one.length > 0) ? [] : (base ?? []), all };
}

/** Whether values of one precision do not all exist in another. */
function loses(from: FloatDtype, to: WriteDtype): boolean {
  return floatBytes[from] > floatBytes[to] || (floatBytes[from] === 2 && floatBytes[to] === 2 && from !== to);
}

function finerWords(
  target: DecoderSpec,
  slots: readonly Slot[],
  dtype: WriteDtype,
  { routerDtype }: AskedPrecision,
): string[] {
  const own = routerDtype === undefined ? slots : slots.filter((slot) => !isRouter(slot));
  if (own.length === 0) return [];
  return [
    `${counted(target, own)} stored in float32 and stay so beside ${dtypeNames[dtype]}; transformers and vLLM load ` +
      `them in ${dtypeNames[dtype]}`,
  ];
}

/** One line for each reason and precision. */
function roundedWords(
  { target, outputs, slotDtype }: Planned & Pick<Precisions, "slotDtype">,
  why: (output: PlannedSlot) => string | null,
): string[] {
  const groups = new Map<string, Slot[]>();
  for (const output of outputs) {
    const reason = why(output);
    if (reason === null) continue;
    const words = `${reason} and rounded to ${dtypeNames[slotDtype(output.slot)]}`;
    const group = groups.get(words);
    if (group === undefined) groups.set(words, [output.slot]);
    else group.push(output.slot);
  }
  return [...groups].map(([words, slots]) => `${counted(target, slots)} ${words}`);
}

const storedNames: Readonly<Record<FloatDtype, string>> = { ...dtypeNames, F64: "float64" };

function counted(target: DecoderSpec, slots: readonly Slot[]): string {
  const name = at(tensorNames(target, at(slots, 0).at), 0);
  return slots.length === 1 ? `the tensor ${name} is` : `${slots.length} tensors (such as ${name}) are`;
}
