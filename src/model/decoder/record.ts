/**
 * A decoder's description as files and `--json` hold it. It differs from DecoderSpec in one name: the hidden size of an
 * FFN is called `inner` there, a name that model folders and saved runs written so far contain.
 */
import type { DecoderSpec, Ffn } from "./types.js";

type Recorded<T> = T extends { ffnDim: number; shared: infer S }
  ? { inner: number; shared: Recorded<S> } & Omit<T, "ffnDim" | "shared">
  : T extends { ffnDim: number }
    ? { inner: number } & Omit<T, "ffnDim">
    : T;

/** An FFN as recorded: `inner` stands for `ffnDim`, in the FFN and in its shared expert. */
export type FfnRecord = Recorded<Ffn>;

/** The description as plain JSON, with the key order of `spec`. */
export function decoderRecord(spec: DecoderSpec): Record<string, unknown> {
  return { ...spec, layers: spec.layers.map(layerRecord) };
}

/** One layer of `decoderRecord`. */
export function layerRecord<T extends { readonly ffn: Ffn }>(layer: T): Omit<T, "ffn"> & { ffn: FfnRecord } {
  return { ...layer, ffn: renamed(layer.ffn, "ffnDim", "inner") as FfnRecord };
}

/** The FFN that a record describes. */
export function recordedFfn(record: FfnRecord): Ffn {
  return renamed(record, "inner", "ffnDim") as Ffn;
}

/** A copy with one key called otherwise, also in the shared expert; the order of the keys stays. */
function renamed(ffn: object, from: string, to: string): unknown {
  return Object.fromEntries(
    Object.entries(ffn).map(([key, value]: [string, unknown]) => [
      key === from ? to : key,
      key === "shared" && typeof value === "object" && value !== null ? renamed(value, from, to) : value,
    ]),
  );
}
