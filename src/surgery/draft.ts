/**
 * A decoder on its way: a spec, and what each of its tensors is made of. Surgery starts from the source as it is, puts experts in
 * the place of FFNs (`experts.ts`), then rewrites spec and tensors together until a released architecture can say it (`adapt.ts`).
 */
import type { DecoderSpec } from "../spec/types.js";
import { slotsOf } from "../tensors/slots.js";
import { read, type Expr } from "./expr.js";

export interface Draft {
  readonly spec: DecoderSpec;
  /** By slot key; every slot of `spec` has one. */
  readonly values: ReadonlyMap<string, Expr>;
}

/** The source, unchanged. */
export function draftOf(source: DecoderSpec): Draft {
  return { spec: source, values: new Map(slotsOf(source).map(({ key }) => [key, read(key)])) };
}
