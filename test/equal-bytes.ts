/**
 * Makes comparisons of large arrays fast: vitest looks at element after element, which takes seconds for a model's
 * weights. Arrays of one kind with equal bytes are equal by its own rules, too; all others are left to it.
 */
import { expect } from "vitest";

function haveEqualBytes(a: unknown, b: unknown): true | undefined {
  if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b) || a.constructor !== b.constructor) return undefined;
  if (a.byteLength !== b.byteLength) return undefined;
  const [x, y] = [a, b].map(({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength));
  return x !== undefined && y !== undefined && x.equals(y) ? true : undefined;
}

expect.addEqualityTesters([haveEqualBytes]);
