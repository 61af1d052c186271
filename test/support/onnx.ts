/** Reads what an ONNX model is written as. */
import { expect } from "vitest";

/** Fields of a message of the wire format: numbers, or the bytes of a part. */
export function fields(bytes: Uint8Array): { field: number; value: number | Uint8Array }[] {
  const out: { field: number; value: number | Uint8Array }[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    if ((tag & 7) === 0) out.push({ field: tag >> 3, value: varint() });
    else {
      expect(tag & 7).toBe(2);
      const size = varint();
      out.push({ field: tag >> 3, value: bytes.subarray(at, (at += size)) });
    }
  }
  expect(at).toBe(bytes.length);
  return out;
}

/** The first part with this number. */
export const part = (bytes: Uint8Array, field: number): Uint8Array =>
  fields(bytes).find((one) => one.field === field)!.value as Uint8Array;

const texts = (message: Uint8Array, field: number): string[] =>
  fields(message).flatMap((one) => (one.field === field ? [new TextDecoder().decode(one.value as Uint8Array)] : []));

/** Nodes of a model in order: operator, and the names of what it reads and gives. */
export function nodesOf(model: Uint8Array): { op: string; inputs: string[]; outputs: string[] }[] {
  const nodes = fields(part(model, 7)).filter(({ field }) => field === 1);
  return nodes
    .map(({ value }) => value as Uint8Array)
    .map((node) => ({ op: texts(node, 4)[0]!, inputs: texts(node, 1), outputs: texts(node, 2) }));
}
